//! The guards of attempts that end themselves once nobody lets them go on: on the cluster's machines, beside its agent and outliving it. What is
//! modelled here is what the real guard promises at worst (`agent/src/guard/fence.rs`): it takes the agent's word for all that it is worth,
//! and it needs all of its grace.

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, MonotonicMs};

use super::clock::{MS, SECOND};
use super::queue::Event;
use super::runtime::failed;
use super::world::World;

/// Between the polite and the hard end of what was not let go on.
const GRACE_US: u64 = 10 * SECOND;

/// Until when one attempt may go on, in virtual time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    until_us: u64,
    begun: bool,
    ending: bool,
}

impl World {
    /// An attempt that ends itself was taken: it begins once it is let, or never.
    pub(super) fn guard(&mut self, cluster: usize, attempt: AttemptId, after_ms: u64) {
        let until_us = self.now_us + self.agents[cluster].machine.clock.period(after_ms);
        self.runtimes[cluster].guards.insert(attempt, Guard { until_us, begun: false, ending: false });
        self.queue.add(until_us, Event::Fence { cluster, attempt });
    }

    /// When, in virtual time, an agent's clock will say `until`, as its machine runs.
    pub(super) fn in_virtual_time(&self, cluster: usize, until: MonotonicMs) -> u64 {
        let clock = self.agents[cluster].machine.clock;
        self.now_us + clock.period(until.since(clock.mono(self.now_us)))
    }

    /// The agent lets an attempt go on.
    pub(super) fn take_leave(&mut self, cluster: usize, attempt: AttemptId, until_us: u64) {
        let Some(guard) = self.runtimes[cluster].guards.get_mut(&attempt).filter(|guard| !guard.ending) else { return };
        if until_us <= self.now_us {
            return;
        }
        let begins = !std::mem::replace(&mut guard.begun, true);
        guard.until_us = if begins { until_us } else { guard.until_us.max(until_us) };
        let until_us = guard.until_us;
        self.queue.add(until_us, Event::Fence { cluster, attempt });
        if begins {
            self.begin_run(cluster, attempt);
        }
    }

    /// Nobody let an attempt go on until now, perhaps: then it ends, whether anybody hears of it or not.
    pub(super) fn fence(&mut self, cluster: usize, attempt: AttemptId) {
        let now_us = self.now_us;
        let Some(guard) = self.runtimes[cluster].guards.get_mut(&attempt) else { return };
        if guard.ending || now_us < guard.until_us {
            return;
        }
        guard.ending = true;
        let grace_us = if guard.begun { self.dice.runtime.between(MS, GRACE_US) } else { 0 };
        let state: AttemptState = failed(FailureClass::Infrastructure, "nobody let it go on");
        self.queue.add(now_us + grace_us, Event::Run { cluster, attempt, state });
    }
}

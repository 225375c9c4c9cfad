//! 23: nothing new comes to a cordoned cluster at any index of the log, and nothing ends for a drain but where there is one.

use engine::commands::Command;
use engine::state::State;
use protocol::ids::ClusterName;

use super::Invariant;
use super::carried_out::CarriedOut;
use crate::simulation::facts::Fact;

#[derive(Default)]
pub(crate) struct Cordons(CarriedOut);

fn check(before: &State, command: &Command, _after: &State) -> Result<(), String> {
    let cordon = |cluster: &ClusterName| before.clusters.get(cluster).and_then(|there| there.cordon.as_ref());
    match command {
        Command::Bind(binding) if cordon(&binding.cluster).is_some() => {
            Err(format!("{} was bound into {}, which is cordoned", binding.key, binding.cluster))
        }
        Command::Grow(growth) => {
            let attempt = before.workloads.get(&growth.key).and_then(|w| w.live_attempt());
            match attempt.filter(|attempt| cordon(&attempt.cluster).is_some()) {
                Some(attempt) => Err(format!("{} grew in {}, which is cordoned", growth.key, attempt.cluster)),
                None => Ok(()),
            }
        }
        Command::EndDrained(end) if cordon(&end.cluster).is_none_or(|cordon| cordon.drain.is_none()) => {
            Err(format!("{} ends for a drain of {}, which is not drained", end.key, end.cluster))
        }
        _ => Ok(()),
    }
}

impl Invariant for Cordons {
    fn name(&self) -> &'static str {
        "23 nothing new comes to a cordoned cluster"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        self.0.observe(fact, check)
    }
}

//! A workload ends for its GPUs have done nothing for longer than its `idleTimeout`: as its own failure, and it is not tried again.
//! Between proposal and commit anything may have happened, so what state can tell is checked again: that the attempt still runs,
//! and has run for so long. That its GPUs did nothing meanwhile is the planner's word (`plan::idle`).

use protocol::control::StopCause;
use protocol::resources::Span;

use super::step::Step;
use super::{IdleEnd, Outcome, Refusal};
use crate::lifecycle::{Event, Phase};
use crate::planted;
use crate::state::{Happening, State};

impl Step<'_> {
    pub(super) fn end_idle(&mut self, end: &IdleEnd) -> Result<Outcome, Refusal> {
        let not_idle = |why: String| Refusal::NotIdle { key: end.key.clone(), why };
        let timeout = check(self.state, end).map_err(not_idle)?;
        let idle = Happening::Idle { attempt: end.attempt, since: end.since, timeout };
        match self.ask_to_end(&end.key, StopCause::Idle, Event::Idle, idle) {
            true => Ok(Outcome::Done),
            false => Err(Refusal::NoWorkload { key: end.key.clone() }),
        }
    }
}

fn check(state: &State, end: &IdleEnd) -> Result<Span, String> {
    if end.epoch != state.epoch && !planted::is("forget-epoch-check") {
        return Err(format!("it was planned in epoch {}; now it is {}", end.epoch, state.epoch));
    }
    let workload = state.workloads.get(&end.key).filter(|w| w.uid == end.uid).ok_or("the workload is gone")?;
    let timeout = workload.spec.idle_timeout.ok_or("it names no idleTimeout")?;
    let live = workload.live_attempt().filter(|a| a.number == end.attempt);
    let live = live.ok_or_else(|| format!("attempt {} does not live any more", end.attempt))?;
    if live.stop.is_some() || workload.phase != Phase::Running {
        return Err(format!("it is {}, not Running", workload.phase));
    }
    let since = live.running_at.map_or(state.now, |running| running.max(end.since));
    match state.now.0.saturating_sub(since.0) {
        idle if idle < timeout.0 => Err(format!("it can have been idle for {} at most, not for {timeout}", Span(idle))),
        _ => Ok(timeout),
    }
}

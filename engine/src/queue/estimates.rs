//! How long a workload runs, and when an attempt ends, as far as anyone can tell: what the submitter declared, else what others of
//! its kind took (`state::durations`), else nothing. Nobody is ended for being late; who was let past a waiting gang on a wrong
//! estimate delays it once (`reservations`).

use protocol::ids::UnixMs;

use crate::lifecycle::Phase;
use crate::reasons::Basis;
use crate::state::{Attempt, Kind, State, Workload};

/// How many runs of a kind are needed before they say anything.
const ENOUGH_RUNS: usize = 3;

/// How long a workload runs at most, as far as anyone can tell, in ms: as declared, else as long as the longest of its kind.
pub(crate) fn lasts(state: &State, workload: &Workload) -> Option<(u64, Basis)> {
    if let Some(declared) = workload.spec.expected_duration {
        return Some((declared.0, Basis::Declared));
    }
    let (runs, basis) = learnt(state, workload)?;
    runs.iter().max().map(|ms| (*ms, basis))
}

/// When an attempt ends, as far as anyone can tell. None where nothing is known of its kind, where it has run for longer than was
/// declared or than any of its kind, and where nobody hears of it.
pub(crate) fn ends(state: &State, workload: &Workload, attempt: &Attempt, now: UnixMs) -> Option<(UnixMs, Basis)> {
    if attempt.stop.is_some() {
        return Some((now, Basis::Ending));
    }
    if workload.phase == Phase::Unknown {
        return None;
    }
    let since = attempt.running_at.unwrap_or(attempt.bound_at);
    let ran = now.0.saturating_sub(since.0);
    let (ms, basis) = match workload.spec.expected_duration {
        Some(declared) => (declared.0, Basis::Declared),
        None => {
            let (runs, basis) = learnt(state, workload)?;
            // Of those that were still running after so long, half ended by then.
            let mut longer: Vec<u64> = runs.iter().copied().filter(|ms| *ms > ran).collect();
            longer.sort_unstable();
            (*longer.get(longer.len() / 2)?, basis)
        }
    };
    (ms > ran).then(|| (UnixMs(since.0.saturating_add(ms)), basis))
}

fn learnt<'a>(state: &'a State, workload: &Workload) -> Option<(&'a [u64], Basis)> {
    let runs = state.durations.runs(&Kind::of(workload)?);
    (runs.len() >= ENOUGH_RUNS).then_some((runs, Basis::Learnt { runs: runs.len() as u32 }))
}

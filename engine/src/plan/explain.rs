//! The whole answer to "why", in any phase.

use protocol::control::AttemptState;
use protocol::ids::{UnixMs, WorkloadKey};

use crate::capacity::Capacity;
use crate::lifecycle::Phase;
use crate::queue::{Turn, Walk};
use crate::reasons::{Explanation, Obstacle, WaitCause, Waiting};
use crate::state::{Attempt, Happening, State, Workload};

/// The whole answer to "why", in any phase; none where there is no such workload.
///
/// For a waiting workload the line is walked up to it, so that its reason is the one that the planner would give.
pub fn explain(state: &State, capacity: &Capacity, at: UnixMs, key: &WorkloadKey) -> Option<Explanation> {
    let workload = state.workloads.get(key)?;
    let waiting = (workload.phase == Phase::Queued).then(|| waiting(state, capacity, at, workload));
    Some(Explanation {
        phase: workload.phase,
        summary: summary(workload, waiting.as_ref()),
        cures: waiting.as_ref().map(cures).unwrap_or_default(),
        decision: workload.attempts.last().map(|a| a.decision.clone()),
        waiting,
    })
}

fn waiting(state: &State, capacity: &Capacity, at: UnixMs, asked: &Workload) -> Waiting {
    let mut walk = Walk::new(state, capacity, at);
    let of = state.waiting().len() as u64;
    for (place, key) in (1u64..).zip(state.waiting()) {
        let Some(workload) = state.workloads.get(key) else { continue };
        let turn = walk.turn(workload);
        if workload.uid != asked.uid {
            continue;
        }
        return match turn {
            Turn::Waits(waiting) => waiting,
            Turn::Placed { decision, .. } => {
                Waiting { place, of, cause: WaitCause::BeingPlaced, candidates: decision.candidates }
            }
        };
    }
    // Every queued workload is in line, and only those are asked for.
    Waiting { place: of, of, cause: WaitCause::NoRoom, candidates: vec![] }
}

fn summary(workload: &Workload, waiting: Option<&Waiting>) -> String {
    let attempt = workload.attempts.last();
    match workload.phase {
        Phase::Queued => {
            let why = waiting.map(ToString::to_string).unwrap_or_default();
            match last_failure(workload) {
                Some(failure) => format!("{why}; {failure}"),
                None => why,
            }
        }
        Phase::Bound => at(attempt, "is bound to", "its agent has not confirmed yet"),
        Phase::Launching => at(attempt, "is being launched in", "its agent has the order"),
        Phase::Starting => at(attempt, "starts in", &word(attempt)),
        Phase::Running => at(attempt, "runs in", "every member is up"),
        Phase::Draining => draining(workload),
        Phase::Unknown => unknown(workload),
        Phase::Succeeded => at(attempt, "succeeded in", &word(attempt)),
        Phase::Failed => at(attempt, "failed in", &word(attempt)),
        Phase::Cancelled if attempt.is_none() => "was cancelled before it was placed".into(),
        Phase::Cancelled => at(attempt, "was cancelled; its last attempt was in", &word(attempt)),
    }
}

fn at(attempt: Option<&Attempt>, does: &str, more: &str) -> String {
    match attempt {
        Some(a) => format!("attempt {} {does} {}: {more}", a.number, a.cluster),
        None => format!("{does} no cluster: {more}"),
    }
}

fn word(attempt: Option<&Attempt>) -> String {
    attempt.and_then(|a| a.reported.as_ref()).map_or_else(|| "nothing was reported".into(), crate::reasons::state_text)
}

fn draining(workload: &Workload) -> String {
    let lost = workload.timeline.iter().rev().find_map(|m| match &m.what {
        Happening::ClusterReplaced { .. } | Happening::ClusterLost { .. } => Some(m.what.to_string()),
        Happening::ClusterReturned { .. } | Happening::Bound { .. } => Some(String::new()),
        _ => None,
    });
    let more = match lost {
        Some(lost) if !lost.is_empty() => format!("it is not seen to be gone yet ({lost})"),
        _ => "it is not seen to be gone yet".into(),
    };
    at(workload.attempts.last(), "is being ended in", &more)
}

fn unknown(workload: &Workload) -> String {
    let why = workload.timeline.iter().rev().find_map(|m| match &m.what {
        Happening::ClusterLost { .. } | Happening::ClusterReplaced { .. } => Some(m.what.to_string()),
        _ => None,
    });
    let why = why.unwrap_or_else(|| "its cluster is not heard from".into());
    at(
        workload.attempts.last(),
        "may still run in",
        &format!("{why}; it is not started elsewhere, so that it never runs twice"),
    )
}

/// The last attempt's failure, where it goes back to the queue after one.
fn last_failure(workload: &Workload) -> Option<String> {
    let attempt = workload.attempts.last()?;
    let state = attempt.reported.as_ref().filter(|s| !matches!(s, AttemptState::Succeeded))?;
    Some(format!("attempt {} in {} {}", attempt.number, attempt.cluster, crate::reasons::state_text(state)))
}

/// What would let it start.
fn cures(waiting: &Waiting) -> Vec<String> {
    match &waiting.cause {
        WaitCause::NoClusters => vec!["a cluster joins".into()],
        WaitCause::Backoff { until } => vec![format!("the wait after its failure ends at {until} (ms since 1970)")],
        WaitCause::BeingPlaced => vec![],
        WaitCause::BehindOthers { first, .. } => {
            let mut cures = vec![format!("{first}, which is ahead of it, is placed or cancelled")];
            cures.extend(waiting.candidates.iter().filter_map(cure));
            cures
        }
        WaitCause::Impossible | WaitCause::NoRoom => waiting.candidates.iter().filter_map(cure).collect(),
    }
}

fn cure(candidate: &crate::reasons::Candidate) -> Option<String> {
    let cluster = &candidate.cluster;
    Some(match candidate.obstacle.as_ref()? {
        Obstacle::ClusterLost { .. } => format!("{cluster} is heard from again"),
        Obstacle::NoCapacityYet => format!("{cluster} sends its capacity"),
        Obstacle::StaleCapacity { .. } => format!("{cluster} sends fresh capacity"),
        Obstacle::WrongRegion { region, .. } => format!("{region} is added to its required regions"),
        Obstacle::NoRuntime { framework } => format!("{cluster} gets a runtime for {framework}"),
        Obstacle::NoSku { group, .. } => format!("{cluster} gets nodes of a model that group {group} accepts"),
        Obstacle::TooSmall { group, needs, holds } => {
            format!("group {group} is made smaller: {cluster} could hold {holds} of its {needs} members")
        }
        Obstacle::NoRoom { group, needs, fits, .. } => {
            format!(
                "room for {} more members of group {group} is made in {cluster}",
                needs.saturating_sub(*fits).max(1)
            )
        }
        Obstacle::BehindOthers { .. } => return None,
    })
}

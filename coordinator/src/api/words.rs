//! Text for people, made here at the edge from the engine's typed states.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::lifecycle::Phase;
use engine::reasons::{WaitCause, Waiting};
use engine::state::{Attempt, Cordon, Workload};
use protocol::control::{AttemptState, GroupPlacement, StopCause};
use protocol::ids::{ClusterName, UnixMs};

/// The last moment that RFC 3339 can write: 9999-12-31T23:59:59.999Z.
const LAST_MS: u64 = 253_402_300_799_999;

/// RFC 3339 in UTC with milliseconds.
pub fn timestamp(at: UnixMs) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(at.0.min(LAST_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

/// A span in its one or two largest units, such as `3 min 20 s`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        small => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A cordoned cluster, in one line with the cure.
pub fn cordoned(cluster: &ClusterName, cordon: &Cordon) -> String {
    let how = if cordon.drain.is_some() { "drained" } else { "cordoned" };
    let said = if cordon.reason.is_empty() { String::new() } else { format!(", {}", cordon.reason) };
    format!(
        "cluster {cluster} is {how} (since {}{said}): tidewater cluster uncordon {cluster}",
        timestamp(cordon.since)
    )
}

/// The last word on an attempt.
pub fn attempt_state(state: &AttemptState) -> String {
    match state {
        AttemptState::Accepted => "accepted by the agent".into(),
        AttemptState::Starting { waiting_for } if waiting_for.is_empty() => "starting".into(),
        AttemptState::Starting { waiting_for } => format!("starting: waiting for {waiting_for}"),
        AttemptState::Running => "running".into(),
        AttemptState::Succeeded => "succeeded".into(),
        AttemptState::Failed { class, message, exit_code } => {
            let code = exit_code.map(|c| format!(", exit code {c}")).unwrap_or_default();
            format!("failed ({class}{code}): {message}")
        }
        AttemptState::Stopped => "stopped".into(),
    }
}

/// How an attempt is, with its stop where one was asked for.
pub fn attempt(attempt: &Attempt) -> String {
    let state = attempt.reported.as_ref().map_or_else(|| "sent to the agent".into(), attempt_state);
    match (&attempt.stop, attempt.ended_at) {
        (Some((_, cause)), None) => format!("{state}; being stopped ({})", stop_cause(*cause)),
        _ => state,
    }
}

fn stop_cause(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Cancelled => "cancelled",
        StopCause::Orphaned => "orphaned",
        StopCause::Preempted => "preempted",
        StopCause::Idle => "idle",
        StopCause::Drained => "its cluster is drained",
    }
}

/// A group on its nodes, such as `workers: 2 x 8 H100 on gpu-1, gpu-2`. Long lists of nodes are cut.
pub fn placement(placement: &GroupPlacement) -> String {
    const SHOWN: usize = 8;
    let members: u64 = placement.nodes.iter().map(|n| u64::from(n.members)).sum();
    let what = match (&placement.sku, placement.each.gpus()) {
        (_, 0) => format!("{members} x {}", placement.each),
        (Some(sku), gpus) => format!("{members} x {gpus} {sku}"),
        (None, gpus) => format!("{members} x {gpus} GPU"),
    };
    let mut nodes: Vec<String> = placement
        .nodes
        .iter()
        .take(SHOWN)
        .map(|n| if n.members == 1 { n.node.to_string() } else { format!("{} ({})", n.node, n.members) })
        .collect();
    if placement.nodes.len() > SHOWN {
        nodes.push(format!("and {} more", placement.nodes.len() - SHOWN));
    }
    format!("{}: {what} on {}", placement.group, nodes.join(", "))
}

/// The main reason for waiting.
pub fn cause(cause: &WaitCause) -> String {
    match cause {
        WaitCause::Backoff { until } => {
            format!("it failed and waits before the next try, which is not before {}", timestamp(*until))
        }
        other => other.to_string(),
    }
}

/// Why a queued workload waits, in one sentence.
pub fn waiting(waiting: &Waiting) -> String {
    match &waiting.cause {
        backoff @ WaitCause::Backoff { .. } => cause(backoff),
        _ => waiting.to_string(),
    }
}

/// Why a workload is in its phase, in one sentence. `reason` is the planner's, where it is known.
pub fn message(workload: &Workload, reason: Option<&Waiting>) -> String {
    let last = workload.attempts.last();
    match (workload.phase, last) {
        (Phase::Queued, _) => reason.map_or_else(|| "waits in the queue".into(), waiting),
        (Phase::Unknown, Some(a)) => {
            format!("cluster {} is not heard from; attempt {} may still run there", a.cluster, a.number)
        }
        (Phase::Cancelled, None) => "cancelled before it was placed".into(),
        (_, Some(a)) => {
            let last = format!("attempt {} on {}: {}", a.number, a.cluster, attempt(a));
            let more = workload.given_up().or(workload.failed_idle());
            more.map_or_else(|| last.clone(), |why| format!("{last}; {why}"))
        }
        (other, None) => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::control::NodeShare;
    use protocol::ids::{GroupName, NodeName};
    use protocol::resources::Resources;
    use protocol::sku::Sku;

    use super::*;

    #[test]
    fn timestamps_are_utc_with_milliseconds_and_never_panic() {
        assert_eq!(timestamp(UnixMs(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(UnixMs(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(timestamp(UnixMs(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn spans_show_at_most_two_units() {
        let shown = [0, 900, 59_999, 60_000, 61_000, 3_600_000, 90_061_000].map(span);
        assert_eq!(shown, ["0 ms", "900 ms", "59 s", "1 min", "1 min 1 s", "1 h", "1 d 1 h"]);
    }

    #[test]
    fn a_placement_names_members_model_and_nodes() {
        let share = |node: &str, members| NodeShare { node: NodeName::new(node).unwrap(), members };
        let mut shown = GroupPlacement {
            group: GroupName::new("workers").unwrap(),
            each: Resources { cpu_milli: 1000, memory_mib: 1024, gpu_milli: 8000 },
            sku: Some(Sku::parse("H100").unwrap()),
            nodes: vec![share("gpu-1", 1), share("gpu-2", 2)],
        };
        assert_eq!(placement(&shown), "workers: 3 x 8 H100 on gpu-1, gpu-2 (2)");
        shown.nodes = (0..20).map(|i| share(&format!("n-{i}"), 1)).collect();
        assert!(placement(&shown).ends_with("and 12 more"));
    }
}

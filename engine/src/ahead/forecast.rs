//! When does a workload start?

use std::collections::BTreeSet;

use protocol::ids::{ClusterName, UnixMs, WorkloadKey};
use protocol::resources::Span;
use serde::{Deserialize, Serialize};

use super::Ahead;
use crate::capacity::Capacity;
use crate::lifecycle::Phase;
use crate::plan::{Memory, explain};
use crate::reasons::{Basis, WaitCause};
use crate::state::State;

/// The most ends that a forecast names.
const NAMED: usize = 16;

/// When a workload starts, as far as anyone can tell, and on what that rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// When it is expected to be placed; none: not known, or it is placed already.
    pub at: Option<UnixMs>,
    /// Where.
    pub cluster: Option<ClusterName>,
    /// How many attempts are assumed to end before.
    pub ends: u64,
    /// The last of them, the latest first; at most 16.
    pub after: Vec<Ended>,
    /// Workloads that have to give it room before; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gives: Vec<String>,
    /// How many attempts run by then of which nobody knows when they end.
    pub endless: u64,
    /// All of it in one sentence.
    pub text: String,
}

/// An end that a forecast rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Whose.
    pub workload: String,
    /// When.
    pub at: UnixMs,
    /// On what that rests.
    pub basis: Basis,
}

/// Forecasts a workload's start; none where there is no such workload. Takes the state, capacity and what the planner remembers to itself: it
/// goes on from them.
pub fn forecast(state: State, capacity: Capacity, memory: Memory, at: UnixMs, key: &WorkloadKey) -> Option<Forecast> {
    let workload = state.workloads.get(key)?;
    let now = state.now.max(at);
    if workload.phase != Phase::Queued {
        let text = explain(&state, &capacity, at, key).map(|e| e.summary).unwrap_or_default();
        return Some(Forecast { at: None, cluster: None, ends: 0, after: vec![], gives: vec![], endless: 0, text });
    }
    let mut ahead = Ahead::new(state, capacity, memory, at);
    let mut after: Vec<Ended> = vec![];
    let (start, out_of_time) = loop {
        if let Some(started) = ahead.settle().into_iter().find(|started| started.key == *key) {
            break (Some((ahead.now, started.cluster)), false);
        }
        if !ahead.has_time() {
            break (None, true);
        }
        let Some(ended) = ahead.advance() else { break (None, false) };
        let at = ahead.now;
        after.extend(ended.into_iter().map(|(key, basis)| Ended { workload: key.to_string(), at, basis }));
    };
    let endless = ahead.endless();
    let gives: BTreeSet<String> =
        ahead.gave.iter().filter(|gave| gave.to == *key).map(|gave| gave.room.to_string()).collect();
    let mut gives: Vec<String> = gives.into_iter().collect();
    let text = match start.as_ref() {
        Some((at, cluster)) => starts(now, *at, cluster, &after, &gives),
        None if out_of_time => format!(
            "it does not start within {}: nobody looks further ahead than that, for too much happens until then",
            Span(ahead.now.0.saturating_sub(now.0))
        ),
        None => starts_not(&ahead, key, endless),
    };
    let ends = after.len() as u64;
    after.reverse();
    after.truncate(NAMED);
    gives.truncate(NAMED);
    let (at, cluster) = start.unzip();
    Some(Forecast { at, cluster, ends, after, gives, endless, text })
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn starts(now: UnixMs, at: UnixMs, cluster: &ClusterName, after: &[Ended], gives: &[String]) -> String {
    if after.is_empty() && gives.is_empty() && at == now {
        return format!("it starts now, in {cluster}");
    }
    let once = match gives {
        [] => String::new(),
        [one] => format!(", once {one} has given its room"),
        [one, others @ ..] => format!(", once {one} and {} have given room", count(others.len() as u64, "other")),
    };
    let left = Span(at.0.saturating_sub(now.0));
    let all = after.len() as u64;
    let of = |basis: fn(&Basis) -> bool, words: &str| {
        let found = after.iter().filter(|e| basis(&e.basis)).count() as u64;
        (found > 0).then(|| if found == all { words.to_owned() } else { format!("{found} {words}") })
    };
    let bases = [
        of(|b| *b == Basis::Declared, "as declared"),
        of(|b| matches!(b, Basis::Learnt { .. }), "as others of their kind did"),
        of(|b| *b == Basis::Ending, "being ended already"),
    ];
    let bases: Vec<String> = bases.into_iter().flatten().collect();
    let ends = match all {
        0 => String::new(),
        _ => {
            let end = if all == 1 { "ends" } else { "end" };
            format!(
                ", if {} {end} as expected ({}) and nobody submits what goes before it",
                count(all, "attempt"),
                bases.join(", ")
            )
        }
    };
    if at == now {
        return format!("it starts at once, in {cluster}{once}{ends}");
    }
    format!("it starts in about {left}, in {cluster}{once}{ends}")
}

/// Once everything has ended of which the end is expected.
fn starts_not(ahead: &Ahead, key: &WorkloadKey, endless: u64) -> String {
    let explained = explain(&ahead.state, &ahead.capacity, ahead.now, key);
    let waiting = explained.as_ref().and_then(|e| e.waiting.as_ref());
    let hopeless = waiting.is_some_and(|w| matches!(w.cause, WaitCause::Impossible | WaitCause::NoClusters));
    let summary = explained.as_ref().map(|e| e.summary.as_str()).unwrap_or_default();
    if endless == 0 || hopeless {
        return format!("it does not start as things are: {summary}");
    }
    let run = if endless == 1 { "runs" } else { "run" };
    let attempts = count(endless, "attempt");
    format!(
        "it is not known when it starts: {attempts} {run} of which nobody knows the end (expectedDuration would tell)"
    )
}

//! The whole answer to "why", in any phase.

use protocol::control::AttemptState;
use protocol::ids::{UnixMs, WorkloadKey};
use protocol::placement::all_members;
use protocol::resources::{Gpus, Span};
use protocol::workload::{Spread, native_kind};

use crate::capacity::Capacity;
use crate::commands::forget::is_abandoned;
use crate::lifecycle::Phase;
use crate::placement::kept::Kept;
use crate::queue::order::Standing;
use crate::queue::{LASTING_MS, Memory, Turn, Walk};
use crate::reasons::{
    AwaitedEnd, Basis, Candidate, Explanation, Lent, Obstacle, Passed, QuotaBound, Reserved, Shortfall, WaitCause,
    Waiting, largest_share, state_text,
};
use crate::state::{Attempt, Awaited, Happening, State, UnderDrain, Workload};

/// How many changes of size are told.
const MOST_CHANGES: usize = 3;

/// The whole answer to "why", in any phase; none where there is no such workload.
///
/// For a waiting workload the line is walked up to it, so that its reason is the one that the planner would give.
pub fn explain(state: &State, capacity: &Capacity, at: UnixMs, key: &WorkloadKey) -> Option<Explanation> {
    let workload = state.workloads.get(key)?;
    let now = state.now.max(at);
    let waiting = (workload.phase == Phase::Queued).then(|| waiting(state, capacity, at, workload));
    Some(Explanation {
        phase: workload.phase,
        summary: [
            Some(summary(workload, waiting.as_ref(), now)),
            size(workload, now),
            passed(state, workload),
            waited_for(state, workload),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; "),
        cures: match &waiting {
            Some(waiting) => cures(waiting, now),
            None if is_abandoned(state, workload) => vec![forget(workload)],
            None => vec![],
        },
        decision: workload.attempts.last().filter(|_| waiting.is_none()).map(|a| a.decision.clone()),
        waiting,
    })
}

fn waiting(state: &State, capacity: &Capacity, at: UnixMs, asked: &Workload) -> Waiting {
    let memory = Memory::default();
    let mut walk = Walk::new((state, capacity), (&memory, Kept::default()), at);
    let waiting = |Standing { place, of }, cause, candidates| {
        let pool = asked.pool.clone();
        Waiting { place, of, pool, cause, candidates, lent: vec![], reserved: None }
    };
    while let Some((waiter, turn)) = walk.step() {
        if waiter.uid != asked.uid {
            continue;
        }
        return match turn {
            Turn::Waits(verdict) => walk.waiting(&verdict),
            Turn::Placed { decision, .. } => waiting(walk.standing(), WaitCause::BeingPlaced, decision.candidates),
        };
    }
    // Every queued workload is in line, and only those are asked for.
    waiting(Standing::default(), WaitCause::NoRoom, vec![])
}

fn summary(workload: &Workload, waiting: Option<&Waiting>, now: UnixMs) -> String {
    let attempt = workload.attempts.last();
    match workload.phase {
        Phase::Queued => {
            let why = match waiting {
                Some(Waiting { place, of, cause: WaitCause::Backoff { until }, .. }) => {
                    format!("waits, {place} of {of} in line: it is tried again in {}", left(*until, now))
                }
                Some(Waiting { reserved: Some(reserved), .. }) => {
                    format!("{}; {}", waiting.map(ToString::to_string).unwrap_or_default(), kept(reserved, now))
                }
                Some(waiting) => waiting.to_string(),
                None => String::new(),
            };
            match last_failure(workload) {
                Some(failure) => format!("{why}; {failure}"),
                None => why,
            }
        }
        Phase::Bound => at(attempt, "is bound: its agent has not confirmed yet"),
        Phase::Launching => at(attempt, "is being launched: its agent has the order"),
        Phase::Starting | Phase::Succeeded | Phase::Failed => match workload.given_up().or(workload.failed_idle()) {
            Some(why) => format!("{}; {why}", at(attempt, &word(attempt))),
            None => at(attempt, &word(attempt)),
        },
        Phase::Running => at(attempt, "is running: every member is up"),
        Phase::Draining => draining(workload),
        Phase::Unknown => unknown(workload),
        Phase::Cancelled if attempt.is_none() => "it was cancelled before it was placed".into(),
        Phase::Cancelled => format!("it was cancelled; {}", at(attempt, &word(attempt))),
    }
}

/// How large a live elastic workload is, and how it came to that.
fn size(workload: &Workload, now: UnixMs) -> Option<String> {
    let attempt = workload.live_attempt()?;
    let (has, least, most) = workload.size()?;
    let resized = |what: &Happening| {
        matches!(what, Happening::Grew { .. } | Happening::Shrunk { .. } | Happening::Missing { .. })
    };
    let lately = workload.timeline.iter().rev().take_while(|m| m.at >= attempt.bound_at);
    let changes = lately.filter(|m| resized(&m.what)).take(MOST_CHANGES).map(|m| {
        let ago = Span(now.0.saturating_sub(m.at.0));
        match &m.what {
            Happening::Grew { by, .. } => format!("grew by {by} {ago} ago"),
            Happening::Shrunk { members, by, .. } => format!("shrunk by {members} for {by} {ago} ago"),
            Happening::Missing { members, .. } => format!("lost {members} by themselves {ago} ago"),
            _ => String::new(),
        }
    });
    let mut told = vec![format!("it has {has} of {least} to {most} members")];
    told.extend(changes);
    let leaving = all_members(attempt.leaving());
    if leaving > 0 {
        told.push(format!("{leaving} more are being ended"));
    }
    Some(told.join(", "))
}

/// Past whom a running workload was let, as far as they still wait.
fn passed(state: &State, workload: &Workload) -> Option<String> {
    let attempt = workload.live_attempt().filter(|attempt| attempt.stop.is_none())?;
    let waits = |passed: &&Passed| {
        state.workloads.get(&passed.workload).is_some_and(|w| w.uid == passed.uid && w.phase == Phase::Queued)
    };
    let all: Vec<String> = attempt.decision.passed.iter().filter(waits).map(|p| p.workload.to_string()).collect();
    let word = if all.len() == 1 { "that" } else { "one of them" };
    (!all.is_empty()).then(|| format!("it was let past {} and ends once {word} can start in its place", all.join(", ")))
}

/// What a drain of its cluster waits for.
fn waited_for(state: &State, workload: &Workload) -> Option<String> {
    let attempt = workload.live_attempt()?;
    let cluster = &attempt.cluster;
    let drain = state.clusters.get(cluster)?.drain()?;
    (drain.means(workload, attempt) == UnderDrain::WaitedFor).then(|| {
        format!(
            "{cluster} is drained and waits for it, for it may not be preempted: `tidewater cluster drain {cluster} --force` ends it"
        )
    })
}

/// What is kept for it, and when it is expected to start.
fn kept(reserved: &Reserved, now: UnixMs) -> String {
    let Reserved { cluster, nodes, at, last } = reserved;
    let what = match nodes {
        1 => format!("a node of {cluster} is kept for it"),
        nodes => format!("{nodes} nodes of {cluster} are kept for it"),
    };
    match (last, at) {
        (Some(AwaitedEnd { workload, basis: Some(Basis::Shrinking) }), _) => {
            format!("{what}: it can start once the members are gone that {workload} gives up for it")
        }
        (Some(AwaitedEnd { workload, basis: Some(basis) }), Some(at)) => {
            format!("{what}: it can start in {}, once {workload} ends ({basis})", left(*at, now))
        }
        (Some(AwaitedEnd { workload, .. }), _) => {
            format!("{what}: it can start once {workload} ends, and nobody knows when that is")
        }
        (None, _) => what,
    }
}

fn left(until: UnixMs, now: UnixMs) -> Span {
    Span(until.0.saturating_sub(now.0))
}

fn at(attempt: Option<&Attempt>, does: &str) -> String {
    match attempt {
        Some(a) => format!("attempt {} in {} {does}", a.number, a.cluster),
        None => format!("no attempt {does}"),
    }
}

fn word(attempt: Option<&Attempt>) -> String {
    attempt.and_then(|a| a.reported.as_ref()).map_or_else(|| "has not reported".into(), state_text)
}

fn draining(workload: &Workload) -> String {
    let lost = workload.timeline.iter().rev().find_map(|m| match &m.what {
        preempted @ Happening::Preempted { .. } if !workload.cancel_requested => Some(preempted.to_string()),
        drained @ Happening::Drained { .. } if !workload.cancel_requested => Some(drained.to_string()),
        idle @ Happening::Idle { .. } if !workload.cancel_requested => Some(idle.to_string()),
        Happening::ClusterReplaced { .. } | Happening::ClusterLost { .. } => Some(m.what.to_string()),
        Happening::ClusterReturned { .. } | Happening::Bound { .. } => Some(String::new()),
        _ => None,
    });
    let more = match lost {
        Some(lost) if !lost.is_empty() => format!(" ({lost})"),
        _ => String::new(),
    };
    at(workload.attempts.last(), &format!("is being ended, and is not seen to be gone yet{more}"))
}

fn unknown(workload: &Workload) -> String {
    let why = workload.timeline.iter().rev().find_map(|m| match &m.what {
        Happening::ClusterLost { .. } | Happening::ClusterReplaced { .. } => Some(m.what.to_string()),
        _ => None,
    });
    let why = why.unwrap_or_else(|| "its cluster is not heard from".into());
    let then = match workload.spec.fence() {
        None => "it is not started elsewhere, so that it never runs twice".to_owned(),
        Some(after) => format!(
            "without word for {after} it ends itself (spec.failoverAfter), and only then, and after what that takes, is it started \
             elsewhere"
        ),
    };
    let does = format!("may still run: {why}; {then}");
    at(workload.attempts.last(), &does)
}

/// How a person ends an attempt that nobody can see any more.
fn forget(workload: &Workload) -> String {
    let key = &workload.key;
    let namespace = if key.namespace.as_str() == "default" { String::new() } else { format!(" -n {}", key.namespace) };
    format!(
        "its agent's records are found again and report it, or a person who has seen that nothing of it is left there says \
         so: tidewater forget {}{namespace} --reason TEXT",
        key.name
    )
}

/// The last attempt's failure, where it goes back to the queue after one.
fn last_failure(workload: &Workload) -> Option<String> {
    let attempt = workload.attempts.last()?;
    if attempt.is_preempted() {
        let given = workload
            .timeline
            .iter()
            .rev()
            .find(|m| matches!(m.what, Happening::Preempted { .. } | Happening::Drained { .. }));
        let place = match workload.late_ms {
            0 => "it keeps its place".into(),
            late => format!("it stands {} later in line for what it has had of its pool", Span(late)),
        };
        return given.map(|moment| format!("{place}: {}", moment.what));
    }
    let state = attempt.reported.as_ref().filter(|s| !matches!(s, AttemptState::Succeeded))?;
    Some(at(Some(attempt), &state_text(state)))
}

/// What would let it start, each once: several clusters may have the same in their way.
fn cures(waiting: &Waiting, now: UnixMs) -> Vec<String> {
    let mut cures: Vec<String> = vec![];
    for cure in every_cure(waiting, now) {
        if !cures.contains(&cure) {
            cures.push(cure);
        }
    }
    cures
}

fn every_cure(waiting: &Waiting, now: UnixMs) -> Vec<String> {
    match &waiting.cause {
        WaitCause::NoClusters => vec!["a cluster joins".into()],
        WaitCause::Backoff { until } => vec![format!("the wait after its failure ends, in {}", left(*until, now))],
        WaitCause::Dependencies { awaited } => awaited.iter().map(succeeds).collect(),
        WaitCause::Companion { workload, phase: Some(_) } => vec![format!("{workload} is placed")],
        WaitCause::Companion { workload, .. } => vec![format!("{workload} is submitted and placed")],
        WaitCause::UnknownData { data } => {
            data.iter().map(|name| format!("data location {name} is made: tidewater data apply -f FILE")).collect()
        }
        WaitCause::NoTokens => {
            vec!["a coordinator issues workload tokens (--workload-issuer), or spec.tokens is left out".to_owned()]
        }
        WaitCause::BeingPlaced => vec![],
        WaitCause::BehindOthers { first, .. } => {
            let mut cures = vec![format!("{first}, which is ahead of it, is placed or cancelled")];
            let until = waiting.candidates.iter().filter_map(|c| match &c.obstacle {
                Some(Obstacle::BehindOthers { until, .. }) => *until,
                _ => None,
            });
            cures.extend(until.max().map(|until| {
                format!(
                    "it says that it ends within {}, before {first} can start: spec.expectedDuration",
                    left(until, now)
                )
            }));
            cures.extend(waiting.candidates.iter().filter_map(|c| cure(c, now)));
            cures
        }
        WaitCause::Quota(short) => vec![quota_cure(short)],
        WaitCause::Impossible | WaitCause::NoRoom => {
            let cures = waiting.candidates.iter().filter_map(|c| cure(c, now));
            cures.chain(waiting.lent.iter().map(give_back)).collect()
        }
    }
}

/// How a workload comes to succeed on which another depends. One that ended badly stays so: only another of its name can.
fn succeeds(awaited: &Awaited) -> String {
    let Awaited { workload, phase, ended } = awaited;
    match (phase, ended) {
        (Some(phase), _) if phase.is_terminal() => {
            format!("{workload}, which is {phase}, is deleted and submitted again, and succeeds; or delete this one")
        }
        (Some(_), _) => format!("{workload} succeeds"),
        (None, _) => format!("{workload} is submitted and succeeds; or delete this one"),
    }
}

fn give_back(lent: &Lent) -> String {
    let Lent { pool, resource, held, entitled } = lent;
    let more = resource.show(held.saturating_sub(*entitled));
    format!(
        "pool {pool} gives back the {more} {resource} that it borrowed: asked to once that has lasted {}",
        Span(LASTING_MS)
    )
}

/// How a pool's part comes to suffice.
fn quota_cure(short: &Shortfall) -> String {
    let Shortfall { pool, bound, resource, most, held, kept, needs } = short;
    let more = resource.show(held.saturating_add(*needs).saturating_sub(*most));
    match bound {
        QuotaBound::Entitlement if *kept > 0 && held.saturating_add(*needs) <= *most => {
            format!("those ahead of it in the line of pool {pool} are placed or cancelled")
        }
        QuotaBound::Entitlement if needs > most => format!(
            "pool {pool} is entitled to {more} more {resource}: other pools ask for less, its reservation or share grows, \
             or the fleet does"
        ),
        QuotaBound::Entitlement => {
            format!("{more} {resource} of pool {pool} is given back, or the pool is entitled to that much more")
        }
        QuotaBound::Limit => format!("{more} {resource} of pool {pool} is given back, or its limit grows by that"),
        QuotaBound::Reservation => {
            format!("pool {pool} reserves {more} {resource} more, or the workload may be preempted")
        }
    }
}

fn cure(candidate: &Candidate, now: UnixMs) -> Option<String> {
    let cluster = &candidate.cluster;
    Some(match candidate.obstacle.as_ref()? {
        Obstacle::ClusterLost { .. } => format!("{cluster} is heard from again"),
        Obstacle::NoCapacityYet => format!("{cluster} sends its capacity"),
        Obstacle::StaleCapacity { .. } => format!("{cluster} sends fresh capacity"),
        Obstacle::WrongRegion { region, .. } => format!("{region} is added to its required regions"),
        Obstacle::NoManifests { framework } => {
            let (kind, written) = (native_kind(*framework), format!("spec.{framework}"));
            format!("{cluster} is a Kubernetes cluster that knows {kind}, or the workload is written as {written}")
        }
        Obstacle::NoSecrets => "spec.secrets is left out, or there is a Kubernetes cluster with room for it".to_owned(),
        Obstacle::NoFence => {
            format!("spec.onClusterLoss is wait, or the agent of {cluster} gets guards for its pods (--listen-guards)")
        }
        Obstacle::NoRuntime { framework } => format!("{cluster} gets a runtime for {framework}"),
        Obstacle::OtherSharing { group, asked, given } if asked.0 < 1000 => {
            let less = match largest_share(given) {
                0 => "whole GPUs".to_owned(),
                most => format!("{} of a GPU or less", Gpus(most)),
            };
            format!(
                "group {group} asks for {less}, or nodes of {cluster} share theirs (time-slicing, MPS) in parts of {asked} or more"
            )
        }
        Obstacle::OtherSharing { group, .. } => {
            format!("group {group} asks for a share, or {cluster} gets nodes that give out whole GPUs")
        }
        Obstacle::NoSku { group, .. } => format!("{cluster} gets nodes of a model that group {group} accepts"),
        Obstacle::TooSmall { group, holds: 0, .. } => {
            format!("members of group {group} ask for less: none fits on any node of {cluster}, even empty")
        }
        Obstacle::TooSmall { group, needs, holds, spread } if *spread != Spread::None => format!(
            "{cluster} gets nodes for {} more of group {group}, or spec.placement.spread is left out",
            needs.saturating_sub(*holds)
        ),
        Obstacle::TooSmall { group, needs, holds, .. } => {
            format!("group {group} is made smaller: {cluster} could hold {holds} of its {needs} members")
        }
        Obstacle::NoRoom { group, needs, fits, held_by_ghosts, held_by_sick, held_by_foreign, avoided, .. } => {
            let more = needs.saturating_sub(*fits).max(1);
            let mends = [
                (held_by_ghosts, "what holds memory on its ghost GPUs ends"),
                (held_by_sick, "its sick GPUs are repaired"),
                (held_by_foreign, "pods of others on its GPUs end"),
            ];
            let mends: Vec<&str> = mends.iter().filter(|(held, _)| **held > 0).map(|(_, mend)| *mend).collect();
            let mend = if mends.is_empty() { String::new() } else { format!(" ({})", mends.join(", ")) };
            let again = match avoided {
                Some(avoided) => {
                    format!(", or a node where it failed lately is taken again, in {}", left(avoided.until, now))
                }
                None => String::new(),
            };
            format!("room for {more} more of group {group} is made in {cluster}{mend}{again}")
        }
        Obstacle::Avoided(avoided) => {
            format!("{cluster}, which had no room for it after all, is taken again, in {}", left(avoided.until, now))
        }
        Obstacle::TooDear { least, .. } => {
            format!("its maxCostPerHour is {least} or more, or {cluster} becomes cheaper")
        }
        Obstacle::NoPrice { models, .. } => {
            let models: Vec<String> = models.iter().map(ToString::to_string).collect();
            format!("a price of {} is declared in {cluster}", models.join(" or "))
        }
        Obstacle::NoCopy { data, .. } => format!(
            "data location {data} says that {cluster} has a copy (tidewater data apply), or the workload does not require it"
        ),
        Obstacle::Cordoned { .. } => format!("{cluster} is uncordoned: tidewater cluster uncordon {cluster}"),
        Obstacle::BehindOthers { .. } | Obstacle::ElsewhereThan { .. } => return None,
    })
}

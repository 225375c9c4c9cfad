//! What must hold after every command, checked from the state's public fields and the command alone. Shares no code with
//! what it checks.

use std::collections::{BTreeMap, BTreeSet};

use engine::commands::{Applied, Binding, Command, Refusal};
use engine::state::{Attempt, KEPT_ARRIVALS, Workload};
use engine::{Phase, State};
use protocol::capacity::NodeState;
use protocol::control::{AttemptReport, AttemptState, GroupPlacement, Order, StopCause};
use protocol::errors::FailureClass;
use protocol::ids::*;
use protocol::resources::Resources;

use super::{Fleet, slow_pools};

type Check = Result<(), String>;

macro_rules! hold {
    ($condition:expr, $($text:tt)+) => {
        if !$condition { return Err(format!($($text)+)); }
    };
}

/// Everything that must hold of one step.
pub fn check_step(before: &State, command: &Command, applied: &Applied, after: &State) -> Check {
    check_refusal(before, applied, after)?;
    hold!(after.epoch >= before.epoch && after.now >= before.now, "epoch or time went back");
    for workload in after.workloads.values() {
        check_workload(workload)?;
    }
    for old in before.workloads.values() {
        let new = after.workloads.get(&old.key).filter(|w| w.uid == old.uid);
        check_change(old, new, command, before, after.now)?;
        let told = applied.changed.contains(&old.key);
        hold!(told || new == Some(old), "{} changed unheard", old.key);
    }
    for (name, old) in &before.clusters {
        let removed =
            matches!((command, &applied.outcome), (Command::RemoveCluster { cluster, .. }, Ok(_)) if cluster == name);
        let Some(new) = after.clusters.get(name) else {
            hold!(removed && after.removed.contains_key(name), "cluster {name} went");
            continue;
        };
        hold!(new.last_command >= old.last_command, "{name}: command numbers went back");
    }
    if let (Command::Bind(binding), Ok(_)) = (command, &applied.outcome) {
        slow_pools::check_bound(after, &after.workloads[&binding.key], &binding.placement)?;
        check_avoided(before, binding, after.now)?;
        check_data(before, binding)?;
    }
    check_cordons(before, command, applied, after)?;
    if let (Command::Grow(growth), Ok(_)) = (command, &applied.outcome) {
        slow_pools::check_limits(after, &after.workloads[&growth.key], &growth.members)?;
    }
    if let (Command::Preempt(preemption), Ok(_)) = (command, &applied.outcome) {
        slow_pools::check_preemption(before, preemption, after.now)?;
        for victim in &preemption.victims {
            let phase = after.workloads[&victim.key].phase;
            hold!(phase == Phase::Draining, "{} is {phase} after it was preempted", victim.key);
        }
    }
    slow_pools::check_tree(after)?;
    check_views(after)
}

/// Nothing comes to a cordoned cluster, attempts end for a drain alone where it says so, and nothing lives where no cluster is.
fn check_cordons(before: &State, command: &Command, applied: &Applied, after: &State) -> Check {
    for live in after.workloads.values().filter_map(|w| w.live_attempt()) {
        hold!(after.clusters.contains_key(&live.cluster), "an attempt lives in {}, which is no cluster", live.cluster);
    }
    for name in after.removed.keys() {
        hold!(!after.clusters.contains_key(name), "{name} was removed and is a cluster");
    }
    if applied.outcome.is_err() {
        return Ok(());
    }
    let open = |cluster: &ClusterName| before.clusters[cluster].cordon.is_none();
    let live = |key: &WorkloadKey| before.workloads[key].live_attempt().unwrap();
    match command {
        Command::Bind(binding) => {
            hold!(open(&binding.cluster), "{} is bound into a cordoned cluster", binding.key)
        }
        Command::Grow(growth) => {
            hold!(open(&live(&growth.key).cluster), "{} grows in a cordoned cluster", growth.key)
        }
        Command::Join { info, .. } => {
            let removed = before.removed.get(&info.name).is_some_and(|removal| !removal.readmitted);
            hold!(!removed, "{} joined though it was removed", info.name);
            let cordon = before.clusters.get(&info.name).map(|c| &c.cordon);
            let same = cordon.is_none_or(|cordon| *cordon == after.clusters[&info.name].cordon);
            hold!(same, "the cordon of {} went by itself", info.name);
        }
        Command::EndDrained(end) => {
            let (old, new) = (&before.workloads[&end.key], &after.workloads[&end.key]);
            let member = &before.clusters[&live(&end.key).cluster];
            let drain = member.cordon.as_ref().and_then(|cordon| cordon.drain).ok_or("an end without a drain")?;
            let firm = old.spec.preemptible == protocol::workload::Preemptible::No;
            hold!(end.epoch == before.epoch, "{} ends by an old epoch's word", end.key);
            hold!(drain.force || !firm, "{} may not be preempted and ends for a drain", end.key);
            hold!(new.phase == Phase::Draining, "{} is {} after its end for a drain", end.key, new.phase);
            let stopped =
                |w: &&Workload| w.live_attempt().is_some_and(|a| a.stop.is_some() && a.cluster == end.cluster);
            let ending = after.workloads.values().filter(stopped).count();
            let most = drain.max_at_once.map_or(usize::MAX, |most| most as usize);
            hold!(ending <= most, "{ending} attempts end at the same time; at most {most} may");
        }
        _ => {}
    }
    Ok(())
}

/// Whether a node or a cluster is one where a workload failed so lately that it is left alone: a minute after the first failure there,
/// twice as long after each further one. Told from the last attempt back: as far as they failed there in a row.
pub fn is_avoided(w: &Workload, cluster: &ClusterName, node: Option<&NodeName>, now: UnixMs) -> bool {
    let class = |a: &Attempt| match &a.reported {
        Some(AttemptState::Failed { class, .. }) if a.stop.is_none() => Some(*class),
        _ => None,
    };
    let there = |a: &&Attempt| {
        let on = |n: &NodeName| a.placement.iter().flat_map(|g| &g.nodes).any(|s| s.node == *n);
        // What found no room was never on a node.
        a.cluster == *cluster && node.is_none_or(|n| on(n) && class(a) != Some(FailureClass::Capacity))
    };
    let wanted = if node.is_some() { FailureClass::Infrastructure } else { FailureClass::Capacity };
    let row: Vec<&Attempt> = w.attempts.iter().filter(there).rev().take_while(|a| class(a) == Some(wanted)).collect();
    let Some(last) = row.first().and_then(|a| a.ended_at) else { return false };
    let minutes = (1u64 << (row.len() - 1).min(20)).min(60);
    now.0 < last.0 + minutes * 60_000
}

fn check_avoided(before: &State, binding: &Binding, now: UnixMs) -> Check {
    let w = &before.workloads[&binding.key];
    let mut nodes = binding.placement.iter().flat_map(|g| &g.nodes).map(|s| &s.node);
    let avoided =
        is_avoided(w, &binding.cluster, None, now) || nodes.any(|n| is_avoided(w, &binding.cluster, Some(n), now));
    hold!(!avoided || binding.decision.despite.is_some(), "{} is bound where it failed lately", w.key);
    Ok(())
}

/// Whatever a workload requires of data is where it is bound, in the cluster itself or in its region.
fn check_data(before: &State, binding: &Binding) -> Check {
    let (w, there) = (&before.workloads[&binding.key], &before.clusters[&binding.cluster].info);
    for need in w.spec.placement.data.iter().filter(|need| need.require) {
        let data = before.data.all().get(&need.name).map(|data| &data.spec);
        let copy =
            data.is_some_and(|d| d.clusters.iter().any(|c| *c == there.name) || d.regions.contains(&there.region));
        hold!(copy, "{} is bound to {}, which has no copy of {}", w.key, there.name, need.name);
    }
    Ok(())
}

fn check_refusal(before: &State, applied: &Applied, after: &State) -> Check {
    let Err(refusal) = &applied.outcome else { return Ok(()) };
    let mut same = before.clone();
    (same.applied, same.now) = (after.applied, after.now);
    if let Refusal::StrayReport { cluster, .. } = refusal {
        let number = after.clusters[cluster].last_command;
        same.clusters.get_mut(cluster).ok_or("a stray report of no cluster")?.last_command = number;
    }
    hold!(same == *after, "a refused command changed the state: {refusal}");
    hold!(applied.changed.is_empty() && applied.clusters.is_empty(), "a refused command told of changes");
    Ok(())
}

fn check_workload(w: &Workload) -> Check {
    let open: Vec<&Attempt> = w.attempts.iter().filter(|a| a.ended_at.is_none()).collect();
    hold!(open.len() <= 1, "{} has {} live attempts", w.key, open.len());
    hold!(open.is_empty() || w.attempts.last().is_some_and(|a| a.ended_at.is_none()), "an old attempt is live");
    let alive = !matches!(w.phase, Phase::Queued | Phase::Succeeded | Phase::Failed | Phase::Cancelled);
    hold!(alive != open.is_empty(), "{} is {} with {} live attempts", w.key, w.phase, open.len());
    hold!(w.attempts.windows(2).all(|p| p[0].number < p[1].number), "{}: attempt numbers do not grow", w.key);
    hold!(w.attempts.len() <= 16 && w.timeline.len() <= 64, "{}: too much is kept", w.key);
    hold!(!(w.delete_requested && is_terminal(w.phase)), "{} should be gone", w.key);
    hold!(w.ended_at.is_some() == is_terminal(w.phase), "{} is {} and ended {:?}", w.key, w.phase, w.ended_at);
    hold!(w.awaits.is_empty() || w.attempts.is_empty(), "{} was placed before what it depends on", w.key);
    for attempt in &w.attempts {
        for need in w.spec.gang() {
            let group = attempt.placement.iter().find(|g| g.group == need.name).ok_or("a group is not placed")?;
            let has: u32 = group.nodes.iter().map(|share| share.members).sum();
            let workers = w.spec.ray.iter().flat_map(|ray| &ray.workers).find(|g| g.name == need.name);
            let most = workers.and_then(|g| g.max).unwrap_or(need.count);
            hold!((need.count..=most).contains(&has), "{} has {has} of {} to {most}", w.key, need.count);
        }
    }
    hold!(w.timeline.last().is_none_or(|m| m.phase == w.phase), "{}: the timeline ends elsewhere", w.key);
    Ok(())
}

fn is_terminal(phase: Phase) -> bool {
    matches!(phase, Phase::Succeeded | Phase::Failed | Phase::Cancelled)
}

fn check_change(old: &Workload, new: Option<&Workload>, command: &Command, before: &State, now: UnixMs) -> Check {
    let Some(new) = new else {
        let ttl = old.spec.ttl_after_finished.map_or(u64::MAX, |ttl| ttl.0);
        let last = old.timeline.last().map_or(0, |m| m.at.0);
        let lived = is_terminal(old.phase) && last.saturating_add(ttl) <= now.0;
        let expired = lived && matches!(command, Command::Expire { uid, .. } if *uid == old.uid);
        let asked = expired || old.delete_requested || matches!(command, Command::Delete { key } if *key == old.key);
        let over = old.live_attempt().is_none() || ends(old, command, before);
        hold!(asked && over, "the record of {} went though nobody asked, or while it lived", old.key);
        return Ok(());
    };
    if is_terminal(old.phase) {
        hold!(new.phase == old.phase && new.attempts == old.attempts, "{} left {}", old.key, old.phase);
    }
    if old.cancel_requested {
        hold!(new.cancel_requested, "{}: the cancel was forgotten", old.key);
        hold!(matches!(new.phase, Phase::Draining | Phase::Cancelled), "{}: {} after a cancel", old.key, new.phase);
    }
    for name in old.awaits.keys().filter(|name| !new.awaits.contains_key(*name)) {
        // What a workload waits for no more has succeeded in this very step.
        let other = WorkloadKey { namespace: old.key.namespace.clone(), name: name.clone() };
        let proof =
            before.workloads.get(&other).is_some_and(|w| w.live_attempt().is_some() && ends(w, command, before));
        hold!(proof, "{} waits for {other} no more, which did not end", old.key);
    }
    let last = |w: &Workload| w.attempts.last().map_or(0, |a| a.number.0);
    hold!(last(new) == last(old) || last(new) == last(old) + 1, "{}: attempt numbers jump", old.key);
    if last(new) > last(old) {
        let Command::Bind(binding) = command else { return Err(format!("{}: bound by another command", old.key)) };
        hold!(binding.epoch == before.epoch, "{}: bound in an old epoch", old.key);
        hold!(old.live_attempt().is_none(), "{}: bound while an attempt lives", old.key);
        let launch = new.attempts.last().map(|a| a.launch);
        hold!(launch > Some(before.clusters[&binding.cluster].last_command), "a command number was given out twice");
    }
    if let (Some(was), Some(is)) = (old.live_attempt(), new.live_attempt()) {
        let by = match command {
            Command::Grow(growth) => growth.uid == old.uid && growth.epoch == before.epoch,
            Command::Preempt(p) => p.shrinks.iter().any(|s| s.uid == old.uid) && p.epoch == before.epoch,
            Command::Report { report, .. } => report.resized.is_some(),
            Command::Join { .. } => true,
            _ => false,
        };
        hold!(was.placement == is.placement || by, "{}: its size changed by itself", old.key);
        let numbers = (was.resize.as_ref().map(|r| r.number), is.resize.as_ref().map(|r| r.number));
        hold!(numbers.0 <= numbers.1, "{}: it forgot a resize", old.key);
        let fresh = numbers.1 > Some(before.clusters[&is.cluster].last_command);
        hold!(numbers.0 == numbers.1 || fresh, "{}: a resize has a number that was given out", old.key);
    }
    if let Some(live) = old.live_attempt() {
        let ended = new.attempts.iter().any(|a| a.number == live.number && a.ended_at.is_some());
        hold!(!ended || ends(old, command, before), "{}: its attempt ended unseen", old.key);
        if ended && live.stop.is_some_and(|(_, cause)| cause == StopCause::Drained) && !old.cancel_requested {
            hold!(new.user_failures == old.user_failures, "{}: a drain cost it a retry", old.key);
            hold!(new.order == old.order, "{}: a drain cost it its place", old.key);
            let goes_on = matches!(new.phase, Phase::Queued | Phase::Succeeded);
            hold!(goes_on && new.not_before.is_none(), "{}: {} after a drain", old.key, new.phase);
        }
    }
    Ok(())
}

/// Whether a command is proof that the live attempt is gone.
fn ends(workload: &Workload, command: &Command, before: &State) -> bool {
    let Some(live) = workload.live_attempt() else { return false };
    let id = AttemptId { workload: workload.uid, number: live.number };
    let is_end = |r: &AttemptReport| r.attempt == id && r.state.is_final();
    match command {
        Command::Report { cluster, report } => *cluster == live.cluster && is_end(report),
        Command::Join { info, incarnation, last_command, attempts } => {
            let silent = attempts.iter().all(|r| r.attempt != id);
            let knew = live.incarnation == *incarnation && live.launch <= *last_command;
            info.name == live.cluster && (attempts.iter().any(is_end) || (silent && knew))
        }
        // A person may say so of what the cluster's agent of today can't see, and of that alone.
        Command::Forget { attempt, .. } => {
            *attempt == id && before.clusters.get(&live.cluster).is_none_or(|c| c.incarnation != live.incarnation)
        }
        // The leader may say so of one that ends itself, where nobody sees it.
        Command::Fence(fence) => {
            let member = before.clusters.get(&live.cluster);
            let seen = member.is_some_and(|c| c.lost_since.is_none() && c.incarnation == live.incarnation);
            let fenced = workload.spec.on_cluster_loss == protocol::workload::OnClusterLoss::Failover;
            fenced && !seen && fence.epoch == before.epoch && (fence.uid, fence.attempt) == (workload.uid, live.number)
        }
        // Or that a lost cluster never comes back.
        Command::RemoveCluster { cluster, lost_for_good: true, .. } => {
            *cluster == live.cluster && before.clusters[cluster].lost_since.is_some()
        }
        _ => false,
    }
}

/// The views, made again the slow way.
fn check_views(state: &State) -> Check {
    let mut queued: Vec<&Workload> = state.workloads.values().filter(|w| w.phase == Phase::Queued).collect();
    queued.sort_by_key(|w| {
        (-i64::from(w.spec.priority), w.submitted_at.0 + super::slow_line::late_ms(state, w), w.order)
    });
    let line: Vec<&WorkloadKey> = state.waiting().collect();
    hold!(line == queued.iter().map(|w| &w.key).collect::<Vec<_>>(), "the line is not the queued ones in order");
    for name in state.workloads.values().flat_map(|w| &w.spec.placement.data).map(|need| &need.name) {
        let reads = |w: &&Workload| !is_terminal(w.phase) && w.spec.placement.data.iter().any(|n| n.name == *name);
        let readers: Vec<&WorkloadKey> = state.workloads.values().filter(reads).map(|w| &w.key).collect();
        hold!(state.readers(name).collect::<Vec<_>>() == readers, "readers({name}) is wrong");
    }
    let uids: BTreeMap<Uid, WorkloadKey> = state.workloads.values().map(|w| (w.uid, w.key.clone())).collect();
    hold!(uids == state.by_uid, "by_uid is not the workloads'");
    for (name, cluster) in &state.clusters {
        let open: Vec<(&Workload, &Attempt)> = state
            .workloads
            .values()
            .flat_map(|w| w.attempts.iter().map(move |a| (w, a)))
            .filter(|(_, a)| a.cluster == *name && a.ended_at.is_none())
            .collect();
        let there: BTreeSet<Uid> = state.live_in(name).map(|(w, _)| w.uid).collect();
        hold!(there == open.iter().map(|(w, _)| w.uid).collect(), "live_in({name}) is wrong");
        let mut expected = BTreeMap::new();
        for (w, a) in open.iter().filter(|(_, a)| a.incarnation == cluster.incarnation) {
            if a.revision == 0 && a.stop.is_none() {
                expected.insert(a.launch, ("launch", w.uid, a.number));
            }
            if let Some(resize) = a.resize.as_ref().filter(|r| !r.settled && a.stop.is_none()) {
                expected.insert(resize.number, ("resize", w.uid, a.number));
                // And where members came before: whoever heard of what lies between must have them.
                for came in a.arrivals.iter().map(|arrival| arrival.number).filter(|n| *n > a.launch) {
                    expected.insert(came, ("resize", w.uid, a.number));
                }
            }
            if let Some((number, _)) = a.stop {
                expected.insert(number, ("stop", w.uid, a.number));
            }
            let came = summed(a.arrivals.iter().flat_map(|arrival| &arrival.placement));
            let all_kept = (1..KEPT_ARRIVALS).contains(&a.arrivals.len());
            hold!(!all_kept || came == summed(a.held()), "{} holds another than what came: {a:?}", w.key);
        }
        let told: Vec<_> = state.outstanding(name).iter().map(|(n, o)| (*n, named(o))).collect();
        hold!(told == expected.into_iter().collect::<Vec<_>>(), "outstanding({name}) is wrong: {told:?}");
        hold!(told.iter().all(|(n, _)| *n <= cluster.last_command), "a number above the last was given out");
    }
    Ok(())
}

/// Members by group and node.
fn summed<'a>(groups: impl Iterator<Item = &'a GroupPlacement>) -> BTreeMap<(&'a GroupName, &'a NodeName), u32> {
    let mut sum = BTreeMap::new();
    for group in groups {
        group.nodes.iter().for_each(|share| *sum.entry((&group.group, &share.node)).or_default() += share.members);
    }
    sum
}

fn named(order: &Order) -> (&'static str, Uid, AttemptNumber) {
    match order {
        Order::Launch(l) => ("launch", l.attempt.workload, l.attempt.number),
        Order::Resize(r) => ("resize", r.attempt.workload, r.attempt.number),
        Order::Stop(s) => ("stop", s.attempt.workload, s.attempt.number),
    }
}

/// All live attempts together never hold more of a node than it has.
pub fn check_nodes(state: &State, fleet: &Fleet) -> Check {
    let mut held: BTreeMap<(ClusterName, NodeName), Resources> = BTreeMap::new();
    for attempt in state.workloads.values().filter_map(|w| w.live_attempt()) {
        let leaving = attempt.resize.iter().flat_map(|resize| &resize.leaving);
        for group in attempt.placement.iter().chain(leaving) {
            for share in &group.nodes {
                let at = (attempt.cluster.clone(), share.node.clone());
                *held.entry(at).or_default() += group.each.times(u64::from(share.members));
            }
        }
    }
    for ((cluster, name), held) in held {
        let node = fleet.capacity.clusters.get(&cluster).and_then(|c| c.nodes.iter().find(|n| n.name == name));
        let node = node.ok_or_else(|| format!("{cluster}/{name} is no node"))?;
        hold!(node.state == NodeState::Ready, "{cluster}/{name} takes no members");
        hold!(held.fits_in(&node.total), "{cluster}/{name}: {held} held of {}", node.total);
    }
    Ok(())
}

//! An elastic attempt gets more members, in room that nobody waits for. Between proposal and commit anything may have happened, so what
//! state can tell is checked again: that the attempt runs, has the size that the planner saw and has done with its last change of size,
//! that the members are of its elastic groups, as those are, no more than their maximum, and within the pools' limits. Free room and
//! the pool's part are the planner's word. Members that come here may go again at any time: see `preempt`.

use protocol::control::GroupPlacement;
use protocol::ids::{CommandNumber, WorkloadKey};
use protocol::placement::{all_members, members, on_node};

use super::step::Step;
use super::{Growth, Outcome, Refusal};
use crate::lifecycle::Phase;
use crate::planted;
use crate::pools::admission::{held_in_tree, over_limit};
use crate::pools::usage::holds;
use crate::state::outstanding::resize_order;
use crate::state::service::had;
use crate::state::{Attempt, Happening, State, Workload};

impl Step<'_> {
    pub(super) fn grow(&mut self, growth: &Growth) -> Result<Outcome, Refusal> {
        let stale = |why: String| Refusal::StaleGrowth { key: growth.key.clone(), why };
        let cluster = check(self.state, growth).map_err(stale)?.cluster.clone();
        let number = self.next_number(&cluster).ok_or_else(|| stale(format!("cluster {cluster} has not joined")))?;
        self.resize(&growth.key, number, (&growth.members, &[]), |w| Happening::Grew {
            attempt: growth.attempt,
            by: all_members(&growth.members),
            size: w.size().map_or(0, |(size, ..)| size),
        });
        Ok(Outcome::Done)
    }

    /// Changes the size of a live attempt, and tells its agent. The caller has checked that it may.
    pub(super) fn resize(
        &mut self,
        key: &WorkloadKey,
        number: CommandNumber,
        (more, less): (&[GroupPlacement], &[GroupPlacement]),
        what: impl FnOnce(&Workload) -> Happening,
    ) {
        self.change(key, |w, now| {
            let Some(attempt) = w.attempts.last_mut() else { return };
            w.served = w.served.saturating_add(had(attempt, now));
            attempt.resize(number, more, less, now);
            let what = what(w);
            w.remember(what, now);
        });
        let workload = self.state.workloads.get(key);
        let order =
            workload.and_then(|w| Some((w.live_attempt()?.cluster.clone(), resize_order(w, w.live_attempt()?)?)));
        if let Some((cluster, (number, order))) = order {
            self.send(&cluster, number, order);
        }
    }
}

/// The live attempt of a workload, where its size may change now.
pub(super) fn resizable<'w>(
    state: &State,
    workload: &'w Workload,
    number: protocol::ids::AttemptNumber,
) -> Result<&'w Attempt, String> {
    let live = workload.live_attempt().filter(|a| a.number == number);
    let live = live.ok_or_else(|| format!("attempt {number} of {} does not live any more", workload.key))?;
    if live.stop.is_some() || workload.phase != Phase::Running {
        return Err(format!("{} is {}: its size does not change", workload.key, workload.phase));
    }
    match state.clusters.get(&live.cluster) {
        Some(cluster) if cluster.incarnation == live.incarnation && cluster.lost_since.is_none() => Ok(live),
        _ => Err(format!("{} is lost", live.cluster)),
    }
}

fn check<'s>(state: &'s State, growth: &Growth) -> Result<&'s Attempt, String> {
    if growth.epoch != state.epoch && !planted::is("forget-epoch-check") {
        return Err(format!("it was planned in epoch {}; now it is {}", growth.epoch, state.epoch));
    }
    let workload = state.workloads.get(&growth.key).filter(|w| w.uid == growth.uid).ok_or("the workload is gone")?;
    let live = resizable(state, workload, growth.attempt)?;
    if state.clusters.get(&live.cluster).is_some_and(|cluster| !cluster.takes_members()) {
        return Err(format!("cluster {} is cordoned", live.cluster));
    }
    if live.sized_by() != growth.sized_by {
        return Err(format!("its size was changed by command {} meanwhile", live.sized_by()));
    }
    if live.resize.as_ref().is_some_and(|resize| !resize.settled) {
        return Err("its last change of size is not done yet".into());
    }
    if growth.members.is_empty() {
        return Err("no members are named".into());
    }
    for (at, group) in growth.members.iter().enumerate() {
        let again = growth.members[..at].iter().any(|other| other.group == group.group);
        check_group(workload, live, group, again)?;
    }
    let more = holds(&growth.members);
    match over_limit(&state.pools, &held_in_tree(&state.pools, &state.indices.usage), &workload.pool, &more) {
        Some(short) => Err(short.to_string()),
        None => Ok(live),
    }
}

fn check_group(workload: &Workload, live: &Attempt, group: &GroupPlacement, again: bool) -> Result<(), String> {
    let name = &group.group;
    let Some((there, _, room)) = workload.spare(live).find(|(g, ..)| g.group == *name) else {
        return Err(format!("group {name} is not elastic"));
    };
    if again {
        return Err(format!("group {name} is named twice"));
    }
    if (&group.each, &group.sku) != (&there.each, &there.sku) {
        return Err(format!("the members of group {name} are not as those that it has"));
    }
    if members(group) > room {
        return Err(format!("group {name} would have {} members more than it may", members(group) - room));
    }
    let spread = workload.spec.placement.spread;
    for (at, share) in group.nodes.iter().enumerate() {
        if share.members == 0 || group.nodes[..at].iter().any(|other| other.node == share.node) {
            return Err(format!("group {name} names node {} twice, or for no member", share.node));
        }
        let all = u64::from(share.members) + u64::from(on_node(&live.placement, name, &share.node));
        if spread.most(all) < all {
            return Err(format!("group {name} would have {all} members on node {}; each is to be alone", share.node));
        }
    }
    Ok(())
}

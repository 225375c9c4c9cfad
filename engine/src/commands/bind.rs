//! A workload gets the place that the planner proposed. Between proposal and commit anything may have happened, so
//! everything that state can tell is checked again; free room is the planner's word, for capacity is not in the log.

use std::collections::BTreeSet;

use protocol::control::{GroupPlacement, NodeShare};
use protocol::ids::{ClusterName, UnixMs};
use protocol::workload::{GroupNeed, Preemptible, native_kind};

use super::step::Step;
use super::{Binding, Outcome, Refusal};
use crate::lifecycle::{Event, Phase};
use crate::placement::locality::Wants;
use crate::planted;
use crate::pools::admission::{held_in_tree, over_limit, over_reservation};
use crate::pools::usage::holds;
use crate::state::outstanding::launch_order;
use crate::state::{Attempt, Cluster, Happening, KEPT_ATTEMPTS, State, Workload};

impl Step<'_> {
    pub(super) fn bind(&mut self, binding: &Binding) -> Result<Outcome, Refusal> {
        let stale = |why: String| Refusal::StaleBinding { key: binding.key.clone(), why };
        if binding.epoch != self.state.epoch && !planted::is("forget-epoch-check") {
            return Err(stale(format!("it was planned in epoch {}; now it is {}", binding.epoch, self.state.epoch)));
        }
        let workload = self.state.workloads.get(&binding.key).ok_or_else(|| stale("the workload is gone".into()))?;
        check_workload(workload, binding, self.now).map_err(stale)?;
        let cluster = self.state.clusters.get(&binding.cluster);
        let cluster = cluster.ok_or_else(|| stale(format!("cluster {} has not joined", binding.cluster)))?;
        check_cluster(workload, cluster).map_err(stale)?;
        check_beside(self.state, workload, &binding.cluster).map_err(stale)?;
        check_data(self.state, workload, cluster).map_err(stale)?;
        check_placement(&workload.spec.gang(), &binding.placement).map_err(stale)?;
        check_avoids(workload, binding, self.now).map_err(stale)?;
        check_quota(self.state, workload, binding).map_err(stale)?;

        let attempt_id = workload.attempt_id(binding.attempt);
        let incarnation = cluster.incarnation;
        let launch = self.next_number(&binding.cluster).expect("the cluster was found above");
        self.change(&binding.key, |w, now| {
            let attempt = Attempt {
                number: binding.attempt,
                cluster: binding.cluster.clone(),
                placement: binding.placement.clone(),
                decision: binding.decision.clone(),
                incarnation,
                launch,
                stop: None,
                resize: None,
                arrivals: vec![],
                revision: 0,
                reported: None,
                bound_at: now,
                running_at: None,
                ended_at: None,
            };
            w.not_before = None;
            w.attempts.push(attempt);
            let extra = w.attempts.len().saturating_sub(KEPT_ATTEMPTS);
            w.attempts.drain(..extra);
            let what = Happening::Bound { attempt: binding.attempt, cluster: binding.cluster.clone() };
            w.enter(Event::Bind, what, now);
        });
        let order = self.state.workloads.get(&binding.key).and_then(|w| Some(launch_order(w, w.live_attempt()?)));
        self.send(&binding.cluster, launch, order.expect("the attempt was made above"));
        Ok(Outcome::Bound { attempt: attempt_id, launch })
    }
}

fn check_workload(workload: &Workload, binding: &Binding, now: UnixMs) -> Result<(), String> {
    if workload.uid != binding.uid {
        return Err(format!("the name belongs to another workload now (uid {})", workload.uid));
    }
    if workload.phase != Phase::Queued {
        return Err(format!("the workload is {}, not Queued", workload.phase));
    }
    if workload.cancel_requested || workload.delete_requested {
        return Err("its end was asked for".into());
    }
    if let Some((first, _)) = workload.awaits.first_key_value() {
        return Err(format!("{first}, on which it depends, has not succeeded"));
    }
    let next = workload.next_attempt();
    if binding.attempt != next {
        return Err(format!("its next attempt is {next}, not {}", binding.attempt));
    }
    match workload.not_before {
        Some(until) if now < until => Err(format!("it is not tried again before {until}; now it is {now}")),
        _ => Ok(()),
    }
}

fn check_cluster(workload: &Workload, cluster: &Cluster) -> Result<(), String> {
    let (name, spec) = (&cluster.info.name, &workload.spec);
    if cluster.lost_since.is_some() {
        return Err(format!("cluster {name} is lost"));
    }
    if !cluster.takes_members() {
        return Err(format!("cluster {name} is cordoned"));
    }
    if spec.fence().is_some() && !cluster.info.fences {
        return Err(format!("attempts in cluster {name} do not end themselves once it is cut off"));
    }
    if !spec.secrets.is_empty() && !cluster.info.secrets {
        return Err(format!("cluster {name} has no secrets"));
    }
    let required = &spec.placement.regions.require;
    if !required.is_empty() && !required.contains(&cluster.info.region) {
        return Err(format!("cluster {name} is in region {}, which is not required", cluster.info.region));
    }
    match spec.framework() {
        Ok(framework) if !cluster.info.frameworks.contains(&framework) => {
            Err(format!("cluster {name} does not run {framework}"))
        }
        Ok(framework) if spec.manifest.is_some() && !cluster.info.manifests.contains(&framework) => {
            Err(format!("cluster {name} takes no {} as it is", native_kind(framework)))
        }
        Ok(_) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

fn check_beside(state: &State, workload: &Workload, chosen: &ClusterName) -> Result<(), String> {
    match state.beside(workload) {
        Ok(Some((other, cluster))) if cluster != *chosen => {
            Err(format!("{other}, beside which it is to be, is in {cluster}, not in {chosen}"))
        }
        Ok(_) => Ok(()),
        Err(cause) => Err(cause.to_string()),
    }
}

fn check_data(state: &State, workload: &Workload, chosen: &Cluster) -> Result<(), String> {
    let wants = Wants::of(state, &workload.spec).map_err(|cause| cause.to_string())?;
    match wants.lacks(&chosen.info) {
        Some(lacking) => Err(format!("cluster {} {lacking}", chosen.info.name)),
        None => Ok(()),
    }
}

/// Whether the place is one where it failed lately. That it could be nowhere else is the planner's word.
fn check_avoids(workload: &Workload, binding: &Binding, now: UnixMs) -> Result<(), String> {
    if binding.decision.despite.is_some() {
        return Ok(());
    }
    match workload.avoids(now).first_of(&binding.cluster, &binding.placement) {
        Some((Some(node), avoided)) => Err(format!("node {node} of {} is avoided: {avoided}", binding.cluster)),
        Some((None, avoided)) => Err(format!("cluster {} is avoided: {avoided}", binding.cluster)),
        None => Ok(()),
    }
}

/// What state alone can tell of the pool's part: limits and reservations. What the pool is entitled to is the planner's word.
fn check_quota(state: &State, workload: &Workload, binding: &Binding) -> Result<(), String> {
    let (pools, usage, pool) = (&state.pools, &state.indices.usage, &workload.pool);
    let more = holds(&binding.placement);
    if let Some(short) = over_limit(pools, &held_in_tree(pools, usage), pool, &more) {
        return Err(short.to_string());
    }
    let firm = usage.get(pool).map(|u| u.firm.clone()).unwrap_or_default();
    match pools.spec(pool).filter(|_| workload.spec.preemptible == Preemptible::No) {
        Some(spec) => over_reservation(spec, pool, &firm, &more).map_or(Ok(()), |short| Err(short.to_string())),
        None => Ok(()),
    }
}

/// A gang is placed whole or not at all: each group once, with all its members.
fn check_placement(gang: &[GroupNeed], placement: &[GroupPlacement]) -> Result<(), String> {
    if placement.len() != gang.len() {
        return Err(format!("{} groups are placed; the gang has {}", placement.len(), gang.len()));
    }
    for need in gang {
        let mut placed = placement.iter().filter(|p| p.group == need.name);
        let (Some(group), None) = (placed.next(), placed.next()) else {
            return Err(format!("group {} is not placed exactly once", need.name));
        };
        check_group(need, group)?;
    }
    Ok(())
}

fn check_group(need: &GroupNeed, group: &GroupPlacement) -> Result<(), String> {
    let name = &need.name;
    if group.each != need.each {
        return Err(format!("group {name} has members of {}; it needs {}", group.each, need.each));
    }
    let members: u64 = group.nodes.iter().map(|n| u64::from(n.members)).sum();
    if members != u64::from(need.count) {
        return Err(format!("group {name} has {members} members placed; it has {}", need.count));
    }
    let distinct: BTreeSet<_> = group.nodes.iter().filter(|n| n.members > 0).map(|n| &n.node).collect();
    if distinct.len() != group.nodes.len() {
        return Err(format!("group {name} names a node twice, or for no member"));
    }
    let most = |n: &NodeShare| need.spread.most(u64::from(n.members));
    if let Some(crowded) = group.nodes.iter().find(|n| most(n) < u64::from(n.members)) {
        return Err(format!(
            "group {name} has {} members on node {}; each is to have a node of its own",
            crowded.members, crowded.node
        ));
    }
    match &group.sku {
        None if need.each.gpu_milli > 0 => Err(format!("group {name} needs GPUs and no model was chosen")),
        Some(sku) if need.each.gpu_milli == 0 => Err(format!("group {name} needs no GPUs, but {sku} was chosen")),
        Some(sku) if !need.accepts(sku) => Err(format!("group {name} does not accept {sku}")),
        _ => Ok(()),
    }
}

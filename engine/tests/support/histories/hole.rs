//! What a preemption has to be: it makes a hole, and takes nothing in vain.

use std::collections::BTreeSet;

use engine::commands::{Preemption, Shrink, Victim};
use engine::state::{Cluster, Workload};
use protocol::control::GroupPlacement;
use protocol::ids::*;
use protocol::resources::Resources;

use super::History;
use crate::support::slow_pools;

impl History {
    /// What is given makes room for the gang, and without any of it there would be none (or its pool had not enough).
    pub(super) fn check_hole(&self, p: &Preemption) -> Result<(), String> {
        let by = &self.state.workloads[&p.by];
        // The head of a Ray workload is next to nothing.
        let need = by.spec.gang().pop().unwrap();
        let attempt = |key: &WorkloadKey| self.state.workloads[key].attempts.last().unwrap();
        let passed = |key: &WorkloadKey| attempt(key).decision.passed.iter().any(|passed| passed.uid == p.by_uid);
        let named: Vec<&WorkloadKey> =
            p.victims.iter().map(|v| &v.key).chain(p.shrinks.iter().map(|s| &s.key)).collect();
        let on: BTreeSet<&ClusterName> = named.iter().map(|key| &attempt(key).cluster).collect();
        // Those that were let past it may have to give up its pool's part in one cluster and room in another.
        let all_passed = p.shrinks.is_empty() && p.victims.iter().all(|v| passed(&v.key));
        let ends = |victims: &[Victim], w: &Workload| {
            victims.iter().any(|v| v.uid == w.uid) || w.attempts.last().is_some_and(|a| a.stop.is_some())
        };
        // What would be free of an attempt that a frame has, and what is not.
        let gives = |victims: &[Victim], shrinks: &[Shrink], w: &Workload| -> Vec<GroupPlacement> {
            let last = w.attempts.last().unwrap();
            let leaving = last.resize.iter().flat_map(|r| r.leaving.clone());
            let whole = if ends(victims, w) { last.placement.clone() } else { vec![] };
            let some = shrinks.iter().filter(|s| s.uid == w.uid && whole.is_empty()).flat_map(|s| s.members.clone());
            leaving.chain(whole.clone()).chain(some).collect()
        };
        let on_node = |groups: &[GroupPlacement], node: &NodeName| -> Resources {
            let mut sum = Resources::ZERO;
            for group in groups {
                for share in group.nodes.iter().filter(|s| s.node == *node) {
                    sum += group.each.times(u64::from(share.members));
                }
            }
            sum
        };
        // Where not all is meant, nodes that are kept for others are those others'.
        let members_in = |cluster: &ClusterName, victims: &[Victim], shrinks: &[Shrink], all: bool| -> u64 {
            let Some(frame) = self.fleet.capacity.clusters.get(cluster) else { return 0 };
            let incarnation = self.state.clusters[cluster].incarnation;
            let of_model = frame.nodes.iter().filter(|n| need.each.gpu_milli == 0 || n.sku.is_some());
            of_model
                .filter(|node| all || !self.is_kept_from(p.by_uid, cluster, &node.name))
                .map(|node| {
                    // As the agent said it, less what it has not heard of, and with what would be gone.
                    let mut free = node.free;
                    for w in self.state.workloads.values() {
                        let there = w.attempts.iter().filter(|a| a.ended_at.is_none() && a.cluster == *cluster);
                        for attempt in there {
                            let gone = on_node(&gives(victims, shrinks, w), &node.name);
                            let leaving = attempt.resize.iter().flat_map(|r| r.leaving.clone());
                            let held: Vec<_> = attempt.placement.iter().cloned().chain(leaving).collect();
                            let unseen = match attempt.incarnation == incarnation {
                                true => slow_pools::unseen(attempt, frame.watermark),
                                false => held,
                            };
                            free = (free + gone).saturating_sub(&on_node(&unseen, &node.name));
                        }
                    }
                    let times = |have: u64, each: u64| have.checked_div(each).unwrap_or(u64::MAX);
                    times(free.gpu_milli, need.each.gpu_milli)
                        .min(times(free.cpu_milli, need.each.cpu_milli))
                        .min(times(free.memory_mib, need.each.memory_mib))
                })
                .sum()
        };
        let members = |victims: &[Victim], shrinks: &[Shrink], all: bool| {
            let open = |c: &&Cluster| c.lost_since.is_none() && c.cordon.is_none();
            let usable = self.state.clusters.values().filter(open).map(|c| &c.info.name);
            let there = usable.filter(|name| all_passed || on.contains(*name));
            there.map(|name| members_in(name, victims, shrinks, all)).max().unwrap_or(0)
        };
        let after = members(&p.victims, &p.shrinks, true);
        if (!all_passed && on.len() > 1) || after < u64::from(need.count) {
            return Err(format!("{named:?} would give room for {}, and there would still be none: {after}", p.by));
        }
        let enough = |victims: &[Victim], shrinks: &[Shrink]| {
            by.spec.batch.is_some() && members(victims, shrinks, false) >= u64::from(need.count)
        };
        let other_pool = |key: &WorkloadKey| self.state.workloads[key].pool != by.pool;
        for spared in p.victims.iter().filter(|v| other_pool(&v.key)) {
            let fewer: Vec<Victim> = p.victims.iter().filter(|v| v.uid != spared.uid).cloned().collect();
            if enough(&fewer, &p.shrinks) {
                return Err(format!("{} would end for {} in vain", spared.key, p.by));
            }
        }
        for spared in p.shrinks.iter().filter(|s| other_pool(&s.key)) {
            let fewer: Vec<Shrink> = p.shrinks.iter().filter(|s| s.uid != spared.uid).cloned().collect();
            if enough(&p.victims, &fewer) {
                return Err(format!("{} would give members for {} in vain", spared.key, p.by));
            }
        }
        Ok(())
    }

    /// Whether a node is kept for another gang that waits.
    fn is_kept_from(&self, uid: Uid, cluster: &ClusterName, node: &NodeName) -> bool {
        self.memory.kept().any(|(whose, (there, nodes))| whose != uid && there == cluster && nodes.contains(node))
    }
}

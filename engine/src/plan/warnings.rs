//! What a submitter is warned of. The workload is accepted all the same: clusters join and grow.

use protocol::resources::Resources;
use protocol::workload::{Framework, GroupNeed, WorkloadSpec};

use crate::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use crate::placement::devices::Free;
use crate::placement::locality::Wants;
use crate::placement::obstacles::{bars, is_permanent, too_small, unfit};
use crate::placement::rooms::{Order, Room};
use crate::state::State;

/// What to warn the submitter of: such as that no cluster could hold the gang even empty. The workload is accepted all the same.
pub fn warnings(state: &State, capacity: &Capacity, spec: &WorkloadSpec) -> Vec<String> {
    let Ok(framework) = spec.framework() else { return vec![] };
    let gang = spec.gang();
    let mut warnings = unknown_data(state, spec);
    let Ok(wants) = Wants::of(state, spec) else { return warnings };
    // Asked at each submission, and nearly always answered by the first nodes: sorting every cluster's nodes for it would cost
    // more than all the rest of a submission.
    if !may_start_somewhere(state, capacity, &wants, framework, &gang) {
        warnings.extend(thorough(state, capacity, &wants, framework, &gang));
    }
    warnings
}

/// What it names of data that nobody knows: it may be a slip, or come yet.
fn unknown_data(state: &State, spec: &WorkloadSpec) -> Vec<String> {
    let unknown = spec.placement.data.iter().filter(|need| state.data.get(&need.name).is_none());
    let told = unknown.map(|need| match need.require {
        true => format!("no data location {} is known: it waits until one is: tidewater data apply", need.name),
        false => format!("no data location {} is known: it is placed without regard to it", need.name),
    });
    told.collect()
}

/// Whether some cluster that may run it surely holds it when empty, or is one of which too little is known now.
fn may_start_somewhere(
    state: &State,
    capacity: &Capacity,
    wants: &Wants<'_>,
    framework: Framework,
    gang: &[GroupNeed],
) -> bool {
    if wants.spec.placement.max_cost_per_hour.is_some() {
        return false;
    }
    state.clusters.iter().any(|(name, cluster)| {
        if unfit(&cluster.info, wants, framework).is_some() {
            return false;
        }
        match capacity.clusters.get(name) {
            Some(there) if cluster.lost_since.is_none() => surely_holds(there, gang),
            _ => true,
        }
    })
}

/// Whether the cluster, if it were empty, has nodes of their own for each group. It may hold a gang where this says no: groups may
/// share nodes.
fn surely_holds(cluster: &ClusterCapacity, gang: &[GroupNeed]) -> bool {
    let mut left: Vec<&NodeCapacity> = cluster.nodes.iter().collect();
    gang.iter().all(|need| {
        let accepts = |node: &NodeCapacity| match &node.sku {
            _ if need.each.gpu_milli == 0 => true,
            Some(sku) => need.accepts(sku),
            None => false,
        };
        // All members of a group with GPUs get one model: that of the first node which holds any of them.
        let Some(first) = left.iter().position(|node| accepts(node) && members(node, &need.each) > 0) else {
            return false;
        };
        let model = left[first].sku.clone();
        let (mut missing, mut at) = (u64::from(need.count), first);
        while missing > 0 && at < left.len() {
            let node = left[at];
            let is_alike = need.each.gpu_milli == 0 || node.sku == model;
            let fits = if is_alike { need.spread.most(members(node, &need.each)) } else { 0 };
            missing = missing.saturating_sub(fits);
            if fits > 0 {
                left.swap_remove(at);
            } else {
                at += 1;
            }
        }
        missing == 0
    })
}

fn members(node: &NodeCapacity, each: &Resources) -> u64 {
    Free::whole(node.total, node.sharing).members(each)
}

fn thorough(
    state: &State,
    capacity: &Capacity,
    wants: &Wants<'_>,
    framework: Framework,
    gang: &[GroupNeed],
) -> Vec<String> {
    if state.clusters.is_empty() {
        return vec!["no cluster has joined yet: it waits until one does".into()];
    }
    let mut obstacles = vec![];
    for (name, cluster) in &state.clusters {
        // One room after another: the first in which it may start settles it.
        let obstacle = unfit(&cluster.info, wants, framework).or_else(|| {
            let mut room = Room::alone(state, cluster, capacity.clusters.get(name));
            let shapes = room.shapes(gang, Order::BestFirst);
            bars(&room, wants, framework, gang).or_else(|| too_small(&mut room, gang, &shapes))
        });
        match obstacle {
            Some(obstacle) if is_permanent(&obstacle) => obstacles.push(format!("{name}: {obstacle}")),
            _ => return vec![],
        }
    }
    vec![format!("no cluster could hold it, even empty ({}): it waits until one can", obstacles.join("; "))]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use protocol::capacity::Source;
    use protocol::control::ClusterInfo;
    use protocol::ids::{ClusterName, CommandNumber, GroupName, Incarnation, LogIndex, NodeName, Region, UnixMs};
    use protocol::resources::{Cpu, Gpus, Memory};
    use protocol::sku::Sku;
    use protocol::workload::{BatchSpec, GroupSpec, OnClusterLoss, Spread};

    use super::*;
    use crate::commands::Command;

    const MODELS: [&str; 2] = ["H100", "L4"];

    fn node(name: usize, (cpu, gpus, model): (u64, u64, usize)) -> NodeCapacity {
        let total = Resources { cpu_milli: cpu * 1000, memory_mib: 1024, gpu_milli: gpus * 1000 };
        NodeCapacity::untouched(
            NodeName::new(format!("n-{name}")).unwrap(),
            (gpus > 0).then(|| Sku::parse(MODELS[model]).unwrap()),
            Source::Declared,
            total,
        )
    }

    fn group(name: usize, (count, cpu, gpus, models): (u32, u64, u64, usize)) -> GroupSpec {
        GroupSpec {
            name: GroupName::new(format!("g-{name}")).unwrap(),
            count: Some(count),
            min: None,
            max: None,
            cpu: Cpu(cpu * 1000),
            memory: Memory(1),
            gpus: Gpus(gpus * 1000),
            gpu: if gpus > 0 { MODELS[..models].iter().map(|m| Sku::parse(m).unwrap()).collect() } else { vec![] },
        }
    }

    proptest! {
            /// The quick look never says that a gang can start where the thorough one warns, and settles what it is there for.
            #[test]
            fn the_quick_look_agrees_with_the_thorough_one(
                nodes in proptest::collection::vec((0..5u64, 0..3u64, 0..2usize), 0..6),
                groups in proptest::collection::vec((1..4u32, 0..4u64, 0..3u64, 0..3usize), 1..3),
                (fences, fails_over, spread) in any::<(bool, bool, bool)>(),
            ) {
                let name = ClusterName::new("c").unwrap();
                let region = Region::new("r").unwrap();
                let info = ClusterInfo { name: name.clone(), region, frameworks: vec![Framework::Batch], fences, secrets: true, manifests: vec![],
    prices: vec![] };
                let join = Command::Join {
                    info, incarnation: Incarnation(1), last_command: CommandNumber(0), attempts: vec![],
                };
                let mut state = State::default();
                state.apply(LogIndex(1), &join, UnixMs(1)).outcome.unwrap();
                let nodes = nodes.into_iter().enumerate().map(|(i, n)| node(i, n)).collect();
                let there = ClusterCapacity { sequence: 1, watermark: CommandNumber(0), age_ms: 0, fresh: true, nodes };
                let capacity = Capacity { clusters: [(name, there)].into() };
                let groups: Vec<_> = groups.into_iter().enumerate().map(|(i, g)| group(i, g)).collect();
                let single = groups.len() == 1;
                let batch = BatchSpec { command: vec!["true".into()], image: None, groups };
                let mut spec = WorkloadSpec { batch: Some(batch), ..WorkloadSpec::default() };
                spec.on_cluster_loss = if fails_over { OnClusterLoss::Failover } else { OnClusterLoss::Wait };
                spec.placement.spread = if spread { Spread::Nodes } else { Spread::None };
                let (gang, wants) = (spec.gang(), Wants::without_data(&spec));
                let quick = may_start_somewhere(&state, &capacity, &wants, Framework::Batch, &gang);
                let warned = thorough(&state, &capacity, &wants, Framework::Batch, &gang);
                prop_assert!(!quick || warned.is_empty(), "{warned:?}");
                // A gang of one group on one model is settled by the quick look alone.
                let one_model = gang.iter().all(|g| g.each.gpu_milli == 0 || g.skus.len() == 1);
                prop_assert!(quick || !warned.is_empty() || !(single && one_model), "the quick look missed {gang:?}");
            }
        }
}

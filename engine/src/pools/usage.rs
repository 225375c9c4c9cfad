//! What the workloads of each pool hold and wait for. A view of the workloads, kept in step with them and never stored.

use std::collections::BTreeMap;

use protocol::control::GroupPlacement;
use protocol::ids::PoolName;
use protocol::pool::{Amounts, Resource};
use protocol::resources::Resources;
use protocol::workload::{GroupNeed, Preemptible};

use crate::lifecycle::Phase;
use crate::state::{Line, Waiter, Workload};

/// What the workloads of one pool hold and wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The queued ones, in order.
    pub(crate) queue: BTreeMap<Line, Waiter>,
    /// What queued gangs need, but for those that wait for other workloads.
    pub pending: Amounts,
    /// What live attempts hold.
    pub held: Amounts,
    /// What live attempts of workloads hold that may not be preempted.
    pub firm: Amounts,
    /// Workloads that have not ended.
    pub live: u64,
}

/// Usage by pool; only of pools that have workloads.
pub(crate) type UsageByPool = BTreeMap<PoolName, Usage>;

fn add(sum: &mut Amounts, each: &Resources, members: u64) {
    let all = each.times(members);
    sum.add(Resource::Cpu, all.cpu_milli);
    sum.add(Resource::Memory, all.memory_mib);
    sum.add(Resource::Gpu, all.gpu_milli);
}

/// What a gang needs. A group that accepts several models, or any, counts as `gpu` and as no model: it is not known which.
pub fn needs(gang: &[GroupNeed]) -> Amounts {
    let mut sum = Amounts::default();
    for group in gang {
        add(&mut sum, &group.each, u64::from(group.count));
        if let [sku] = &group.skus[..] {
            sum.add(Resource::Model(sku.clone()), group.each.times(u64::from(group.count)).gpu_milli);
        }
    }
    sum
}

/// What a placed gang holds.
pub fn holds(placement: &[GroupPlacement]) -> Amounts {
    let mut sum = Amounts::default();
    for group in placement {
        let members = group.nodes.iter().map(|n| u64::from(n.members)).sum();
        add(&mut sum, &group.each, members);
        if let Some(sku) = &group.sku {
            sum.add(Resource::Model(sku.clone()), group.each.times(members).gpu_milli);
        }
    }
    sum
}

/// Counts a workload in.
pub(crate) fn count(all: &mut UsageByPool, workload: &Workload) {
    if workload.phase.is_terminal() {
        return;
    }
    let usage = all.entry(workload.pool.clone()).or_default();
    usage.live += 1;
    if workload.phase == Phase::Queued {
        // One that waits for others asks for nothing yet.
        if !workload.is_dependent() {
            usage.pending.add_all(&needs(&workload.spec.gang()));
        }
    }
    if let Some(attempt) = workload.live_attempt() {
        let held = holds(&attempt.placement);
        usage.held.add_all(&held);
        if workload.spec.preemptible == Preemptible::No {
            usage.firm.add_all(&held);
        }
    }
}

/// Counts a workload out, as it was counted in.
pub(crate) fn discount(all: &mut UsageByPool, workload: &Workload) {
    if workload.phase.is_terminal() {
        return;
    }
    let Some(usage) = all.get_mut(&workload.pool) else { return };
    usage.live -= 1;
    if workload.phase == Phase::Queued && !workload.is_dependent() {
        usage.pending.take_all(&needs(&workload.spec.gang()));
    }
    if let Some(attempt) = workload.live_attempt() {
        let held = holds(&attempt.placement);
        usage.held.take_all(&held);
        if workload.spec.preemptible == Preemptible::No {
            usage.firm.take_all(&held);
        }
    }
    if usage.live == 0 {
        all.remove(&workload.pool);
    }
}

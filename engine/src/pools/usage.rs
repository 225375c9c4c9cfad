//! What the workloads of each pool hold and wait for. A view of the workloads, kept in step with them and never stored.

use std::collections::BTreeMap;

use protocol::control::GroupPlacement;
use protocol::ids::PoolName;
use protocol::placement::members;
use protocol::pool::{Amounts, Resource};
use protocol::resources::Resources;
use protocol::workload::{GroupNeed, Preemptible};

use crate::lifecycle::Phase;
use crate::state::{Attempt, Line, Waiter, Workload};

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

/// What placed groups hold.
pub fn holds<'a>(placement: impl IntoIterator<Item = &'a GroupPlacement>) -> Amounts {
    let mut sum = Amounts::default();
    placement.into_iter().for_each(|group| add_placed(&mut sum, group, members(group)));
    sum
}

/// Whether placed groups hold any of a resource.
pub(crate) fn holds_any(placement: &[GroupPlacement], resource: &Resource) -> bool {
    placement.iter().filter(|group| members(group) > 0).any(|group| match resource {
        Resource::Cpu => group.each.cpu_milli > 0,
        Resource::Memory => group.each.memory_mib > 0,
        Resource::Gpu => group.each.gpu_milli > 0,
        Resource::Model(sku) => group.each.gpu_milli > 0 && group.sku.as_ref() == Some(sku),
    })
}

fn add_placed(sum: &mut Amounts, group: &GroupPlacement, members: u32) {
    let members = u64::from(members);
    add(sum, &group.each, members);
    if let Some(sku) = &group.sku {
        sum.add(Resource::Model(sku.clone()), group.each.times(members).gpu_milli);
    }
}

/// What a live attempt holds that may not be preempted: members beyond the fewest always may.
fn firm(workload: &Workload, attempt: &Attempt) -> Amounts {
    let mut sum = Amounts::default();
    if workload.spec.preemptible == Preemptible::No {
        let least = |group: &GroupPlacement| members(group).min(workload.floor(&group.group));
        attempt.placement.iter().for_each(|group| add_placed(&mut sum, group, least(group)));
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
        usage.held.add_all(&holds(attempt.held()));
        usage.firm.add_all(&firm(workload, attempt));
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
        usage.held.take_all(&holds(attempt.held()));
        usage.firm.take_all(&firm(workload, attempt));
    }
    if usage.live == 0 {
        all.remove(&workload.pool);
    }
}

//! How much a workload has had of its pool, and how much later in line that makes it stand.
//!
//! Read where a pool serves the least served first (`protocol::pool::LineOrder`). Who has run long is likely to run long yet, and
//! most workloads are short: letting the short go first costs the long little and spares the short nearly all of their wait. That needs
//! no estimate (Gu et al., "Tiresias: A GPU Cluster Manager for Distributed Deep Learning", NSDI 2019, which also counts GPU time and
//! in coarse steps, so that two long ones do not take turns for ever). Unlike there, waiting is bounded by arrival: for each hour of
//! its step a workload stands [`PATIENCE`] hours later in line, so that only those pass it that were submitted in that time.

use protocol::control::GroupPlacement;
use protocol::ids::UnixMs;
use protocol::placement::members;
use protocol::pool::{LineOrder, PoolSpec};
use protocol::resources::Resources;

use super::{Attempt, Workload};
use crate::pools::Pools;

/// The first step, in GPU-ms: less than an hour of one GPU counts as nothing.
const FIRST_STEP: u64 = 3_600_000;
/// Each further step is so many times the one before.
const STEPS: u64 = 4;
/// How much later a workload stands in line, in ms, for each GPU-ms of its step.
const PATIENCE: u64 = 10;

/// How long an attempt has its room before it gives way, in ms: large gangs reach a step in minutes, and what is ended so soon has little to
/// show for it.
const QUANTUM_MS: u64 = 1_800_000;

/// Thousandths of a GPU that members hold; of a core where they hold none.
pub(crate) fn size(placement: &[GroupPlacement]) -> u64 {
    of_members(placement.iter().map(|group| (&group.each, members(group))))
}

fn of_members<'a>(groups: impl Iterator<Item = (&'a Resources, u32)>) -> u64 {
    let (gpus, cores) = groups.fold((0u64, 0u64), |(gpus, cores), (each, members)| {
        let all = each.times(u64::from(members));
        (gpus.saturating_add(all.gpu_milli), cores.saturating_add(all.cpu_milli))
    });
    if gpus > 0 { gpus } else { cores }
}

fn gpu_ms(size: u64, ms: u64) -> u64 {
    u64::try_from(u128::from(size) * u128::from(ms) / 1000).unwrap_or(u64::MAX)
}

/// What an attempt has had since its size changed last, or it began to run, in GPU-ms; core-ms where it has no GPUs.
pub(crate) fn had(attempt: &Attempt, now: UnixMs) -> u64 {
    let since = attempt.sized_at().map_or(0, |since| now.0.saturating_sub(since.0));
    gpu_ms(size(&attempt.placement), since)
}

/// The step of a length, in GPU-ms: the largest of 0 and 1, 4, 16, … GPU-hours that it reaches.
pub(crate) fn step(length: u64) -> u64 {
    let steps = std::iter::successors(Some(FIRST_STEP), |step| step.checked_mul(STEPS));
    steps.take_while(|step| *step <= length).last().unwrap_or(0)
}

impl Workload {
    /// What it has had by now, in GPU-ms; core-ms for one without GPUs.
    pub(crate) fn served(&self, now: UnixMs) -> u64 {
        self.served.saturating_add(self.live_attempt().map_or(0, |attempt| had(attempt, now)))
    }

    /// How long it is as far as anyone can tell, in GPU-ms: what is left of what it declares; else, and once it is late, what it has had.
    pub(crate) fn length(&self, now: UnixMs) -> u64 {
        let served = self.served(now);
        let declared = self
            .spec
            .expected_duration
            .map(|d| gpu_ms(of_members(self.spec.gang().iter().map(|g| (&g.each, g.count))), d.0));
        declared.filter(|all| *all > served).map_or(served, |all| all - served)
    }

    /// How much later than its submission it stands in the line of its pool, in ms.
    pub(crate) fn lateness_in(&self, pools: &Pools, now: UnixMs) -> u64 {
        pools.spec(&self.pool).map_or(0, |pool| self.lateness(pool, now))
    }

    fn lateness(&self, pool: &PoolSpec, now: UnixMs) -> u64 {
        match pool.order {
            LineOrder::Submitted => 0,
            LineOrder::LeastServed => step(self.length(now)).saturating_mul(PATIENCE),
        }
    }

    /// Whether it gives way to another of its pool that waits: it has run for a while, has had more, by a step, and stands behind it in
    /// line for that.
    pub(crate) fn gives_way_to(&self, by: &Workload, pool: &PoolSpec, now: UnixMs) -> bool {
        let stands = |w: &Workload| (w.submitted_at.0.saturating_add(w.lateness(pool, now)), w.order);
        let since = || self.live_attempt().and_then(|a| a.running_at);
        pool.order == LineOrder::LeastServed
            && since().is_none_or(|since| now.0.saturating_sub(since.0) >= QUANTUM_MS)
            && self.spec.priority <= by.spec.priority
            && step(self.length(now)) > step(by.length(now))
            && stands(self) > stands(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_fourfold_from_an_hour() {
        let hour = FIRST_STEP;
        assert_eq!([0, hour - 1, hour, 4 * hour - 1, 4 * hour].map(step), [0, 0, hour, hour, 4 * hour]);
        assert_eq!(step(u64::MAX) % hour, 0);
    }

    #[test]
    fn time_counts_by_gpus_and_by_cores_where_there_are_none() {
        let each = |gpu_milli| Resources { cpu_milli: 2000, memory_mib: 1, gpu_milli };
        let (gpus, cores) = (each(500), each(0));
        assert_eq!(gpu_ms(of_members([(&gpus, 4), (&cores, 1), (&gpus, 1)].into_iter()), 1000), 2500);
        assert_eq!(gpu_ms(of_members([(&cores, 2)].into_iter()), 1000), 4000);
        assert_eq!(gpu_ms(u64::MAX, u64::MAX), u64::MAX);
    }
}

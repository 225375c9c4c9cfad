//! How long jobs wait (in virtual time): each comes at its time into its pool's line, runs for as long as the trace says, and ends. A gang
//! of up to a node's GPUs needs one node, a larger one whole nodes, all in one cluster.
//!
//! The planner is the product's own, driven by real commands (`planner`): pools with reservations, reclaim, preemption. A job that is
//! preempted goes on from its last checkpoint, one each half hour of run time. The baselines (`queue`) know no pools: their line is first
//! come, first served, and those behind may start where the first does not fit. `accounts` counts, for all of them alike, and enters
//! every placement into books of its own.

mod accounts;
pub mod division;
mod planner;
mod queue;
mod summary;

use std::collections::BTreeMap;

use protocol::pool::LineOrder;

use crate::fleet::{NodeRow, Pod};
use crate::policy::Name;
use crate::trace::Job;

pub use accounts::{PoolTime, Sample};
pub use planner::GRACE_MS;
pub use summary::{Summary, by_gpus, by_pool};

/// Run time between two checkpoints, in ms.
pub const CHECKPOINT_MS: u64 = 1_800_000;

/// What is replayed.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The fleet.
    pub nodes: Vec<NodeRow>,
    /// The jobs by arrival.
    pub jobs: Vec<Job>,
    /// The pools, by name.
    pub pools: BTreeMap<String, Pool>,
}

/// One pool's rights, in GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// What it is promised where it asks for it.
    pub reservation: u64,
    /// Its part of what is left.
    pub share: u32,
}

/// One job's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Its place in the trace.
    pub job: usize,
    /// How long it was not running, from its arrival to its end, in ms.
    pub wait_ms: u64,
    /// When it ended, in ms.
    pub ended_ms: u64,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every job.
    pub done: Vec<Done>,
    /// Each pool's GPU time.
    pub pools: BTreeMap<String, PoolTime>,
    /// GPUs in use and jobs that wait, hour by hour.
    pub curve: Vec<Sample>,
    /// GPU time until the last arrival that was used, in percent.
    pub used_percent: f64,
    /// How many attempts were preempted.
    pub preemptions: u64,
    /// GPU time that was done and lost with them, in GPU-hours.
    pub lost_gpu_hours: f64,
}

/// Why there is no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// A job that no cluster could hold, or too long a fleet or trace.
    #[error("job {job} needs {gpus} GPUs: no cluster of the list could hold it, even empty")]
    TooLarge {
        /// The job.
        job: String,
        /// Its GPUs.
        gpus: u32,
    },
    /// Nodes differ in their GPUs.
    #[error("the nodes have from {least} to {most} GPUs: jobs that need several whole nodes want nodes that are alike")]
    Unlike {
        /// The fewest.
        least: u16,
        /// The most.
        most: u16,
    },
    /// Nothing to run on.
    #[error("the list has no nodes with GPUs")]
    NoGpus,
    /// The policy broke the method's rules: a mistake in it.
    #[error("policy {policy}: {what}")]
    Broke {
        /// The policy.
        policy: Name,
        /// What it did.
        what: String,
    },
}

impl Trace {
    /// Pools with reservations in proportion to the GPU time of their jobs, in whole GPUs that sum up to the fleet's.
    ///
    /// # Errors
    /// Where the fleet could not hold a job, or its nodes are not alike.
    pub fn new(nodes: Vec<NodeRow>, jobs: Vec<Job>) -> Result<Self, Failed> {
        let nodes: Vec<NodeRow> = nodes.into_iter().filter(|n| n.devices > 0).collect();
        let devices = || nodes.iter().map(|n| n.devices);
        let (Some(least), Some(most)) = (devices().min(), devices().max()) else { return Err(Failed::NoGpus) };
        if least != most {
            return Err(Failed::Unlike { least, most });
        }
        let mut clusters: BTreeMap<Option<&str>, u64> = BTreeMap::new();
        nodes.iter().for_each(|n| *clusters.entry(n.cluster.as_deref()).or_default() += 1);
        let largest = clusters.values().copied().max().unwrap_or_default();
        let members = |job: &Job| u64::from(job.gpus).div_ceil(u64::from(most));
        if let Some(job) = jobs.iter().find(|job| members(job) > largest) {
            return Err(Failed::TooLarge { job: job.name.clone(), gpus: job.gpus });
        }
        let pools = pools(&jobs, devices().map(u64::from).sum());
        Ok(Self { nodes, jobs, pools })
    }

    /// With reservations that sum up to this part of the fleet only, in percent; the rest is divided by shares as they were.
    #[must_use]
    pub fn reserving(mut self, percent: u64) -> Self {
        let reserved = pools(&self.jobs, self.gpus() * percent / 100);
        for (name, pool) in &mut self.pools {
            pool.reservation = reserved.get(name).map_or(0, |of| of.reservation);
        }
        self
    }

    /// A job as pods: how many, and what each asks for.
    fn pods(&self, job: usize) -> (u32, Pod) {
        let (node, gpus) = (self.nodes[0].devices, self.jobs[job].gpus);
        let members = gpus.div_ceil(u32::from(node));
        let devices = if members == 1 { gpus as u16 } else { node };
        (members, Pod { cpu_milli: 1, memory_mib: 1, devices, milli: 1000, models: Default::default() })
    }

    /// The GPUs of the fleet.
    fn gpus(&self) -> u64 {
        self.nodes.iter().map(|n| u64::from(n.devices)).sum()
    }

    /// Runs one policy. Only the planner has `terms`. `tick` is called with how many jobs have ended.
    ///
    /// # Errors
    /// Where the policy broke the rules.
    pub fn run(&self, policy: Name, terms: Terms, seed: u64, tick: impl FnMut(u64)) -> Result<Outcome, Failed> {
        match policy {
            Name::Tidewater => planner::run(self, terms, tick),
            baseline => queue::run(self, baseline, seed, tick),
        }
    }
}

/// On what terms the planner places the jobs; baselines know of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// It is told how long each runs.
    pub declared: bool,
    /// Who goes first in each pool's line.
    pub order: LineOrder,
}

/// Whole GPUs by largest remainder.
fn pools(jobs: &[Job], gpus: u64) -> BTreeMap<String, Pool> {
    let mut time: BTreeMap<&str, u128> = BTreeMap::new();
    for job in jobs {
        *time.entry(&job.pool).or_default() += u128::from(job.gpus) * u128::from(job.duration_ms);
    }
    let all: u128 = time.values().sum::<u128>().max(1);
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    let mut rest: Vec<(u128, &str)> = vec![];
    for (name, time) in &time {
        let reservation = (time * u128::from(gpus) / all) as u64;
        rest.push((time * u128::from(gpus) % all, name));
        pools.insert((*name).to_owned(), Pool { reservation, share: 1 });
    }
    rest.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
    let given: u64 = pools.values().map(|p| p.reservation).sum();
    for (_, name) in rest.iter().take((gpus - given) as usize) {
        if let Some(pool) = pools.get_mut(*name) {
            pool.reservation += 1;
        }
    }
    for pool in pools.values_mut() {
        pool.share = u32::try_from(pool.reservation).unwrap_or(u32::MAX).max(1);
    }
    pools
}

//! Counts what a run does, policy by policy alike: who waits, who runs on which nodes, what each pool had of what it was entitled to.

use std::collections::BTreeMap;

use super::division::{Side, divide};
use super::{Done, Failed, Outcome, Trace};
use crate::fleet::{Choice, Fleet, Pod, Split};
use crate::policy::Name;

const HOUR_MS: u64 = 3_600_000;

/// One pool's GPU time, in GPU-hours, while it had demand.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PoolTime {
    /// What it had.
    pub held: f64,
    /// What it was entitled to.
    pub entitled: f64,
    /// What it had of what it was entitled to, moment by moment.
    pub kept: f64,
}

/// How things stood at a full hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Hours from the start.
    pub hour: f64,
    /// GPUs in use.
    pub gpus: u64,
    /// Jobs that wait.
    pub waiting: u64,
}

/// A job's life so far.
#[derive(Debug, Clone, Default)]
struct Life {
    /// When it last started; none while it waits.
    since: Option<u64>,
    /// How long it ran in all, in ms.
    ran: u64,
    nodes: Vec<usize>,
    ended: bool,
}

/// The books of a run.
pub(super) struct Accounts<'a> {
    pub(super) trace: &'a Trace,
    pub(super) fleet: Fleet,
    policy: Name,
    now: u64,
    lives: Vec<Life>,
    /// By pool: GPUs held, GPUs waited for.
    pools: BTreeMap<&'a str, (u64, u64)>,
    time: BTreeMap<String, PoolTime>,
    /// What pools are entitled to now; none: something changed since.
    parts: Option<Vec<f64>>,
    in_use: u64,
    waiting: u64,
    used_gpu_ms: u128,
    last_arrival: u64,
    curve: Vec<Sample>,
    done: Vec<Done>,
    pub(super) preemptions: u64,
    pub(super) lost_gpu_ms: u128,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(trace: &'a Trace, policy: Name) -> Self {
        Self {
            trace,
            fleet: Fleet::new(&trace.nodes, 1, Split::Random, 0),
            policy,
            now: 0,
            lives: vec![Life::default(); trace.jobs.len()],
            pools: trace.pools.keys().map(|name| (name.as_str(), (0, 0))).collect(),
            time: BTreeMap::new(),
            parts: None,
            in_use: 0,
            waiting: 0,
            used_gpu_ms: 0,
            last_arrival: trace.jobs.last().map_or(0, |j| j.arrival_ms),
            curve: vec![],
            done: vec![],
            preemptions: 0,
            lost_gpu_ms: 0,
        }
    }

    pub(super) fn ended(&self) -> u64 {
        self.done.len() as u64
    }

    pub(super) fn broke(&self, what: impl Into<String>) -> Failed {
        Failed::Broke { policy: self.policy, what: what.into() }
    }

    /// Time goes on.
    pub(super) fn go_to(&mut self, at: u64) {
        let span = at.saturating_sub(self.now);
        if span == 0 {
            return;
        }
        let hours = span as f64 / HOUR_MS as f64;
        let parts = self.parts.get_or_insert_with(|| {
            let sides: Vec<Side> = self
                .pools
                .iter()
                .map(|(name, (held, waits))| {
                    let pool = self.trace.pools[*name];
                    let (reservation, share) = (pool.reservation as f64, f64::from(pool.share));
                    Side { reservation, share, demand: (held + waits) as f64 }
                })
                .collect();
            divide(self.trace.gpus() as f64, &sides)
        });
        for ((name, (held, waits)), part) in self.pools.iter().zip(parts.iter()) {
            if held + waits > 0 {
                let time = self.time.entry((*name).to_owned()).or_default();
                time.held += *held as f64 * hours;
                time.entitled += part * hours;
                time.kept += (*held as f64).min(*part) * hours;
            }
        }
        let until = at.min(self.last_arrival);
        self.used_gpu_ms += u128::from(self.in_use) * u128::from(until.saturating_sub(self.now.min(until)));
        for hour in self.now / HOUR_MS + 1..=at / HOUR_MS {
            self.curve.push(Sample { hour: hour as f64, gpus: self.in_use, waiting: self.waiting });
        }
        self.now = at;
    }

    fn pool(&mut self, job: usize) -> &mut (u64, u64) {
        self.parts = None;
        let name = self.trace.jobs[job].pool.as_str();
        self.pools.entry(name).or_default()
    }

    pub(super) fn arrive(&mut self, job: usize) {
        self.pool(job).1 += u64::from(self.trace.jobs[job].gpus);
        self.waiting += 1;
    }

    /// A job starts on these nodes, a member each. The books refuse what does not fit.
    pub(super) fn start(&mut self, job: usize, pod: &Pod, nodes: Vec<usize>) -> Result<(), Failed> {
        let clusters: std::collections::BTreeSet<usize> = nodes.iter().map(|n| self.fleet.cluster[*n]).collect();
        let name = &self.trace.jobs[job].name;
        if clusters.len() != 1 || self.lives[job].since.is_some() || self.lives[job].ended {
            return Err(self.broke(format!("job {name} starts twice, or in several clusters")));
        }
        for node in &nodes {
            if !self.fleet.place(pod, Choice::on(*node)) {
                return Err(self.broke(format!("job {name} is put where it does not fit")));
            }
        }
        let gpus = u64::from(self.trace.jobs[job].gpus);
        let pool = self.pool(job);
        *pool = (pool.0 + gpus, pool.1 - gpus);
        self.in_use += gpus;
        self.waiting -= 1;
        let now = self.now;
        let life = &mut self.lives[job];
        (life.since, life.nodes) = (Some(now), nodes);
        Ok(())
    }

    fn stop(&mut self, job: usize, pod: &Pod) -> Result<u64, Failed> {
        let life = &mut self.lives[job];
        let Some(since) = life.since.take() else { return Err(self.broke("a job stops that does not run")) };
        let ran = self.now - since;
        life.ran += ran;
        for node in std::mem::take(&mut life.nodes) {
            if !self.fleet.release(pod, node) {
                return Err(self.broke("a job gives back what it did not have"));
            }
        }
        let gpus = u64::from(self.trace.jobs[job].gpus);
        self.pool(job).0 -= gpus;
        self.in_use -= gpus;
        Ok(ran)
    }

    /// A job has run its time.
    pub(super) fn end(&mut self, job: usize, pod: &Pod) -> Result<(), Failed> {
        self.stop(job, pod)?;
        let life = &mut self.lives[job];
        life.ended = true;
        let wait_ms = self.now - self.trace.jobs[job].arrival_ms - life.ran;
        self.done.push(Done { job, wait_ms, ended_ms: self.now });
        Ok(())
    }

    /// A job gives its room to another and waits again, having lost this much run time.
    pub(super) fn preempt(&mut self, job: usize, pod: &Pod, lost_ms: u64) -> Result<(), Failed> {
        self.stop(job, pod)?;
        self.preemptions += 1;
        self.lost_gpu_ms += u128::from(lost_ms) * u128::from(self.trace.jobs[job].gpus);
        self.pool(job).1 += u64::from(self.trace.jobs[job].gpus);
        self.waiting += 1;
        Ok(())
    }

    pub(super) fn close(self) -> Result<Outcome, Failed> {
        if self.done.len() != self.trace.jobs.len() {
            return Err(self.broke(format!("{} of {} jobs ended", self.done.len(), self.trace.jobs.len())));
        }
        let all = u128::from(self.trace.gpus()) * u128::from(self.last_arrival.max(1));
        Ok(Outcome {
            done: self.done,
            pools: self.time,
            curve: self.curve,
            used_percent: 100.0 * self.used_gpu_ms as f64 / all as f64,
            preemptions: self.preemptions,
            lost_gpu_hours: self.lost_gpu_ms as f64 / HOUR_MS as f64,
        })
    }
}

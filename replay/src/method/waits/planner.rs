//! The product's planner in virtual time: the engine's state, driven by the commands that a coordinator would commit and the reports that
//! agents would send, and `plan_within` whenever something happened. Nothing is decided here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use engine::State;
use engine::capacity::Capacity;
use engine::commands::{Command, Expect, Outcome as Applied};
use engine::plan::{Bounds, Kept, LASTING_MS, Memory, plan_again};
use engine::state::Attempt;
use protocol::control::{AttemptReport, AttemptState, GroupPlacement};
use protocol::ids::{
    AttemptNumber, ClusterName, Epoch, LogIndex, Namespace, PoolName, Uid, UnixMs, WorkloadKey, WorkloadName,
};
use protocol::pool::{PoolSpec, Quota, Quotas, Resource};
use protocol::resources::{Cpu, Gpus, Memory as Mib, Resources, Span};
use protocol::workload::{BatchSpec, GroupSpec, WorkloadSpec};

use super::accounts::Accounts;
use super::{CHECKPOINT_MS, Failed, Outcome, Terms, Trace};
use crate::fleet::Pod;
use crate::ours::{World, node_of};
use crate::policy::Name;

/// How long a preempted attempt takes to be gone, in ms.
pub const GRACE_MS: u64 = 10_000;
/// The most preemptions, for each job of the trace: more are a planner that goes round in circles, which is said and not waited out.
const MOST_PREEMPTIONS: u64 = 20;
/// What a plan does; nobody asks here why one waits.
const BOUNDS: Bounds = Bounds { bindings: 256, explained: 0 };

/// Something that happens later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    /// An attempt of a job has run what was left of its time.
    Ends(usize, AttemptNumber),
    /// A preempted attempt is gone.
    Gone(usize, AttemptNumber),
    /// Nothing, but time has passed that the planner waits for.
    Look,
}

/// A job's progress.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Run time that a checkpoint holds, in ms.
    saved: u64,
    /// When its attempt started, in ms.
    since: u64,
}

struct Run<'a> {
    accounts: Accounts<'a>,
    state: State,
    capacity: Capacity,
    memory: Memory,
    kept: Kept,
    now: u64,
    later: BinaryHeap<Reverse<(u64, Later)>>,
    progress: Vec<Progress>,
    terms: Terms,
}

pub(super) fn run(trace: &Trace, terms: Terms, mut tick: impl FnMut(u64)) -> Result<Outcome, Failed> {
    let accounts = Accounts::new(trace, Name::Tidewater);
    let (state, capacity) = World::new(&accounts.fleet).into_parts();
    let progress = vec![Progress::default(); trace.jobs.len()];
    let (memory, later) = (Memory::new(LASTING_MS), BinaryHeap::new());
    let kept = Kept::default();
    let mut run = Run { accounts, state, capacity, memory, kept, now: 0, later, progress, terms };
    run.open()?;
    let mut coming = (0..trace.jobs.len()).peekable();
    loop {
        let arrival = coming.peek().map(|job| trace.jobs[*job].arrival_ms);
        let next = run.later.peek().map(|Reverse((at, _))| *at);
        let Some(now) = [arrival, next].into_iter().flatten().min() else { break };
        run.now = now;
        run.accounts.go_to(now);
        let mut news = false;
        while let Some(Reverse((_, later))) = run.later.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            run.later.pop();
            news |= later != Later::Look;
            run.happens(later)?;
        }
        while let Some(job) = coming.next_if(|job| trace.jobs[*job].arrival_ms <= now) {
            news = true;
            run.accounts.arrive(job);
            run.submit(job)?;
        }
        run.plan()?;
        // What waits for time to pass - room that must have been lent for a while - is looked at once more if nothing else happens.
        if news && run.state.waiting().len() > 0 {
            let again = now + LASTING_MS + 1;
            run.later.push(Reverse((again, Later::Look)));
        }
        tick(run.accounts.ended());
    }
    run.accounts.close()
}

impl Run<'_> {
    fn apply(&mut self, command: Command) -> Result<Applied, Failed> {
        let index = LogIndex(self.state.applied.0 + 1);
        let outcome = self.state.apply(index, &command, UnixMs(self.now)).outcome;
        outcome.map_err(|refusal| self.accounts.broke(format!("the engine refuses a command: {refusal}")))
    }

    fn open(&mut self) -> Result<(), Failed> {
        self.apply(Command::OpenEpoch { epoch: Epoch(1) })?;
        for (number, pool) in self.accounts.trace.pools.values().enumerate() {
            let gpus = Quota { reservation: pool.reservation * 1000, share: pool.share, ..Quota::default() };
            let resources = Quotas(BTreeMap::from([(Resource::Gpu, gpus)]));
            let spec = PoolSpec { resources, order: self.terms.order, ..PoolSpec::default() };
            let name = pool_name(number);
            self.apply(Command::SetPool { name, spec: Box::new(spec), expect: Expect::Absent })?;
        }
        Ok(())
    }

    fn submit(&mut self, job: usize) -> Result<(), Failed> {
        let trace = self.accounts.trace;
        let (members, pod) = trace.pods(job);
        let pool = trace.pools.keys().position(|name| *name == trace.jobs[job].pool).unwrap_or_default();
        let group = GroupSpec {
            name: "pod".parse().map_err(|e| self.accounts.broke(format!("{e}")))?,
            count: Some(members),
            min: None,
            max: None,
            cpu: Cpu(pod.cpu_milli),
            memory: Mib(pod.memory_mib),
            gpus: Gpus(pod.gpu_milli()),
            gpu: vec![],
        };
        let batch = BatchSpec { command: vec!["true".into()], image: None, groups: vec![group] };
        let spec = WorkloadSpec {
            batch: Some(batch),
            pool: Some(pool_name(pool)),
            expected_duration: self.terms.declared.then(|| Span(trace.jobs[job].duration_ms.max(1))),
            ..WorkloadSpec::default()
        };
        self.apply(Command::Submit { key: key(pool, job), uid: uid(job), spec: Box::new(spec) })?;
        Ok(())
    }

    fn pods(&self, job: usize) -> (u32, Pod) {
        self.accounts.trace.pods(job)
    }

    /// The agent's word on an attempt.
    fn report(&mut self, job: usize, number: AttemptNumber, state: AttemptState) -> Result<(), Failed> {
        let Some(attempt) = self.live(job, number) else { return Ok(()) };
        let (cluster, revision) = (attempt.cluster.clone(), attempt.revision + 1);
        let id = protocol::ids::AttemptId { workload: uid(job), number };
        let placement = attempt.placement.clone();
        if state.is_final() {
            self.give_back(&cluster, &placement);
        }
        let report = AttemptReport { attempt: id, revision, state, resized: None, at: UnixMs(self.now) };
        self.apply(Command::Report { cluster, report })?;
        Ok(())
    }

    /// This attempt of a job, while it is the live one.
    fn live(&self, job: usize, number: AttemptNumber) -> Option<&Attempt> {
        let workload = self.state.by_uid.get(&uid(job)).and_then(|key| self.state.workloads.get(key))?;
        workload.live_attempt().filter(|a| a.number == number)
    }

    fn happens(&mut self, later: Later) -> Result<(), Failed> {
        match later {
            Later::Look => {}
            // One that is being ended does not end by itself any more: its time was taken down.
            Later::Ends(job, number) => {
                if self.live(job, number).is_some_and(|a| a.stop.is_none()) {
                    self.report(job, number, AttemptState::Succeeded)?;
                    self.accounts.end(job, &self.pods(job).1)?;
                    let Some(key) = self.state.by_uid.get(&uid(job)).cloned() else { return Ok(()) };
                    self.apply(Command::Delete { key })?;
                }
            }
            Later::Gone(job, number) => {
                if self.live(job, number).is_some() {
                    self.report(job, number, AttemptState::Stopped)?;
                    let Progress { saved, since } = self.progress[job];
                    // It runs until it is told to end; what it does in its grace is not counted.
                    let ran = saved + (self.now - since).saturating_sub(GRACE_MS);
                    let kept = ran / CHECKPOINT_MS * CHECKPOINT_MS;
                    let kept = kept.max(saved);
                    self.progress[job].saved = kept;
                    self.accounts.preempt(job, &self.pods(job).1, ran - kept)?;
                    if self.accounts.preemptions > MOST_PREEMPTIONS * self.accounts.trace.jobs.len() as u64 {
                        return Err(self.accounts.broke(format!("it preempts without end, by {} s", self.now / 1000)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Plans until nothing more is placed or ended.
    fn plan(&mut self) -> Result<(), Failed> {
        loop {
            let before = (&self.memory, &mut self.kept);
            let plan = plan_again(&self.state, &self.capacity, before, UnixMs(self.now), BOUNDS);
            self.memory = plan.memory;
            let mut changed = !plan.bindings.is_empty();
            for binding in plan.bindings {
                let (cluster, placement) = (binding.cluster.clone(), binding.placement.clone());
                let (job, number) = (job_of(binding.uid), binding.attempt);
                let (members, pod) = self.pods(job);
                let shares = placement.iter().flat_map(|g| &g.nodes);
                let on = |share: &protocol::control::NodeShare| {
                    std::iter::repeat_n(node_of(&share.node), share.members as usize)
                };
                let nodes: Option<Vec<usize>> = shares.flat_map(on).collect();
                let nodes = nodes.filter(|n| n.len() == members as usize);
                let nodes = nodes.ok_or_else(|| self.accounts.broke("a gang is not whole"))?;
                self.apply(Command::Bind(Box::new(binding)))?;
                self.accounts.start(job, &pod, nodes)?;
                self.take(&cluster, &placement);
                self.report(job, number, AttemptState::Running)?;
                self.progress[job].since = self.now;
                let left = self.accounts.trace.jobs[job].duration_ms - self.progress[job].saved;
                self.later.push(Reverse((self.now + left, Later::Ends(job, number))));
            }
            for raising in plan.raises {
                self.apply(Command::RaisePool(Box::new(raising)))?;
                changed = true;
            }
            for preemption in plan.preemptions {
                let victims: Vec<(Uid, AttemptNumber)> =
                    preemption.victims.iter().map(|v| (v.uid, v.attempt)).collect();
                // The plan's own bindings may have taken its ground away: then it is refused, and the next plan looks again.
                if self.apply(Command::Preempt(Box::new(preemption))).is_err() {
                    continue;
                }
                changed = true;
                for (uid, number) in victims {
                    self.later.push(Reverse((self.now + GRACE_MS, Later::Gone(job_of(uid), number))));
                }
            }
            if !changed {
                return Ok(());
            }
        }
    }

    /// A cluster's frame as its agent would send it now.
    fn change(&mut self, cluster: &ClusterName, placement: &[GroupPlacement], change: fn(&mut Resources, Resources)) {
        let last = self.state.clusters.get(cluster).map(|c| c.last_command);
        let Some(frame) = self.capacity.clusters.get_mut(cluster) else { return };
        frame.sequence += 1;
        frame.watermark = last.unwrap_or(frame.watermark);
        for group in placement {
            for share in &group.nodes {
                if let Some(node) = frame.nodes.iter_mut().find(|n| n.name == share.node) {
                    change(&mut node.free, group.each.times(u64::from(share.members)));
                }
            }
        }
    }

    fn take(&mut self, cluster: &ClusterName, placement: &[GroupPlacement]) {
        self.change(cluster, placement, |free, more| *free = free.saturating_sub(&more));
    }

    fn give_back(&mut self, cluster: &ClusterName, placement: &[GroupPlacement]) {
        self.change(cluster, placement, |free, more| *free += more);
    }
}

fn pool_name(number: usize) -> PoolName {
    PoolName::new(format!("pool-{number}")).expect("letters, a dash and digits are a name")
}

/// A job's owner is its pool: what one pool runs again and again is of one kind.
fn key(pool: usize, job: usize) -> WorkloadKey {
    let namespace = Namespace::new(format!("pool-{pool}")).expect("letters, a dash and digits are a name");
    let name = WorkloadName::new(format!("j{job}")).expect("a letter and digits are a name");
    WorkloadKey { namespace, name }
}

fn uid(job: usize) -> Uid {
    Uid(job as u128 + 1)
}

fn job_of(uid: Uid) -> usize {
    uid.0 as usize - 1
}

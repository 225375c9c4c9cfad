//! Clients: they submit, cancel, delete and read, on any replica, and try again elsewhere (with the same uid) where an answer
//! fails to come.

use std::collections::{BTreeMap, BTreeSet};

use coordinator::handle::ProposeError;
use engine::commands::{Binding, Command, Cordoning, Expect, Outcome, Refusal};
use protocol::ids::{AttemptId, ClusterName, GroupName, Namespace, PoolName, Uid, WorkloadKey, WorkloadName};
use protocol::pool::{Lending, LineOrder, PoolSpec, Quota, Quotas, Resource, WithinPool};
use protocol::resources::{Cpu, Gpus, Memory, Span};
use protocol::workload::{
    BatchSpec, GroupSpec, HeadSpec, MIN_FAILOVER_AFTER, OnClusterLoss, RaySpec, RetrySpec, WorkloadSpec,
};

use super::clock::{MS, SECOND};
use super::facts::{Attempt, Fact};
use super::faults::Schedule;
use super::operator::Word;
use super::process::REPLICAS;
use super::queue::Event;
use super::random::Random;
use super::world::World;

/// What a client hears.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a command.
    Proposed(Result<Outcome, ProposeError>),
    /// A read failed. (What one sees is told to the judge where it is seen.)
    ReadFailed,
    /// A read was served.
    ReadServed,
    /// Nobody is there.
    Unreachable,
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Submit(usize),
    End {
        job: usize,
        delete: bool,
    },
    Read,
    /// Not a client's: the person says that an attempt is gone.
    Forget(Word),
    /// Not a client's: the person cordons a cluster, drains it or opens it.
    Cordon {
        cluster: ClusterName,
        to: Cordoning,
    },
    /// Not a client's: the person removes a cluster, on which nothing lives.
    Remove(ClusterName),
    /// A pool is made, or changed.
    Set(usize),
    /// Not a client's: what a leader that was deposed had planned.
    Late(Box<Binding>),
}

/// How a job's attempts go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    /// How long it runs; none: until it is stopped.
    pub runs_us: Option<u64>,
    /// Whether it fails then.
    pub fails: bool,
}

pub(crate) struct Job {
    pub uid: Uid,
    pub key: WorkloadKey,
    pub spec: WorkloadSpec,
    runs_us: Option<u64>,
    /// Its first attempts, this many, fail.
    failures: u32,
    pub acknowledged: bool,
    pub deleted: bool,
}

/// A pool as it is made, or changed.
pub(crate) struct PoolSetting {
    name: PoolName,
    spec: PoolSpec,
}

pub(crate) struct Operation {
    wish: Wish,
    pub since_us: u64,
    attempt: u32,
}

impl Operation {
    /// Whether it says this.
    pub fn is_word_of(&self, word: &Word) -> bool {
        matches!(&self.wish, Wish::Forget(said) if said == word)
    }

    /// Whether it says of a cluster whether it takes anything new, or is there at all.
    pub fn is_of_a_cordon(&self) -> bool {
        matches!(self.wish, Wish::Cordon { .. } | Wish::Remove(_))
    }
}

/// GPUs of the smallest cluster that a world may have.
const SMALLEST_CLUSTER_GPUS: u64 = 8;

/// All clients.
pub(crate) struct Clients {
    pub jobs: Vec<Job>,
    settings: Vec<PoolSetting>,
    /// Pools that are known to be there.
    pools: BTreeSet<PoolName>,
    /// What they will do, by its place in the plan.
    plan: Vec<Wish>,
    pub operations: BTreeMap<u64, Operation>,
    next: u64,
    /// Wishes of the plan that have not become operations.
    pub unborn: usize,
}

/// The pools of a world; most jobs go to one of them.
const POOLS: [&str; 2] = ["red", "blue"];
/// What every pool reserves at least: room for the largest job that may not be preempted.
const RESERVED_GPUS: u64 = 2;

/// A pool in which every job can run sooner or later.
fn pool_setting(place: usize, random: &mut Random) -> PoolSetting {
    let quota = Quota {
        reservation: random.between(RESERVED_GPUS, 6) * 1000,
        limit: random.chance(600).then(|| random.between(SMALLEST_CLUSTER_GPUS, SMALLEST_CLUSTER_GPUS + 4) * 1000),
        share: random.between(1, 3) as u32,
        lending: if random.chance(200) { Lending::Static } else { Lending::Elastic },
    };
    let order = if random.chance(500) { LineOrder::LeastServed } else { LineOrder::Submitted };
    let preemption_within = if random.chance(500) { WithinPool::ByPriority } else { WithinPool::Never };
    let resources = Quotas([(Resource::Gpu, quota)].into());
    let name = PoolName::new(POOLS[place]).expect("it is a name");
    PoolSetting { name, spec: PoolSpec { resources, preemption_within, order, ..PoolSpec::default() } }
}

fn spec(random: &mut Random) -> WorkloadSpec {
    let groups = (0..random.between(1, 2)).map(|n| GroupSpec {
        name: GroupName::new(["workers", "data"][n as usize]).expect("a constant name is valid"),
        count: Some(random.between(1, 2) as u32),
        min: None,
        max: None,
        cpu: Cpu(random.between(1, 8) * 1000),
        memory: Memory(random.between(1, 8) * 1024),
        gpus: Gpus([0, 1000, 2000, 2000, 4000, 250, 500, 500][random.index(8)]),
        gpu: vec![],
    });
    let mut groups: Vec<GroupSpec> = groups.collect();
    let gpus: u64 = groups.iter().map(|g| u64::from(g.least()) * g.gpus.0).sum();
    if gpus > SMALLEST_CLUSTER_GPUS * 1000 {
        // Each job must fit somewhere, or the world never comes to rest.
        groups.truncate(1);
    }
    let gpus: u64 = groups.iter().map(|g| u64::from(g.least()) * g.gpus.0).sum();
    let elastic = random.chance(350);
    let (mut batch, mut ray) = (None, None);
    if elastic {
        for group in &mut groups {
            let least = group.least();
            (group.count, group.min, group.max) = (None, Some(least), Some(least + random.between(1, 4) as u32));
        }
        let head = HeadSpec { cpu: Cpu(100), memory: Memory(64) };
        ray = Some(RaySpec { entrypoint: "train".into(), image: None, head, workers: groups });
    } else {
        batch = Some(BatchSpec { command: vec!["train".into()], image: None, groups });
    }
    let pool = POOLS.get(random.index(5) / 2).map(|pool| PoolName::new(pool).expect("it is a name"));
    let firm = pool.is_some() && (1..=RESERVED_GPUS * 1000).contains(&gpus) && random.chance(300);
    let on_cluster_loss = [OnClusterLoss::Wait, OnClusterLoss::Failover][random.index(2)];
    WorkloadSpec {
        pool,
        preemptible: (!firm).into(),
        priority: random.below(3) as i32,
        batch,
        ray,
        on_cluster_loss,
        failover_after: (on_cluster_loss == OnClusterLoss::Failover).then_some(MIN_FAILOVER_AFTER),
        retries: RetrySpec { limit: random.below(3) as u32, backoff: Span(random.between(200, 2_000)) },
        ..WorkloadSpec::default()
    }
}

fn job(number: u64, longest_us: u64, random: &mut Random) -> Job {
    let name = WorkloadName::new(format!("job-{number}")).expect("it is a name");
    let namespace = Namespace::new("sim").expect("it is a name");
    let runs_us = (!random.chance(200)).then(|| random.between(SECOND, longest_us));
    Job {
        uid: Uid((u128::from(random.number()) << 64) | u128::from(number)),
        key: WorkloadKey { namespace, name },
        spec: spec(random),
        runs_us,
        failures: if random.chance(250) { random.between(1, 3) as u32 } else { 0 },
        acknowledged: false,
        deleted: false,
    }
}

impl Clients {
    /// Draws all that they will do until `until_us`; gives the events.
    pub fn new(random: &mut Random, schedule: Schedule) -> (Self, Vec<(u64, Event)>) {
        let until_us = schedule.calm_us;
        // Where leases lapse, some jobs must outlive them.
        let longest_us = if schedule.long { 80 * SECOND } else { 12 * SECOND };
        let first: Vec<PoolSetting> = (0..POOLS.len()).map(|place| pool_setting(place, random)).collect();
        let later = (0..random.below(4)).map(|_| pool_setting(random.index(POOLS.len()), random));
        let settings: Vec<PoolSetting> = first.into_iter().chain(later.collect::<Vec<_>>()).collect();
        let jobs: Vec<Job> = (1..=random.between(8, 20)).map(|number| job(number, longest_us, random)).collect();
        let mut plan = Vec::new();
        let mut events = Vec::new();
        let mut add = |at_us, wish| {
            events.push((at_us, Event::Client { client: plan.len() }));
            plan.push(wish);
        };
        for (number, job) in jobs.iter().enumerate() {
            let at = random.between(SECOND / 2, until_us * 3 / 4);
            add(at, Wish::Submit(number));
            // Some change their mind while copies of the submission may still be on their way.
            let patience = if random.chance(300) { 2 * SECOND } else { 2 * longest_us };
            let end = at + random.between(10 * MS, patience);
            if job.runs_us.is_none() || random.chance(200) {
                add(end, Wish::End { job: number, delete: random.chance(300) });
            }
        }
        for place in 0..settings.len() {
            let at = if place < POOLS.len() { SECOND / 4 } else { random.between(SECOND, until_us) };
            add(at, Wish::Set(place));
        }
        for _ in 0..random.between(5, 20) {
            add(random.between(SECOND, until_us), Wish::Read);
        }
        let unborn = plan.len();
        let (pools, operations) = (BTreeSet::new(), BTreeMap::new());
        (Self { jobs, settings, pools, plan, operations, next: 0, unborn }, events)
    }

    /// How an attempt will go.
    pub fn behaviour(&self, attempt: AttemptId) -> Behaviour {
        let job = self.jobs.iter().find(|job| job.uid == attempt.workload);
        Behaviour {
            runs_us: job.and_then(|job| job.runs_us),
            fails: job.is_some_and(|job| attempt.number.0 <= job.failures),
        }
    }

    fn command(&self, wish: &Wish) -> Option<Command> {
        match wish {
            Wish::Submit(job) => {
                let Job { uid, key, spec, .. } = &self.jobs[*job];
                Some(Command::Submit { key: key.clone(), uid: *uid, spec: Box::new(spec.clone()) })
            }
            Wish::End { job, delete } => {
                let key = self.jobs[*job].key.clone();
                Some(if *delete { Command::Delete { key } } else { Command::Cancel { key } })
            }
            Wish::Forget(word) => Some(word.command()),
            Wish::Cordon { cluster, to } => Some(Command::Cordon { cluster: cluster.clone(), to: to.clone() }),
            Wish::Remove(cluster) => {
                let reason = "its lease has run out".to_owned();
                Some(Command::RemoveCluster { cluster: cluster.clone(), reason, lost_for_good: false })
            }
            Wish::Late(binding) => Some(Command::Bind(binding.clone())),
            Wish::Set(place) => {
                let PoolSetting { name, spec } = &self.settings[*place];
                let (name, spec) = (name.clone(), Box::new(spec.clone()));
                Some(Command::SetPool { name, spec, expect: Expect::Any })
            }
            Wish::Read => None,
        }
    }

    /// The command of an operation; none for a read.
    pub fn command_of(&self, operation: u64) -> Option<Option<Command>> {
        Some(self.command(&self.operations.get(&operation)?.wish))
    }
}

impl World {
    /// A client does what is next in the plan.
    pub(super) fn client_acts(&mut self, client: usize) {
        let wish = self.clients.plan[client].clone();
        if let Wish::End { job, delete } = wish {
            if !self.clients.jobs[job].acknowledged {
                // It ends what it knows to be there.
                return self.queue.add(self.now_us + SECOND, Event::Client { client });
            }
            self.clients.jobs[job].deleted |= delete;
            let uid = self.clients.jobs[job].uid;
            self.judge.hear(self.now_us, &Fact::Ending { uid, delete });
        }
        if let Wish::Submit(job) = wish {
            let pool = &self.clients.jobs[job].spec.pool;
            if pool.as_ref().is_some_and(|pool| !self.clients.pools.contains(pool)) {
                // It names a pool that it knows to be there.
                return self.queue.add(self.now_us + SECOND, Event::Client { client });
            }
            let Job { uid, key, spec, .. } = &self.clients.jobs[job];
            self.judge.hear(self.now_us, &Fact::Submitting { uid: *uid, key, spec });
        }
        self.clients.unborn -= 1;
        self.begin(wish, None);
    }

    /// Begins an operation, on this replica or any.
    pub(super) fn begin(&mut self, wish: Wish, replica: Option<usize>) {
        self.clients.next += 1;
        let operation = self.clients.next;
        self.clients.operations.insert(operation, Operation { wish, since_us: self.now_us, attempt: 0 });
        self.try_on(operation, replica);
    }

    fn try_on(&mut self, operation: u64, replica: Option<usize>) {
        let Some(begun) = self.clients.operations.get_mut(&operation) else { return };
        begun.attempt += 1;
        let attempt = begun.attempt;
        let random = &mut self.dice.clients;
        let replica = replica.unwrap_or_else(|| random.index(REPLICAS));
        let at = self.now_us + random.between(100, 2 * MS);
        self.queue.add(at, Event::Ask { operation, replica });
        let patience = random.between(2, 5) * SECOND;
        self.queue.add(self.now_us + patience, Event::GiveUp { operation, attempt });
    }

    /// The answer may take a while, or be lost.
    pub(super) fn answer(&mut self, operation: u64, answer: Answer) {
        if self.dice.clients.chance(10) {
            return;
        }
        let at = self.now_us + self.dice.clients.between(100, 2 * MS);
        self.queue.add(at, Event::Hear { operation, answer });
    }

    /// A client has heard nothing for too long.
    pub(super) fn gives_up(&mut self, operation: u64, attempt: u32) {
        if self.clients.operations.get(&operation).is_some_and(|begun| begun.attempt == attempt) {
            self.tries_again(operation);
        }
    }

    fn tries_again(&mut self, operation: u64) {
        let Some(begun) = self.clients.operations.get_mut(&operation) else { return };
        if matches!(begun.wish, Wish::Late(_)) || (begun.wish == Wish::Read && begun.attempt > 20) {
            self.clients.operations.remove(&operation);
            return;
        }
        self.try_on(operation, None);
    }

    /// A client hears an answer, perhaps to an earlier try.
    pub(super) fn client_hears(&mut self, operation: u64, answer: Answer) {
        let Some(begun) = self.clients.operations.get(&operation) else { return };
        let wish = begun.wish.clone();
        let done = match (&wish, answer) {
            (_, Answer::Unreachable | Answer::ReadFailed) => false,
            (_, Answer::ReadServed) => true,
            (_, Answer::Proposed(Ok(outcome))) => {
                self.acknowledged(&wish, &outcome);
                true
            }
            (_, Answer::Proposed(Err(ProposeError::Refused(refusal)))) => {
                self.refused(&wish, &refusal);
                true
            }
            (_, Answer::Proposed(Err(_))) => false,
        };
        if done {
            self.clients.operations.remove(&operation);
        } else {
            let Some(begun) = self.clients.operations.get_mut(&operation) else { return };
            // Not at once, and not again when the patience of the try that failed ends.
            begun.attempt += 1;
            let at = self.now_us + self.dice.clients.between(50 * MS, 500 * MS);
            self.queue.add(at, Event::GiveUp { operation, attempt: begun.attempt });
        }
    }

    fn acknowledged(&mut self, wish: &Wish, outcome: &Outcome) {
        let fact = match (wish, outcome) {
            (Wish::Submit(job), Outcome::Submitted { .. }) => {
                self.clients.jobs[*job].acknowledged = true;
                Fact::Submitted { uid: self.clients.jobs[*job].uid }
            }
            (Wish::End { job, delete }, Outcome::Ended { .. }) => {
                Fact::Ended { uid: self.clients.jobs[*job].uid, delete: *delete }
            }
            (Wish::Set(place), Outcome::Set { .. }) => {
                let name = self.clients.settings[*place].name.clone();
                self.clients.pools.insert(name);
                return;
            }
            (Wish::Late(binding), Outcome::Bound { .. }) => {
                Fact::LateBinding { planned_in: binding.epoch, taken: true }
            }
            (Wish::Forget(_), Outcome::Ended { .. }) | (Wish::Cordon { .. } | Wish::Remove(_), Outcome::Done) => return,
            _ => Fact::Refused { what: format!("an outcome that does not fit: {outcome:?}") },
        };
        self.judge.hear(self.now_us, &fact);
    }

    fn refused(&mut self, wish: &Wish, refusal: &Refusal) {
        match (wish, refusal) {
            // The record went, as was asked.
            (Wish::End { job, .. }, Refusal::NoWorkload { .. }) if self.clients.jobs[*job].deleted => {}
            // What one replica showed was old, or an earlier try of it took effect.
            (Wish::Forget(_), Refusal::NotAbandoned { .. } | Refusal::NoWorkload { .. }) => {}
            (Wish::Cordon { .. }, Refusal::ClusterRemoved { .. }) | (Wish::Remove(_), Refusal::ClusterStays { .. }) => {
            }
            // It was removed and let in again, and has not joined yet.
            (Wish::Cordon { .. } | Wish::Remove(_), Refusal::UnknownCluster { .. }) => {}
            (Wish::Late(binding), _) => {
                let fact = Fact::LateBinding { planned_in: binding.epoch, taken: false };
                self.judge.hear(self.now_us, &fact);
            }
            _ => {
                let what = refusal.to_string();
                self.judge.hear(self.now_us, &Fact::Refused { what });
            }
        }
    }

    /// What is not done of a client's doing, in words.
    pub(super) fn clients_left(&self) -> Option<String> {
        if self.clients.unborn > 0 {
            return Some(format!("{} wishes are not begun", self.clients.unborn));
        }
        let left: Vec<String> = self.clients.operations.values().map(|o| format!("{:?}", o.wish)).collect();
        (!left.is_empty()).then(|| format!("clients have no answer: {}", left.join(", ")))
    }

    /// What still lives in the runtimes, in words.
    pub(super) fn runs_left(&self) -> Option<String> {
        let live: Vec<String> = self.runtimes.iter().flat_map(|r| r.live()).map(|a| Attempt(a).to_string()).collect();
        (!live.is_empty()).then(|| format!("attempts are alive: {}", live.join(", ")))
    }
}

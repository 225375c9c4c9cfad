//! Random histories: submissions, plans, reports, losses, returns and cancels in any order, as a fleet with a bad day would
//! send them. Every step is checked against [`super::invariants`].

use std::collections::BTreeMap;

use engine::commands::{Binding, Command, Expect};
use engine::plan::plan;
use engine::{Phase, State};
use proptest::prelude::*;
use protocol::codec::{decode_body, encode_body};
use protocol::control::AttemptReport;
use protocol::ids::*;
use protocol::pool::*;
use protocol::sku::Sku;
use protocol::workload::Preemptible;

use super::invariants::{check_nodes, check_step};
use super::script::state_of;
use super::slow_pools::Sums;
use super::{slow_pools, *};

const CLUSTERS: [&str; 2] = ["eu-1", "us-1"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const POOLS: [&str; 3] = ["p", "q", "r"];
const STATES: [&str; 8] =
    ["accepted", "starting", "running", "running", "succeeded", "stopped", "user", "infrastructure"];

/// One thing that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
pub enum Op {
    Epoch,
    Submit { name: usize, count: u32, gpus: u64, priority: i32, retries: u32, pool: usize, firm: bool },
    SetPool { name: usize, parent: usize, reservation: u64, limit: u64, share: u32, kept: bool },
    DeletePool { name: usize },
    Owner { pool: usize },
    Plan { limit: usize },
    BindAgain { which: usize, older_epoch: bool },
    Report { name: usize, cluster: usize, attempt_back: u32, revision_back: u64, state: usize },
    Join { cluster: usize, life: u128, took_all: bool, forgets: usize, state: usize },
    Lose { cluster: usize },
    Cancel { name: usize },
    Delete { name: usize },
    Tick { ms: u64 },
    CatchUp { cluster: usize },
}

pub fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES.len();
    let cluster = || 0..CLUSTERS.len();
    prop_oneof![
        1 => Just(Op::Epoch),
        5 => (name(), 1..4u32, 0..3u64, -1..2i32, 0..3u32, 0..6usize, 0..6u8)
            .prop_map(|(name, count, gpus, priority, retries, pool, firm)| Op::Submit {
                name, count, gpus, priority, retries, pool, firm: firm == 0,
            }),
        3 => (0..POOLS.len(), 0..6usize, 0..5u64, 0..7u64, 1..4u32, any::<bool>())
            .prop_map(|(name, parent, reservation, limit, share, kept)| Op::SetPool {
                name, parent, reservation, limit, share, kept,
            }),
        1 => (0..POOLS.len()).prop_map(|name| Op::DeletePool { name }),
        1 => (0..POOLS.len()).prop_map(|pool| Op::Owner { pool }),
        6 => (1..4usize).prop_map(|limit| Op::Plan { limit }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, older_epoch)| Op::BindAgain { which, older_epoch }),
        12 => (name(), prop_oneof![9 => Just(None), 1 => cluster().prop_map(Some)], 0..8u32, 0..8u64, 0..STATES.len())
            .prop_map(|(name, cluster, attempt, revision, state)| Op::Report {
                name,
                cluster: cluster.unwrap_or(usize::MAX),
                attempt_back: attempt / 7,
                revision_back: revision / 6,
                state,
            }),
        4 => (cluster(), 1..3u128, any::<bool>(), 0..5usize, 0..STATES.len())
            .prop_map(|(cluster, life, took_all, forgets, state)| Op::Join { cluster, life, took_all, forgets, state }),
        2 => cluster().prop_map(|cluster| Op::Lose { cluster }),
        2 => name().prop_map(|name| Op::Cancel { name }),
        1 => name().prop_map(|name| Op::Delete { name }),
        3 => (0..30_000u64).prop_map(|ms| Op::Tick { ms }),
        3 => cluster().prop_map(|cluster| Op::CatchUp { cluster }),
    ]
}

/// A history as it goes on.
pub struct History {
    pub state: State,
    fleet: Fleet,
    now: u64,
    bound: Vec<Binding>,
}

impl History {
    pub fn new() -> Self {
        let mut fleet = Fleet::default();
        for name in CLUSTERS {
            fleet.set(name, vec![node("n0", Some("H100"), resources(8, 8, 4)), node("n1", None, resources(4, 4, 0))]);
        }
        Self { state: State::default(), fleet, now: 0, bound: vec![] }
    }

    /// Runs one thing and checks what must hold.
    pub fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Tick { ms } => self.now += ms,
            Op::CatchUp { cluster } => self.fleet.catch_up(&self.state, CLUSTERS[*cluster]),
            Op::Plan { limit } => {
                let bindings = plan(&self.state, &self.fleet.capacity, UnixMs(self.now), *limit).bindings;
                let now = self.state.now.max(UnixMs(self.now));
                let (whole, parts) = slow_pools::entitled(&self.state, &self.fleet.capacity, now);
                for binding in bindings {
                    self.bound.push(binding.clone());
                    let key = binding.key.clone();
                    let applied = self.apply(Command::Bind(Box::new(binding)))?;
                    applied.map_err(|r| format!("a fresh binding was refused: {r}"))?;
                    self.check_part(&key, &whole, &parts)?;
                }
            }
            _ => {
                if let Some(command) = self.command(op) {
                    let _outcome = self.apply(command)?;
                }
            }
        }
        Ok(())
    }

    fn command(&self, op: &Op) -> Option<Command> {
        Some(match op {
            Op::Epoch => Command::OpenEpoch { epoch: Epoch(self.state.epoch.0 + 1) },
            Op::Submit { name, count, gpus, priority, retries, pool, firm } => {
                let skus: &[&str] = if *gpus > 0 { &["H100"] } else { &[] };
                let mut spec = batch(vec![group("w", *count, 1, 1, *gpus, skus)]);
                (spec.priority, spec.retries.limit) = (*priority, *retries);
                spec.preemptible = (!firm).into();
                spec.pool = POOLS.get(*pool).map(|p| script::pool(p));
                Command::Submit { key: key(NAMES[*name]), uid: uid(NAMES[*name]), spec: Box::new(spec) }
            }
            Op::SetPool { name, parent, reservation, limit, share, kept } => {
                let lending = if *kept { Lending::Static } else { Lending::Elastic };
                let limit = Some(limit * 1000).filter(|l| *l < 6000);
                let quota = Quota { reservation: reservation * 1000, limit, share: *share, lending };
                let resource = if limit.is_some() { Resource::Gpu } else { Resource::Model(Sku::from_driver("H100")) };
                let spec = PoolSpec {
                    parent: POOLS.get(*parent).map(|p| script::pool(p)),
                    resources: Quotas([(resource, quota)].into()),
                    ..PoolSpec::default()
                };
                Command::SetPool { name: script::pool(POOLS[*name]), spec: Box::new(spec), expect: Expect::Any }
            }
            Op::DeletePool { name } => Command::DeletePool { name: script::pool(POOLS[*name]) },
            Op::Owner { pool } => {
                let spec = OwnershipSpec { pool: Some(script::pool(POOLS[*pool])), parent: None };
                let owner = Namespace::new("default").unwrap();
                Command::SetOwnershipRule { owner, spec, expect: Expect::Any }
            }
            Op::BindAgain { which, older_epoch } => self.bind_again(*which, *older_epoch)?,
            Op::Report { name, cluster, attempt_back, revision_back, state } => {
                let w = self.state.workloads.get(&key(NAMES[*name]))?;
                let last = w.attempts.last()?;
                let cluster = CLUSTERS.get(*cluster).map_or_else(|| last.cluster.clone(), |c| super::cluster(c));
                let report = report(
                    NAMES[*name],
                    last.number.0.saturating_sub(*attempt_back),
                    (last.revision + 1).saturating_sub(*revision_back),
                    state_of(STATES[*state]),
                );
                Command::Report { cluster, report }
            }
            Op::Join { cluster, life, took_all, forgets, state } => {
                self.join(CLUSTERS[*cluster], *life, *took_all, *forgets, STATES[*state])
            }
            Op::Lose { cluster } => Command::LoseCluster { cluster: super::cluster(CLUSTERS[*cluster]) },
            Op::Cancel { name } => Command::Cancel { key: key(NAMES[*name]) },
            Op::Delete { name } => Command::Delete { key: key(NAMES[*name]) },
            Op::Plan { .. } | Op::Tick { .. } | Op::CatchUp { .. } => return None,
        })
    }

    /// What a pool holds after a binding is at most what it was entitled to when that was planned.
    fn check_part(&self, key: &WorkloadKey, whole: &Sums, parts: &BTreeMap<PoolName, Sums>) -> Result<(), String> {
        let workload = &self.state.workloads[key];
        let lost = |w: &engine::state::Workload| {
            w.attempts.last().is_some_and(|a| self.state.clusters[&a.cluster].lost_since.is_some())
        };
        let held = slow_pools::held(&self.state, |w| !lost(w));
        for what in slow_pools::holds(workload).keys() {
            let of = |sums: Option<&Sums>| sums.and_then(|s| s.get(what)).copied().unwrap_or(0);
            let (has, part, all) = (of(held.get(&workload.pool)), of(parts.get(&workload.pool)), of(Some(whole)));
            let named = |spec: &PoolSpec| spec.resources.0.keys().any(|r| r.to_string() == *what);
            let no_gpus = of_gpu(whole) == 0 && !what.starts_with("gpu/");
            let divided = what == "gpu" || no_gpus || self.state.pools.all().values().any(|spec| named(spec));
            if has > part && part < all && divided {
                return Err(format!("{key}: pool {} has {has} {what} and is entitled to {part}", workload.pool));
            }
        }
        Ok(())
    }

    /// A binding of before, heard again, or made anew by a leader that was deposed.
    fn bind_again(&self, which: usize, older_epoch: bool) -> Option<Command> {
        let mut binding = self.bound.get(which % self.bound.len().max(1))?.clone();
        if older_epoch {
            let w = self.state.workloads.get(&binding.key)?;
            binding.epoch = Epoch(self.state.epoch.0.checked_sub(1)?);
            binding.attempt = AttemptNumber(w.attempts.last().map_or(0, |a| a.number.0) + 1);
        }
        Some(Command::Bind(Box::new(binding)))
    }

    /// An agent's return: it reports what it holds but one (`forgets`), and has taken all commands or those it reported.
    fn join(&self, name: &str, life: u128, took_all: bool, forgets: usize, state: &str) -> Command {
        let open = self.state.workloads.values().filter_map(|w| Some((w, w.live_attempt()?)));
        let there: Vec<_> = open.filter(|(_, a)| a.cluster.as_str() == name).collect();
        let attempts: Vec<AttemptReport> = there
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != forgets)
            .map(|(_, (w, a))| report(w.key.name.as_str(), a.number.0, a.revision + 1, state_of(state)))
            .collect();
        let last = self.state.clusters.get(&cluster(name)).map_or(0, |c| c.last_command.0);
        let last_command = CommandNumber(if took_all { last } else { 0 });
        Command::Join { info: info(name, "eu-west"), incarnation: Incarnation(life), last_command, attempts }
    }

    fn apply(&mut self, command: Command) -> Result<Result<(), engine::commands::Refusal>, String> {
        let before = self.state.clone();
        let index = LogIndex(before.applied.0 + 1);
        let applied = self.state.apply(index, &command, UnixMs(self.now));
        let mut again = before.clone();
        let same = again.apply(index, &command, UnixMs(self.now)) == applied && again == self.state;
        if !same {
            return Err("the same command on the same state gave something else".into());
        }
        let told = |e: String| format!("{e}\n  after {command:?}");
        check_step(&before, &command, &applied, &self.state).map_err(told)?;
        check_nodes(&self.state, &self.fleet).map_err(told)?;
        let bytes = encode_body(&self.state).map_err(|e| e.to_string())?;
        if decode_body::<State>(&bytes).map_err(|e| e.to_string())? != self.state {
            return Err("the state did not come back equal from its bytes".into());
        }
        Ok(applied.outcome.map(|_| ()))
    }

    /// Bounds of pools go, and what could never start is given up.
    fn lift_bounds(&mut self) -> Result<(), String> {
        let named: Vec<PoolName> = self.state.pools.all().into_keys().cloned().collect();
        // From below, so that no child ever has more than its parent.
        for _ in 0..named.len() {
            for name in &named {
                let parent = self.state.pools.all()[name].parent.clone();
                let spec = Box::new(PoolSpec { parent, ..PoolSpec::default() });
                let _outcome = self.apply(Command::SetPool { name: name.clone(), spec, expect: Expect::Any })?;
            }
        }
        let hopeless = |w: &engine::state::Workload| w.spec.preemptible == Preemptible::No || !fits_alone(w);
        let hopeless: Vec<WorkloadKey> =
            self.state.workloads.values().filter(|w| hopeless(w)).map(|w| w.key.clone()).collect();
        for key in hopeless {
            let _outcome = self.apply(Command::Cancel { key })?;
        }
        Ok(())
    }

    /// Once faults stop and bounds are lifted, everything that was asked for ends: agents return, say what they hold, and it
    /// runs to its end.
    pub fn settle(&mut self) -> Result<(), String> {
        self.lift_bounds()?;
        for _round in 0..40 {
            if self.state.workloads.values().all(|w| w.phase.is_terminal()) {
                return Ok(());
            }
            self.now += 3_600_000;
            for name in CLUSTERS {
                let life = self.state.clusters.get(&cluster(name)).map_or(1, |c| c.incarnation.0);
                let join = self.join(name, life, true, usize::MAX, "running");
                let _outcome = self.apply(join)?;
                self.fleet.catch_up(&self.state, name);
            }
            self.step(&Op::Plan { limit: 100 })?;
            let live: Vec<_> = self
                .state
                .workloads
                .values()
                .filter_map(|w| Some((w.key.clone(), w.live_attempt()?.clone())))
                .collect();
            for (key, a) in live {
                let report = report(key.name.as_str(), a.number.0, a.revision + 1, state_of("succeeded"));
                let _outcome = self.apply(Command::Report { cluster: a.cluster, report })?;
            }
        }
        let left = self.state.workloads.values().find(|w| !w.phase.is_terminal() && w.phase != Phase::Queued);
        if let Some(w) = left {
            return Err(format!("{} is still {}", w.key, w.phase));
        }
        match self.state.workloads.values().find(|w| w.phase == Phase::Queued) {
            Some(w) => Err(format!("{} still waits", w.key)),
            None => Ok(()),
        }
    }
}

fn of_gpu(sums: &Sums) -> u64 {
    sums.get("gpu").copied().unwrap_or(0)
}

/// Each cluster has 4 GPUs on one node, and 12 cpu and 12Gi on two.
fn fits_alone(w: &engine::state::Workload) -> bool {
    let need = &w.spec.gang()[0];
    u64::from(need.count) * need.each.gpu_milli <= 4000
}

/// Runs a whole history; the first thing that does not hold, with its place.
pub fn run(ops: &[Op]) -> Result<(), String> {
    let mut history = History::new();
    for (i, op) in ops.iter().enumerate() {
        history.step(op).map_err(|e| format!("step {i}: {e}"))?;
    }
    history.settle().map_err(|e| format!("after the faults: {e}"))
}

//! Random histories: submissions, plans, reports, losses, returns and cancels in any order, as a fleet with a bad day would
//! send them. Every step is checked against [`super::invariants`].

use std::collections::{BTreeMap, BTreeSet};

use engine::commands::{Binding, Command, Expect, Preemption};
use engine::plan::{Memory, plan_on};
use engine::{Phase, State};
use protocol::codec::{decode_body, encode_body};
use protocol::control::AttemptReport;
use protocol::data::DataSpec;
use protocol::ids::*;
use protocol::pool::*;
use protocol::resources::{DataSize, Span};
use protocol::sku::Sku;
use protocol::workload::{DataNeed, Dependency, Preemptible};

use super::invariants::{check_nodes, check_step, is_avoided};
use super::script::state_of;
use super::slow_pools::Sums;
use super::{slow_pools, *};

use super::operations::{CLUSTERS, DATA, FEW, NAMES, Op, POOLS, STATES};

/// A history as it goes on.
pub struct History {
    pub state: State,
    fleet: Fleet,
    now: u64,
    bound: Vec<Binding>,
    memory: Memory,
    preempted: Vec<Preemption>,
    /// Attempts that had to give room.
    pub victims: usize,
}

impl History {
    pub fn new() -> Self {
        let mut fleet = Fleet::default();
        for name in CLUSTERS {
            fleet.set(name, vec![node("n0", Some("H100"), resources(8, 8, 4)), node("n1", None, resources(4, 4, 0))]);
        }
        Self {
            state: State::default(),
            fleet,
            now: 0,
            bound: vec![],
            memory: Memory::default(),
            preempted: vec![],
            victims: 0,
        }
    }

    /// What the planner sees.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Runs one thing and checks what must hold.
    pub fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Tick { ms } => self.now += ms,
            Op::CatchUp { cluster } => self.fleet.catch_up(&self.state, CLUSTERS[*cluster]),
            Op::Plan { limit } => {
                let plan = plan_on(&self.state, &self.fleet.capacity, &self.memory, UnixMs(self.now), *limit);
                let now = self.state.now.max(UnixMs(self.now));
                let (usable, whole) = slow_pools::fleet(&self.state, &self.fleet.capacity);
                let parts = slow_pools::parts(&self.state, &usable, &whole, now);
                self.memory = plan.memory;
                for binding in plan.bindings {
                    self.check_despite(&binding, now)?;
                    self.bound.push(binding.clone());
                    let key = binding.key.clone();
                    let applied = self.apply(Command::Bind(Box::new(binding)))?;
                    applied.map_err(|r| format!("a fresh binding was refused: {r}"))?;
                    self.check_part(&key, &whole, &parts)?;
                }
                for (key, uid) in plan.expirations {
                    let applied = self.apply(Command::Expire { key, uid })?;
                    applied.map_err(|r| format!("a record that is due did not go: {r}"))?;
                }
                for preemption in plan.preemptions {
                    self.check_hole(&preemption)?;
                    self.preempted.push(preemption.clone());
                    let applied = self.apply(Command::Preempt(Box::new(preemption)))?;
                    // What was bound meanwhile may have changed who has how much.
                    let _stale = applied.is_err();
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

    /// The command that an operation comes to now, where it is one.
    pub fn command(&self, op: &Op) -> Option<Command> {
        Some(match op {
            Op::Epoch => Command::OpenEpoch { epoch: Epoch(self.state.epoch.0 + 1) },
            Op::Submit { name, count, gpus, priority, retries, pool, firm, lasts, after, ttl, reads } => {
                let skus: &[&str] = if *gpus > 0 { &["H100"] } else { &[] };
                let mut spec = batch(vec![group("w", *count, 1, 1, *gpus, skus)]);
                (spec.priority, spec.retries.limit) = (*priority, *retries);
                spec.preemptible = (!firm).into();
                spec.expected_duration = (*lasts > 0).then(|| Span(*lasts * 20_000));
                // Twice in a while on itself, or in a circle: that is refused.
                let after = NAMES.get(*after).filter(|_| *after < FEW);
                spec.depends_on = after.map(|n| Dependency { workload: key(n).name }).into_iter().collect();
                spec.ttl_after_finished = Some(Span(*ttl)).filter(|_| *ttl > 30_000);
                let read =
                    DATA.get(reads / 2).map(|n| DataNeed { name: data_name(n), require: reads.is_multiple_of(2) });
                spec.placement.data = read.into_iter().collect();
                spec.pool = POOLS.get(*pool).map(|p| script::pool(p));
                Command::Submit { key: key(NAMES[*name]), uid: uid(NAMES[*name]), spec: Box::new(spec) }
            }
            Op::SetData { name, gib, places } => {
                // Now and then nowhere: that is refused.
                let (clusters, region) = (CLUSTERS.iter().take(*places), (*places == 4).then_some("eu-west"));
                let spec = DataSpec {
                    size: DataSize(gib * 1024),
                    clusters: clusters.skip(places / 2).map(|c| super::cluster(c)).collect(),
                    regions: region.map(|r| Region::new(r).unwrap()).into_iter().collect(),
                };
                Command::SetData { name: data_name(DATA[*name]), spec: Box::new(spec), expect: Expect::Any }
            }
            Op::DeleteData { name } => Command::DeleteData { name: data_name(DATA[*name]) },
            Op::PreemptAgain { which } => {
                let preemption = self.preempted.get(which % self.preempted.len().max(1))?.clone();
                Command::Preempt(Box::new(preemption))
            }
            Op::SetPool { name, parent, reservation, limit, share, kept, within } => {
                let lending = if *kept { Lending::Static } else { Lending::Elastic };
                let limit = Some(limit * 1000).filter(|l| *l < 6000);
                let quota = Quota { reservation: reservation * 1000, limit, share: *share, lending };
                let resource = if limit.is_some() { Resource::Gpu } else { Resource::Model(Sku::from_driver("H100")) };
                let spec = PoolSpec {
                    parent: POOLS.get(*parent).map(|p| script::pool(p)),
                    resources: Quotas([(resource, quota)].into()),
                    order: if *share == 2 { LineOrder::LeastServed } else { LineOrder::Submitted },
                    preemption_within: if *within { WithinPool::ByPriority } else { WithinPool::Never },
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
            Op::Expire { name } => Command::Expire { key: key(NAMES[*name]), uid: uid(NAMES[*name]) },
            Op::Forget { name, attempt_back } => {
                let last = self.state.workloads.get(&key(NAMES[*name]))?.attempts.last()?.number.0;
                let number = AttemptNumber(last.saturating_sub(*attempt_back));
                let attempt = AttemptId { workload: uid(NAMES[*name]), number };
                Command::Forget { key: key(NAMES[*name]), attempt, reason: "its node was taken away".into() }
            }
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
            if has > part && part < all && slow_pools::is_divided(&self.state, whole, what) {
                return Err(format!("{key}: pool {} has {has} {what} and is entitled to {part}", workload.pool));
            }
        }
        Ok(())
    }

    /// Whether a cluster has a copy of all that a workload requires.
    fn has_data(&self, w: &engine::state::Workload, cluster: &ClusterName) -> bool {
        let Some(there) = self.state.clusters.get(cluster) else { return false };
        w.spec.placement.data.iter().filter(|need| need.require).all(|need| {
            let copies = self.state.data.get(&need.name).map(|data| &data.spec);
            copies.is_some_and(|c| c.clusters.contains(cluster) || c.regions.contains(&there.info.region))
        })
    }

    /// A place where it failed lately is taken only by a gang that nothing else could hold, even empty.
    fn check_despite(&self, binding: &Binding, now: UnixMs) -> Result<(), String> {
        if binding.decision.despite.is_none() {
            return Ok(());
        }
        let w = &self.state.workloads[&binding.key];
        let need = &w.spec.gang()[0];
        for (name, frame) in &self.fleet.capacity.clusters {
            let lost = self.state.clusters.get(name).is_none_or(|c| c.lost_since.is_some());
            if lost || is_avoided(w, name, None, now) || !self.has_data(w, name) {
                continue;
            }
            let open = frame.nodes.iter().filter(|n| !is_avoided(w, name, Some(&n.name), now));
            let members = |n: &engine::capacity::NodeCapacity| {
                let times = |have: u64, each: u64| have.checked_div(each).unwrap_or(u64::MAX);
                times(n.total.gpu_milli, need.each.gpu_milli).min(times(n.total.cpu_milli, need.each.cpu_milli))
            };
            let holds: u64 = open.map(members).sum();
            if holds >= u64::from(need.count) {
                return Err(format!("{} goes back to where it failed, and {name} could hold it", w.key));
            }
        }
        Ok(())
    }

    /// The victims' end makes room for the gang, and without it there would be none (or its pool had not enough).
    fn check_hole(&self, p: &Preemption) -> Result<(), String> {
        let by = &self.state.workloads[&p.by];
        let need = &by.spec.gang()[0];
        let named: Vec<&WorkloadKey> = p.victims.iter().map(|v| &v.key).collect();
        let attempt = |key: &WorkloadKey| self.state.workloads[key].attempts.last().unwrap();
        let passed = |key: &WorkloadKey| attempt(key).decision.passed.iter().any(|passed| passed.uid == p.by_uid);
        let on: BTreeSet<&ClusterName> = named.iter().map(|key| &attempt(key).cluster).collect();
        // Those that were let past it may have to give up its pool's part in one cluster and room in another.
        let all_passed = named.iter().all(|key| passed(key));
        let members_in = |cluster: &ClusterName, without: &dyn Fn(&engine::state::Workload) -> bool| -> u64 {
            let Some(frame) = self.fleet.capacity.clusters.get(cluster) else { return 0 };
            let incarnation = self.state.clusters[cluster].incarnation;
            let of_model = frame.nodes.iter().filter(|n| need.each.gpu_milli == 0 || n.sku.is_some());
            of_model
                .map(|node| {
                    // As the agent said it, less what it has not heard of, and with what would be gone.
                    let mut free = node.free;
                    for w in self.state.workloads.values() {
                        let there = w.attempts.iter().filter(|a| a.ended_at.is_none() && a.cluster == *cluster);
                        for attempt in there {
                            let unseen = attempt.launch > frame.watermark || attempt.incarnation != incarnation;
                            for group in &attempt.placement {
                                for share in group.nodes.iter().filter(|s| s.node == node.name) {
                                    let held = group.each.times(u64::from(share.members));
                                    match (unseen, without(w)) {
                                        (true, false) => free = free.saturating_sub(&held),
                                        (false, true) => free += held,
                                        _ => {}
                                    }
                                }
                            }
                        }
                    }
                    let times = |have: u64, each: u64| have.checked_div(each).unwrap_or(u64::MAX);
                    times(free.gpu_milli, need.each.gpu_milli)
                        .min(times(free.cpu_milli, need.each.cpu_milli))
                        .min(times(free.memory_mib, need.each.memory_mib))
                })
                .sum()
        };
        let members = |without: &dyn Fn(&engine::state::Workload) -> bool| {
            let usable = self.state.clusters.values().filter(|c| c.lost_since.is_none()).map(|c| &c.info.name);
            let there = usable.filter(|name| all_passed || on.contains(*name));
            there.map(|name| members_in(name, without)).max().unwrap_or(0)
        };
        let going = |w: &engine::state::Workload| w.attempts.last().is_some_and(|a| a.stop.is_some());
        let after = members(&|w| going(w) || named.contains(&&w.key));
        if (!all_passed && on.len() > 1) || after < u64::from(need.count) {
            return Err(format!("{named:?} would end for {}, and there would still be no room: {after}", p.by));
        }
        for spared in &named {
            let fewer = members(&|w| going(w) || (named.contains(&&w.key) && w.key != **spared));
            let own_pool = self.state.workloads[*spared].pool == by.pool;
            if fewer >= u64::from(need.count) && !own_pool {
                return Err(format!("{spared} would end for {} in vain", p.by));
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
        if let (Command::Preempt(p), Ok(_)) = (&command, &applied.outcome) {
            self.victims += p.victims.len();
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
        for name in DATA {
            let regions = [Region::new("eu-west").unwrap()].into();
            let spec = Box::new(DataSpec { size: DataSize(1), regions, ..DataSpec::default() });
            let _outcome = self.apply(Command::SetData { name: data_name(name), spec, expect: Expect::Any })?;
        }
        let hopeless = |w: &engine::state::Workload| w.spec.preemptible == Preemptible::No || !fits_alone(w);
        let hopeless: Vec<WorkloadKey> =
            self.state.workloads.values().filter(|w| hopeless(w)).map(|w| w.key.clone()).collect();
        for key in hopeless {
            let _outcome = self.apply(Command::Cancel { key })?;
        }
        // So are those that wait for what will not succeed, and those that wait for them.
        let succeeds = |state: &State, key: &WorkloadKey, name: &WorkloadName| {
            let key = WorkloadKey { namespace: key.namespace.clone(), name: name.clone() };
            state.workloads.get(&key).is_some_and(|w| !w.phase.is_terminal() && !w.cancel_requested)
        };
        while let Some(key) = self.state.workloads.values().find_map(|w| {
            let waits = w.phase == Phase::Queued && w.awaits.keys().any(|n| !succeeds(&self.state, &w.key, n));
            waits.then(|| w.key.clone())
        }) {
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

fn data_name(name: &str) -> DataName {
    DataName::new(name).unwrap()
}

/// Each cluster has 4 GPUs on one node, and 12 cpu and 12Gi on two.
fn fits_alone(w: &engine::state::Workload) -> bool {
    let need = &w.spec.gang()[0];
    u64::from(need.count) * need.each.gpu_milli <= 4000
}

/// Runs a whole history; how many attempts had to give room, or the first thing that does not hold, with its place.
pub fn run(ops: &[Op]) -> Result<usize, String> {
    let mut history = History::new();
    for (i, op) in ops.iter().enumerate() {
        history.step(op).map_err(|e| format!("step {i}: {e}"))?;
    }
    history.settle().map_err(|e| format!("after the faults: {e}"))?;
    Ok(history.victims)
}

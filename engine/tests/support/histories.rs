//! Random histories: submissions, plans, reports, losses, returns and cancels in any order, as a fleet with a bad day would
//! send them. Every step is checked against [`super::invariants`].

use std::collections::BTreeMap;

use engine::commands::{Binding, Command, Cordoning, Expect, Fence, Growth, Preemption, Raising};
use engine::plan::{Bounds, Kept, Memory, Plan, plan_again, plan_on};
use engine::pools::Raise;
use engine::{Phase, State};
use protocol::codec::{decode_body, encode_body};
use protocol::control::{AttemptReport, GroupPlacement, NodeShare, Resized};
use protocol::data::DataSpec;
use protocol::ids::*;
use protocol::placement::all_members;
use protocol::pool::*;
use protocol::resources::{DataSize, Span};
use protocol::sku::Sku;
use protocol::workload::{DataNeed, Dependency, OnClusterLoss, Preemptible};

use super::invariants::{check_nodes, check_step, is_avoided};
use super::script::state_of;
use super::slow_pools::Sums;
use super::{slow_pools, *};

use super::operations::{CLUSTERS, DATA, FEW, NAMES, Op, POOLS, STATES};

mod hole;

/// A history as it goes on.
#[derive(Clone)]
pub struct History {
    pub state: State,
    fleet: Fleet,
    now: u64,
    bound: Vec<Binding>,
    memory: Memory,
    kept: Kept,
    preempted: Vec<Preemption>,
    grown: Vec<Growth>,
    /// Attempts that had to give room.
    pub victims: usize,
    /// Attempts that were ended for their clusters were drained.
    pub drained: usize,
    /// Members that came, and members that went for others.
    pub resized: (u32, u32),
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
            kept: Kept::default(),
            preempted: vec![],
            grown: vec![],
            victims: 0,
            drained: 0,
            resized: (0, 0),
        }
    }

    /// What the planner sees.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// What the planner would do now.
    pub fn plan(&self) -> Plan {
        plan_on(&self.state, &self.fleet.capacity, &self.memory, UnixMs(self.now), 100)
    }

    /// Nothing happens until then.
    pub fn wait_until(&mut self, at: UnixMs) {
        self.now = self.now.max(at.0);
    }

    /// A new and empty cluster comes.
    pub fn bring(&mut self, name: &str, nodes: Vec<NodeCapacity>) -> Result<(), String> {
        self.fleet.set(name, nodes);
        let (info, incarnation) = (info(name, "eu-west"), Incarnation(1));
        let join = Command::Join { info, incarnation, last_command: CommandNumber(0), attempts: vec![] };
        self.accepted(join)
    }

    /// Something is asked for, and must not be refused.
    pub fn accepted(&mut self, command: Command) -> Result<(), String> {
        let text = format!("{command:?}");
        self.apply(command)?.map_err(|refusal| format!("{refusal}\n  after {text}"))
    }

    /// Runs one thing and checks what must hold.
    pub fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Tick { ms } => self.now += ms,
            Op::CatchUp { cluster } => self.fleet.catch_up(&self.state, CLUSTERS[*cluster]),
            Op::Plan { limit } => {
                let plan = plan_on(&self.state, &self.fleet.capacity, &self.memory, UnixMs(self.now), *limit);
                self.check_hurried(&plan, *limit)?;
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
                for growth in plan.growths {
                    let key = growth.key.clone();
                    self.grown.push(growth.clone());
                    let applied = self.apply(Command::Grow(Box::new(growth)))?;
                    applied.map_err(|r| format!("a fresh growth was refused: {r}"))?;
                    self.check_part(&key, &whole, &parts)?;
                }
                for (key, uid) in plan.expirations {
                    let applied = self.apply(Command::Expire { key, uid })?;
                    applied.map_err(|r| format!("a record that is due did not go: {r}"))?;
                }
                for raising in plan.raises {
                    let applied = self.apply(Command::RaisePool(Box::new(raising)))?;
                    applied.map_err(|r| format!("a fresh raise was refused: {r}"))?;
                }
                for end in plan.drains {
                    self.drained += 1;
                    let applied = self.apply(Command::EndDrained(Box::new(end)))?;
                    applied.map_err(|r| format!("a fresh end for a drain was refused: {r}"))?;
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

    /// Whom nobody asks about is passed over, and nothing else is decided differently; nor with what the last plan kept.
    fn check_hurried(&mut self, plan: &Plan, limit: usize) -> Result<(), String> {
        for explained in [0, 2] {
            let bounds = Bounds { bindings: limit, explained };
            let before = (&self.memory, &mut self.kept);
            let mut hurried = plan_again(&self.state, &self.fleet.capacity, before, UnixMs(self.now), bounds);
            hurried.waiting = plan.waiting.clone();
            if hurried != *plan {
                return Err(format!("who explains {explained} plans {hurried:?}\n  and not {plan:?}"));
            }
        }
        Ok(())
    }

    /// The command that an operation comes to now, where it is one.
    pub fn command(&self, op: &Op) -> Option<Command> {
        Some(match op {
            Op::Epoch => Command::OpenEpoch { epoch: Epoch(self.state.epoch.0 + 1) },
            Op::Submit { name, count, gpus, priority, retries, pool, firm, lasts, after, ttl, reads, more } => {
                let skus: &[&str] = if *gpus > 0 { &["H100"] } else { &[] };
                let group = group("w", *count, 1, 1, *gpus, skus);
                let mut spec = if *more > 0 { ray(1, vec![elastic(group, *more)]) } else { batch(vec![group]) };
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
                // Every other one ends itself where its cluster is lost.
                spec.on_cluster_loss = [OnClusterLoss::Failover, OnClusterLoss::Wait][name % 2];
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
            Op::GrowAgain { which } => {
                let growth = self.grown.get(which % self.grown.len().max(1))?.clone();
                Command::Grow(Box::new(growth))
            }
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
            Op::Raise { name, gpus } => {
                let to = || Amounts([(Resource::Gpu, gpus * 1000)].into());
                let raise = (*gpus > 0).then(|| Raise { to: to(), until: UnixMs(self.now + gpus * 600_000) });
                let (epoch, pool) = (self.state.epoch, script::pool(POOLS[*name]));
                Command::RaisePool(Box::new(Raising { epoch, pool, raise }))
            }
            Op::Owner { pool } => {
                let spec = OwnershipSpec { pool: Some(script::pool(POOLS[*pool])), parent: None };
                let owner = Namespace::new("default").unwrap();
                Command::SetOwnershipRule { owner, spec, expect: Expect::Any }
            }
            Op::BindAgain { which, older_epoch } => self.bind_again(*which, *older_epoch)?,
            Op::Report { name, cluster, attempt_back, revision_back, state, size } => {
                let w = self.state.workloads.get(&key(NAMES[*name]))?;
                let last = w.attempts.last()?;
                let cluster = CLUSTERS.get(*cluster).map_or_else(|| last.cluster.clone(), |c| super::cluster(c));
                let mut report = report(
                    NAMES[*name],
                    last.number.0.saturating_sub(*attempt_back),
                    (last.revision + 1).saturating_sub(*revision_back),
                    state_of(STATES[*state]),
                );
                report.resized = said_of_size(w, last, *size);
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
            Op::Fence { name, attempt_back, older_epoch } => {
                let last = self.state.workloads.get(&key(NAMES[*name]))?.attempts.last()?.number.0;
                Command::Fence(Box::new(Fence {
                    epoch: Epoch(self.state.epoch.0.saturating_sub(u64::from(*older_epoch))),
                    key: key(NAMES[*name]),
                    uid: uid(NAMES[*name]),
                    attempt: AttemptNumber(last.saturating_sub(*attempt_back)),
                }))
            }
            Op::Cordon { cluster, how } => {
                let reason = Some("its nodes are replaced".to_owned()).filter(|_| how.is_multiple_of(2));
                let to = match how {
                    0..=1 => Cordoning::Lift,
                    2..=3 => Cordoning::Cordon { reason },
                    how => Cordoning::Drain { reason, force: *how == 6, max_at_once: (*how == 5).then_some(1) },
                };
                Command::Cordon { cluster: super::cluster(CLUSTERS[*cluster]), to }
            }
            Op::Remove { cluster, lost_for_good } => Command::RemoveCluster {
                cluster: super::cluster(CLUSTERS[*cluster]),
                reason: "its lease ended".into(),
                lost_for_good: *lost_for_good,
            },
            Op::Plan { .. } | Op::Tick { .. } | Op::CatchUp { .. } => return None,
        })
    }

    /// What a pool holds after a binding is at most what it was entitled to when that was planned.
    fn check_part(&self, key: &WorkloadKey, whole: &Sums, parts: &BTreeMap<PoolName, Sums>) -> Result<(), String> {
        let workload = &self.state.workloads[key];
        let lost = |w: &engine::state::Workload| {
            let lost =
                |a: &engine::state::Attempt| self.state.clusters.get(&a.cluster).is_none_or(|c| c.lost_since.is_some());
            w.attempts.last().is_some_and(lost)
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
        let need = &w.spec.gang().pop().unwrap();
        for (name, frame) in &self.fleet.capacity.clusters {
            let lost = self.state.clusters.get(name).is_none_or(|c| c.lost_since.is_some() || c.cordon.is_some());
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
            self.resized.1 += p.shrinks.iter().map(|s| all_members(&s.members)).sum::<u32>();
        }
        if let (Command::Grow(growth), Ok(_)) = (&command, &applied.outcome) {
            self.resized.0 += all_members(&growth.members);
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
        for name in CLUSTERS {
            let lift = Command::Cordon { cluster: cluster(name), to: Cordoning::Lift };
            let _outcome = self.apply(lift)?;
        }
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

/// What an agent may say of the newest resize: that it is done, or not yet, or that a member beyond the minimum is missing; or the same
/// of an older one.
fn said_of_size(w: &engine::state::Workload, last: &engine::state::Attempt, size: u8) -> Option<Resized> {
    let resize = last.resize.as_ref().filter(|_| size < 7)?;
    let number = CommandNumber(resize.number.0 - u64::from(size == 6));
    let mut missing = resize.missing.clone();
    let workers = last.placement.last()?;
    let beyond = workers.nodes.iter().map(|s| s.members).sum::<u32>() > w.spec.gang().last()?.count;
    if size == 5 && beyond {
        let one = NodeShare { members: 1, ..workers.nodes.last()?.clone() };
        match missing.first_mut().and_then(|m| m.nodes.iter_mut().find(|s| s.node == one.node)) {
            Some(known) => known.members += 1,
            None => missing.push(GroupPlacement { nodes: vec![one], ..workers.clone() }),
        }
    }
    Some(Resized { number, settled: size != 4, missing })
}

/// Each cluster has 4 GPUs on one node, and 12 cpu and 12Gi on two.
fn fits_alone(w: &engine::state::Workload) -> bool {
    let need = w.spec.gang().pop().unwrap();
    u64::from(need.count) * need.each.gpu_milli <= 4000
}

/// Runs a whole history; what was seen of it, or the first thing that does not hold, with its place.
pub fn run(ops: &[Op]) -> Result<History, String> {
    let mut history = History::new();
    for (i, op) in ops.iter().enumerate() {
        history.step(op).map_err(|e| format!("step {i}: {e}"))?;
    }
    history.settle().map_err(|e| format!("after the faults: {e}"))?;
    Ok(history)
}

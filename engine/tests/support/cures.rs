//! Takes a plan at its word: makes false what it says keeps a workload waiting, and that alone, until the workload starts. Shares
//! nothing with the planner but its words.

use engine::commands::{Command, Expect};
use engine::reasons::{Obstacle, QuotaBound, Shortfall, WaitCause, Waiting};
use engine::{Phase, State};
use protocol::data::DataSpec;
use protocol::ids::*;
use protocol::pool::{PoolSpec, Quota};
use protocol::resources::DataSize;

use super::histories::History;
use super::script::state_of;
use super::{batch, group, node, report, resources};

/// More cures than one workload can need: each pool above it, each workload that it waits for, and a few clusters.
const MOST: usize = 24;
/// Clusters that come for one workload: more room than everybody in line could want is in the first.
const MOST_CLUSTERS: usize = 2;

/// Who waits.
pub fn waiting(history: &History) -> Vec<Uid> {
    let queued = history.state.workloads.values().filter(|w| w.phase == Phase::Queued);
    queued.map(|w| w.uid).collect()
}

/// Cures a workload until it starts; what was cured, in order.
pub fn start(history: History, uid: Uid) -> Result<Vec<&'static str>, String> {
    let mut patient = Patient { history, cured: vec![], brought: 0 };
    patient.start(uid)?;
    Ok(patient.cured)
}

struct Patient {
    history: History,
    cured: Vec<&'static str>,
    brought: usize,
}

impl Patient {
    fn start(&mut self, uid: Uid) -> Result<(), String> {
        let mut told: Vec<Waiting> = vec![];
        while self.cured.len() < MOST {
            let plan = self.history.plan();
            if let Some(binding) = plan.bindings.iter().find(|b| b.uid == uid) {
                return self.history.accepted(Command::Bind(Box::new(binding.clone())));
            }
            let why = plan.waiting.get(&uid).ok_or("it waits, and nothing is said of it")?.clone();
            if told.last() == Some(&why) {
                return Err(format!("it was cured of this, and is told the same again: {why:?}"));
            }
            let cure = self.cure(uid, &why).map_err(|e| format!("{e}\n  told {why:?}\n  cured {:?}", self.cured))?;
            self.cured.push(cure);
            told.push(why);
        }
        Err(format!("it waits after every cure: {told:?}"))
    }

    fn cure(&mut self, uid: Uid, why: &Waiting) -> Result<&'static str, String> {
        match &why.cause {
            WaitCause::Backoff { until } => {
                self.history.wait_until(*until);
                Ok("backoff")
            }
            WaitCause::Dependencies { awaited } => {
                let names = awaited.iter().map(|a| a.workload.clone()).collect::<Vec<_>>();
                names.iter().try_for_each(|name| self.succeed(uid, name))?;
                Ok("dependency")
            }
            WaitCause::UnknownData { data } => data.iter().try_for_each(|name| self.put(name)).map(|()| "data"),
            WaitCause::Quota(short) => self.allow(short),
            WaitCause::NoClusters => self.bring().map(|()| "cluster"),
            WaitCause::NoRoom | WaitCause::BehindOthers { .. } | WaitCause::Impossible => {
                let lacking = why.candidates.iter().find_map(|c| match &c.obstacle {
                    Some(Obstacle::NoCopy { data, .. }) => Some(data.clone()),
                    _ => None,
                });
                match (&why.cause, lacking) {
                    (_, Some(data)) if self.brought > 0 => self.put(&data).map(|()| "copy"),
                    (cause, _) => {
                        self.bring()?;
                        Ok(match cause {
                            WaitCause::NoRoom => "room",
                            WaitCause::Impossible => "impossible",
                            _ => "behind",
                        })
                    }
                }
            }
            WaitCause::Companion { .. } | WaitCause::NoTokens | WaitCause::BeingPlaced => {
                Err("no history has that".into())
            }
        }
    }

    /// Room for all.
    fn bring(&mut self) -> Result<(), String> {
        self.brought += 1;
        if self.brought > MOST_CLUSTERS {
            return Err("there is an empty cluster that could hold everybody in line".into());
        }
        let nodes = (0..40).map(|n| node(&format!("n{n}"), Some("H100"), resources(64, 512, 8)));
        self.history.bring(&format!("new-{}", self.brought), nodes.collect())
    }

    /// The data is wherever there are clusters.
    fn put(&mut self, name: &DataName) -> Result<(), String> {
        let regions = [Region::new("eu-west").unwrap()].into();
        let spec = Box::new(DataSpec { size: DataSize(1), regions, ..DataSpec::default() });
        self.history.accepted(Command::SetData { name: name.clone(), spec, expect: Expect::Any })
    }

    /// What bounds the pool bounds it no more.
    fn allow(&mut self, short: &Shortfall) -> Result<&'static str, String> {
        let change = |spec: &PoolSpec, quota: Quota| {
            let mut spec = spec.clone();
            spec.resources.0.insert(short.resource.clone(), quota);
            spec
        };
        let line = line(&self.history.state, &short.pool);
        if short.bound == QuotaBound::Limit {
            let spec = &line[0].1;
            let free = change(spec, Quota { limit: None, ..spec.quota(&short.resource) });
            return self.set(&short.pool, free).map(|()| "limit");
        }
        // From above, for no pool reserves more than the one that it is under.
        for (depth, (name, spec)) in line.iter().rev().enumerate() {
            let reservation = 1_000_000_000 >> depth;
            self.set(name, change(spec, Quota { limit: None, reservation, ..spec.quota(&short.resource) }))?;
        }
        if short.bound == QuotaBound::Reservation {
            return Ok("reservation");
        }
        // A part is of what there is.
        if self.brought == 0 {
            self.bring()?;
        }
        Ok("part")
    }

    fn set(&mut self, name: &PoolName, spec: PoolSpec) -> Result<(), String> {
        self.history.accepted(Command::SetPool { name: name.clone(), spec: Box::new(spec), expect: Expect::Any })
    }

    /// One on which another depends succeeds; where that is not on record, or ended otherwise, one of its name is submitted first.
    fn succeed(&mut self, of: Uid, name: &WorkloadName) -> Result<(), String> {
        let waits = self.history.state.workloads.values().find(|w| w.uid == of).ok_or("it is gone")?;
        let key = WorkloadKey { namespace: waits.key.namespace.clone(), name: name.clone() };
        let phase = self.history.state.workloads.get(&key).map(|w| (w.phase, w.cancel_requested));
        if phase.is_none_or(|(phase, _)| phase.is_terminal()) {
            if phase.is_some() {
                self.history.accepted(Command::Delete { key: key.clone() })?;
            }
            let (uid, spec) =
                (Uid(of.0 ^ 0xcafe ^ (self.cured.len() as u128) << 32), batch(vec![group("w", 1, 1, 1, 0, &[])]));
            self.history.accepted(Command::Submit { key: key.clone(), uid, spec: Box::new(spec) })?;
        }
        let uid = self.history.state.workloads[&key].uid;
        if self.history.state.workloads[&key].phase == Phase::Queued {
            self.start(uid)?;
        }
        let w = &self.history.state.workloads[&key];
        let attempt = w.live_attempt().ok_or("an awaited workload neither waits nor lives")?;
        let mut said = report(name.as_str(), attempt.number.0, attempt.revision + 1, state_of("succeeded"));
        said.attempt.workload = uid;
        let cluster = attempt.cluster.clone();
        self.history.accepted(Command::Report { cluster, report: said })?;
        match self.history.state.workloads.get(&key).map(|w| w.phase) {
            Some(Phase::Succeeded) => Ok(()),
            Some(phase) if !phase.is_terminal() => {
                Err(format!("{name} was reported to have succeeded, and is {phase}"))
            }
            // It was being cancelled, or deleted: that is final. Another is submitted.
            _ => self.succeed(of, name),
        }
    }
}

/// A pool and those above it, with what they are.
fn line(state: &State, pool: &PoolName) -> Vec<(PoolName, PoolSpec)> {
    let all = state.pools.all();
    let spec = |name: &PoolName| all.get(name).map_or_else(PoolSpec::default, |spec| (*spec).clone());
    let mut line = vec![(pool.clone(), spec(pool))];
    while let Some(parent) = line.last().and_then(|(_, spec)| spec.parent.clone()) {
        line.push((parent.clone(), spec(&parent)));
    }
    line
}

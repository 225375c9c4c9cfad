//! Nobody waits for ever: a gang that needs whole nodes starts within a bound, however many small workloads keep coming, and whatever
//! they say of how long they take.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use engine::commands::{Command, Outcome};
use engine::plan::{Memory, plan_on};
use engine::{Phase, State};
use proptest::prelude::*;
use protocol::control::AttemptState;
use protocol::ids::*;
use protocol::resources::Span;
use support::*;

/// One small workload: its GPUs, how long it really runs, and how long it says, in seconds; 0 says nothing.
#[derive(Debug, Clone)]
struct Small {
    gpus: u64,
    runs: u64,
    says: u64,
}

/// The longest that a small workload runs, in seconds.
const LONGEST: u64 = 20;
/// The longest that one says that it runs.
const SAYS: u64 = 40;
const NODES: usize = 4;
const GPUS: u64 = 4;

fn small() -> impl Strategy<Value = Small> {
    (1..=GPUS, 1..=LONGEST, prop_oneof![Just(0), Just(1), 1..=SAYS], any::<bool>()).prop_map(
        |(gpus, runs, says, honest)| {
            let says = if honest && says > 0 { runs } else { says };
            Small { gpus, runs, says }
        },
    )
}

/// A fleet in seconds.
struct Run {
    state: State,
    fleet: Fleet,
    memory: Memory,
    now: u64,
    index: u64,
    /// When each running workload ends.
    running: BTreeMap<String, u64>,
    runs: BTreeMap<String, u64>,
}

impl Run {
    fn new(pools: &[(&str, u64, u32)]) -> Self {
        let mut fleet = Fleet::default();
        let whole = resources(GPUS * 8, GPUS * 64, GPUS);
        fleet.set("eu-1", (0..NODES).map(|n| node(&format!("n{n}"), Some("H100"), whole)).collect());
        let state = State::default();
        let mut run = Self {
            state,
            fleet,
            memory: Memory::new(3_000),
            now: 0,
            index: 0,
            running: BTreeMap::new(),
            runs: BTreeMap::new(),
        };
        run.apply(Command::OpenEpoch { epoch: Epoch(1) }).unwrap();
        let (incarnation, last_command) = (Incarnation(1), CommandNumber(0));
        run.apply(Command::Join { info: info("eu-1", "eu-west"), incarnation, last_command, attempts: vec![] })
            .unwrap();
        for (name, reservation, share) in pools {
            let spec = script::pool_of(&[&format!("gpu={reservation}/-/{share}")]);
            let expect = engine::commands::Expect::Any;
            run.apply(Command::SetPool { name: script::pool(name), spec: Box::new(spec), expect }).unwrap();
        }
        run
    }

    fn apply(&mut self, command: Command) -> Result<Outcome, engine::commands::Refusal> {
        self.index += 1;
        self.state.apply(LogIndex(self.index), &command, UnixMs(self.now * 1000)).outcome
    }

    fn submit(&mut self, name: &str, pool: Option<&str>, count: u32, small: &Small) {
        let gpus = small.gpus;
        let mut spec = batch(vec![group("w", count, gpus * 8, gpus * 64, gpus, &["H100"])]);
        spec.expected_duration = (small.says > 0).then_some(Span(small.says * 1000));
        spec.pool = pool.map(script::pool);
        self.runs.insert(name.into(), small.runs);
        self.apply(Command::Submit { key: key(name), uid: uid(name), spec: Box::new(spec) }).unwrap();
    }

    /// Ends what ends now, then places what can be placed.
    fn second(&mut self) {
        self.now += 1;
        let ended: Vec<String> =
            self.running.iter().filter(|(_, at)| **at <= self.now).map(|(n, _)| n.clone()).collect();
        ended.iter().for_each(|name| self.report(name, AttemptState::Succeeded));
        self.fleet.catch_up(&self.state, "eu-1");
        let plan = plan_on(&self.state, &self.fleet.capacity, &self.memory, UnixMs(self.now * 1000), 100);
        self.memory = plan.memory;
        for binding in plan.bindings {
            let name = binding.key.name.to_string();
            self.apply(Command::Bind(Box::new(binding))).unwrap();
            self.report(&name, AttemptState::Running);
            self.running.insert(name.clone(), self.now + self.runs[&name]);
        }
        for preemption in plan.preemptions {
            let victims: Vec<String> = preemption.victims.iter().map(|v| v.key.name.to_string()).collect();
            if self.apply(Command::Preempt(Box::new(preemption))).is_ok() {
                victims.iter().for_each(|name| self.report(name, AttemptState::Stopped));
            }
        }
        self.fleet.catch_up(&self.state, "eu-1");
    }

    fn report(&mut self, name: &str, ends: AttemptState) {
        let attempt = self.state.workloads[&key(name)].live_attempt().unwrap();
        let report = report(name, attempt.number.0, attempt.revision + 1, ends.clone());
        self.apply(Command::Report { cluster: cluster("eu-1"), report }).unwrap();
        if ends.is_final() {
            self.running.remove(name);
        }
    }

    fn waiting(&self) -> usize {
        self.state.waiting().len()
    }

    /// Floods it until the workload starts; how many seconds that took.
    fn flood_until_started(&mut self, name: &str, flood: &[Small], pools: &[Option<&str>], bound: u64) -> Option<u64> {
        let since = self.now;
        let mut coming = flood.iter().cycle();
        let mut number = 0;
        while self.now - since <= bound {
            while self.waiting() < 8 {
                number += 1;
                let pool = pools[number % pools.len()];
                self.submit(&format!("late-{number}"), pool, 1, coming.next().unwrap());
            }
            self.second();
            if self.state.workloads[&key(name)].phase != Phase::Queued {
                return Some(self.now - since);
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Until the first expected start those may pass that say that they end by then; after that, each change of its nodes leaves fewer
    /// attempts to wait for.
    #[test]
    fn a_gang_starts_however_many_others_come(
        before in prop::collection::vec(small(), 8..24),
        flood in prop::collection::vec(small(), 40..80),
        nodes in 1..=NODES as u32,
    ) {
        let mut run = Run::new(&[]);
        for (i, small) in before.iter().enumerate() {
            run.submit(&format!("early-{i}"), None, 1, small);
        }
        for _ in 0..5 {
            run.second();
        }
        run.submit("big", None, nodes, &Small { gpus: GPUS, runs: 1, says: 0 });
        // Those that were there before it in the line are served first.
        let ahead = run.waiting() as u64;
        let attempts = NODES as u64 * GPUS;
        let bound = (ahead + 1) * (SAYS + (attempts + 1) * LONGEST);
        let took = run.flood_until_started("big", &flood, &[None], bound);
        prop_assert!(took.is_some(), "the gang still waits after {bound} s: {}", why(&run));
    }
}

#[test]
fn who_has_had_much_is_passed_only_for_so_long() {
    const HOUR: u64 = 3600;
    let mut run = Run::new(&[]);
    let spec = Box::new(script::pool_of(&["gpu=0/-/1", "least"]));
    run.apply(Command::SetPool { name: script::pool("ads"), spec, expect: engine::commands::Expect::Any }).unwrap();
    run.submit("long", Some("ads"), NODES as u32, &Small { gpus: GPUS, runs: 1000 * HOUR, says: 0 });
    run.second();
    let phase = |run: &Run| run.state.workloads[&key("long")].phase;
    assert_eq!(phase(&run), Phase::Running);
    // After an hour of all 16 GPUs it counts as 16 GPU-hours. More short ones come than there is time for.
    run.now = HOUR;
    let (mut number, mut gone) = (0, None);
    while run.now < 260 * HOUR {
        if run.now >= HOUR + number * 900 {
            number += 1;
            let short = Small { gpus: GPUS, runs: 1000, says: 0 };
            run.submit(&format!("late-{number}"), Some("ads"), NODES as u32, &short);
        }
        run.now += 99;
        run.second();
        match gone {
            None if phase(&run) == Phase::Queued => gone = Some(run.now),
            Some(_) if phase(&run) == Phase::Running => break,
            _ => {}
        }
    }
    assert!(gone.is_some_and(|at| at < HOUR + 300), "it gives way at once: {gone:?}");
    // Those that came within 160 hours go first, which takes longer than these: 11 minutes for every ten.
    let hours = run.now / HOUR;
    assert!((160..240).contains(&hours), "it runs again after {hours} hours");
    let waiting = run.waiting();
    assert!(waiting > 50, "others still wait that came later: {waiting}");
}

fn why(run: &Run) -> String {
    let plan = plan_on(&run.state, &run.fleet.capacity, &run.memory, UnixMs(run.now * 1000), 100);
    plan.waiting.get(&uid("big")).map_or_else(|| "?".into(), |w| format!("{w}; {:?}", w.reserved))
}

//! What the fuzzer of `fuzz/` does, on its corpus and on some thousand inputs that are the same at every run: no panic, no overflow,
//! and every invariant of the histories holds.

#![allow(clippy::unwrap_used)]
#![cfg(not(feature = "planted"))]

mod support;

use engine::commands::Command;
use engine::plan::plan;
use protocol::ids::UnixMs;
use support::fuzzed::{ops, run, written};
use support::histories::History;
use support::operations::Op;

/// Inputs of each kind.
const INPUTS: u64 = 1_000;

/// Numbers that are the same at every run (Marsaglia's xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.next() % most;
        (0..length).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// How many orders went to agents.
fn check(name: &str, input: &[u8]) -> u64 {
    run(input).unwrap_or_else(|e| panic!("{name}: {e}\n  input: {input:?}"))
}

#[test]
fn the_corpus_breaks_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/commands");
    let mut inputs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(inputs.len() >= 4, "inputs are missing from {folder}");
    for path in inputs {
        let orders = check(&path.display().to_string(), &std::fs::read(&path).unwrap());
        // Of commands alone nothing is planned.
        assert!(orders > 0 || path.ends_with("commands-in-the-logs-bytes"), "{} places nothing", path.display());
    }
}

#[test]
fn random_histories_break_nothing() {
    let mut orders = 0;
    for seed in 1..=INPUTS {
        let mut input = vec![0];
        // An epoch and both clusters first: without them nothing is ever placed.
        input.extend([0, 17, 0, 0, 1, 4, 2, 17, 1, 0, 1, 4, 2]);
        input.extend(Dice(seed).bytes(280));
        orders += check(&format!("seed {seed}"), &input);
    }
    assert!(orders > INPUTS, "the inputs hardly mean anything: {orders} orders");
}

/// Commands that a history came to, in the log's bytes, with some of the bytes changed.
#[test]
fn commands_that_were_changed_break_nothing() {
    let mut orders = 0;
    for seed in 1..=INPUTS {
        let mut dice = Dice(seed ^ 0xabcd_0000);
        let mut history = History::new();
        let mut commands: Vec<Command> = vec![];
        let prefix = [0, 17, 0, 0, 1, 4, 2, 17, 1, 0, 1, 4, 2];
        // Whatever came before, some that find room, and a plan.
        let last = [7, 8, 9].map(|name| [1, name, 0, 1, 1, 1, 5, 0, 0, 11, 0, 15, 0]).concat();
        let happenings = ops(&[&prefix[..], &dice.bytes(140)].concat());
        for op in happenings.into_iter().chain(ops(&[&last[..], &[11, 3]].concat())) {
            commands.extend(history.command(&op));
            if matches!(op, Op::Plan { .. }) {
                let bound = plan(&history.state, &history.fleet().capacity, UnixMs(0), 4).bindings;
                commands.extend(bound.into_iter().map(|binding| Command::Bind(Box::new(binding))));
            }
            history.step(&op).unwrap();
        }
        let mut input = written(commands.iter());
        orders += check(&format!("seed {seed}, as it was"), &input);
        for _ in 0..1 + dice.next() % 8 {
            let at = 1 + dice.next() as usize % input.len();
            if let Some(byte) = input.get_mut(at) {
                *byte = (dice.next() >> 32) as u8;
            }
        }
        check(&format!("seed {seed}, changed"), &input);
    }
    assert!(orders > INPUTS / 4, "the commands hardly mean anything: {orders} orders");
}

#[test]
fn random_bytes_break_nothing() {
    for seed in 1..=INPUTS {
        let mut input = vec![1];
        input.extend(Dice(seed).bytes(400));
        check(&format!("seed {seed}"), &input);
    }
}

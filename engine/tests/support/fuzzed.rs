//! Any bytes as commands of the engine, for the fuzzer (`fuzz/`) and for the test that does the same with inputs of its own
//! (`engine/tests/fuzzed.rs`).
//!
//! The first byte says how the rest is read: as a history, a few bytes a happening, so that nearly every input means something; or
//! as commands in the log's own bytes, so that what no client would send is met too.

use engine::State;
use engine::commands::Command;
use engine::plan::{Memory, explain, plan_on, pools};
use protocol::codec::decode_body;
use protocol::ids::{LogIndex, UnixMs};

use super::Fleet;
use super::histories::History;
use super::invariants::check_step;
use super::operations::Op;

/// The most happenings, or commands, of one input.
const MOST: usize = 200;

/// Runs an input; how many orders went to agents, or the first thing that does not hold.
pub fn run(bytes: &[u8]) -> Result<u64, String> {
    match bytes.split_first() {
        Some((how, rest)) if how.is_multiple_of(2) => history(rest),
        Some((_, rest)) => raw(rest),
        None => Ok(0),
    }
}

/// Numbers out of bytes: 0 once there are no more.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Below `bound`, which is at most 256.
    fn below(&mut self, bound: u16) -> usize {
        usize::from(u16::from(self.byte()) % bound)
    }

    fn yes(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Up to a minute and a bit.
    fn ms(&mut self) -> u64 {
        u64::from(self.byte()) * 257
    }
}

/// The happenings that bytes stand for.
pub fn ops(bytes: &[u8]) -> Vec<Op> {
    let mut numbers = Numbers(bytes);
    let mut ops = vec![];
    while !numbers.0.is_empty() && ops.len() < MOST {
        ops.push(op(&mut numbers));
    }
    ops
}

fn op(n: &mut Numbers<'_>) -> Op {
    match n.below(26) {
        0 => Op::Epoch,
        1..=4 => Op::Submit {
            name: n.below(10),
            count: 1 + n.below(3) as u32,
            gpus: n.below(4) as u64,
            priority: n.below(3) as i32 - 1,
            retries: n.below(3) as u32,
            pool: n.below(6),
            firm: n.below(6) == 5,
            lasts: n.below(4) as u64,
            after: n.below(12),
            ttl: n.ms(),
            reads: n.below(16),
            more: n.below(4) as u32,
        },
        5 => Op::SetPool {
            name: n.below(3),
            parent: n.below(6),
            reservation: n.below(5) as u64,
            limit: n.below(12) as u64,
            share: 1 + n.below(3) as u32,
            kept: n.yes(),
            within: n.yes(),
        },
        6 => Op::DeletePool { name: n.below(3) },
        7 => Op::Owner { pool: n.below(3) },
        8 => Op::SetData { name: n.below(2), gib: u64::from(n.byte()), places: n.below(5) },
        9 => Op::DeleteData { name: n.below(2) },
        10 => Op::PreemptAgain { which: n.below(256) },
        11..=13 => Op::Plan { limit: 1 + n.below(4) },
        14 => Op::BindAgain { which: n.below(256), older_epoch: n.yes() },
        15 | 16 => Op::Report {
            name: n.below(10),
            cluster: n.below(12),
            attempt_back: n.below(8) as u32 / 7,
            revision_back: n.below(8) as u64 / 6,
            state: n.below(9),
            size: n.below(8) as u8,
        },
        17 => Op::Join {
            cluster: n.below(2),
            life: 1 + n.below(2) as u128,
            took_all: n.yes(),
            forgets: n.below(5),
            state: n.below(9),
        },
        18 => match n.below(5) {
            0 => Op::Lose { cluster: n.below(2) },
            1 => Op::Cancel { name: n.below(10) },
            2 => Op::Delete { name: n.below(10) },
            3 => Op::Expire { name: n.below(10) },
            _ => Op::Forget { name: n.below(10), attempt_back: n.below(4) as u32 / 3 },
        },
        19 => Op::Tick { ms: n.ms() },
        20 => Op::GrowAgain { which: n.below(256) },
        21 | 22 => Op::CatchUp { cluster: n.below(2) },
        23 => Op::Cordon { cluster: n.below(2), how: n.below(7) as u8 },
        24 => Op::Fence { name: n.below(10), attempt_back: n.below(4) as u32 / 3, older_epoch: n.below(4) == 3 },
        _ => Op::Remove { cluster: n.below(2), lost_for_good: n.yes() },
    }
}

fn orders(state: &State) -> u64 {
    state.clusters.values().map(|cluster| cluster.last_command.0).fold(0, u64::saturating_add)
}

fn history(bytes: &[u8]) -> Result<u64, String> {
    let mut history = History::new();
    for (i, op) in ops(bytes).iter().enumerate() {
        history.step(op).map_err(|e| format!("step {i}, {op:?}: {e}"))?;
    }
    history.settle().map_err(|e| format!("after the faults: {e}"))?;
    Ok(orders(&history.state))
}

/// Commands as a log might have them: two bytes of length, and the body. What can't be read is passed over, as a log's reader
/// would have refused it.
fn raw(mut bytes: &[u8]) -> Result<u64, String> {
    let (mut state, mut index) = (State::default(), 0);
    while let [high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (body, more) = rest.split_at(length);
        bytes = more;
        let Ok(command) = decode_body::<Command>(body) else { continue };
        index += 1;
        if index > MOST as u64 {
            break;
        }
        let before = state.clone();
        let applied = state.apply(LogIndex(index), &command, UnixMs(index * 1000));
        check_step(&before, &command, &applied, &state).map_err(|e| format!("{e}\n  after {command:?}"))?;
    }
    ask(&state);
    Ok(orders(&state))
}

/// The questions must be answered whatever the log has: on a fleet that nobody declared, and on one that they know.
fn ask(state: &State) {
    let known = History::new();
    for fleet in [&Fleet::default(), known.fleet()] {
        let plan = plan_on(state, &fleet.capacity, &Memory::new(0), state.now, 8);
        for key in state.workloads.keys().take(4) {
            explain(state, &fleet.capacity, state.now, key);
        }
        pools(state, &fleet.capacity, state.now);
        drop(plan);
    }
}

/// Inputs of the second kind, made of commands.
pub fn written<'a>(commands: impl Iterator<Item = &'a Command>) -> Vec<u8> {
    let mut bytes = vec![1];
    for body in commands.filter_map(|command| protocol::codec::encode_body(command).ok()) {
        let Ok(length) = u16::try_from(body.len()) else { continue };
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
    }
    bytes
}

//! The simulation: one seed drives a whole federation in virtual time. The code is the product's (replica core, raft driver,
//! log store, engine, planner, sessions, leases; the agent's cluster role and journal); simulated are the network, disks,
//! clocks and runtimes around it. Faults are drawn from the seed; invariants look at facts alone.
//!
//! The same seed gives the same run, event for event, on every machine and beside any number of others: nothing here reads a
//! clock, a hash map's order or a thread's.

mod agents;
mod clients;
mod clock;
mod crashes;
mod disk;
mod facts;
mod faults;
mod guards;
mod invariants;
mod judge;
mod links;
mod mishaps;
mod network;
mod operator;
pub mod planted;
mod process;
mod queue;
mod random;
mod replicas;
mod runtime;
mod shrink;
mod sweep;
mod world;

pub use judge::Violation;
pub use shrink::{Shrunk, shrink};
pub use sweep::{Sweep, Total, sweep};

use std::collections::BTreeSet;

use judge::Digest;
use world::World;

/// What came of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A digest of every event and of the whole story.
    pub hash: u64,
    /// Virtual time that passed, in µs.
    pub virtual_us: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Events that happened.
    pub events: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Every fault of the seed, with its time in µs, by its number.
    pub planned: Vec<(u64, String)>,
}

/// Runs one seed; `trace` prints the story as it goes.
pub fn run(seed: u64, trace: bool) -> Report {
    run_without(seed, trace, &BTreeSet::new())
}

/// Runs one seed without the faults of these numbers.
pub fn run_without(seed: u64, trace: bool, without: &BTreeSet<usize>) -> Report {
    let mut world = World::new(seed, trace, without);
    world.run();
    let mut digest = world.judge.digest;
    digest.number(world.events);
    let report = Report {
        seed,
        hash: digest.0,
        virtual_us: world.now_us,
        faults: world.struck,
        events: world.events,
        violation: world.judge.violation.take(),
        planned: world.faults.iter().map(|(at_us, fault)| (*at_us, format!("{fault:?}"))).collect(),
    };
    for process in &mut world.replicas {
        process.die();
    }
    for process in &mut world.agents {
        process.die();
    }
    report
}

/// The digest of many seeds' digests, in their order.
pub(crate) fn combined(hashes: impl Iterator<Item = u64>) -> u64 {
    let mut digest = Digest::default();
    hashes.for_each(|hash| digest.number(hash));
    digest.0
}

//! Seeded chance. Each part of the world has a stream of its own, so that a change in one part does not shift what the
//! others draw. The same seed gives the same stream on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One stream of a seed.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of this number of the seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to before `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The bias of the remainder is far below what a run of faults could show.
        if n == 0 { 0 } else { self.number() % n }
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True this often in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One index of a list of this length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

/// The streams of one world.
pub(crate) struct Dice {
    pub setup: Random,
    pub network: Random,
    pub disk: Random,
    pub runtime: Random,
    pub clients: Random,
    pub faults: Random,
    pub operator: Random,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        let stream = |n| Random::new(seed, n);
        Self {
            setup: stream(1),
            network: stream(2),
            disk: stream(3),
            runtime: stream(4),
            clients: stream(5),
            faults: stream(6),
            operator: stream(7),
        }
    }
}

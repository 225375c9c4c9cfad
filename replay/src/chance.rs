//! Seeded chance, one stream for each use: the same seed gives the same run on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One stream of a seed.
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream in which pods arrive.
    pub const ARRIVALS: u64 = 1;
    /// The stream of a policy that draws lots.
    pub const POLICY: u64 = 2;
    /// The stream by which nodes are given to clusters.
    pub const SPLIT: u64 = 3;
    /// The stream of the generator.
    pub const GENERATOR: u64 = 4;

    /// A stream of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// From 0 to before `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// One of these, which are not none.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A fair order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

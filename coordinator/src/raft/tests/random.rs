//! The same numbers again for the same seed.

use crate::raft::disk::{Fate, Piece};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// What a crash does to a piece of a write.
    pub fn fate(&mut self, piece: Piece) -> Fate {
        match self.below(5) {
            0 | 1 => Fate::Kept,
            2 | 3 => Fate::Lost,
            _ => Fate::Torn(self.below(piece.bytes as u64 + 1) as usize),
        }
    }
}

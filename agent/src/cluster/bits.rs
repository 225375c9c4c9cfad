//! A set of row numbers as bits: what changed in a column since the last frame. Marking is one store, joining two sets is
//! a pass over words, and reading gives rows in growing order, as frames want them.

/// A set of rows below a fixed length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    any: bool,
}

impl Bits {
    /// The empty set for `length` rows.
    pub fn new(length: usize) -> Self {
        Self { words: vec![0; length.div_ceil(64)], any: false }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    /// Adds a row.
    pub fn mark(&mut self, row: usize) {
        self.words[row / 64] |= 1 << (row % 64);
        self.any = true;
    }

    /// Adds every row of `other`, which is as long.
    pub fn join(&mut self, other: &Bits) {
        if other.any {
            for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
                *mine |= theirs;
            }
            self.any = true;
        }
    }

    /// Takes every row out.
    pub fn clear(&mut self) {
        if self.any {
            self.words.fill(0);
            self.any = false;
        }
    }

    /// The rows, growing.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        let words: &[u64] = if self.any { &self.words } else { &[] };
        words.iter().enumerate().flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_growing_and_once() {
        let mut bits = Bits::new(200);
        for row in [199, 0, 64, 63, 64, 128] {
            bits.mark(row);
        }
        assert_eq!(bits.rows().collect::<Vec<_>>(), [0, 63, 64, 128, 199]);
        let mut other = Bits::new(200);
        other.mark(5);
        other.join(&bits);
        assert_eq!(other.rows().collect::<Vec<_>>(), [0, 5, 63, 64, 128, 199]);
        other.clear();
        assert!(other.is_empty() && other.rows().next().is_none());
    }
}

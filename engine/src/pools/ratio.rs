//! How much of its part a pool has, as a fraction that is compared without rounding.

use std::cmp::Ordering;

/// `held / entitled`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    held: u64,
    entitled: u64,
}

impl Ratio {
    /// `held / entitled`.
    pub(crate) fn new(held: u64, entitled: u64) -> Self {
        Self { held, entitled }
    }
}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> Ordering {
        // Nothing of nothing is nothing; something of nothing is more than anything.
        match (self.entitled, other.entitled) {
            (0, 0) => (self.held > 0).cmp(&(other.held > 0)),
            (0, _) if self.held > 0 => Ordering::Greater,
            (_, 0) if other.held > 0 => Ordering::Less,
            (0, _) => 0.cmp(&other.held),
            (_, 0) => self.held.cmp(&0),
            _ => {
                let cross = |a: u64, b: u64| u128::from(a) * u128::from(b);
                cross(self.held, other.entitled).cmp(&cross(other.held, self.entitled))
            }
        }
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ratio {}

#[cfg(test)]
mod tests {
    use super::Ratio;

    #[test]
    fn fractions_compare_without_rounding_and_nothing_of_nothing_is_nothing() {
        let order =
            [(0, 0), (1, u64::MAX), (1, 3), (333_333_333, 999_999_998), (u64::MAX - 1, u64::MAX), (5, 1), (1, 0)];
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                assert_eq!(Ratio::new(a.0, a.1).cmp(&Ratio::new(b.0, b.1)), i.cmp(&j), "{a:?} {b:?}");
            }
        }
        assert_eq!(Ratio::new(0, 0), Ratio::new(0, 7));
        assert_eq!(Ratio::new(2, 4), Ratio::new(1, 2));
    }
}

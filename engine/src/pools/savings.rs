//! What pools missed: the amount by which each held less than its part while it waited for more, times how long that lasted; less what
//! it held beyond its part, before or since. The planner remembers it from plan to plan, and pays it back by raising a part (`queue::raises`).

use std::collections::BTreeMap;

use protocol::ids::{PoolName, UnixMs};
use protocol::pool::Resource;

/// The most that is remembered, either way: a pool's whole part for this long, in ms.
const KEPT_MS: u64 = 7 * 24 * 3_600_000;

/// What pools missed, and how fast that changes while nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Savings {
    at: UnixMs,
    saved: BTreeMap<(PoolName, Resource), Saved>,
}

/// Of one pool and resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Saved {
    /// Amount times ms; negative where it had more than its part.
    sum: i128,
    /// What the pool misses now, or holds too much (negative).
    misses: i128,
    /// The most that is remembered.
    most: i128,
}

impl Savings {
    /// As they are now, if all went on as it was.
    pub(crate) fn at(&self, now: UnixMs) -> Self {
        let ms = i128::from(now.0.saturating_sub(self.at.0));
        let later = |saved: &Saved| {
            let change = saved.misses.saturating_mul(ms);
            let sum = saved.sum.saturating_add(change).clamp(-saved.most, saved.most);
            Saved { sum, ..*saved }
        };
        let saved = self.saved.iter().map(|(key, saved)| (key.clone(), later(saved)));
        Self { at: now.max(self.at), saved: saved.collect() }
    }

    /// What a pool missed of a resource, if it did: amount times ms.
    pub(crate) fn of(&self, pool: &PoolName, resource: &Resource) -> u128 {
        let saved = self.saved.get(&(pool.clone(), resource.clone()));
        saved.map_or(0, |saved| u128::try_from(saved.sum).unwrap_or(0))
    }

    /// From now on a pool that is entitled to so much holds so much, and demands so much in all.
    pub(crate) fn goes_on(&mut self, pool: &PoolName, resource: &Resource, (entitled, held, demand): (u64, u64, u64)) {
        let key = (pool.clone(), resource.clone());
        // Whoever asks for no more than it has misses nothing.
        let misses = i128::from(entitled.min(demand.max(held))) - i128::from(held);
        let most = i128::from(entitled) * i128::from(KEPT_MS);
        let sum = self.saved.get(&key).map_or(0, |saved| saved.sum);
        if sum == 0 && misses == 0 {
            self.saved.remove(&key);
        } else {
            // What is remembered already is not cut where the part has become smaller.
            self.saved.insert(key, Saved { sum, misses, most: most.max(sum.saturating_abs()) });
        }
    }

    /// Only these pools go on being remembered.
    pub(crate) fn keep(&mut self, is: impl Fn(&PoolName) -> bool) {
        self.saved.retain(|(pool, _), _| is(pool));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn after(savings: &mut Savings, now: u64, books: (u64, u64, u64)) -> u128 {
        let pool = PoolName::new("a").unwrap();
        *savings = savings.at(UnixMs(now));
        savings.goes_on(&pool, &Resource::Gpu, books);
        savings.of(&pool, &Resource::Gpu)
    }

    #[test]
    fn what_is_missed_adds_up_and_what_is_had_beyond_the_part_is_taken_off() {
        let mut savings = Savings::default();
        assert_eq!(after(&mut savings, 0, (8, 2, 100)), 0);
        assert_eq!(after(&mut savings, HOUR, (8, 20, 100)), u128::from(6 * HOUR));
        assert_eq!(after(&mut savings, HOUR + HOUR / 4, (8, 8, 100)), u128::from(3 * HOUR));
        assert_eq!(after(&mut savings, 3 * HOUR, (8, 8, 100)), u128::from(3 * HOUR), "it has its part");
        assert_eq!(after(&mut savings, 3 * HOUR, (8, 20, 100)), u128::from(3 * HOUR));
        assert_eq!(after(&mut savings, 4 * HOUR, (8, 2, 100)), 0, "it had 9 GPU-hours too many");
        assert_eq!(after(&mut savings, 5 * HOUR, (8, 2, 100)), 0);
        assert_eq!(after(&mut savings, 6 * HOUR, (8, 2, 100)), u128::from(3 * HOUR));
    }

    #[test]
    fn who_does_not_ask_for_more_misses_nothing() {
        let mut savings = Savings::default();
        after(&mut savings, 0, (8, 2, 2));
        assert_eq!(after(&mut savings, HOUR, (8, 2, 4)), 0);
        assert_eq!(after(&mut savings, 2 * HOUR, (8, 2, 4)), u128::from(2 * HOUR), "no more than was asked for");
    }

    #[test]
    fn no_more_is_remembered_than_the_part_of_a_week() {
        let mut savings = Savings::default();
        after(&mut savings, 0, (8, 0, 100));
        assert_eq!(after(&mut savings, 1000 * 24 * HOUR, (8, 0, 100)), u128::from(8 * KEPT_MS));
        after(&mut savings, u64::MAX, (u64::MAX, 0, u64::MAX));
        // Nor what it had too many: a part that nobody else asked for is made up for within a week.
        let (mut savings, years) = (Savings::default(), 1000 * 24 * HOUR);
        after(&mut savings, 0, (8, 100, 100));
        assert_eq!(after(&mut savings, years, (8, 0, 100)), 0);
        assert_eq!(after(&mut savings, years + KEPT_MS, (8, 0, 100)), 0);
        assert_eq!(after(&mut savings, years + KEPT_MS + HOUR, (8, 0, 100)), u128::from(8 * HOUR));
    }
}

//! What placing one member wastes, in two parts: at first all but the fragments, with the least that these can be. It is enough to see that a place
//! is no better than others that are known, and costs half as much as to judge it.

use protocol::resources::Resources;

use super::{Value, Waste, claimed};
use crate::placement::cutting::WHOLE;
use crate::placement::devices::{DEVICE, Free, Rest};
use crate::placement::value::Amiss;
use crate::placement::view::{PARTS, View};

impl Value {
    /// The least that placing one member on a node can waste: all but the fragments, which are most of the work. Members of the mix can use no
    /// more of the node than before, so the fragments become fewer by no more than what the member takes.
    #[inline]
    pub(crate) fn at_least(&self, view: &View, (before, amiss): (&Free, &Amiss), each: &Resources) -> Waste {
        let (taken, pieces) = self.taken(before, each);
        let left = before.all.gpu_milli.saturating_sub(taken);
        let fewer = (u128::from(taken) * 1000 * u128::from(view.parts())).div_ceil(1 << PARTS);
        Waste {
            pieces,
            starved: self.starved(left, before.all.cpu_milli.saturating_sub(each.cpu_milli)) - amiss.0.starved,
            fragments: -i64::try_from(fewer).unwrap_or(i64::MAX),
            claimed: claimed(view, left) - amiss.0.claimed,
        }
    }

    /// What it wastes, where that is known.
    #[inline]
    pub(crate) fn waste_of(
        &self,
        view: &View,
        (before, amiss): (&Free, &Amiss),
        each: &Resources,
        at_least: Waste,
    ) -> Waste {
        let fragments = match each.gpu_milli {
            share if (1..DEVICE).contains(&share) => {
                let after = before.after(each, 1);
                view.fragments(&after.rest(), after.devices())
            }
            // The shares that are left stay as they are.
            _ => {
                let taken = Resources { gpu_milli: each.gpus() * DEVICE, ..*each };
                let rest = Rest { all: before.all.saturating_sub(&taken), ..before.rest() };
                view.fragments(&rest, before.devices().saturating_sub(each.gpus()))
            }
        };
        Waste { fragments: fragments - amiss.0.fragments, ..at_least }
    }

    /// How much less GPU is left once a node has one member more, and the pieces that this wastes.
    #[inline]
    fn taken(&self, before: &Free, each: &Resources) -> (u64, i64) {
        let Some(share) = u16::try_from(each.gpu_milli).ok().filter(|s| (1..DEVICE).contains(&u64::from(*s))) else {
            return (each.gpus() * DEVICE, 0);
        };
        let share = before.sharing.takes(share.into()).and_then(|takes| u16::try_from(takes).ok()).unwrap_or(share);
        match before.shares.iter().find(|left| **left >= share) {
            Some(left) => (share.into(), self.left(*left) - self.left(left - share) - self.left(share)),
            None => {
                let left = before.sharing.left_after_first(share);
                let taken = DEVICE.saturating_sub(left.into());
                (taken, i64::from(WHOLE) - self.left(left) - self.price(share.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use protocol::capacity::Sharing;
    use protocol::ids::GroupName;
    use protocol::sku::Sku;
    use protocol::workload::{GroupNeed, Spread};

    use super::*;
    use crate::placement::mix::Mix;

    fn free() -> impl Strategy<Value = Free> {
        let sharing = prop_oneof![
            3 => Just(Sharing::Any),
            1 => Just(Sharing::Whole),
            2 => (1..8u16).prop_map(Sharing::Parts)
        ];
        let shares = prop::collection::vec(1..1000u16, 0..10);
        (0..22u64, 0..22u64, 0..20u64, shares, sharing).prop_map(
            |(cpu_milli, memory_mib, devices, mut shares, sharing)| {
                shares.sort_unstable();
                let gpu_milli = devices * DEVICE + shares.iter().map(|s| u64::from(*s)).sum::<u64>();
                let all = Resources { cpu_milli: cpu_milli * 1000, memory_mib, gpu_milli };
                Free { all, shares: shares.into(), sharing }
            },
        )
    }

    fn each() -> impl Strategy<Value = Resources> {
        let milli =
            prop_oneof![1 => Just(0u64), 4 => 1..1001u64, 3 => (1..9u64).prop_map(|g| g * 1000), 1 => 1001..3000u64];
        (milli, 0..12u64, 0..12u64).prop_map(|(gpu_milli, cpu_milli, memory_mib)| Resources {
            cpu_milli: cpu_milli * 1000,
            memory_mib,
            gpu_milli,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn in_two_parts_it_is_what_it_is_at_once_and_never_less_than_the_first_says(
            asked in prop::collection::vec((each(), 1..40u32, any::<bool>()), 1..12),
            free in free(),
            each in each(),
        ) {
            let [t4, l4] = ["T4", "L4"].map(Sku::from_driver);
            let need = |(each, count, picky): (Resources, u32, bool)| GroupNeed {
                name: GroupName::new("a").expect("a name"),
                count,
                each,
                skus: if picky { vec![t4.clone()] } else { vec![] },
                spread: Spread::None,
            };
            let mut mix = Mix::default();
            mix.see(&asked.into_iter().map(need).collect::<Vec<_>>());
            let value = Value::new(&mix, &BTreeMap::from([(l4, 100_000), (t4.clone(), 100_000)]));
            let view = value.view(&t4).expect("it is among the fleet's");
            if free.holds(&each) {
                let amiss = value.amiss(view, &free);
                let at_once = value.waste(view, &free, &each, 1);
                let at_least = value.at_least(view, (&free, &amiss), &each);
                prop_assert!(at_least.sum() <= at_once.sum(), "{:?} {:?}", at_least, at_once);
                prop_assert_eq!(value.waste_of(view, (&free, &amiss), &each, at_least), at_once);
            }
        }
    }
}

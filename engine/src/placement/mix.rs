//! What is asked for: the members that wait, run and ran lately, counted by what each needs. Placement keeps room for what comes
//! next, and this is its only guess of it: more of the same.

use std::collections::BTreeMap;

use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::GroupNeed;

use super::models::{Models, larger};
use crate::state::State;

/// What one member needs and which models it accepts, sorted; none accepts any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask {
    pub(crate) each: Resources,
    pub(crate) skus: Vec<Sku>,
}

impl Ask {
    fn of(need: &GroupNeed) -> Self {
        let mut skus = need.skus.clone();
        skus.sort_unstable();
        skus.dedup();
        Self { each: need.each, skus }
    }
}

/// Members by what they ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mix {
    asks: BTreeMap<Ask, u64>,
    members: u64,
}

impl Mix {
    /// Until workloads tell otherwise, a whole node of each model is taken to be asked for, once: so the first share does not
    /// break an empty node where a broken one would do.
    pub(crate) fn of_fleet<'m>(fleet: impl Iterator<Item = &'m Models>) -> Self {
        let mut largest: BTreeMap<&Sku, Resources> = BTreeMap::new();
        for model in fleet.flat_map(Models::iter) {
            let Some(node) = model.largest else { continue };
            let known = largest.entry(&model.sku).or_default();
            *known = larger(*known, node);
        }
        let mut mix = Self::default();
        largest.into_values().for_each(|each| mix.add(Ask { each, skus: vec![] }, 1));
        mix
    }

    /// And the members of every workload on record.
    pub(crate) fn and_of(mut self, state: &State) -> Self {
        state.mix().asks.iter().for_each(|(ask, members)| self.add(ask.clone(), *members));
        self
    }

    /// Counts a gang's members.
    pub(crate) fn see(&mut self, gang: &[GroupNeed]) {
        gang.iter().for_each(|need| self.add(Ask::of(need), u64::from(need.count)));
    }

    /// Takes a gang's members out again.
    pub(crate) fn forget(&mut self, gang: &[GroupNeed]) {
        for need in gang {
            let ask = Ask::of(need);
            let Some(known) = self.asks.get_mut(&ask) else { continue };
            let gone = u64::from(need.count).min(*known);
            *known -= gone;
            self.members -= gone;
            if *known == 0 {
                self.asks.remove(&ask);
            }
        }
    }

    fn add(&mut self, ask: Ask, members: u64) {
        let known = self.asks.entry(ask).or_default();
        *known = known.saturating_add(members);
        self.members = self.members.saturating_add(members);
    }

    /// What is asked for, each with its members.
    pub(crate) fn asks(&self) -> impl Iterator<Item = (&Ask, u64)> {
        self.asks.iter().map(|(ask, members)| (ask, *members))
    }

    /// All members.
    pub(crate) fn members(&self) -> u64 {
        self.members
    }
}

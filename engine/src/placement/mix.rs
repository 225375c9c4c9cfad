//! What is asked for: the members that wait, run and ran lately, counted by what each needs. Placement keeps room for what comes
//! next, and this is its only guess of it: more of the same.

use std::collections::BTreeMap;

use protocol::capacity::NodeState;
use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::GroupNeed;

use crate::capacity::Capacity;
use crate::state::State;

/// What one member needs and which models it accepts, sorted; none accepts any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask {
    pub(crate) each: Resources,
    pub(crate) skus: Vec<Sku>,
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
    pub(crate) fn of_fleet(capacity: &Capacity) -> Self {
        let mut largest: BTreeMap<&Sku, Resources> = BTreeMap::new();
        for node in capacity.clusters.values().flat_map(|c| &c.nodes).filter(|n| n.state == NodeState::Ready) {
            let Some(sku) = &node.sku else { continue };
            let known = largest.entry(sku).or_default();
            if (node.total.gpu_milli, node.total.cpu_milli) > (known.gpu_milli, known.cpu_milli) {
                *known = node.total;
            }
        }
        let mut mix = Self::default();
        largest.into_values().for_each(|each| mix.add(Ask { each, skus: vec![] }, 1));
        mix
    }

    /// And the members of every workload on record.
    pub(crate) fn of(state: &State, capacity: &Capacity) -> Self {
        let mut mix = Self::of_fleet(capacity);
        state.workloads.values().for_each(|w| mix.see(&w.spec.gang()));
        mix
    }

    /// Counts a gang's members.
    pub(crate) fn see(&mut self, gang: &[GroupNeed]) {
        for need in gang {
            let mut skus = need.skus.clone();
            skus.sort_unstable();
            skus.dedup();
            self.add(Ask { each: need.each, skus }, u64::from(need.count));
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

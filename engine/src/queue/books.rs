//! The pools' books at the start of a plan: what the fleet has, what each pool holds of it and what it is entitled to.
//!
//! The fleet is what can be given out: what is free in clusters that can be used, and what attempts hold there. What is held in
//! a lost cluster, or one that has sent no capacity, is neither in the fleet nor held: the division is over the rest.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ClusterName, PoolName, UnixMs};
use protocol::pool::Amounts;

use crate::placement::rooms::{Room, Rooms};
use crate::pools::admission::Ledger;
use crate::pools::parts::parts;
use crate::pools::reclaim::held_and_demand;
use crate::state::State;

/// What the fleet has, and what each pool holds and demands of it.
pub(crate) struct Books {
    pub(crate) fleet: Amounts,
    pub(crate) held: BTreeMap<PoolName, Amounts>,
    pub(crate) demands: BTreeMap<PoolName, Amounts>,
}

/// Whether a cluster counts.
pub(crate) fn usable(room: &Room<'_>) -> bool {
    room.cluster.lost_since.is_none() && room.capacity.is_some()
}

/// The books as they are before anything is placed.
pub(crate) fn books(state: &State, rooms: &Rooms<'_>, now: UnixMs) -> Books {
    let usable: BTreeSet<ClusterName> =
        rooms.values().filter(|r| usable(r)).map(|r| r.cluster.info.name.clone()).collect();
    let (held, demands) = held_and_demand(state, &usable, now);
    let mut fleet = Amounts::default();
    for room in rooms.values().filter(|room| usable.contains(&room.cluster.info.name)) {
        fleet.add_all(room.free_at_first());
    }
    held.values().for_each(|h| fleet.add_all(h));
    Books { fleet, held, demands }
}

/// The ledger of a plan, and what pools demanded at its start.
pub(crate) fn ledger(state: &State, books: Books, now: UnixMs) -> (Ledger, BTreeMap<PoolName, Amounts>) {
    let entitled = parts(state, &books.fleet, &books.held, &books.demands, now);
    (Ledger::new(&state.pools, &state.indices.usage, books.fleet, entitled, books.held), books.demands)
}

//! Those that were let past a waiting gang: preemptible workloads on the nodes and in the part of the pool that are kept for it. So what
//! is kept stands idle for nobody's sake, and costs the gang nothing: once it could start if only they were gone, they end.

use std::collections::BTreeSet;

use protocol::control::GroupPlacement;
use protocol::ids::ClusterName;

use super::reservations::Promise;
use super::{Seeker, Walk, by};
use crate::commands::{Preemption, Victim};
use crate::placement::candidates::{Place, take};
use crate::pools::admission::{Asks, Ledger};
use crate::pools::usage::{holds, needs};
use crate::reasons::Reserved;
use crate::state::{Attempt, State, Workload};

type Passer<'a> = (&'a Workload, &'a Attempt);

/// The books once those are gone that were let past a gang.
pub(super) fn ledger_without(state: &State, ledger: &Ledger, workload: &Workload) -> Ledger {
    let mut ledger = ledger.clone();
    for (_, attempt) in state.passers(workload.uid).filter(|(passer, _)| passer.pool == workload.pool) {
        ledger.give(&state.pools, &workload.pool, &holds(attempt.held()));
    }
    ledger
}

/// Whose room a gang is looked for with, one after the other.
enum Step {
    AsIs,
    WithoutEnding,
    WithoutPassers,
}

impl<'a> Walk<'a> {
    /// Ends those that were let past a gang, where it can start once they are gone, and keeps its place for it.
    pub(super) fn call(&mut self, seeker: &Seeker<'a>) -> Option<Box<Reserved>> {
        let workload = seeker.workload;
        let mut passers: Vec<Passer<'a>> = self.state.passers(workload.uid).collect();
        if passers.is_empty() {
            return None;
        }
        // Those that have run longest lose most: they stay first, where there is room for both.
        passers.sort_by_key(|(w, attempt)| (attempt.running_at.unwrap_or(attempt.bound_at), w.order));
        let marks: Vec<(ClusterName, usize)> =
            self.placer.rooms.iter().map(|(name, room)| ((*name).clone(), room.holes.mark())).collect();
        let found = self.without(seeker, &passers);
        for (name, mark) in marks {
            if let Some(room) = self.placer.rooms.get_mut(&name) {
                room.holes.undo_to(mark);
            }
        }
        let (place, victims) = found?;
        if !victims.is_empty() {
            let clusters = self.usable();
            self.called.push(Preemption {
                epoch: self.state.epoch,
                by: workload.key.clone(),
                by_uid: workload.uid,
                victims,
                shrinks: vec![],
                fleet: self.fleet.clone(),
                clusters,
            });
        }
        let nodes: BTreeSet<u32> = place.spots.iter().flat_map(|spot| spot.nodes.keys().copied()).collect();
        let room = self.placer.rooms.get(&place.cluster)?;
        let names = nodes.iter().filter_map(|node| Some(room.node(*node)?.name.clone())).collect();
        let hole = Promise::of_hole(place.cluster.clone(), names, self.now);
        self.reservations.hold(&mut self.placer, workload, hole);
        self.ledger.reserve(&workload.pool, &needs(&seeker.likeness.gang), by(workload), (None, true));
        let nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        Some(Box::new(Reserved { cluster: place.cluster, nodes, at: Some(self.now), last: None }))
    }

    /// Where the gang starts once its passers are gone, and who of them has to go. Leaves the holes changed.
    fn without(&mut self, seeker: &Seeker<'a>, passers: &[Passer<'a>]) -> Option<(Place, Vec<Victim>)> {
        let (pools, pool) = (&self.state.pools, &seeker.likeness.pool);
        let asks = Asks { passes: false, ..seeker.asks };
        let mut ledger = ledger_without(self.state, &self.ledger, seeker.workload);
        let gang = self.allowed(&ledger, seeker, asks).ok()?;
        let ends = |(_, attempt): &Passer<'a>| attempt.stop.is_some();
        // As few as possible give up their room: it may be enough that their pool's part is free, or that others are ending.
        let (mut place, mut given): (Option<Place>, Vec<Passer<'a>>) = (None, vec![]);
        for step in [Step::AsIs, Step::WithoutEnding, Step::WithoutPassers] {
            let more = match step {
                Step::AsIs => vec![],
                // Whatever is ending beside them, or in another cluster, may leave room enough.
                Step::WithoutEnding => {
                    let rooms = self.placer.rooms.iter();
                    let going: Vec<Passer<'a>> = rooms.flat_map(|(name, _)| self.state.going_in(name)).collect();
                    // Members that leave, too.
                    going.iter().for_each(|(_, attempt)| self.give(attempt, attempt.leaving()));
                    going.into_iter().filter(ends).collect()
                }
                Step::WithoutPassers => passers.iter().copied().filter(|passer| !ends(passer)).collect(),
            };
            more.iter().for_each(|(_, attempt)| self.give(attempt, &attempt.placement));
            let (places, _) = self.look(seeker, &gang, &seeker.strict);
            let fits = |place: &Place| ledger.forbids(pools, pool, &self.would_hold(place, &gang), asks).is_none();
            place = places.into_iter().find(fits);
            given.extend(more);
            if place.is_some() {
                break;
            }
        }
        let place = place?;
        ledger.take(pools, pool, &self.would_hold(&place, &gang), seeker.likeness.preemptible);
        let room = self.placer.rooms.get_mut(&place.cluster)?;
        take(room, &gang, &place.spots);
        let mut victims = vec![];
        for (passer, attempt) in passers {
            let own = passer.pool == *pool;
            let held = holds(attempt.held());
            // It passes what is kept for the gang no longer: it stays only where there is enough for both.
            let part = !own || ledger.forbids(pools, pool, &held, Asks { passes: true, ..seeker.asks }).is_none();
            let gave = given.iter().any(|(other, _)| other.uid == passer.uid);
            let stays = part && (!gave || self.take_back(attempt));
            if stays && own {
                ledger.take(pools, pool, &held, passer.spec.preemptible);
            }
            if !stays && attempt.stop.is_none() && super::reclaim::may_end(passer) {
                victims.push(Victim { key: passer.key.clone(), uid: passer.uid, attempt: attempt.number });
            }
        }
        Some((place, victims))
    }

    fn give(&mut self, attempt: &Attempt, members: &[GroupPlacement]) {
        if let Some(room) = self.placer.rooms.get_mut(&attempt.cluster) {
            let places = room.places();
            room.give(&places, members);
        }
    }

    fn take_back(&mut self, attempt: &Attempt) -> bool {
        self.placer.rooms.get_mut(&attempt.cluster).is_none_or(|room| room.take_back(attempt))
    }
}

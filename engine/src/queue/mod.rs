//! The walk along the line: highest priority first, then earliest submission. Each workload gets the best place that is left
//! for it, or the reason why it waits.
//!
//! Waiting is bounded by a simple rule: where a workload waits for room in a cluster that could hold it, room there is kept
//! for it: nobody behind it gets a node of a model that it accepts (nor any node, where a group without GPUs is what finds no
//! room). Others may use other nodes and clusters. A workload keeps no room where it would not fit even once every attempt has
//! ended (it is too large, or ghosts, sick devices or cordoned nodes are in its way), nor while it waits out a backoff.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::control::GroupPlacement;
use protocol::ids::{ClusterName, Region, UnixMs, WorkloadKey};
use protocol::workload::{Framework, GroupNeed, WorkloadSpec};

use crate::capacity::Capacity;
use crate::placement::candidates::{Barred, Look, Place, decision, look, obstacles, settle};
use crate::placement::obstacles::is_permanent;
use crate::placement::placer::Placer;
use crate::reasons::{Decision, Obstacle, WaitCause, Waiting};
use crate::state::{State, Workload};

/// What became of one workload of the line.
pub(crate) enum Turn {
    /// It gets this place.
    Placed { cluster: ClusterName, placement: Vec<GroupPlacement>, decision: Decision },
    /// It waits; [`Walk::waiting`] has the words.
    Waits(Rc<Verdict>),
}

/// What makes waiting workloads alike: one that found no room tells of all of them, for room only gets less in a plan.
/// Framework, required regions, gang.
type Likeness = (Framework, Vec<Region>, Vec<GroupNeed>);

/// The walk.
pub(crate) struct Walk<'a> {
    state: &'a State,
    now: UnixMs,
    placer: Placer<'a>,
    found_none: BTreeMap<Likeness, Rc<Verdict>>,
    place: u64,
}

/// Why a kind of workload waits.
pub(crate) struct Verdict {
    cause: WaitCause,
    barred: Vec<Barred>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(state: &'a State, capacity: &'a Capacity, at: UnixMs) -> Self {
        let now = state.now.max(at);
        Self { state, now, placer: Placer::new(state, capacity), found_none: BTreeMap::new(), place: 0 }
    }

    /// The next in line has its turn.
    pub(crate) fn turn(&mut self, workload: &Workload) -> Turn {
        self.place += 1;
        let waits = |cause| Turn::Waits(Rc::new(Verdict { cause, barred: vec![] }));
        if let Some(until) = workload.not_before.filter(|u| *u > self.now) {
            return waits(WaitCause::Backoff { until });
        }
        if self.placer.rooms.is_empty() {
            return waits(WaitCause::NoClusters);
        }
        let spec = &workload.spec;
        let Ok(framework) = spec.framework() else { return waits(WaitCause::Impossible) };
        let likeness = (framework, spec.placement.regions.require.clone(), spec.gang());
        if let Some(verdict) = self.found_none.get(&likeness) {
            for b in verdict.barred.iter().filter(|b| b.waits.is_some()) {
                if let Some(room) = self.placer.rooms.get_mut(&b.cluster) {
                    room.kept.ahead += 1;
                }
            }
            return Turn::Waits(Rc::clone(verdict));
        }
        let (places, barred) = self.look(spec, framework, &likeness.2);
        if !places.is_empty() {
            return self.place_first(&likeness.2, places, &barred);
        }
        let cause = self.cause(&barred);
        self.keep_room(&workload.key, &barred);
        let verdict = Rc::new(Verdict { cause, barred });
        self.found_none.insert(likeness, Rc::clone(&verdict));
        Turn::Waits(verdict)
    }

    /// Why the one that just had its turn waits. Apart from the turn, for most of a long line is never asked about.
    pub(crate) fn waiting(&self, verdict: &Verdict) -> Waiting {
        let of = self.state.waiting().len() as u64;
        let candidates = obstacles(&verdict.barred).collect();
        Waiting { place: self.place, of, cause: verdict.cause.clone(), candidates }
    }

    /// Every cluster: those with room, the best first, and those without.
    fn look(&mut self, spec: &WorkloadSpec, framework: Framework, gang: &[GroupNeed]) -> (Vec<Place>, Vec<Barred>) {
        let (mut places, mut barred) = (vec![], vec![]);
        for room in self.placer.rooms.values_mut() {
            match look(room, &self.placer.value, spec, framework, gang) {
                Look::Open(place) => places.push(place),
                Look::Barred(b) => barred.push(b),
            }
        }
        places.sort_by(|a, b| a.score.cmp(&b.score));
        (places, barred)
    }

    fn place_first(&mut self, gang: &[GroupNeed], places: Vec<Place>, barred: &[Barred]) -> Turn {
        let decision = decision(&self.placer.rooms, &places, barred);
        let best = places.into_iter().next().expect("the caller saw a place");
        let room = self.placer.rooms.get_mut(&best.cluster).expect("the place is in a joined cluster");
        let placement = settle(room, gang, &best.spots);
        Turn::Placed { cluster: best.cluster, placement, decision }
    }

    fn keep_room(&mut self, key: &WorkloadKey, barred: &[Barred]) {
        for b in barred {
            if let (Some(waits), Some(room)) = (&b.waits, self.placer.rooms.get_mut(&b.cluster)) {
                room.kept.keep(key, &waits.shapes, waits.any_node);
            }
        }
    }

    fn cause(&self, barred: &[Barred]) -> WaitCause {
        if barred.iter().all(|b| is_permanent(&b.obstacle)) {
            return WaitCause::Impossible;
        }
        let behind = barred.iter().find(|b| matches!(b.obstacle, Obstacle::BehindOthers { .. }));
        let kept = behind.and_then(|b| self.placer.rooms.get(&b.cluster)).map(|room| &room.kept);
        match kept.and_then(|k| Some((k.ahead, k.first.as_ref()?))) {
            Some((ahead, first)) => WaitCause::BehindOthers { ahead, first: first.to_string() },
            None => WaitCause::NoRoom,
        }
    }
}

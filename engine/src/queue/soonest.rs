//! The soonest that a gang can start in a cluster if nobody else gets a place there: which attempts have to end, on which nodes.
//!
//! Where the ends of attempts are known they are given back in that order until the gang fits. Where those do not suffice, the nodes
//! with the fewest attempts on them are taken: which of them end first nobody knows.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::control::GroupPlacement;
use protocol::ids::{ClusterName, CommandNumber, Uid, UnixMs};

use super::estimates::ends;
use crate::placement::fit::{Allowed, Fit, Fullest, Shape, Spot, fit};
use crate::placement::holes::{Class, KeptFor};
use crate::placement::rooms::Room;
use crate::reasons::{AwaitedEnd, Basis};
use crate::state::{Attempt, State, Workload};

/// The soonest that a gang can start somewhere.
pub(crate) struct Soonest {
    pub(crate) nodes: Vec<u32>,
    /// When; none: not known.
    pub(crate) at: Option<UnixMs>,
    /// How many attempts on its nodes have to end that are not being ended already.
    pub(crate) waits_for: usize,
    /// The last of them.
    pub(crate) last: Option<AwaitedEnd>,
}

impl Soonest {
    /// The least is the soonest.
    pub(crate) fn rank(&self) -> (bool, Option<UnixMs>, usize) {
        (self.at.is_none(), self.at, self.waits_for)
    }
}

/// The state, the time, and for whom: those that it let past end for it.
pub(crate) type At<'a> = (&'a State, UnixMs, Uid);

/// Nodes that are kept for nobody, or for one gang.
struct KeptBy(Option<KeptFor>);

impl Allowed for KeptBy {
    fn allows(&self, class: &Class) -> bool {
        class.kept() == self.0
    }
}

/// One attempt and when it ends.
#[derive(Clone)]
struct End<'a> {
    at: Option<(UnixMs, Basis)>,
    workload: &'a Workload,
    attempt: &'a Attempt,
    /// What is free then: all of it, or members that go before.
    gives: &'a [GroupPlacement],
    /// It is being ended, or will be as soon as that helps.
    goes: bool,
    /// The nodes that it holds something of.
    nodes: Rc<[u32]>,
}

/// When attempts end, by cluster: the same for all gangs of a plan, and so found once.
#[derive(Default)]
pub(crate) struct AllEnds<'a>(BTreeMap<&'a ClusterName, Rc<[End<'a>]>>);

impl<'a> AllEnds<'a> {
    /// In the order in which they end; last those of which that is not known, the oldest first.
    fn of(&mut self, room: &mut Room<'a>, state: &State, now: UnixMs) -> Rc<[End<'a>]> {
        let cluster = &room.cluster.info.name;
        let found = self.0.entry(cluster).or_insert_with(|| {
            let places = room.places();
            let mut all: Vec<End<'a>> = vec![];
            for (workload, attempt) in room.live() {
                for (gives, leaves) in [(&attempt.placement[..], false), (attempt.leaving(), true)] {
                    let nodes = gives.iter().flat_map(|g| &g.nodes).filter_map(|s| places.get(&s.node).copied());
                    let nodes: Rc<[u32]> = nodes.collect();
                    if nodes.is_empty() {
                        continue;
                    }
                    let goes = leaves || attempt.stop.is_some();
                    let basis = if leaves { Basis::Shrinking } else { Basis::Ending };
                    let at = if goes { Some((now, basis)) } else { ends(state, workload, attempt, now) };
                    all.push(End { at, workload, attempt, gives, goes, nodes });
                }
            }
            all.sort_by_key(|end| order(end.at.as_ref(), end.attempt));
            all.into()
        });
        Rc::clone(found)
    }
}

fn order(at: Option<&(UnixMs, Basis)>, attempt: &Attempt) -> (bool, Option<UnixMs>, UnixMs, CommandNumber) {
    let at = at.map(|(at, _)| *at);
    (at.is_none(), at, attempt.bound_at, attempt.launch)
}

/// On nodes that are kept for nobody; none where the end of every attempt would not do. The holes are as before afterwards.
pub(crate) fn soonest<'a>(
    room: &mut Room<'a>,
    all: &mut AllEnds<'a>,
    shapes: &[Shape],
    (state, now, uid): At<'_>,
) -> Option<Soonest> {
    let coming = all.of(room, state, now);
    let live = live(&coming, room, shapes, (now, uid), &|_| true);
    let known = live.iter().take_while(|end| end.at.is_some()).count();
    let singles: Vec<Vec<usize>> = (0..known).map(|i| vec![i]).collect();
    let (spots, ended) = match first_fit(room, shapes, &KeptBy(None), &live, &singles) {
        Some(fits) => fits,
        None => {
            let nodes = by_node(room, shapes, &live);
            first_fit(room, shapes, &KeptBy(None), &live, &nodes)?
        }
    };
    let nodes: BTreeSet<u32> = spots.iter().flat_map(|spot| spot.nodes.keys().copied()).collect();
    Some(found(nodes, &live, &ended, now))
}

/// On these nodes, all of which are kept for this gang; none where the end of every attempt there would not do. The holes are as
/// before afterwards.
pub(crate) fn on_nodes<'a>(
    room: &mut Room<'a>,
    all: &mut AllEnds<'a>,
    shapes: &[Shape],
    (state, now, uid): At<'_>,
    (nodes, gang): (&[u32], KeptFor),
) -> Option<Soonest> {
    let nodes: BTreeSet<u32> = nodes.iter().copied().collect();
    let coming = all.of(room, state, now);
    let live = live(&coming, room, shapes, (now, uid), &|node| nodes.contains(&node));
    let singles: Vec<Vec<usize>> = (0..live.len()).map(|i| vec![i]).collect();
    let (_, ended) = first_fit(room, shapes, &KeptBy(Some(gang)), &live, &singles)?;
    Some(found(nodes, &live, &ended, now))
}

fn found(nodes: BTreeSet<u32>, live: &[End<'_>], ended: &BTreeSet<usize>, now: UnixMs) -> Soonest {
    let on = |end: &&End<'_>| end.nodes.iter().any(|node| nodes.contains(node));
    let there = || ended.iter().filter_map(|i| live.get(*i)).filter(on);
    // They are in the order in which they end, those first of which that is known.
    let last = there().next_back();
    Soonest {
        at: last.map_or(Some(now), |end| end.at.as_ref().map(|(at, _)| *at)),
        waits_for: there().filter(|end| !end.goes).count(),
        last: last.map(|end| AwaitedEnd {
            workload: end.workload.key.to_string(),
            basis: end.at.as_ref().map(|(_, basis)| basis.clone()),
        }),
        nodes: nodes.into_iter().collect(),
    }
}

/// The attempts on nodes that matter, in the order in which they end; last those of which that is not known, the oldest first.
fn live<'a>(
    coming: &[End<'a>],
    room: &Room<'_>,
    shapes: &[Shape],
    (now, uid): (UnixMs, Uid),
    matters: &dyn Fn(u32) -> bool,
) -> Vec<End<'a>> {
    let useful = useful(room, shapes);
    let there = coming.iter().filter(|end| end.nodes.iter().any(|node| matters(*node) && useful(*node)));
    let mut live: Vec<End<'a>> = there.cloned().collect();
    let mut called = false;
    // For this gang they end as soon as that helps.
    for end in live.iter_mut().filter(|end| !end.goes && end.attempt.ends_for(uid)) {
        (end.at, end.goes, called) = (Some((now, Basis::Ending)), true, true);
    }
    if called {
        live.sort_by_key(|end| order(end.at.as_ref(), end.attempt));
    }
    live
}

/// Whether a node has a model that the gang accepts.
fn useful(room: &Room<'_>, shapes: &[Shape]) -> impl Fn(u32) -> bool {
    let accepted: BTreeSet<u16> = shapes.iter().flat_map(Shape::models).collect();
    let any = shapes.iter().any(|s| s.each.gpu_milli == 0);
    move |node| any || room.holes.sku(node).is_some_and(|s| accepted.contains(&s))
}

/// The attempts of each node on which a member could be once they end, the nodes with the fewest first.
fn by_node(room: &mut Room<'_>, shapes: &[Shape], live: &[End<'_>]) -> Vec<Vec<usize>> {
    let mut on: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    {
        let useful = useful(room, shapes);
        for (i, end) in live.iter().enumerate() {
            let nodes = end.nodes.iter().filter(|node| useful(**node));
            nodes.for_each(|node| on.entry(*node).or_default().push(i));
        }
    }
    let healthy = room.healthy();
    on.retain(|node, _| shapes.iter().any(|s| healthy.free(*node).members(&s.each) > 0));
    let mut steps: Vec<Vec<usize>> = on.into_values().collect();
    steps.sort_by_key(|attempts| attempts.iter().filter(|i| !live[**i].goes).count());
    steps
}

/// Where a gang fits after as few steps as do, each the ends of some attempts. Steps are taken twice as many at a time until it fits,
/// then the fewest that do are found by halving: more room never hurts. The holes are as before afterwards. Also returns which
/// attempts those are.
fn first_fit(
    room: &mut Room<'_>,
    shapes: &[Shape],
    allowed: &dyn Allowed,
    live: &[End<'_>],
    steps: &[Vec<usize>],
) -> Option<(Vec<Spot>, BTreeSet<usize>)> {
    let places = room.places();
    let start = room.holes.mark();
    let mut marks = vec![start];
    // After which step each attempt was given back.
    let mut given: BTreeMap<usize, usize> = BTreeMap::new();
    let mut fits = |room: &mut Room<'_>, after: usize| {
        if let Some(mark) = marks.get(after) {
            room.holes.undo_to(*mark);
            marks.truncate(after + 1);
            given.retain(|_, step| *step <= after);
        }
        while marks.len() <= after {
            let step = marks.len();
            for i in &steps[step - 1] {
                if let Entry::Vacant(new) = given.entry(*i) {
                    new.insert(step);
                    room.give(&places, live[*i].gives);
                }
            }
            marks.push(room.holes.mark());
        }
        match fit(&mut room.holes, allowed, shapes, &Fullest) {
            Fit::Fits(spots, _) => Some(spots),
            Fit::No | Fit::NotFound => None,
        }
    };
    let (mut too_few, mut step) = (None, 0);
    let mut found = loop {
        if let Some(spots) = fits(room, step) {
            break Some((step, spots));
        }
        if step >= steps.len() {
            break None;
        }
        too_few = Some(step);
        step = (step * 2).max(1).min(steps.len());
    };
    while let (Some(few), Some((enough, _))) = (too_few, &found)
        && few + 1 < *enough
    {
        let middle = few + (enough - few) / 2;
        match fits(room, middle) {
            Some(spots) => found = Some((middle, spots)),
            None => too_few = Some(middle),
        }
    }
    room.holes.undo_to(start);
    let (enough, spots) = found?;
    let ended = steps[..enough].iter().flatten().copied().collect();
    Some((spots, ended))
}

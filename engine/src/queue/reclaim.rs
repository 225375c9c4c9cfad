//! Taking room back, after the walk: only for a gang that fits its pool's part and finds no hole, only from pools that have held
//! more than theirs for a while (or from those of its own pool that give way to it, where the pool allows that), and only what makes an
//! actual hole for that gang: members of elastic attempts beyond their minimum first, whole attempts (`giving`) only where those do not
//! suffice. Within a pool, members beyond the minimum go for any gang that waits.
//!
//! The cluster where least is lost gives the room. One gang at a time takes room back in a cluster, and the nodes on which
//! room is made for it are kept for it (`reservations`): else those that gave it, first in line again, would take it back.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ClusterName, NodeName, PoolName, Uid, UnixMs};
use protocol::pool::{PoolSpec, Resource};
use protocol::workload::Preemptible;

use super::giving::{Candidate, Found, Live, cheapest, coming};
use super::reservations::{Promise, Promises};
use super::{From, Starved, Walk};
use crate::commands::{Preemption, Shrink, Victim};
use crate::lifecycle::Event;
use crate::placement::rooms::Room;
use crate::plan::idle::Since;
use crate::pools::reclaim::{Claim, Rights};
use crate::pools::savings::Savings;
use crate::reasons::Lent;
use crate::state::{Attempt, Workload};

/// How long a pool must have held more than its part, and a gang must have waited for lower priorities, before room is taken
/// back, in ms.
pub const LASTING_MS: u64 = 30_000;
/// How long after an attempt's end nothing more is taken back in its cluster, in ms: capacity comes every second or so.
pub(crate) const SETTLING_MS: u64 = 2_000;

/// What a planner remembers from plan to plan: since when things are as they are. A new leader begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// How long things must have been so, in ms.
    lasting_ms: u64,
    over: BTreeMap<(PoolName, Resource), UnixMs>,
    starved: BTreeMap<Uid, UnixMs>,
    /// What was kept for gangs that wait.
    promises: Promises,
    /// Since when attempts are idle that may not be for ever.
    pub(crate) idle: Since,
    /// What pools missed.
    pub(crate) savings: Savings,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(LASTING_MS)
    }
}

impl Memory {
    /// Nothing yet; room is taken back once it has been lent for this long.
    pub fn new(lasting_ms: u64) -> Self {
        Self {
            lasting_ms,
            over: BTreeMap::new(),
            starved: BTreeMap::new(),
            promises: Promises::new(),
            idle: Since::new(),
            savings: Savings::default(),
        }
    }

    /// How long things must have been so, in ms.
    pub(super) fn lasting_ms(&self) -> u64 {
        self.lasting_ms
    }

    /// When something has next lasted long enough for room to be taken back; none where nothing is on its way there.
    pub(crate) fn next_lasted(&self, now: UnixMs) -> Option<UnixMs> {
        let lasted = |since: &UnixMs| UnixMs(since.0.saturating_add(self.lasting_ms));
        self.over.values().chain(self.starved.values()).map(lasted).filter(|at| *at > now).min()
    }

    /// The gangs that wait and have nodes kept for them, with those.
    pub fn kept(&self) -> impl Iterator<Item = (Uid, (&ClusterName, &[NodeName]))> {
        self.promises.iter().map(|(uid, promise)| (*uid, promise.place()))
    }

    /// What was kept for gangs that wait.
    pub(super) fn promises(&self) -> &Promises {
        &self.promises
    }
}

impl<'a> Walk<'a> {
    /// What is to be taken back now, and what is to be remembered.
    pub(crate) fn reclaim(&mut self, before: &Memory) -> (Vec<Preemption>, Memory) {
        let usable = self.usable();
        let promises = self.reservations.promises();
        let mut preemptions = std::mem::take(&mut self.called);
        let elastic = !self.state.indices.elastic.is_empty();
        if self.state.pools.is_plain() && !elastic {
            return (preemptions, Memory { promises, ..Memory::new(before.lasting_ms) });
        }
        let rights = self.rights.take().unwrap_or_else(|| self.new_rights());
        let mut memory = Memory { promises, ..self.remember(before, &rights) };
        // What those leave that are called back is seen by the next plan: it may be room enough.
        if !preemptions.is_empty() {
            return (preemptions, memory);
        }
        let now = self.now;
        let lasted = |since: &UnixMs| since.0.saturating_add(before.lasting_ms) <= now.0;
        let over: BTreeSet<&PoolName> =
            memory.over.iter().filter(|(_, since)| lasted(since)).map(|((pool, _), _)| pool).collect();
        let starved: Vec<Starved<'a>> = std::mem::take(&mut self.starved);
        let mut promised = BTreeSet::new();
        let mut live: BTreeMap<ClusterName, Live<'a>> = BTreeMap::new();
        for gang in &starved {
            let within = memory.starved.get(&gang.workload.uid).is_some_and(lasted);
            if over.is_empty() && !within && !elastic {
                continue;
            }
            if live.is_empty() {
                live = self.live(&usable);
            }
            let lent = |w: &Workload| gang.from == From::All && over.contains(&w.pool);
            let own = |w: &Workload| w.pool == gang.workload.pool;
            let allowed = |c: &Candidate<'_>| {
                let w = c.workload();
                (own(w) && (within || !c.is_whole())) || lent(w)
            };
            let found = self.victims(gang, &rights, &allowed, &live, &mut promised);
            if let Some((victims, shrinks, hole)) = found {
                memory.promises.insert(gang.workload.uid, hole);
                preemptions.push(Preemption {
                    epoch: self.state.epoch,
                    by: gang.workload.key.clone(),
                    by_uid: gang.workload.uid,
                    victims,
                    shrinks,
                    fleet: self.fleet.clone(),
                    clusters: usable.clone(),
                });
                // The next gang's case rests on what this one leaves: the next plan sees that.
                break;
            }
        }
        (preemptions, memory)
    }

    /// What lives in the clusters whose capacity is fresh.
    fn live(&self, usable: &BTreeSet<ClusterName>) -> BTreeMap<ClusterName, Live<'a>> {
        let fresh = |room: &&Room<'_>| room.capacity.is_some_and(|c| c.fresh);
        let rooms = self.placer.rooms.iter().filter(|(name, _)| usable.contains(*name));
        let rooms = rooms.filter(|(_, room)| fresh(room));
        rooms.map(|(name, room)| ((*name).clone(), Live::in_room(self.state, room, self.now))).collect()
    }

    /// Whether some attempt ended in a cluster, or members of one went, so short a time ago that its capacity may not show it yet: then
    /// that room may be what the gang waits for.
    fn ended_lately(&self, cluster: &ClusterName) -> bool {
        let lately = |at: UnixMs| at.0.saturating_add(SETTLING_MS) > self.now.0;
        let gone = |a: &Attempt| a.resize.as_ref().and_then(|resize| resize.gone_at);
        let last = self.state.workloads.values().filter_map(|w| w.attempts.last());
        last.into_iter()
            .any(|a| a.cluster == *cluster && (a.ended_at.is_some_and(lately) || gone(a).is_some_and(lately)))
    }

    /// The clusters that count.
    pub(super) fn usable(&self) -> BTreeSet<ClusterName> {
        self.placer.rooms.values().filter(|r| super::books::usable(r)).map(|r| r.cluster.info.name.clone()).collect()
    }

    /// What pools have a right to before this plan's bindings.
    pub(super) fn new_rights(&self) -> Rights {
        Rights::new(self.state, self.fleet.clone(), &self.usable())
    }

    fn remember(&self, before: &Memory, rights: &Rights) -> Memory {
        let over = rights.all_over().map(|(pool, resource)| {
            let key = (pool.clone(), resource.clone());
            let since = before.over.get(&key).copied().unwrap_or(self.now);
            (key, since)
        });
        let gives_way = |w: &Workload| self.state.pools.spec(&w.pool).is_some_and(PoolSpec::gives_way_within);
        let starved = self.starved.iter().filter(|s| gives_way(s.workload)).map(|s| {
            let uid = s.workload.uid;
            (uid, before.starved.get(&uid).copied().unwrap_or(self.now))
        });
        Memory { over: over.collect(), starved: starved.collect(), ..Memory::new(before.lasting_ms) }
    }

    /// Whose room makes a hole for the gang; none where nobody's does, or a hole is coming already.
    fn victims(
        &mut self,
        gang: &Starved<'a>,
        rights: &Rights,
        allowed: &dyn Fn(&Candidate<'_>) -> bool,
        live: &BTreeMap<ClusterName, Live<'a>>,
        promised: &mut BTreeSet<ClusterName>,
    ) -> Option<(Vec<Victim>, Vec<Shrink>, Promise)> {
        let mut best: Option<((bool, u128), ClusterName, Found<'_, 'a>)> = None;
        let (state, now) = (self.state, self.now);
        let own = self.reservations.passes(gang.workload.uid, None);
        let claim = Claim::of(gang.workload);
        let suffice = rights.suffice(state, &claim);
        let mut candidates: Vec<(&ClusterName, &Live<'a>, Vec<&Candidate<'a>>)> = vec![];
        for name in gang.clusters.iter().filter(|c| !promised.contains(*c)) {
            let Some((room, live)) = self.placer.rooms.get_mut(name).zip(live.get(name)) else { continue };
            if suffice && coming(room, &gang.gang, &own, &live.going) {
                promised.insert(name.clone());
                return None;
            }
            let rightful = |c: &&Candidate<'a>| allowed(c) && c.ground(rights, state, &claim).is_some();
            let found: Vec<&Candidate<'a>> = live.candidates.iter().filter(rightful).collect();
            if !found.is_empty() {
                candidates.push((name, live, found));
            }
        }
        for (name, live, found) in &candidates {
            let Some(room) = self.placer.rooms.get_mut(name) else { continue };
            let Some(chosen) = cheapest(room, (gang, &claim, &own), (found, &live.going), rights, state) else {
                continue;
            };
            let lost = chosen.lost();
            if best.as_ref().is_none_or(|(least, ..)| lost < *least) {
                best = Some((lost, (*name).clone(), chosen));
            }
        }
        let (_, cluster, chosen) = best?;
        if self.ended_lately(&cluster) {
            return None;
        }
        let (victims, shrinks) = chosen.split();
        let nodes =
            chosen.hole.iter().filter_map(|node| Some(self.placer.rooms.get(&cluster)?.node(*node)?.name.clone()));
        let hole = Promise::of_hole(cluster.clone(), nodes.collect(), now);
        promised.insert(cluster);
        Some((victims, shrinks, hole))
    }
}

/// Pools that hold more than their part, each with the first resource in which it does.
pub(super) fn lent(walk: &Walk<'_>) -> Vec<Lent> {
    let rights = walk.rights.get_or_init(|| walk.new_rights());
    let mut all: Vec<Lent> = vec![];
    for (pool, resource) in rights.all_over() {
        let Some((held, entitled)) = rights.over(pool, resource) else { continue };
        if all.iter().all(|lent| lent.pool != *pool) {
            all.push(Lent { pool: pool.clone(), resource: resource.clone(), held, entitled });
        }
    }
    all
}

pub(super) fn may_end(workload: &Workload) -> bool {
    workload.spec.preemptible == Preemptible::Yes && workload.phase.after(Event::Preempt).is_some()
}

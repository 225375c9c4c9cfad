//! What is known of slices and claims: by node what it offers, and who has which of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::ids::{AttemptId, NodeName};
use protocol::resources::Resources;

use super::offer::{Advertised, Joined, devices, join, newest};
use super::seen::{SeenClaim, SeenSlice};
use crate::cluster::{ClusterNode, NodePods, PodGpus, PodName};
use crate::kube::follow::News;

type Key = Box<str>;

/// All slices and all claims that hold something.
#[derive(Debug, Default)]
pub(in crate::kube) struct Known {
    slices: HashMap<Key, SeenSlice>,
    on_node: BTreeMap<NodeName, BTreeSet<Key>>,
    /// The nodes of each pool, with how many slices they have.
    pools: BTreeMap<Box<str>, BTreeMap<NodeName, usize>>,
    claims: HashMap<Key, SeenClaim>,
    /// By device, which is named by pool and name, the claims that hold it.
    holds: HashMap<(Box<str>, Box<str>), BTreeSet<Key>>,
}

/// Who has a device.
struct Holder {
    attempt: Option<AttemptId>,
    pod: PodName,
}

impl Known {
    /// Takes in what became known of slices. Here and below `changed` gets the nodes that it concerns.
    pub fn slices(&mut self, news: News<SeenSlice>, changed: &mut BTreeSet<NodeName>) {
        match news {
            News::All(all) => {
                let all: HashMap<Key, _> = all.into_iter().collect();
                let before: Vec<Key> = self.slices.keys().filter(|key| !all.contains_key(*key)).cloned().collect();
                before.into_iter().for_each(|key| self.slice_gone(&key, changed));
                all.into_iter().for_each(|(key, seen)| self.put_slice(key, seen, changed));
            }
            News::NotServed => self.slices(News::All(vec![]), changed),
            News::Put(key, seen) => self.put_slice(key, seen, changed),
            News::Gone(key) => self.slice_gone(&key, changed),
            News::Heard | News::Trouble(_) => {}
        }
    }

    /// Takes in what became known of claims.
    pub fn claims(&mut self, news: News<SeenClaim>, changed: &mut BTreeSet<NodeName>) {
        match news {
            News::All(all) => {
                let all: HashMap<Key, _> = all.into_iter().collect();
                let before: Vec<Key> = self.claims.keys().filter(|key| !all.contains_key(*key)).cloned().collect();
                before.into_iter().for_each(|key| self.claim_gone(&key, changed));
                all.into_iter().for_each(|(key, seen)| self.put_claim(key, seen, changed));
            }
            News::NotServed => self.claims(News::All(vec![]), changed),
            News::Put(key, seen) => self.put_claim(key, seen, changed),
            News::Gone(key) => self.claim_gone(&key, changed),
            News::Heard | News::Trouble(_) => {}
        }
    }

    fn put_slice(&mut self, key: Key, seen: SeenSlice, changed: &mut BTreeSet<NodeName>) {
        if self.slices.get(&key) == Some(&seen) {
            return;
        }
        self.slice_gone(&key, changed);
        changed.insert(seen.node.clone());
        self.on_node.entry(seen.node.clone()).or_default().insert(key.clone());
        *self.pools.entry(seen.pool.clone()).or_default().entry(seen.node.clone()).or_default() += 1;
        self.slices.insert(key, seen);
    }

    fn slice_gone(&mut self, key: &str, changed: &mut BTreeSet<NodeName>) {
        let Some(slice) = self.slices.remove(key) else { return };
        if let Some(keys) = self.on_node.get_mut(&slice.node) {
            keys.remove(key);
            if keys.is_empty() {
                self.on_node.remove(&slice.node);
            }
        }
        if let Some(nodes) = self.pools.get_mut(&slice.pool) {
            if let Some(count) = nodes.get_mut(&slice.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&slice.node);
                }
            }
            if nodes.is_empty() {
                self.pools.remove(&slice.pool);
            }
        }
        changed.insert(slice.node);
    }

    fn put_claim(&mut self, key: Key, seen: SeenClaim, changed: &mut BTreeSet<NodeName>) {
        if self.claims.get(&key) == Some(&seen) {
            return;
        }
        self.claim_gone(&key, changed);
        for device in &seen.devices {
            self.holds.entry(device.clone()).or_default().insert(key.clone());
        }
        self.concerns(&seen, changed);
        self.claims.insert(key, seen);
    }

    fn claim_gone(&mut self, key: &str, changed: &mut BTreeSet<NodeName>) {
        let Some(claim) = self.claims.remove(key) else { return };
        for device in &claim.devices {
            if let Some(keys) = self.holds.get_mut(device) {
                keys.remove(key);
                if keys.is_empty() {
                    self.holds.remove(device);
                }
            }
        }
        self.concerns(&claim, changed);
    }

    fn concerns(&self, claim: &SeenClaim, changed: &mut BTreeSet<NodeName>) {
        let nodes = claim.devices.iter().filter_map(|(pool, _)| self.pools.get(pool));
        changed.extend(nodes.flat_map(BTreeMap::keys).cloned());
    }

    /// A node as it is with its slices, and what its pods have by claims, added to what they have otherwise. `attempt` says by a pod's uid
    /// whose it is. An error is a figure that cannot be.
    pub fn join(
        &self,
        node: &ClusterNode,
        pods: impl FnOnce(&ClusterNode) -> NodePods,
        attempt: impl Fn(&str) -> Option<AttemptId>,
    ) -> Result<(ClusterNode, NodePods), String> {
        let Some(keys) = self.on_node.get(&node.name) else { return Ok((node.clone(), pods(node))) };
        let slices: Vec<&SeenSlice> = keys.iter().filter_map(|key| self.slices.get(key)).collect();
        let Joined { node, counted } = join(node, &slices)?;
        let mut pods = pods(&node);
        // Also those of pools that are not complete: what holds them goes on.
        let all: Vec<Advertised<'_>> =
            newest(&slices).into_values().flat_map(|slices| devices(&slices).collect::<Vec<_>>()).collect();
        let held: Vec<(Advertised<'_>, Holder)> =
            all.into_iter().filter_map(|at| Some((at, self.holder(&at, &attempt)?))).collect();
        if node.offer.claims.is_some() {
            for (id, at) in counted {
                let is_held = |(other, _): &&(Advertised<'_>, Holder)| {
                    (other.pool == at.pool && other.device.name == at.device.name) || other.overlaps(&at)
                };
                if let Some((_, holder)) = held.iter().find(is_held) {
                    count(&mut pods, holder.attempt, 1);
                    pods.claimed.insert(id, holder.attempt);
                }
            }
            return Ok((node, pods));
        }
        let mut seen: Vec<Advertised<'_>> = vec![];
        for (at, holder) in held {
            if seen.iter().any(|other| other.overlaps(&at)) {
                continue;
            }
            seen.push(at);
            // All units of the device.
            let units = node.offer.parts();
            count(&mut pods, holder.attempt, units);
            let named = pods.named.entry(holder.pod).or_insert(PodGpus { attempt: holder.attempt, gpus: 0 });
            named.gpus = named.gpus.saturating_add(u16::try_from(units).unwrap_or(u16::MAX));
        }
        Ok((node, pods))
    }

    fn holder(&self, at: &Advertised<'_>, attempt: impl Fn(&str) -> Option<AttemptId>) -> Option<Holder> {
        let device = (Box::from(at.pool), at.device.name.clone());
        let claim = self.claims.get(self.holds.get(&device)?.first()?)?;
        let uid = claim.pod.as_ref().map(|(uid, _)| &**uid);
        // One that no pod has reserved, or not any more, is under a name that no pod has.
        let name = claim.pod.as_ref().map_or_else(Box::default, |(_, name)| name.clone());
        let pod = PodName { namespace: claim.namespace.clone(), name };
        Some(Holder { attempt: claim.attempt.or_else(|| attempt(uid?)), pod })
    }
}

/// Adds so many units to what pods have.
fn count(pods: &mut NodePods, attempt: Option<AttemptId>, units: u32) {
    let takes = Resources { gpu_milli: 1000 * u64::from(units), ..Resources::ZERO };
    match attempt {
        Some(attempt) => *pods.attempts.entry(attempt).or_default() += takes,
        None => pods.others += takes,
    }
}

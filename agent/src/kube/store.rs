//! What is known of nodes, pods and claims, added up by node as it changes, and which nodes the cluster role has to be told of. Pure:
//! [`super::feed`] fills and empties it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::ids::{AttemptId, NodeName};

use super::amounts::Takes;
use super::dra::{ClaimObject, Known, SliceObject};
use super::follow::{Kind, News};
use super::seen::SeenPod;
use crate::cluster::{ClusterNode, KubernetesInput, NodePods, PodGpus, PodName};

/// Keys are those of [`super::follow`].
type Key = Box<str>;

/// What the pods of a node take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OnNode {
    pods: usize,
    others: Takes,
    /// By attempt, with how many pods say that they are its.
    attempts: BTreeMap<AttemptId, (usize, Takes)>,
    /// Those that their kubelet may name as having devices: whose they are, and what they take.
    named: BTreeMap<PodName, (Option<AttemptId>, Takes)>,
    /// Pods that cannot be counted, and why.
    broken: BTreeMap<Key, Box<str>>,
}

impl OnNode {
    fn add(&mut self, key: &str, pod: &SeenPod) {
        self.pods += 1;
        if let Some(name) = &pod.name {
            let takes = pod.takes.clone().unwrap_or_default();
            self.named.insert((**name).clone(), (pod.attempt, takes));
        }
        match (&pod.takes, pod.attempt) {
            (Err(why), _) => drop(self.broken.insert(key.into(), why.clone())),
            (Ok(takes), None) => self.others.add(takes),
            (Ok(takes), Some(attempt)) => {
                let (count, sum) = self.attempts.entry(attempt).or_default();
                *count += 1;
                sum.add(takes);
            }
        }
    }

    /// Amounts are bounded as they are read, so that no sum was ever cut and this takes out what `add` put in.
    fn take_out(&mut self, key: &str, pod: &SeenPod) {
        self.pods -= 1;
        if let Some(name) = &pod.name {
            self.named.remove(name);
        }
        match (&pod.takes, pod.attempt) {
            (Err(_), _) => drop(self.broken.remove(key)),
            (Ok(takes), None) => self.others.take_out(takes),
            (Ok(takes), Some(attempt)) => {
                if let Some((count, sum)) = self.attempts.get_mut(&attempt) {
                    *count -= 1;
                    sum.take_out(takes);
                    if *count == 0 {
                        self.attempts.remove(&attempt);
                    }
                }
            }
        }
    }

    /// In units of what the node offers.
    fn sums(&self, resource: &str) -> NodePods {
        let attempts = self.attempts.iter().map(|(attempt, (_, sum))| (*attempt, sum.of(resource))).collect();
        let gpus = |takes: &Takes| u16::try_from(takes.units(resource)).unwrap_or(u16::MAX);
        let named = self.named.iter();
        let named =
            named.map(|(name, (attempt, takes))| (name.clone(), PodGpus { attempt: *attempt, gpus: gpus(takes) }));
        NodePods { others: self.others.of(resource), attempts, named: named.collect(), claimed: BTreeMap::new() }
    }
}

/// Which kinds were heard of once: before all of them were, nothing is said of any node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    nodes: bool,
    pods: bool,
    slices: bool,
    claims: bool,
}

impl Listed {
    const ALL: Listed = Listed { nodes: true, pods: true, slices: true, claims: true };
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Store {
    nodes: BTreeMap<Key, Result<ClusterNode, String>>,
    pods: HashMap<Key, SeenPod>,
    on_node: BTreeMap<NodeName, OnNode>,
    devices: Known,
    listed: Listed,
    changed: BTreeSet<NodeName>,
    /// Nodes that the cluster role has.
    told: BTreeSet<NodeName>,
    /// Nodes that are left out, and why: said once.
    left_out: BTreeMap<Key, String>,
    /// Nodes of whose devices a person was told something, and what.
    passed_over: BTreeMap<NodeName, String>,
    /// What a person should know and was not told yet.
    complaints: Vec<String>,
}

impl Store {
    /// Takes in what became known of nodes.
    pub fn nodes(&mut self, news: News<Result<ClusterNode, String>>) {
        match news {
            News::All(all) => {
                self.listed.nodes = true;
                let all: BTreeMap<Key, _> = all.into_iter().collect();
                let before: Vec<Key> = self.nodes.keys().filter(|key| !all.contains_key(*key)).cloned().collect();
                before.into_iter().for_each(|key| self.node_gone(&key));
                all.into_iter().for_each(|(key, seen)| self.put_node(key, seen));
            }
            News::Put(key, seen) => self.put_node(key, seen),
            News::Gone(key) => self.node_gone(&key),
            News::Heard | News::Trouble(_) | News::NotServed => {}
        }
    }

    /// Takes in what became known of pods.
    pub fn pods(&mut self, news: News<SeenPod>) {
        match news {
            News::All(all) => {
                self.listed.pods = true;
                let all: HashMap<Key, _> = all.into_iter().collect();
                let before: Vec<Key> = self.pods.keys().filter(|key| !all.contains_key(*key)).cloned().collect();
                before.into_iter().for_each(|key| self.pod_gone(&key));
                all.into_iter().for_each(|(key, seen)| self.put_pod(key, seen));
            }
            News::Put(key, seen) => self.put_pod(key, seen),
            News::Gone(key) => self.pod_gone(&key),
            News::Heard | News::Trouble(_) | News::NotServed => {}
        }
    }

    /// Takes in what became known of slices of devices.
    pub fn slices(&mut self, news: News<<SliceObject as Kind>::Seen>) {
        self.listed.slices |= news.is_whole();
        self.devices.slices(news, &mut self.changed);
    }

    /// Takes in what became known of claims.
    pub fn claims(&mut self, news: News<<ClaimObject as Kind>::Seen>) {
        self.listed.claims |= news.is_whole();
        self.devices.claims(news, &mut self.changed);
    }

    /// Whether there is something to tell.
    pub fn has_news(&self) -> bool {
        self.listed == Listed::ALL && !self.changed.is_empty()
    }

    /// What a person should know since the last call: nodes that are left out, and why.
    pub fn take_complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// What the cluster role has to be told since the last call.
    pub fn take_news(&mut self) -> Option<KubernetesInput> {
        if !self.has_news() {
            return None;
        }
        let (mut nodes, mut gone) = (vec![], vec![]);
        for name in std::mem::take(&mut self.changed) {
            match self.there_is(&name) {
                Some(Ok((node, pods))) => {
                    self.told.insert(name.clone());
                    self.left_out.remove(name.as_str());
                    self.pass_over(name, node.passed_over.as_ref());
                    nodes.push((node, pods));
                }
                there => {
                    if let Some(Err(why)) = there {
                        self.leave_out(name.as_str(), why);
                    }
                    if self.told.remove(&name) {
                        gone.push(name);
                    }
                }
            }
        }
        Some(KubernetesInput::Changed { nodes, gone })
    }

    /// A node with all that its pods and claims take; why it can't be said what these take; none where there is no such node.
    fn there_is(&self, name: &NodeName) -> Option<Result<(ClusterNode, NodePods), String>> {
        let node = self.nodes.get(name.as_str())?.as_ref().ok()?;
        let on_node = self.on_node.get(name);
        if let Some(why) = on_node.and_then(|on| on.broken.values().next()) {
            return Some(Err(why.to_string()));
        }
        let pods = |node: &ClusterNode| on_node.map(|on_node| on_node.sums(&node.offer.resource)).unwrap_or_default();
        Some(self.devices.join(node, pods, |uid| self.pods.get(uid)?.attempt))
    }

    fn put_node(&mut self, key: Key, seen: Result<ClusterNode, String>) {
        if self.nodes.get(&key) == Some(&seen) {
            return;
        }
        self.changed.extend(NodeName::new(&key));
        if let Err(why) = &seen {
            self.leave_out(&key, why.clone());
        }
        self.nodes.insert(key, seen);
    }

    fn leave_out(&mut self, node: &str, why: String) {
        if self.left_out.get(node) != Some(&why) {
            self.complaints.push(format!("node {node} is left out of the capacity table: {why}"));
            self.left_out.insert(node.into(), why);
        }
    }

    /// Says once what of a node's devices is not counted or given to nobody.
    fn pass_over(&mut self, node: NodeName, what: Option<&String>) {
        if self.passed_over.get(&node) == what {
            return;
        }
        match what {
            Some(what) => {
                self.complaints.push(format!("devices of node {node}: {what}"));
                self.passed_over.insert(node, what.clone());
            }
            None => drop(self.passed_over.remove(&node)),
        }
    }

    fn node_gone(&mut self, key: &str) {
        self.left_out.remove(key);
        self.passed_over.retain(|node, _| node.as_str() != key);
        if self.nodes.remove(key).is_some() {
            self.changed.extend(NodeName::new(key));
        }
    }

    fn put_pod(&mut self, key: Key, seen: SeenPod) {
        if self.pods.get(&key) == Some(&seen) {
            return;
        }
        self.pod_gone(&key);
        self.on_node.entry(seen.node.clone()).or_default().add(&key, &seen);
        self.changed.insert(seen.node.clone());
        self.pods.insert(key, seen);
    }

    fn pod_gone(&mut self, key: &str) {
        let Some(pod) = self.pods.remove(key) else { return };
        if let Some(on_node) = self.on_node.get_mut(&pod.node) {
            on_node.take_out(key, &pod);
            if on_node.pods == 0 {
                self.on_node.remove(&pod.node);
            }
        }
        self.changed.insert(pod.node);
    }
}

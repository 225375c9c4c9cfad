//! Rows of Kubernetes' nodes. What pods of others take is not free; which devices they have the API server does not say. Where their kubelet says
//! it neither (`whose`), as many as they ask for are taken out: those first that are in use and held by no attempt. What Kubernetes does not
//! offer of measured devices is out as well. Where claims give devices out the API server says all of it.

use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::DeviceState;
use protocol::ids::{AttemptId, MonotonicMs, NodeName};
use protocol::node::PodDevices;
use protocol::resources::Resources;

use super::whose::{DeviceNames, Held};
use super::{Device, Row, Table};
use crate::cluster::interface::{ClusterNode, NodePods, PodGpus, PodName};
use crate::cluster::offer::Offer;
use crate::cluster::reservations::Reservations;

/// Where the API server has not been heard of for longer than this, its nodes are stale, in ms.
pub const KUBERNETES_SILENT_AFTER_MS: u64 = 30_000;

/// What Kubernetes says of a row's node.
#[derive(Debug, Clone)]
pub(super) struct OfKubernetes {
    /// How it gives out its devices.
    pub(super) offer: Offer,
    closed: bool,
    pods: NodePods,
}

impl OfKubernetes {
    /// Whether the node takes no members.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What pods take that are not counted as a reservation.
    pub fn foreign(&self, reservations: &Reservations) -> Resources {
        let unknown = self.pods.attempts.iter().filter(|(attempt, _)| !reservations.has(**attempt));
        unknown.fold(self.pods.others, |sum, (_, takes)| sum + *takes)
    }

    /// Units that pods have of attempts which are counted as a reservation.
    pub fn known_units(&self, reservations: &Reservations) -> impl Iterator<Item = (AttemptId, u64)> {
        let known = self.pods.attempts.iter().filter(|(attempt, _)| reservations.has(**attempt));
        known.map(|(attempt, takes)| (*attempt, takes.gpu_milli / 1000))
    }

    /// Pods that may have devices.
    pub fn named(&self) -> &BTreeMap<PodName, PodGpus> {
        &self.pods.named
    }

    /// What is known of who has which device, where this is what the kubelet says.
    pub fn held<'a>(&'a self, by_kubelet: Option<&'a [PodDevices]>, reservations: &Reservations) -> Held<'a> {
        match by_kubelet {
            // Of claims the kubelet says nothing.
            _ if self.offer.claims.is_some() => Held::ByClaims(&self.pods.claimed),
            Some(held) => Held::ByKubelet(held),
            None => Held::Somewhere(self.foreign(reservations).gpus()),
        }
    }

    /// Takes devices out for `gpus` of others' pods that may be any, and those that Kubernetes does not offer.
    pub fn give_away(&self, states: &mut [DeviceState], gpus: u64) {
        let healthy = states.iter().filter(|state| **state != DeviceState::Sick).count();
        let offered = usize::try_from(self.offer.units).unwrap_or(usize::MAX);
        let unoffered = healthy.saturating_sub(offered);
        let mut out = usize::try_from(gpus).unwrap_or(usize::MAX).saturating_add(unoffered);
        // Attempts get the lowest free ones, so that the highest are the least in the way.
        for taken_first in [DeviceState::Ghost, DeviceState::Free] {
            for state in states.iter_mut().rev().filter(|state| **state == taken_first) {
                if out == 0 {
                    return;
                }
                *state = DeviceState::Foreign;
                out -= 1;
            }
        }
    }
}

/// What is known of Kubernetes as a whole.
#[derive(Debug, Default)]
pub(super) struct Kubernetes {
    /// Up to when everything is known; none before the first word.
    current: Option<MonotonicMs>,
    has_all_nodes: bool,
    /// The nodes on which pods say that they are of an attempt.
    pods_of: BTreeMap<AttemptId, BTreeSet<NodeName>>,
}

impl Kubernetes {
    /// Whether what is known is too old to place on.
    pub fn is_silent(&self, now: MonotonicMs) -> bool {
        self.current.is_none_or(|at| now.since(at) > KUBERNETES_SILENT_AFTER_MS)
    }

    /// Whether every node of the cluster is in the table.
    pub fn has_all_nodes(&self) -> bool {
        self.has_all_nodes
    }

    fn pods_moved(&mut self, node: &NodeName, before: &NodePods, after: &NodePods) {
        for attempt in before.attempts.keys().filter(|a| !after.attempts.contains_key(a)) {
            if let Some(nodes) = self.pods_of.get_mut(attempt) {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.pods_of.remove(attempt);
                }
            }
        }
        for attempt in after.attempts.keys().filter(|a| !before.attempts.contains_key(a)) {
            self.pods_of.entry(*attempt).or_default().insert(node.clone());
        }
    }
}

impl Table {
    /// Takes in what changed of Kubernetes' nodes.
    pub(crate) fn kubernetes_changed(
        &mut self,
        nodes: Vec<(ClusterNode, NodePods)>,
        gone: &[NodeName],
        now: MonotonicMs,
    ) {
        let first = !std::mem::replace(&mut self.kubernetes.has_all_nodes, true);
        if first {
            self.kubernetes.current = Some(now);
        }
        gone.iter().for_each(|name| self.kubernetes_gone(name));
        for (node, pods) in nodes {
            self.kubernetes_node(node, pods, now);
        }
        if first {
            // Of those that are only measured it is known now that Kubernetes does not have them.
            self.tick(now);
        }
    }

    /// Everything up to `age_ms` ago has been said.
    pub(crate) fn kubernetes_current(&mut self, age_ms: u64, now: MonotonicMs) {
        self.kubernetes.current = Some(MonotonicMs(now.0.saturating_sub(age_ms)));
    }

    fn kubernetes_node(&mut self, node: ClusterNode, pods: NodePods, now: MonotonicMs) {
        let row = self.row_named(&node.name);
        let at = &mut self.rows[row];
        let shape = |at: &Row| (at.cpu_milli, at.memory_mib, at.source(), at.sharing());
        let before = shape(at);
        let had = at.kubernetes.take().map(|of| of.pods).unwrap_or_default();
        self.kubernetes.pods_moved(&node.name, &had, &pods);
        let (devices, slices) = (usize::from(node.offer.devices()), node.offer.slices);
        at.kubernetes = Some(OfKubernetes { offer: node.offer, closed: node.closed.is_some(), pods });
        (at.cpu_milli, at.memory_mib) = (node.cpu_milli, node.memory_mib);
        if slices && at.measured.is_some() {
            // What is read is of GPUs. Once they are no slices any more, the next frame asks for a full one.
            (at.measured, at.held, at.read_sku) = (None, None, false);
            self.resize(row, 0);
        }
        if before != shape(&self.rows[row]) {
            // Only a snapshot can say these.
            self.generation += 1;
        }
        if !self.rows[row].read_sku {
            self.set_sku(row, node.sku.as_ref());
        }
        if self.rows[row].measured.is_none() {
            self.resize(row, devices);
            let first = self.rows[row].first;
            self.devices[first..first + devices].iter_mut().for_each(Device::count_on);
            self.name(row);
        }
        self.bar(row);
        self.refresh(row);
        self.refresh_state(row, now);
    }

    /// Devices that nobody reads are those that claims give out, in their order.
    fn name(&mut self, row: usize) {
        let Row { first, count, kubernetes, .. } = &self.rows[row];
        let listed =
            kubernetes.as_ref().and_then(|of| of.offer.claims.as_ref()).map_or(&[][..], |claims| &claims.devices);
        for (at, device) in self.devices[*first..first + count].iter_mut().enumerate() {
            let id = listed.get(at).map(|listed| &listed.id);
            if device.names.as_ref().map(|names| &names.uuid) != id {
                device.names = id.map(|id| Box::new(DeviceNames { uuid: id.clone(), slices: Box::default() }));
            }
        }
    }

    /// Enters which devices Kubernetes gives to nobody.
    pub(super) fn bar(&mut self, row: usize) {
        let Row { first, count, kubernetes, .. } = &self.rows[row];
        let claims = kubernetes.as_ref().and_then(|of| of.offer.claims.as_ref());
        for device in &mut self.devices[*first..first + count] {
            let is_barred = |uuid: &str| claims.is_some_and(|c| c.devices.iter().any(|d| !d.open && *d.id == *uuid));
            device.barred = device.names.as_ref().is_some_and(|names| is_barred(&names.uuid));
        }
    }

    /// A node is gone, and with it its row. One that still reports is known again from its next full frame.
    fn kubernetes_gone(&mut self, name: &NodeName) {
        let Some(&row) = self.by_name.get(name) else { return };
        let Some(of) = &self.rows[row].kubernetes else { return };
        self.kubernetes.pods_moved(name, &of.pods, &NodePods::default());
        let removed = self.rows.remove(row);
        self.devices.drain(removed.first..removed.first + removed.count);
        self.by_name.remove(name);
        self.by_name.values_mut().filter(|at| **at > row).for_each(|at| *at -= 1);
        self.rows[row..].iter_mut().for_each(|later| later.first -= removed.count);
        self.generation += 1;
        self.shape_changed();
    }

    /// The pods of an attempt count, or do not any more, since what it holds changed.
    pub(super) fn refresh_pods_of(&mut self, attempt: AttemptId) {
        let nodes = self.kubernetes.pods_of.get(&attempt).cloned().unwrap_or_default();
        self.refresh_named(nodes.iter());
    }
}

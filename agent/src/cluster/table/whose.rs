//! Whose each device of a row is. A journal counts devices by number; which of them a container really has the kubelet decides, and where it is
//! asked that counts: what an attempt was given moves to the devices that its pods have, and a device that any other pod has is foreign,
//! also where the API server does not know that pod any more. What no pod has yet stays where the journal has it, or goes where there is room.
//! Of devices that claims give out the API server says it in the kubelet's place.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::AttemptId;
use protocol::node::{DeviceReport, PodDevices};

use super::Device;
use super::kubernetes::OfKubernetes;
use crate::cluster::interface::PodName;
use crate::cluster::reservations::{Hold, Reservations, WHOLE_MILLI};

/// How a device plugin names its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceNames {
    /// The device's own UUID.
    pub uuid: Box<str>,
    /// Those of its MIG devices.
    pub slices: Box<[String]>,
}

impl DeviceNames {
    /// As a report has them.
    pub fn of(report: &DeviceReport) -> Self {
        Self { uuid: report.uuid.as_str().into(), slices: report.slices.clone().into() }
    }

    /// Whether a report has the same.
    pub fn are_of(&self, report: &DeviceReport) -> bool {
        *self.uuid == *report.uuid && *self.slices == *report.slices
    }
}

/// What is known of who has which device.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held<'a> {
    /// What the kubelet says that containers have.
    ByKubelet(&'a [PodDevices]),
    /// What the API server says that claims hold.
    ByClaims(&'a BTreeMap<Box<str>, Option<AttemptId>>),
    /// So many GPUs are others', and nobody says which.
    Somewhere(u64),
}

/// Whose the devices of a row are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Whose {
    /// Thousandths of each device that attempts have.
    pub given: Vec<u16>,
    /// Devices that pods of others have, or a part of them.
    pub foreign: Vec<bool>,
    /// GPUs that pods of others ask for, and which these are is not known.
    pub somewhere: u64,
}

impl Whose {
    /// By the journal alone: the row is none of Kubernetes'.
    pub fn by_journal<'a>(devices: usize, holds: impl Iterator<Item = &'a Hold>) -> Self {
        let mut whose = Self { given: vec![0; devices], foreign: vec![false; devices], somewhere: 0 };
        holds.flat_map(|hold| &hold.devices).for_each(|(device, milli)| whose.give(usize::from(*device), *milli));
        whose
    }

    /// By the journal, by what the API server knows of pods, and by what is known of who has which device.
    pub fn in_kubernetes<'a>(
        devices: &[Device],
        holds: impl Iterator<Item = (&'a AttemptId, &'a Hold)>,
        of: &OfKubernetes,
        held: Held<'_>,
        reservations: &Reservations,
    ) -> Self {
        let mut whose = Self::by_journal(devices.len(), std::iter::empty());
        let mut found = match held {
            Held::ByKubelet(held) => whose.take_held(devices, of, held, reservations),
            Held::ByClaims(claimed) => whose.take_claimed(devices, claimed, reservations),
            Held::Somewhere(foreign) => {
                whose.somewhere = foreign;
                BTreeMap::new()
            }
        };
        let mut waiting = vec![];
        for (attempt, hold) in holds {
            let mut has = found.remove(attempt).unwrap_or_default();
            let mut unseen = vec![];
            for &(device, milli) in &hold.devices {
                match has.iter().position(|at| *at == usize::from(device)) {
                    Some(at) => whose.give(has.swap_remove(at), milli),
                    None => unseen.push((usize::from(device), milli)),
                }
            }
            let mut unseen = unseen.into_iter();
            for device in has {
                // More than it was given is what is still to go.
                let milli = unseen.next().map_or(WHOLE_MILLI, |(_, milli)| milli);
                whose.give(device, milli);
            }
            waiting.extend(unseen);
        }
        // Of an attempt that was given nothing here: Kubernetes placed its pod elsewhere than it was asked to.
        found.into_values().flatten().for_each(|device| whose.give(device, WHOLE_MILLI));
        for (device, milli) in waiting {
            // What Kubernetes gives to nobody any more its pods will not get either.
            let stays = whose.fits(device, milli) && devices.get(device).is_none_or(|device| !device.barred);
            let at = if stays { Some(device) } else { whose.room(devices, milli) };
            // Where there is no room at all, nothing is free that it would have to be taken from.
            if let Some(at) = at.or(Some(device).filter(|at| whose.foreign.get(*at) == Some(&false))) {
                whose.give(at, milli);
            }
        }
        whose
    }

    /// Takes in what others have; returns what pods of attempts have that the journal knows.
    fn take_held(
        &mut self,
        devices: &[Device],
        of: &OfKubernetes,
        held: &[PodDevices],
        reservations: &Reservations,
    ) -> BTreeMap<AttemptId, Vec<usize>> {
        let ours = |attempt: Option<AttemptId>| attempt.filter(|attempt| reservations.has(*attempt));
        let (mut found, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for pod in held {
            let name = name_of(pod);
            let known = of.named().get(&name);
            let places = pod.devices.iter().map(|id| place(devices, id));
            match known.and_then(|pod| ours(pod.attempt)) {
                Some(attempt) => found.entry(attempt).or_insert_with(Vec::new).extend(places.flatten()),
                None => {
                    for place in places {
                        match place {
                            Some(at) => self.foreign[at] = true,
                            // One that is known is counted by what it asks for.
                            None if known.is_some() => continue,
                            None => self.somewhere += 1,
                        }
                        *seen.entry(name.clone()).or_insert(0u64) += 1;
                    }
                }
            }
        }
        for (name, pod) in of.named().iter().filter(|(_, pod)| ours(pod.attempt).is_none()) {
            self.somewhere += u64::from(pod.gpus).saturating_sub(seen.get(name).copied().unwrap_or(0));
        }
        found
    }

    /// The same by claims.
    fn take_claimed(
        &mut self,
        devices: &[Device],
        claimed: &BTreeMap<Box<str>, Option<AttemptId>>,
        reservations: &Reservations,
    ) -> BTreeMap<AttemptId, Vec<usize>> {
        let mut found: BTreeMap<AttemptId, Vec<usize>> = BTreeMap::new();
        for (id, attempt) in claimed {
            let at = devices.iter().position(|device| is_named(device, id));
            match (attempt.filter(|attempt| reservations.has(*attempt)), at) {
                (Some(attempt), Some(at)) => found.entry(attempt).or_default().push(at),
                // Counted where the journal has it.
                (Some(_), None) => {}
                (None, Some(at)) => self.foreign[at] = true,
                (None, None) => self.somewhere += 1,
            }
        }
        found
    }

    fn give(&mut self, device: usize, milli: u16) {
        if let Some(given) = self.given.get_mut(device) {
            *given = given.saturating_add(milli);
        }
    }

    /// Whether so much more of a device can be had. One that is not there is nobody's to move.
    fn fits(&self, device: usize, milli: u16) -> bool {
        let fits = |given: &u16| given.saturating_add(milli) <= WHOLE_MILLI;
        self.given.get(device).is_none_or(fits) && self.foreign.get(device) != Some(&true)
    }

    /// The fullest device with room for it, one that is not in use before one that is.
    fn room(&self, devices: &[Device], milli: u16) -> Option<usize> {
        let out = |at: &usize| devices[*at].sick || devices[*at].barred;
        let fit = (0..devices.len()).filter(|at| !out(at) && self.fits(*at, milli));
        fit.min_by_key(|at| (WHOLE_MILLI.saturating_sub(self.given[*at]), devices[*at].used, *at))
    }
}

/// Attempts whose pods have a device; none where nobody says which they have.
pub(super) fn of_device(
    devices: &[Device],
    device: usize,
    of: &OfKubernetes,
    held: Held<'_>,
) -> Option<BTreeSet<AttemptId>> {
    match held {
        Held::ByKubelet(held) => {
            let has = |pod: &&PodDevices| pod.devices.iter().any(|id| place(devices, id) == Some(device));
            Some(held.iter().filter(has).filter_map(|pod| of.named().get(&name_of(pod))?.attempt).collect())
        }
        Held::ByClaims(claimed) => {
            let this = claimed.iter().filter(|(id, _)| is_named(&devices[device], id));
            Some(this.filter_map(|(_, attempt)| *attempt).collect())
        }
        Held::Somewhere(_) => None,
    }
}

fn name_of(pod: &PodDevices) -> PodName {
    PodName { namespace: pod.namespace.as_str().into(), name: pod.pod.as_str().into() }
}

fn is_named(device: &Device, uuid: &str) -> bool {
    device.names.as_ref().is_some_and(|names| *names.uuid == *uuid)
}

/// The device that a plugin names so: by UUID, by that of a MIG device of it, or by number; a part of a shared one has a number behind that.
fn place(devices: &[Device], id: &str) -> Option<usize> {
    let device = id.split_once("::").map_or(id, |(device, _)| device);
    let is = |names: &DeviceNames| &*names.uuid == device || names.slices.iter().any(|slice| slice == device);
    let named = devices.iter().position(|d| d.names.as_deref().is_some_and(is));
    let number = || device.split(':').next()?.parse::<usize>().ok();
    named.or_else(|| number().filter(|at| *at < devices.len()))
}

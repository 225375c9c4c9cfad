//! Devices of a Kubernetes node that are counted and not told apart: slices of GPUs, and GPUs in parts. Which of them a pod has makes no
//! difference to what is left, so that neither the kubelet nor the journal is asked for more than how many.
//!
//! What an attempt was given stays at the devices that the journal has, as the planner counts it. What pods of others have, what an attempt has
//! beyond that, and what Kubernetes does not offer of the devices that there are, is taken from the last ones. Memory in use on a device is a ghost's only
//! where nothing of the node is given out: else whose it is is not known.

use std::collections::BTreeMap;

use protocol::capacity::DeviceState;
use protocol::ids::AttemptId;

use super::Device;
use super::kubernetes::OfKubernetes;
use crate::cluster::reservations::{Hold, Reservations, WHOLE_MILLI};

/// What the devices of a row are doing, and of those of which a part is given out, how many thousandths more can be had.
pub(super) fn standing<'a>(
    devices: &[Device],
    of: &OfKubernetes,
    holds: impl Iterator<Item = (&'a AttemptId, &'a Hold)>,
    reservations: &Reservations,
) -> Vec<(DeviceState, u16)> {
    let (offer, parts) = (&of.offer, u64::from(of.offer.parts()));
    // One that holds whole devices was launched before they were in parts.
    let units = |milli: u16| if milli < WHOLE_MILLI { 1 } else { parts };
    let mut given = vec![0u64; devices.len()];
    let mut elsewhere = 0;
    let mut held: BTreeMap<AttemptId, u64> = BTreeMap::new();
    for (attempt, hold) in holds {
        for &(device, milli) in &hold.devices {
            *held.entry(*attempt).or_default() += units(milli);
            match given.get_mut(usize::from(device)) {
                Some(given) => *given += units(milli),
                None => elsewhere += units(milli),
            }
        }
    }
    let beyond = of.known_units(reservations).map(|(attempt, has)| {
        // Kubernetes placed its pods elsewhere than it was asked to, or they were there before.
        has.saturating_sub(held.get(&attempt).copied().unwrap_or(0))
    });
    let others: u64 = of.foreign(reservations).gpu_milli / u64::from(WHOLE_MILLI) + beyond.sum::<u64>();
    let nothing_is_given = others == 0 && elsewhere == 0 && held.is_empty();
    let ghost = |device: &Device| device.used && nothing_is_given;
    let healthy = devices.iter().filter(|device| !device.sick).count() as u64 * parts;
    let mut out = others.saturating_add(elsewhere).saturating_add(healthy.saturating_sub(offer.units.into()));
    let mut states = vec![(DeviceState::Free, 0); devices.len()];
    for (at, device) in devices.iter().enumerate().rev() {
        states[at] = if device.sick {
            (DeviceState::Sick, 0)
        } else if ghost(device) {
            out = out.saturating_sub(parts);
            (DeviceState::Ghost, 0)
        } else {
            let free = parts.saturating_sub(given[at]);
            let taken = free.min(out);
            out -= taken;
            let left = u16::try_from(free - taken).unwrap_or(0) * offer.sharing.part_milli();
            match (given[at], taken) {
                (0, 0) => (DeviceState::Free, 0),
                (0, _) if taken == parts => (DeviceState::Foreign, 0),
                _ if parts == 1 => (DeviceState::Held, 0),
                _ => (DeviceState::Held, left),
            }
        };
    }
    states
}

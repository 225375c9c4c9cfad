//! Fragmentation gradient descent (Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
//! Gradient Descent", USENIX ATC '23): the fragmentation of a node is the GPU left on it that a pod of the mix could not use, the mean
//! over the mix; a pod goes where that rises least. The mix is that of the pods seen so far.

use std::collections::{BTreeMap, HashMap};

use crate::fleet::{Choice, DEVICE, Fleet, Node, Pod};
use crate::policy::Policy;

/// The least rise of a placing, and for a share how much is left on the device that makes it.
type Rise = (f64, Option<u16>);

/// FGD.
#[derive(Default)]
pub struct Fgd {
    seen: BTreeMap<Pod, u64>,
    pods: u64,
    mixed_at: u64,
    mix: Vec<(Pod, f64)>,
    /// Of this mix: fragmentation by state, and by state and pod the least rise with the device that makes it.
    fragments: HashMap<Node, f64>,
    rises: HashMap<Pod, HashMap<Node, Option<Rise>>>,
}

impl Fgd {
    /// Counts a pod in. The mix is taken anew when it has grown by an eighth, for all that is known by state goes then.
    fn see(&mut self, pod: &Pod) {
        *self.seen.entry(pod.clone()).or_default() += 1;
        self.pods += 1;
        if self.pods > self.mixed_at + self.mixed_at / 8 {
            self.mixed_at = self.pods;
            let part = |(pod, count): (&Pod, &u64)| (pod.clone(), *count as f64 / self.pods as f64);
            self.mix = self.seen.iter().map(part).collect();
            self.fragments.clear();
            self.rises.clear();
        }
    }

    fn fragments(&mut self, fleet: &Fleet, node: &Node) -> f64 {
        if let Some(known) = self.fragments.get(node) {
            return *known;
        }
        let (left, whole) = (node.gpu_milli(), node.whole());
        let lost = |(pod, part): &(Pod, f64)| {
            let share = pod.milli < DEVICE;
            let enough = if share {
                node.left.last().is_some_and(|l| *l >= pod.milli)
            } else {
                usize::from(pod.devices) <= whole
            };
            let fits = pod.devices > 0
                && enough
                && pod.cpu_milli <= node.cpu_milli
                && pod.memory_mib <= node.memory_mib
                && fleet.accepts(pod, node);
            let needs = pod.milli.min(DEVICE);
            let small = || node.left.iter().filter(|l| **l < needs).map(|l| u64::from(*l)).sum::<u64>();
            part * if fits { small() } else { left } as f64
        };
        let fragments = if left == 0 { 0.0 } else { self.mix.iter().map(lost).sum() };
        self.fragments.insert(node.clone(), fragments);
        fragments
    }

    fn rise(&mut self, fleet: &Fleet, pod: &Pod, node: &Node) -> Option<Rise> {
        if !fleet.accepts(pod, node) {
            return None;
        }
        let before = self.fragments(fleet, node);
        let share = pod.devices == 1 && pod.milli < DEVICE;
        let mut devices: Vec<Option<u16>> = vec![None];
        if share {
            devices = node.left.iter().filter(|l| **l >= pod.milli).map(|l| Some(*l)).collect();
            devices.dedup();
        }
        let mut least: Option<Rise> = None;
        for device in devices {
            let after = node.take(pod, device)?;
            let rise = self.fragments(fleet, &after) - before;
            if least.is_none_or(|(r, _)| rise < r) {
                least = Some((rise, device));
            }
        }
        least
    }
}

impl Policy for Fgd {
    fn place(&mut self, fleet: &Fleet, pod: &Pod) -> Option<Choice> {
        self.see(pod);
        let mut known = self.rises.remove(pod).unwrap_or_default();
        let mut best: Option<(f64, (u64, u64), Choice)> = None;
        for (_, node, first) in fleet.states() {
            let rise = match known.get(node) {
                Some(rise) => *rise,
                None => {
                    let rise = self.rise(fleet, pod, node);
                    known.insert(node.clone(), rise);
                    rise
                }
            };
            let Some((rise, device_left)) = rise else { continue };
            // Of equals the fullest node.
            let full = (node.gpu_milli(), node.cpu_milli);
            let choice = Choice { node: first, device_left };
            let better = |(r, f, _): &(f64, (u64, u64), Choice)| rise < r - 1e-9 || (rise < r + 1e-9 && full < *f);
            if best.as_ref().is_none_or(better) {
                best = Some((rise, full, choice));
            }
        }
        self.rises.insert(pod.clone(), known);
        best.map(|(_, _, choice)| choice)
    }
}

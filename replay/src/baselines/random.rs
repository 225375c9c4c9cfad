//! Any node that holds the pod, and any device there.

use crate::chance::Chance;
use crate::fleet::{Choice, DEVICE, Fleet, Pod};
use crate::policy::Policy;

/// By lot.
pub struct Random(Chance);

impl Random {
    /// The lots of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Chance::new(seed, Chance::POLICY))
    }
}

impl Policy for Random {
    fn place(&mut self, fleet: &Fleet, pod: &Pod) -> Option<Choice> {
        let fits: Vec<usize> = (0..fleet.nodes.len()).filter(|n| fleet.fits(pod, *n)).collect();
        if fits.is_empty() {
            return None;
        }
        let node = self.0.one_of(&fits);
        let share = pod.devices == 1 && pod.milli < DEVICE;
        let holds: Vec<u16> = fleet.nodes[node].left.iter().copied().filter(|l| *l >= pod.milli).collect();
        Some(Choice { node, device_left: share.then(|| self.0.one_of(&holds)) })
    }
}

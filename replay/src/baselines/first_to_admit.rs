//! A race of clusters, as MultiKueue runs it: the workload goes to all, and the first to admit it keeps it. Which is first is
//! chance. There the node is the least loaded by cpu and memory, which is the Kubernetes scheduler's default.

use crate::chance::Chance;
use crate::fleet::{Choice, Fleet, Pod};
use crate::policy::Policy;

/// First to admit.
pub struct FirstToAdmit(Chance);

impl FirstToAdmit {
    /// The races of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Chance::new(seed, Chance::POLICY))
    }
}

impl Policy for FirstToAdmit {
    fn place(&mut self, fleet: &Fleet, pod: &Pod) -> Option<Choice> {
        let mut race: Vec<usize> = (0..fleet.clusters).collect();
        self.0.shuffle(&mut race);
        let mut best: Vec<Option<(u128, usize)>> = vec![None; fleet.clusters];
        for (cluster, node, first) in fleet.states() {
            let Some(after) = node.take(pod, None).filter(|_| fleet.accepts(pod, node)) else { continue };
            let row = &fleet.rows[first];
            let free = |left: u64, all: u64| u128::from(left) * 1_000_000 / u128::from(all.max(1));
            let free = free(after.cpu_milli, row.cpu_milli) + free(after.memory_mib, row.memory_mib);
            let least = &mut best[cluster];
            if least.is_none_or(|(most, node)| (free, std::cmp::Reverse(first)) > (most, std::cmp::Reverse(node))) {
                *least = Some((free, first));
            }
        }
        race.into_iter().find_map(|cluster| best[cluster]).map(|(_, node)| Choice::on(node))
    }
}

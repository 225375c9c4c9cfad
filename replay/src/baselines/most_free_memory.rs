//! The node with the most free memory, which is what Uber's scheduler sorts hosts and clusters by.

use crate::fleet::{Choice, Fleet, Pod};
use crate::policy::Policy;

/// Most free memory.
pub struct MostFreeMemory;

impl Policy for MostFreeMemory {
    fn place(&mut self, fleet: &Fleet, pod: &Pod) -> Option<Choice> {
        let fits = fleet.states().filter(|(_, node, _)| fleet.accepts(pod, node) && node.take(pod, None).is_some());
        let most = fits.min_by_key(|(_, node, first)| (std::cmp::Reverse(node.memory_mib), *first));
        most.map(|(_, _, first)| Choice::on(first))
    }
}

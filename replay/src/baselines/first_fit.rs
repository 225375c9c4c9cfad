//! The first node of the list that holds the pod, as a plain FIFO scheduler does.

use crate::fleet::{Choice, Fleet, Pod};
use crate::policy::Policy;

/// First fit.
pub struct FirstFit;

impl Policy for FirstFit {
    fn place(&mut self, fleet: &Fleet, pod: &Pod) -> Option<Choice> {
        let fits = fleet.states().filter(|(_, node, _)| fleet.accepts(pod, node) && node.take(pod, None).is_some());
        fits.map(|(_, _, first)| first).min().map(Choice::on)
    }
}

//! The node with the least left once the pod is there: free GPUs and cpu, each as a part of the largest node's (the BestFit of
//! "Beware of Fragmentation", USENIX ATC '23). A share takes the fullest device that holds it.

use crate::fleet::{Choice, DEVICE, Fleet, Pod};
use crate::policy::Policy;

/// Best fit.
pub struct BestFit {
    most_cpu: u64,
    most_gpu: u64,
}

impl BestFit {
    /// For nodes of these sizes.
    pub fn new(fleet: &Fleet) -> Self {
        let most = |of: fn(&crate::fleet::NodeRow) -> u64| fleet.rows.iter().map(of).max().unwrap_or(0).max(1);
        Self { most_cpu: most(|r| r.cpu_milli), most_gpu: most(|r| u64::from(r.devices) * u64::from(DEVICE)) }
    }
}

impl Policy for BestFit {
    fn place(&mut self, fleet: &Fleet, pod: &Pod) -> Option<Choice> {
        let left = |(_, node, first)| {
            let node: &crate::fleet::Node = node;
            let after = node.take(pod, None).filter(|_| fleet.accepts(pod, node))?;
            // Both parts over one denominator, so that no rounding decides.
            let gpu = u128::from(after.gpu_milli()) * u128::from(self.most_cpu);
            let cpu = u128::from(after.cpu_milli) * u128::from(self.most_gpu);
            Some((gpu + cpu, first))
        };
        fleet.states().filter_map(left).min().map(|(_, node)| Choice::on(node))
    }
}

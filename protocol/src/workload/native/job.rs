//! A `Job` of Kubernetes: one group of pods.

use super::place::{Faults, Place};
use super::pod;
use crate::workload::GroupNeed;

/// The group's name: as where a workload names none.
const GROUP: &str = "workers";

pub(super) fn groups(spec: &Place<'_>, faults: &mut Faults) -> Vec<GroupNeed> {
    for name in ["selector", "manualSelector"] {
        spec.get(name).refuse("Kubernetes makes the selector: leave it out", faults);
    }
    let parallelism = spec.get("parallelism");
    let at_once = parallelism.count(faults).unwrap_or(1);
    let completions = spec.get("completions");
    let in_all = completions.count(faults).unwrap_or(at_once);
    if at_once == 0 {
        parallelism.fault("it is 0: at least one pod runs", faults);
    }
    if completions.is_there() && in_all == 0 {
        completions.fault("it is 0: at least one pod runs", faults);
    }
    // Those that come as others complete take their places.
    pod::group(&spec.get("template"), GROUP, at_once.min(in_all).max(1), faults).into_iter().collect()
}

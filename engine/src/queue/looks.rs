//! What was seen of each cluster for workloads that are alike. It holds until the cluster's room is another: in a long line of like workloads a
//! turn looks anew at the cluster that took the last of them, and at no other. Where assertions are checked, each hit is looked at anew and
//! compared.

use std::collections::BTreeMap;

use protocol::workload::{GroupNeed, PlacementSpec};

use super::reservations::Passes;
use crate::placement::candidates::Look;
use crate::placement::holes::Stamp;

/// Likenesses that are remembered at most: each has something of every cluster.
const LIKENESSES: usize = 256;

/// What was seen, by cluster.
#[derive(Default)]
pub(super) struct Looks {
    /// By a likeness' address and the kept nodes that may be used.
    seen: BTreeMap<(usize, Passes), Seen>,
}

#[derive(Default)]
struct Seen {
    gang: Vec<GroupNeed>,
    placement: PlacementSpec,
    /// By the cluster's place among the rooms.
    clusters: Vec<Option<(Stamp, Look)>>,
}

impl Looks {
    /// What was seen for a likeness with these models and passes, to be read and written.
    pub(super) fn of(
        &mut self,
        (likeness, placement): (usize, &PlacementSpec),
        gang: &[GroupNeed],
        passes: &Passes,
    ) -> LooksOf<'_> {
        let key = (likeness, passes.clone());
        if self.seen.len() >= LIKENESSES && !self.seen.contains_key(&key) {
            self.seen.clear();
        }
        let seen = self.seen.entry(key).or_default();
        // Its pool's part may allow other models now, and those that find room alike may like places differently.
        if seen.gang != gang || seen.placement != *placement {
            *seen = Seen { gang: gang.to_vec(), placement: placement.clone(), clusters: vec![] };
        }
        LooksOf(seen)
    }
}

/// What was seen for one likeness.
pub(super) struct LooksOf<'l>(&'l mut Seen);

impl LooksOf<'_> {
    /// What was seen of the cluster at this place, if its room is still as it was.
    pub(super) fn get(&self, place: usize, stamp: Stamp) -> Option<&Look> {
        let (seen, look) = self.0.clusters.get(place)?.as_ref()?;
        (*seen == stamp).then_some(look)
    }

    pub(super) fn keep(&mut self, place: usize, stamp: Stamp, look: Look) {
        if self.0.clusters.len() <= place {
            self.0.clusters.resize_with(place + 1, || None);
        }
        self.0.clusters[place] = Some((stamp, look));
    }
}

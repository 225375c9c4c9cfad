//! Who is to end now, for its cluster is drained: whatever may, the first in line first, for that is placed elsewhere first.

use protocol::ids::ClusterName;

use crate::commands::DrainEnd;
use crate::state::{Attempt, Cluster, Drain, Line, State, UnderDrain, Workload};

/// The most ends of one plan.
const MOST_ENDS: usize = 256;

/// Whose attempts are to end. Those in a lost cluster can't be: they are once it is back.
pub(super) fn drains(state: &State) -> Vec<DrainEnd> {
    let drained = state.clusters.iter().filter(|(_, cluster)| cluster.lost_since.is_none());
    let drained = drained.filter_map(|(name, cluster): (&ClusterName, &Cluster)| Some((name, cluster.drain()?)));
    drained.flat_map(|(name, drain)| ends(state, name, drain)).take(MOST_ENDS).collect()
}

fn ends(state: &State, cluster: &ClusterName, drain: &Drain) -> Vec<DrainEnd> {
    let mut to_end: Vec<(&Workload, &Attempt)> = vec![];
    let mut ending = 0;
    for (workload, attempt) in state.live_in(cluster) {
        match drain.means(workload, attempt) {
            UnderDrain::Ends => to_end.push((workload, attempt)),
            UnderDrain::Ending => ending += 1,
            UnderDrain::WaitedFor | UnderDrain::Unseen => {}
        }
    }
    to_end.sort_by_key(|(workload, _)| Line::of(workload));
    let most = drain.max_at_once.map_or(usize::MAX, |most| (most as usize).saturating_sub(ending));
    let end = |(workload, attempt): (&Workload, &Attempt)| DrainEnd {
        epoch: state.epoch,
        key: workload.key.clone(),
        uid: workload.uid,
        attempt: attempt.number,
        cluster: cluster.clone(),
    };
    to_end.into_iter().take(most).map(end).collect()
}

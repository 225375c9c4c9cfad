//! An attempt ends for its cluster is drained. It is nobody's failure: its workload keeps its place in line and its retries, and is
//! placed elsewhere once the attempt is seen to be gone. The leader's planner proposes it (`plan::drains`), attempt by attempt, so
//! that a drain goes on under any leader. Between proposal and commit anything may have happened, so all of it is checked again:
//! that the cluster is still drained, that the attempt still lives there and may be ended, and that no more end at the same time than may.

use bincode::{Decode, Encode};
use protocol::control::StopCause;
use protocol::ids::{AttemptNumber, ClusterName, Epoch, Uid, WorkloadKey};

use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::Event;
use crate::planted;
use crate::state::{Attempt, Happening, State, UnderDrain, Workload};

/// An attempt that is to end, for its cluster is drained.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DrainEnd {
    /// The epoch in which it was planned; must be the current one.
    pub epoch: Epoch,
    /// The workload.
    pub key: WorkloadKey,
    /// Its id.
    pub uid: Uid,
    /// Its live attempt.
    pub attempt: AttemptNumber,
    /// Where that is.
    pub cluster: ClusterName,
}

impl Step<'_> {
    pub(super) fn end_drained(&mut self, end: &DrainEnd) -> Result<Outcome, Refusal> {
        let stale = |why: String| Refusal::NotDrained { key: end.key.clone(), why };
        let reason = check(self.state, end).map_err(stale)?;
        let drained = Happening::Drained { attempt: end.attempt, cluster: end.cluster.clone(), reason };
        match self.ask_to_end(&end.key, StopCause::Drained, Event::Preempt, drained) {
            true => Ok(Outcome::Done),
            false => Err(Refusal::NoWorkload { key: end.key.clone() }),
        }
    }
}

/// The drain's reason, where the attempt may end for it.
fn check(state: &State, end: &DrainEnd) -> Result<String, String> {
    let cluster = &end.cluster;
    if end.epoch != state.epoch && !planted::is("forget-epoch-check") {
        return Err(format!("it was planned in epoch {}; now it is {}", end.epoch, state.epoch));
    }
    let member = state.clusters.get(cluster).ok_or_else(|| format!("cluster {cluster} has not joined"))?;
    let drain = member.drain().ok_or_else(|| format!("cluster {cluster} is not drained any more"))?;
    if member.lost_since.is_some() {
        return Err(format!("cluster {cluster} is lost"));
    }
    let workload = state.workloads.get(&end.key).filter(|w| w.uid == end.uid).ok_or("the workload is gone")?;
    let live = workload.live_attempt().filter(|a| a.number == end.attempt && a.cluster == *cluster);
    let live = live.ok_or_else(|| format!("attempt {} does not live in {cluster} any more", end.attempt))?;
    match drain.means(workload, live) {
        UnderDrain::Ends => {}
        UnderDrain::WaitedFor => return Err("it may not be preempted, and the drain is not forced".into()),
        UnderDrain::Ending | UnderDrain::Unseen => return Err(format!("it is {}", workload.phase)),
    }
    if let Some(most) = drain.max_at_once {
        let ends = |(workload, attempt): &(&Workload, &Attempt)| drain.means(workload, attempt) == UnderDrain::Ending;
        let ending = state.live_in(cluster).filter(ends).count();
        if ending >= most as usize {
            return Err(format!("{ending} attempts are ending in {cluster}; at most {most} may"));
        }
    }
    Ok(member.cordon.as_ref().map(|cordon| cordon.reason.clone()).unwrap_or_default())
}

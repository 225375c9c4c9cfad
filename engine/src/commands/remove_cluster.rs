//! A cluster is removed: it is gone from the list of clusters, and its agent is refused until a person lets it in again
//! (`Cordoning::Lift`). Refused while attempts are there. Of a cluster that is lost a person may say that it never comes back: then each
//! attempt there is gone as if `Forget` had been said of it. Should its agent come back all the same and be let in, whatever it
//! still holds is ended before anything else is done there, as any attempt that nobody owns.

use protocol::ids::{ClusterName, WorkloadKey};

use super::cordon::unknown;
use super::forget::MAX_REASON;
use super::step::Step;
use super::{Outcome, Refusal};
use crate::state::{Removal, State};

/// How many workloads a refusal names.
const NAMED: usize = 8;

impl Step<'_> {
    pub(super) fn remove_cluster(
        &mut self,
        cluster: &ClusterName,
        reason: &str,
        lost_for_good: bool,
    ) -> Result<Outcome, Refusal> {
        let known = self.state.clusters.contains_key(cluster);
        if !known && self.state.removed.contains_key(cluster) {
            // The same word again, from a client that did not hear the answer; or before it joined again.
            if let Some(removal) = self.state.removed.get_mut(cluster).filter(|removal| removal.readmitted) {
                removal.readmitted = false;
                self.cluster_changed(cluster);
            }
            return Ok(Outcome::Done);
        }
        if !known {
            return Err(unknown(self.state, cluster));
        }
        let held = self.live_keys(cluster);
        check(self.state, cluster, &held, lost_for_good)
            .map_err(|why| Refusal::ClusterStays { cluster: cluster.clone(), why })?;
        let reason: String = reason.chars().take(MAX_REASON).collect();
        let said = match reason.is_empty() {
            true => format!("cluster {cluster} was removed: it is lost for good"),
            false => format!("cluster {cluster} was removed: it is lost for good: {reason}"),
        };
        for key in held {
            let live = self.state.workloads.get(&key).and_then(|w| w.live_attempt()).map(|attempt| attempt.number);
            if let Some(number) = live {
                self.call_gone(&key, number, &said);
            }
        }
        if let Some(member) = self.state.clusters.remove(cluster) {
            let removal = Removal { at: self.now, reason, last_command: member.last_command, readmitted: false };
            self.state.removed.insert(cluster.clone(), removal);
        }
        self.cluster_changed(cluster);
        Ok(Outcome::Done)
    }
}

/// Whether it may go; else why not, and what to do.
fn check(state: &State, cluster: &ClusterName, held: &[WorkloadKey], lost_for_good: bool) -> Result<(), String> {
    let lost = state.clusters.get(cluster).is_some_and(|member| member.lost_since.is_some());
    if lost_for_good && !lost {
        return Err(format!(
            "it is heard from, so it is not lost: `tidewater cluster drain {cluster}`, then remove it without --lost-for-good"
        ));
    }
    if held.is_empty() || lost_for_good {
        return Ok(());
    }
    let mut named: Vec<String> = held.iter().take(NAMED).map(ToString::to_string).collect();
    if held.len() > NAMED {
        named.push(format!("{} more", held.len() - NAMED));
    }
    let named = named.join(", ");
    if lost {
        return Err(format!(
            "it is not heard from, and {named} may still run there: wait until it is back and drain it, or, where it never \
             comes back, `tidewater cluster remove {cluster} --lost-for-good`"
        ));
    }
    let unseen = state.live_in(cluster).all(|(workload, _)| super::forget::is_abandoned(state, workload));
    if unseen {
        return Err(format!(
            "nobody can see whether {named} still runs there: say so of each with `tidewater forget` once you have looked"
        ));
    }
    Err(format!("{named} is there: `tidewater cluster drain {cluster}` first"))
}

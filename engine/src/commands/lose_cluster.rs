//! A cluster was not heard from for longer than a lease. What runs there may run on, so nothing of it is replaced: its
//! workloads become `Unknown` until the cluster is back.

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::ClusterName;

use super::end::end_attempt;
use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::{Event, Phase};
use crate::planted;
use crate::state::Happening;

impl Step<'_> {
    pub(super) fn lose_cluster(&mut self, cluster: &ClusterName) -> Result<Outcome, Refusal> {
        let now = self.now;
        let Some(member) = self.state.clusters.get_mut(cluster) else {
            return Err(Refusal::NoCluster { cluster: cluster.clone() });
        };
        if member.lost_since.is_some() {
            return Ok(Outcome::Done);
        }
        member.lost_since = Some(now);
        self.cluster_changed(cluster);
        for key in self.live_keys(cluster) {
            self.change(&key, |w, now| {
                if planted::is("retry-before-gone") {
                    let message = "its cluster is lost".to_owned();
                    let class = FailureClass::Infrastructure;
                    return end_attempt(w, &AttemptState::Failed { class, message, exit_code: None }, now);
                }
                if w.phase != Phase::Unknown {
                    w.enter(Event::Lost, Happening::ClusterLost { cluster: cluster.clone() }, now);
                }
            });
        }
        Ok(Outcome::Done)
    }
}

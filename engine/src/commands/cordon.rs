//! A person says of a cluster whether it takes anything new, and whether what runs there ends: it is open, cordoned or drained, and
//! each word sets one of the three. So the same word again changes nothing, and `Cordon` said to a drained cluster ends nothing more.
//! A cluster that was removed is let in again by [`Cordoning::Lift`].

use bincode::{Decode, Encode};
use protocol::ids::ClusterName;

use super::forget::MAX_REASON;
use super::step::Step;
use super::{Outcome, Refusal};
use crate::state::{Cordon, Drain, State};

/// How many known clusters a refusal names.
const NAMED: usize = 16;

/// What a cluster is to be. A reason that is left out stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Cordoning {
    /// Open: it takes what fits.
    Lift,
    /// Nothing new is placed there; what runs goes on.
    Cordon {
        /// Who says so and why; at most [`MAX_REASON`] characters are kept.
        reason: Option<String>,
    },
    /// Cordoned, and what runs there is ended.
    Drain {
        /// Who says so and why; at most [`MAX_REASON`] characters are kept.
        reason: Option<String>,
        /// Also what may not be preempted.
        force: bool,
        /// How many attempts may be ending there at the same time; none, or 0: as many as there are.
        max_at_once: Option<u32>,
    },
}

impl Step<'_> {
    pub(super) fn cordon(&mut self, cluster: &ClusterName, to: &Cordoning) -> Result<Outcome, Refusal> {
        let now = self.now;
        if let Some(removal) = self.state.removed.get_mut(cluster) {
            if *to != Cordoning::Lift && !removal.readmitted {
                return Err(removed(self.state, cluster));
            }
            if *to == Cordoning::Lift {
                if !removal.readmitted {
                    removal.readmitted = true;
                    self.cluster_changed(cluster);
                }
                return Ok(Outcome::Done);
            }
        }
        let Some(member) = self.state.clusters.get_mut(cluster) else { return Err(unknown(self.state, cluster)) };
        let before = member.cordon.as_ref();
        let since = before.map_or(now, |cordon| cordon.since);
        let said = |reason: &Option<String>| match reason {
            Some(reason) => reason.chars().take(MAX_REASON).collect(),
            None => before.map(|cordon| cordon.reason.clone()).unwrap_or_default(),
        };
        let cordon = match to {
            Cordoning::Lift => None,
            Cordoning::Cordon { reason } => Some(Cordon { since, reason: said(reason), drain: None }),
            Cordoning::Drain { reason, force, max_at_once } => {
                let since_drain = before.and_then(|cordon| cordon.drain).map_or(now, |drain| drain.since);
                let max_at_once = max_at_once.filter(|most| *most > 0);
                let drain = Drain { since: since_drain, force: *force, max_at_once };
                Some(Cordon { since, reason: said(reason), drain: Some(drain) })
            }
        };
        if member.cordon != cordon {
            member.cordon = cordon;
            self.cluster_changed(cluster);
        }
        Ok(Outcome::Done)
    }
}

/// The refusal for a cluster that was never there.
pub(super) fn unknown(state: &State, cluster: &ClusterName) -> Refusal {
    let known = state.clusters.keys().take(NAMED).cloned().collect();
    Refusal::UnknownCluster { cluster: cluster.clone(), known }
}

/// The refusal for a cluster that was removed.
pub(super) fn removed(state: &State, cluster: &ClusterName) -> Refusal {
    let reason = state.removed.get(cluster).map(|removal| removal.reason.clone()).unwrap_or_default();
    Refusal::ClusterRemoved { cluster: cluster.clone(), reason }
}

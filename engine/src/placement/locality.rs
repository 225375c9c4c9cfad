//! What a workload wants of a place besides room: its specification, and the data that it reads with the places where copies are.
//!
//! Data that is required bars clusters without a copy. Other data decides between clusters by how much would have to be read from
//! elsewhere, in coarse steps: a finer measure would let a few GiB decide over region, model and waste, which come after it. Below
//! 16 GiB is nothing, for that is read in 14 s at 10 Gbit/s, about what a framework takes to start; each step above is four times as
//! much as the one before, so that places within a factor of four are alike.

use protocol::control::ClusterInfo;
use protocol::data::DataSpec;
use protocol::ids::{ClusterName, DataName};
use protocol::resources::DataSize;
use protocol::workload::WorkloadSpec;

use crate::reasons::{Copies, Obstacle, WaitCause};
use crate::state::State;

/// How much less than this, in GiB, is nothing.
const FIRST_STEP_GIB: u64 = 16;
/// How many clusters and how many regions with copies an obstacle names.
const NAMED: usize = 8;

/// What a workload wants of a place.
#[derive(Debug, Clone)]
pub(crate) struct Wants<'a> {
    pub(crate) spec: &'a WorkloadSpec,
    reads: Vec<Reads<'a>>,
}

/// Data that is known and read.
#[derive(Debug, Clone)]
struct Reads<'a> {
    name: &'a DataName,
    data: &'a DataSpec,
    require: bool,
}

impl<'a> Wants<'a> {
    /// What a workload wants as things are. Data that is not known and not required is read from wherever it is.
    ///
    /// # Errors
    /// It waits for required data to become known, or for tokens to be issued.
    pub(crate) fn of(state: &'a State, spec: &'a WorkloadSpec) -> Result<Self, WaitCause> {
        if !spec.tokens.is_empty() && !state.token_keys.are_issued(state.now) {
            return Err(WaitCause::NoTokens);
        }
        let (mut reads, mut unknown) = (vec![], vec![]);
        for need in &spec.placement.data {
            match state.data.get(&need.name) {
                Some(data) => reads.push(Reads { name: &need.name, data: &data.spec, require: need.require }),
                None if need.require => unknown.push(need.name.clone()),
                None => {}
            }
        }
        if unknown.is_empty() { Ok(Self { spec, reads }) } else { Err(WaitCause::UnknownData { data: unknown }) }
    }

    /// Where data decides nothing: the cluster is chosen, or no data is known.
    pub(crate) fn without_data(spec: &'a WorkloadSpec) -> Self {
        Self { spec, reads: vec![] }
    }

    /// The first required data of which a cluster has no copy.
    pub(crate) fn lacks(&self, cluster: &ClusterInfo) -> Option<Obstacle> {
        let lacking = self.reads.iter().find(|r| r.require && !r.data.is_in(&cluster.name, &cluster.region))?;
        let (clusters, regions) = (&lacking.data.clusters, &lacking.data.regions);
        let more = clusters.len().saturating_sub(NAMED) + regions.len().saturating_sub(NAMED);
        let copies = Copies {
            clusters: clusters.iter().take(NAMED).cloned().collect(),
            regions: regions.iter().take(NAMED).cloned().collect(),
            more: u32::try_from(more).unwrap_or(u32::MAX),
        };
        Some(Obstacle::NoCopy { data: lacking.name.clone(), size: lacking.data.size, copies })
    }

    /// Whether it reads any data whose place is known.
    pub(crate) fn reads_data(&self) -> bool {
        !self.reads.is_empty()
    }

    /// How much it would read from elsewhere in a cluster.
    pub(crate) fn elsewhere(&self, cluster: &ClusterInfo) -> DataSize {
        let missing = self.reads.iter().filter(|r| !r.data.is_in(&cluster.name, &cluster.region));
        DataSize(missing.map(|r| r.data.size.0).fold(0, u64::saturating_add))
    }
}

impl State {
    /// Whether a cluster has all the data that a workload requires.
    pub(crate) fn has_data(&self, spec: &WorkloadSpec, cluster: &ClusterName) -> bool {
        spec.placement.data.is_empty()
            || self
                .clusters
                .get(cluster)
                .is_some_and(|there| Wants::of(self, spec).is_ok_and(|wants| wants.lacks(&there.info).is_none()))
    }
}

/// The step of an amount of data.
pub(crate) fn step(data: DataSize) -> u64 {
    let gib = data.0 / 1024;
    match gib.checked_div(FIRST_STEP_GIB).and_then(u64::checked_ilog2) {
        Some(doublings) => 1 + u64::from(doublings) / 2,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_begin_at_16_gib_and_are_a_factor_of_four_each() {
        let gib = |gib: u64| step(DataSize(gib * 1024));
        assert_eq!([0, 1, 15, 16, 63, 64, 255, 256, 1024, 2048, 4096].map(gib), [0, 0, 0, 1, 1, 2, 2, 3, 4, 4, 5]);
        assert_eq!(step(DataSize(u64::MAX)), 1 + (63 - 10 - 4) / 2);
    }
}

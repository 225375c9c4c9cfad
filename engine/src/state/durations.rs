//! How long workloads of a kind ran, learnt from those that succeeded: what an owner runs again and again takes about as long as it
//! did before (Tsafrir, Etsion and Feitelson, "Backfilling Using System-Generated Predictions Rather than User Runtime Estimates",
//! IEEE TPDS 18(6), 2007). Written when an attempt succeeds, read by the planner (`queue::estimates`); part of the replicated state,
//! so that every leader plans alike.

use std::collections::BTreeMap;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use protocol::ids::Namespace;
use protocol::workload::Framework;

use super::Workload;

/// How many of a kind's runs are kept, the latest.
const KEPT_RUNS: usize = 16;
/// The most kinds that are kept; the one that ran longest ago goes first.
const MOST_KINDS: usize = 10_000;

/// What makes workloads alike in how long they run: whose they are, what runs them, and how large they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Kind {
    namespace: Namespace,
    framework: Framework,
    gpu_milli: u64,
    /// Of the cores of a gang without GPUs, how many times they can be halved.
    cpu_steps: u32,
}

impl Kind {
    /// A workload's kind; none where its specification names no framework.
    pub fn of(workload: &Workload) -> Option<Self> {
        let framework = workload.spec.framework().ok()?;
        let gang = workload.spec.gang();
        let sum = |amount: fn(&protocol::workload::GroupNeed) -> u64| {
            gang.iter().map(|g| amount(g).saturating_mul(u64::from(g.count))).fold(0, u64::saturating_add)
        };
        let gpu_milli = sum(|g| g.each.gpu_milli);
        let cpu_steps = if gpu_milli == 0 { sum(|g| g.each.cpu_milli).checked_ilog2().unwrap_or(0) } else { 0 };
        Some(Self { namespace: workload.key.namespace.clone(), framework, gpu_milli, cpu_steps })
    }
}

/// The latest runs of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
struct Runs {
    /// When the last was recorded, by the count of all.
    last: u64,
    /// How long each ran, in ms, the oldest first.
    ms: Vec<u64>,
}

/// How long workloads ran, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    recorded: u64,
    kinds: BTreeMap<Kind, Runs>,
    /// The kinds by their last run; derived.
    by_last: BTreeMap<u64, Kind>,
}

impl Encode for Durations {
    fn encode<E: Encoder>(&self, e: &mut E) -> Result<(), EncodeError> {
        self.recorded.encode(e)?;
        self.kinds.encode(e)
    }
}

impl<C> Decode<C> for Durations {
    fn decode<D: Decoder<Context = C>>(d: &mut D) -> Result<Self, DecodeError> {
        let recorded = Decode::decode(d)?;
        let kinds: BTreeMap<Kind, Runs> = BTreeMap::decode(d)?;
        let by_last = kinds.iter().map(|(kind, runs)| (runs.last, kind.clone())).collect();
        Ok(Self { recorded, kinds, by_last })
    }
}
bincode::impl_borrow_decode!(Durations);

impl Durations {
    /// One of this kind ran for so long, in ms, and succeeded.
    pub(crate) fn record(&mut self, kind: Kind, ms: u64) {
        self.recorded += 1;
        let runs = self.kinds.entry(kind.clone()).or_default();
        self.by_last.remove(&runs.last);
        runs.last = self.recorded;
        self.by_last.insert(self.recorded, kind);
        runs.ms.push(ms);
        let extra = runs.ms.len().saturating_sub(KEPT_RUNS);
        runs.ms.drain(..extra);
        if self.kinds.len() > MOST_KINDS
            && let Some((_, oldest)) = self.by_last.pop_first()
        {
            self.kinds.remove(&oldest);
        }
    }

    /// How long the latest of a kind ran, in ms, the oldest first.
    pub fn runs(&self, kind: &Kind) -> &[u64] {
        self.kinds.get(kind).map_or(&[], |runs| &runs.ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(gpus: u64) -> Kind {
        let namespace = Namespace::new("vision").expect("a constant name is valid");
        Kind { namespace, framework: Framework::Batch, gpu_milli: gpus * 1000, cpu_steps: 0 }
    }

    #[test]
    fn the_latest_runs_of_a_kind_are_kept() {
        let mut durations = Durations::default();
        for ms in 0..20 {
            durations.record(kind(1), ms);
        }
        assert_eq!(durations.runs(&kind(1)), (4..20).collect::<Vec<u64>>());
        assert_eq!(durations.runs(&kind(2)), &[] as &[u64]);
    }

    #[test]
    fn of_too_many_kinds_the_one_that_ran_longest_ago_goes() {
        let mut durations = Durations::default();
        for gpus in 0..=MOST_KINDS as u64 {
            durations.record(kind(gpus), 1);
            durations.record(kind(0), 2);
        }
        assert_eq!(durations.kinds.len(), MOST_KINDS);
        assert_eq!(durations.by_last.len(), MOST_KINDS);
        assert_eq!((durations.runs(&kind(0)).len(), durations.runs(&kind(1)).len()), (KEPT_RUNS, 0));
    }
}

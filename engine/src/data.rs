//! Data locations: which data there is, how large it is and where copies of it are.
//!
//! Owns the data locations of the state ([`DataLocations`]) and what a change must keep. Changed by `commands` alone. What they mean
//! for a place is `placement::locality`'s. A location may go while workloads name it: those that require it wait until it is back.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use protocol::data::DataSpec;
use protocol::ids::{DataName, LogIndex, UnixMs};
use protocol::workload::SpecError;
use serde::{Deserialize, Serialize};

/// The most data locations.
pub const MOST: usize = 10_000;

/// A data location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct DataLocation {
    /// Where the data is.
    pub spec: DataSpec,
    /// When it was made.
    pub created_at: UnixMs,
    /// The log entry that last changed it.
    pub version: LogIndex,
}

/// Every data location.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct DataLocations {
    all: BTreeMap<DataName, DataLocation>,
    /// The log entry that last changed any of them.
    pub version: LogIndex,
}

/// Why a change of a data location is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, Encode, Decode)]
pub enum DataFault {
    /// Its own specification has faults.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<SpecError>),
    /// There is none.
    #[error("there is no data location {name}")]
    NoData {
        /// The name that was given.
        name: DataName,
    },
    /// Too many.
    #[error("there are {MOST} data locations already, as many as are allowed: delete some")]
    TooMany,
}

impl DataLocations {
    /// One of them.
    pub fn get(&self, name: &DataName) -> Option<&DataLocation> {
        self.all.get(name)
    }

    /// All of them, by name.
    pub fn all(&self) -> &BTreeMap<DataName, DataLocation> {
        &self.all
    }

    /// Whether this may be set.
    ///
    /// # Errors
    /// [`DataFault`] says what is wrong.
    pub fn check_set(&self, name: &DataName, spec: &DataSpec) -> Result<(), DataFault> {
        let problems = spec.problems();
        if !problems.is_empty() {
            return Err(DataFault::Invalid(problems));
        }
        let full = self.all.len() >= MOST && !self.all.contains_key(name);
        if full { Err(DataFault::TooMany) } else { Ok(()) }
    }

    pub(crate) fn set(&mut self, name: &DataName, spec: DataSpec, now: UnixMs, index: LogIndex) {
        self.version = index;
        let created_at = self.all.get(name).map_or(now, |data| data.created_at);
        self.all.insert(name.clone(), DataLocation { spec, created_at, version: index });
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, name: &DataName, index: LogIndex) -> bool {
        let was_there = self.all.remove(name).is_some();
        if was_there {
            self.version = index;
        }
        was_there
    }
}

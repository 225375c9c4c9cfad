//! Failures that cross a process boundary.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Whose failure ended an attempt. Only the workload's own failures count against its retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum FailureClass {
    /// The program: an exit code, an exception.
    User,
    /// The cluster had no room after all.
    Capacity,
    /// A node, a GPU, the runtime, or the agent.
    Infrastructure,
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FailureClass::User => "user",
            FailureClass::Capacity => "capacity",
            FailureClass::Infrastructure => "infrastructure",
        })
    }
}

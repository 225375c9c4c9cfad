//! The policies by name. `tidewater` is the product's own planner; the others are baselines.

use std::fmt;
use std::str::FromStr;

use crate::baselines::{BestFit, Fgd, FirstFit, FirstToAdmit, MostFreeMemory, Random};
use crate::fleet::{Choice, Fleet, Pod};
use crate::ours::{Tidewater, World};

/// Decides where pods go, one at a time, knowing the pods so far and nothing of those to come.
pub trait Policy {
    /// Where the pod goes; none where it fits nowhere.
    fn place(&mut self, fleet: &Fleet, pod: &Pod) -> Option<Choice>;
}

/// The names of the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The product's own planner.
    Tidewater,
    /// The first node of the list that holds it.
    FirstFit,
    /// The same, and nobody starts before those ahead in line have: says something only where jobs wait.
    StrictFifo,
    /// The node with the least left.
    BestFit,
    /// The node with the most free memory.
    MostFreeMemory,
    /// Any node.
    Random,
    /// The first cluster to admit it, then the least loaded node there.
    FirstToAdmit,
    /// Where fragmentation rises least.
    Fgd,
}

impl Name {
    /// Every policy where nothing waits, ours first.
    pub const ALL: [Name; 7] = [
        Name::Tidewater,
        Name::Fgd,
        Name::BestFit,
        Name::FirstFit,
        Name::MostFreeMemory,
        Name::FirstToAdmit,
        Name::Random,
    ];

    /// Every policy where jobs wait in line, ours first.
    pub fn waits() -> impl Iterator<Item = Name> {
        Name::ALL.into_iter().chain([Name::StrictFifo])
    }

    /// The policy, before its first pod.
    pub fn policy<'a>(self, fleet: &Fleet, world: &'a World, seed: u64) -> Box<dyn Policy + 'a> {
        match self {
            Name::Tidewater => Box::new(Tidewater::new(fleet, world)),
            Name::FirstFit | Name::StrictFifo => Box::new(FirstFit),
            Name::BestFit => Box::new(BestFit::new(fleet)),
            Name::MostFreeMemory => Box::new(MostFreeMemory),
            Name::Random => Box::new(Random::new(seed)),
            Name::FirstToAdmit => Box::new(FirstToAdmit::new(seed)),
            Name::Fgd => Box::new(Fgd::default()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Name::Tidewater => "tidewater",
            Name::FirstFit => "first-fit",
            Name::StrictFifo => "strict-fifo",
            Name::BestFit => "best-fit",
            Name::MostFreeMemory => "most-free-memory",
            Name::Random => "random",
            Name::FirstToAdmit => "first-to-admit",
            Name::Fgd => "fgd",
        })
    }
}

/// No policy has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy {name:?}: it is one of {known}")]
pub struct UnknownPolicy {
    name: String,
    known: String,
}

impl FromStr for Name {
    type Err = UnknownPolicy;
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let found = Name::waits().find(|n| n.to_string() == text);
        let known = || Name::waits().map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| UnknownPolicy { name: text.into(), known: known() })
    }
}

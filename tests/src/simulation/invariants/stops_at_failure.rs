//! A process ends at the first change of its disk that fails: what is tried again after a failed write or sync may look durable
//! and not be.

use super::Invariant;
use crate::simulation::facts::Fact;

pub(crate) struct StopsAtFailure;

impl Invariant for StopsAtFailure {
    fn name(&self) -> &'static str {
        "0 a process ends when its disk fails"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::WentOn { process } => Err(format!("{process} went on")),
            _ => Ok(()),
        }
    }
}

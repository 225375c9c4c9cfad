//! 22: once faults stop, work finishes within a bound.

use super::Invariant;
use crate::simulation::facts::Fact;

pub(crate) struct DoneInTime;

impl Invariant for DoneInTime {
    fn name(&self) -> &'static str {
        "22 once faults stop, work finishes within a bound"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Stuck { left } => Err(left.clone()),
            _ => Ok(()),
        }
    }
}

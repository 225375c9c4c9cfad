//! A process dies only where the world kills it: no panic, no fatal error, no disk of its own making that does not open.

use super::Invariant;
use crate::simulation::facts::Fact;

pub(crate) struct Alive;

impl Invariant for Alive {
    fn name(&self) -> &'static str {
        "0 no process dies by itself"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Died { process, cause } => Err(format!("{process}: {cause}")),
            Fact::Refused { what } => Err(format!("a client was refused: {what}")),
            _ => Ok(()),
        }
    }
}

//! 18: corruption is found, never served.

use super::Invariant;
use crate::simulation::facts::{Damage, Fact};

pub(crate) struct Corruption;

impl Invariant for Corruption {
    fn name(&self) -> &'static str {
        "18 corruption is found, never served"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Aged { process, damage: Damage::Served(what) } => {
                Err(format!("{process} opened a disk with flipped bits: {what}"))
            }
            _ => Ok(()),
        }
    }
}

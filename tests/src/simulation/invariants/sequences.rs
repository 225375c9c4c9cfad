//! 14: the capacity frames of a session are numbered one after the other, and the commands that they include only grow.

use std::collections::BTreeMap;

use protocol::capacity::CapacityFrame;
use protocol::control::AgentMessage;
use protocol::ids::CommandNumber;

use super::Invariant;
use crate::simulation::facts::Fact;

#[derive(Default)]
pub(crate) struct Sequences {
    sessions: BTreeMap<u64, (u64, CommandNumber)>,
    watermarks: BTreeMap<usize, CommandNumber>,
}

impl Invariant for Sequences {
    fn name(&self) -> &'static str {
        "14 capacity sequences grow"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Replaced { agent } = fact {
            // Another agent, which includes nothing yet.
            self.watermarks.remove(agent);
        }
        let Fact::AgentSays { agent, session, message: AgentMessage::Capacity(frame) } = fact else { return Ok(()) };
        let (sequence, watermark, whole) = match frame {
            CapacityFrame::Snapshot(s) => (s.sequence, s.watermark, true),
            CapacityFrame::Delta(d) => (d.sequence, d.watermark, false),
        };
        match self.sessions.insert(*session, (sequence, watermark)) {
            None if !whole => return Err(format!("session {session} begins with a delta")),
            Some((before, _)) if sequence != before + 1 => {
                return Err(format!("session {session} has frame {sequence} after {before}"));
            }
            _ => {}
        }
        let highest = self.watermarks.entry(*agent).or_default();
        if watermark < *highest {
            return Err(format!("agent {} included command {highest} and then only {watermark}", agent + 1));
        }
        *highest = watermark;
        Ok(())
    }
}

//! Hears every fact: keeps the story and its hash, and asks every invariant. The first violation ends the world.

use std::collections::VecDeque;

use super::clock::SECOND;
use super::facts::Fact;
use super::invariants::{Invariant, Layout, all};

/// How many lines of the story are kept for the report of a violation.
const STORY_LINES: usize = 40;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in µs of virtual time.
    pub at_us: u64,
    /// What happened before, the last at the end.
    pub story: Vec<String>,
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits: the same on every machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(pub u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
}

/// The judge of one world.
pub(crate) struct Judge {
    invariants: Vec<Box<dyn Invariant>>,
    story: VecDeque<String>,
    trace: bool,
    pub digest: Digest,
    pub violation: Option<Violation>,
}

impl Judge {
    pub fn new(layout: &Layout, trace: bool) -> Self {
        Self { invariants: all(layout), story: VecDeque::new(), trace, digest: Digest::default(), violation: None }
    }

    /// Something was seen.
    pub fn hear(&mut self, at_us: u64, fact: &Fact<'_>) {
        if self.violation.is_some() {
            return;
        }
        if let Some(text) = fact.text() {
            self.tell(at_us, &text);
        }
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.observe(at_us, fact) {
                let (invariant, story) = (invariant.name(), self.story.iter().cloned().collect());
                self.violation = Some(Violation { invariant, what, at_us, story });
                return;
            }
        }
    }

    fn tell(&mut self, at_us: u64, text: &str) {
        self.digest.number(at_us);
        self.digest.bytes(text.as_bytes());
        let line = format!("{:>12.6} s  {text}", at_us as f64 / SECOND as f64);
        if self.trace {
            println!("{line}");
        }
        if self.story.len() == STORY_LINES {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }
}

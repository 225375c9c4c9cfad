//! The best places of each ask, kept from one decision to the next, so that a decision looks at what changed and not at the fleet.
//!
//! For each ask (a gang of one member) the index keeps the best places ([`super::best`]), the first node of each class standing for it. A
//! node that changes is written into a journal ([`super::journal`]); an ask that comes again looks at what the journal has since it last came. Beyond
//! so many places an ask forgets the worst; when it has used up those it kept, it looks at the whole fleet again.
//!
//! What is found is what a look at every class would find: a property test holds it to that.

use std::collections::BTreeMap;

use super::best::{Best, Looks, Spot};
use super::devices::Free;
use super::journal::{At, Journal};
use super::mix::Ask;
use super::value::Amiss;

/// Asks that are remembered.
const ASKS: usize = 1024;

#[derive(Debug, Default)]
struct Places {
    best: Best,
    /// The journal was read so far.
    read: u64,
}

/// The best places of each ask.
#[derive(Debug, Default)]
pub(crate) struct Index {
    asks: BTreeMap<Ask, Places>,
    journal: Journal,
}

impl Index {
    /// A node is another now, or is the first of its class.
    pub(crate) fn changed(&mut self, at: At, free: &Free, amiss: Amiss) {
        self.journal.note(at, free, amiss);
    }

    /// Nothing that was judged holds any more.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The best place for an ask, which looks at nodes so; `all` names every first node of a class that could do.
    pub(crate) fn best(&mut self, ask: Ask, looks: &impl Looks, all: impl Fn() -> Vec<At>) -> Option<Spot> {
        if self.asks.len() >= ASKS && !self.asks.contains_key(&ask) {
            self.asks.clear();
        }
        let each = ask.each;
        let mut new = false;
        let places = self.asks.entry(ask).or_insert_with(|| {
            new = true;
            Places::default()
        });
        let best = &mut places.best;
        self.journal
            .since(places.read, &each)
            .filter(|_| !new)
            .for_each(|(at, amiss)| best.changed(at, Some(amiss), looks));
        if new || best.first(looks).is_none() && best.forgot() {
            *best = Best::default();
            all().into_iter().for_each(|at| best.changed(at, None, looks));
        }
        places.read = self.journal.next();
        best.first(looks)
    }
}

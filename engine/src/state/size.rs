//! How large an attempt is, where its workload is elastic. It starts with the fewest members, its *floor*; members beyond come and go
//! by commands (`commands::grow`, `commands::preempt`). What an attempt holds, and of what a capacity frame can't know yet, is
//! answered here and nowhere else.

use bincode::{Decode, Encode};
use protocol::control::{GroupPlacement, Resized};
use protocol::ids::{CommandNumber, GroupName, UnixMs};
use protocol::placement::{add, all_members, beyond, members, take};
use protocol::workload::WorkloadSpec;
use serde::Serialize;

use super::{Attempt, Workload};

/// How many arrivals of one attempt are kept. A leader whose frame of a cluster is older than the oldest could give room out that is
/// taken, and the agent would refuse it; as resizes are far apart such a frame is hours old.
pub const KEPT_ARRIVALS: usize = 32;

/// The last change of an attempt's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Resize {
    /// Its number among the cluster's commands.
    pub number: CommandNumber,
    /// When.
    pub at: UnixMs,
    /// Whether the agent has done all of it: what was to go is gone.
    pub settled: bool,
    /// When members were last seen to be gone, or not to have come.
    pub gone_at: Option<UnixMs>,
    /// Members that it ordered and that did not come, or ended by themselves: taken off the placement already.
    pub missing: Vec<GroupPlacement>,
    /// Members that were to go, by this and earlier ones, and are not seen to be gone yet.
    pub leaving: Vec<GroupPlacement>,
}

/// Members that came by one command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Arrival {
    /// Its number.
    pub number: CommandNumber,
    /// The members.
    pub placement: Vec<GroupPlacement>,
}

/// The fewest members of a group, where it is elastic.
fn least(spec: &WorkloadSpec, group: &GroupName) -> Option<u32> {
    spec.elastic().find(|(name, ..)| *name == group).map(|(_, least, _)| least)
}

/// Why members of an attempt can't go while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotSpare {
    /// It has not all of them.
    Absent,
    /// This group would have fewer than its minimum.
    BelowFloor(GroupName),
}

impl Attempt {
    /// Its members once these are gone. Only those beyond the minimum of an elastic group may go.
    pub(crate) fn without(
        &self,
        gone: &[GroupPlacement],
        spec: &WorkloadSpec,
    ) -> Result<Vec<GroupPlacement>, NotSpare> {
        let mut left = self.placement.clone();
        if !take(&mut left, gone) {
            return Err(NotSpare::Absent);
        }
        let few = |(has, left): &(&GroupPlacement, &GroupPlacement)| {
            members(left) < members(has) && least(spec, &left.group).is_none_or(|least| members(left) < least)
        };
        let below = self.placement.iter().zip(&left).find(few).map(|(_, left)| left.group.clone());
        below.map_or(Ok(left), |group| Err(NotSpare::BelowFloor(group)))
    }

    /// Members that are being ended while the attempt goes on.
    pub fn leaving(&self) -> &[GroupPlacement] {
        self.resize.as_ref().map_or(&[], |resize| &resize.leaving)
    }

    /// Everything that it holds: its members, and those that are being ended.
    pub fn held(&self) -> impl Iterator<Item = &GroupPlacement> {
        self.placement.iter().chain(self.leaving())
    }

    /// Since when its members are as many as they are; none before it runs. One that ended by itself meanwhile does not count.
    pub(crate) fn sized_at(&self) -> Option<UnixMs> {
        self.running_at.map(|running| self.resize.as_ref().map_or(running, |resize| resize.at.max(running)))
    }

    /// The newest command that gave it members, or took some away.
    pub fn sized_by(&self) -> CommandNumber {
        self.resize.as_ref().map_or(self.launch, |resize| resize.number)
    }

    /// What it holds that a capacity frame with this watermark does not include. More than that where a frame has members that came first
    /// and are gone, and not those that came later: room is better thought taken for a moment than given out twice.
    pub fn unseen(&self, watermark: CommandNumber) -> impl Iterator<Item = &[GroupPlacement]> {
        let whole = self.arrivals.is_empty() && self.launch > watermark;
        let later = self.arrivals.iter().filter(move |arrival| arrival.number > watermark);
        whole.then_some(&self.placement[..]).into_iter().chain(later.map(|arrival| &arrival.placement[..]))
    }

    /// Its size changes by the command with this number.
    pub(crate) fn resize(
        &mut self,
        number: CommandNumber,
        more: &[GroupPlacement],
        less: &[GroupPlacement],
        now: UnixMs,
    ) {
        if self.arrivals.is_empty() {
            self.arrivals.push(Arrival { number: self.launch, placement: self.placement.clone() });
        }
        if !more.is_empty() {
            self.arrivals.push(Arrival { number, placement: more.to_vec() });
        }
        self.forget_arrivals();
        add(&mut self.placement, more);
        let taken = take(&mut self.placement, less);
        debug_assert!(taken, "only members that are there are taken away");
        let before = self.resize.take();
        let gone_at = before.as_ref().and_then(|before| before.gone_at);
        let mut leaving = before.map_or_else(Vec::new, |before| before.leaving);
        add(&mut leaving, less);
        self.resize = Some(Resize { number, at: now, settled: false, gone_at, missing: vec![], leaving });
    }

    /// No more of them than are kept.
    fn forget_arrivals(&mut self) {
        let extra = self.arrivals.len().saturating_sub(KEPT_ARRIVALS);
        self.arrivals.drain(..extra);
    }

    /// These are not held any more, so that no frame lacks them. By which of its orders each had come is not known; taken off the first
    /// that gave such members, no frame that has those is thought to have the later ones too. What it holds is what came and was not taken off.
    fn no_longer(&mut self, gone: &[GroupPlacement]) {
        let mut gone = gone.to_vec();
        for arrival in &mut self.arrivals {
            // What an agent says again, which is most, takes nothing off.
            if gone.is_empty() {
                return;
            }
            let left = beyond(&arrival.placement, &gone);
            gone = beyond(&gone, &arrival.placement);
            arrival.placement = left;
        }
    }

    /// What is missing of an order that was superseded comes again with the newest, which was given without knowing: until the agent has
    /// heard of that one, its frames show this room as free. Some of it may be what the newest took away; so more may count as taken than is.
    fn comes_again(&mut self, word: &Resized) {
        let Some(newest) = self.resize.as_ref().map(|resize| resize.number).filter(|newest| *newest > word.number)
        else {
            return;
        };
        let mut later = vec![];
        let after = self.arrivals.iter().filter(|arrival| arrival.number > word.number);
        after.for_each(|arrival| add(&mut later, &arrival.placement));
        let before = beyond(&self.placement, &later);
        let again = beyond(&before, &beyond(&before, &word.missing));
        if again.is_empty() {
            return;
        }
        self.no_longer(&again);
        match self.arrivals.last_mut().filter(|last| last.number == newest) {
            Some(last) => add(&mut last.placement, &again),
            None => {
                self.arrivals.push(Arrival { number: newest, placement: again });
                self.forget_arrivals();
            }
        }
    }

    /// Takes the agent's word on the newest resize; returns the members that turn out to be missing. A word on members that it has not
    /// beyond its floor counts for nothing.
    pub(crate) fn hear_of_size(&mut self, word: &Resized, spec: &WorkloadSpec, now: UnixMs) -> Vec<GroupPlacement> {
        self.comes_again(word);
        let Some(resize) = self.resize.as_mut().filter(|resize| resize.number == word.number) else { return vec![] };
        let mut went = vec![];
        if word.settled {
            resize.settled = true;
            went = std::mem::take(&mut resize.leaving);
            if !went.is_empty() {
                resize.gone_at = Some(now);
            }
        }
        let missing = beyond(&word.missing, &resize.missing);
        self.no_longer(&went);
        let Ok(left) = self.without(&missing, spec) else { return vec![] };
        let Some(resize) = &mut self.resize else { return vec![] };
        if !missing.is_empty() {
            resize.gone_at = Some(now);
        }
        add(&mut resize.missing, &missing);
        self.no_longer(&missing);
        self.placement = left;
        missing
    }
}

impl Workload {
    /// The fewest members of a group.
    pub fn floor(&self, group: &GroupName) -> u32 {
        let fixed = || self.spec.gang().iter().find(|need| need.name == *group).map_or(0, |need| need.count);
        least(&self.spec, group).unwrap_or_else(fixed)
    }

    /// The elastic groups of an attempt, each with the members beyond the fewest, and how many more there may be.
    pub fn spare<'a>(&'a self, attempt: &'a Attempt) -> impl Iterator<Item = (&'a GroupPlacement, u32, u32)> {
        self.spec.elastic().filter_map(|(name, least, most)| {
            let group = attempt.placement.iter().find(|g| g.group == *name)?;
            let has = members(group);
            Some((group, has.saturating_sub(least), most.saturating_sub(has)))
        })
    }

    /// How many members its live attempt's elastic groups have, and how few and how many they may have; none where it is not elastic.
    pub fn size(&self) -> Option<(u32, u32, u32)> {
        let (mut least, mut most, mut any) = (0u32, 0u32, false);
        for (_, fewest, all) in self.spec.elastic() {
            (least, most, any) = (least.saturating_add(fewest), most.saturating_add(all), true);
        }
        let groups = self.attempts.last().map_or(&[][..], |attempt| &attempt.placement);
        let has = groups.iter().filter(|g| self.spec.elastic().any(|(name, ..)| *name == g.group));
        any.then(|| (all_members(&has.cloned().collect::<Vec<_>>()), least, most))
    }
}

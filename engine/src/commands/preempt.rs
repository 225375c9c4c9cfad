//! Running attempts are ended, or give up members beyond their minimum, so that a waiting gang gets their room. Between proposal and commit anything may have happened,
//! so what state can tell is checked again: that the gang still waits, that each victim still runs and may be preempted, and by
//! what right - its pool still holds more than it is entitled to, of the fleet as the planner saw it, or it has a lower
//! priority in a pool that allows that, or it was let past the gang on this condition; members beyond the
//! minimum also go for any gang of their own pool. All of it happens, or nothing.

use std::collections::BTreeSet;

use protocol::control::StopCause;
use protocol::placement::all_members;
use protocol::workload::Preemptible;

use super::grow::resizable;
use super::step::Step;
use super::{Outcome, Preemption, Refusal, Shrink};
use crate::lifecycle::{Event, Phase};
use crate::pools::reclaim::{Claim, Rights};
use crate::state::size::NotSpare;
use crate::state::{Ground, Happening, State, Workload};

impl Step<'_> {
    pub(super) fn preempt(&mut self, preemption: &Preemption) -> Result<Outcome, Refusal> {
        let stale = |why: String| Refusal::StalePreemption { by: preemption.by.clone(), why };
        let (shrunk, grounds) = check(self.state, preemption).map_err(stale)?;
        let pool = self.state.workloads.get(&preemption.by).map(|w| w.pool.clone()).expect("it was checked above");
        for (shrink, ground) in preemption.shrinks.iter().zip(shrunk) {
            let Some(number) = self.stop_number(&shrink.key) else { continue };
            let (attempt, by, pool) = (shrink.attempt, preemption.by.clone(), pool.clone());
            self.resize(&shrink.key, number, (&[], &shrink.members), |w| Happening::Shrunk {
                attempt,
                members: all_members(&shrink.members),
                size: w.size().map_or(0, |(size, ..)| size),
                by,
                pool,
                ground,
            });
        }
        for (victim, ground) in preemption.victims.iter().zip(grounds) {
            let (by, pool) = (preemption.by.clone(), pool.clone());
            let preempted = Happening::Preempted { attempt: victim.attempt, by, pool, ground };
            self.ask_to_end(&victim.key, StopCause::Preempted, Event::Preempt, preempted);
        }
        Ok(Outcome::Done)
    }
}

/// By what right each gives members, and each its whole attempt.
fn check(state: &State, preemption: &Preemption) -> Result<(Vec<Ground>, Vec<Ground>), String> {
    if preemption.epoch != state.epoch {
        return Err(format!("it was planned in epoch {}; now it is {}", preemption.epoch, state.epoch));
    }
    let by = state.workloads.get(&preemption.by).filter(|w| w.uid == preemption.by_uid);
    let by = by.ok_or("the workload is gone")?;
    if by.phase != Phase::Queued {
        return Err(format!("the workload is {}, not Queued", by.phase));
    }
    let claim = Claim::of(by);
    let mut rights = Rights::new(state, preemption.fleet.clone(), &preemption.clusters);
    let mut seen = BTreeSet::new();
    let mut shrunk = vec![];
    for shrink in &preemption.shrinks {
        let workload = state.workloads.get(&shrink.key).filter(|w| w.uid == shrink.uid);
        let workload = workload.ok_or_else(|| format!("{}, which was to give members, is gone", shrink.key))?;
        check_shrink(state, workload, shrink)?;
        if !seen.insert(shrink.uid) {
            return Err(format!("{} is named twice", shrink.key));
        }
        let ground = rights.ground_of_extra(&claim, workload, &shrink.members);
        shrunk.push(ground.ok_or_else(|| format!("there is no right to members of {}", shrink.key))?);
        rights.gives_members(state, workload, &shrink.members);
    }
    let mut grounds = vec![];
    for victim in &preemption.victims {
        let workload = state.workloads.get(&victim.key).filter(|w| w.uid == victim.uid);
        let workload = workload.ok_or_else(|| format!("victim {} is gone", victim.key))?;
        check_victim(workload, victim.attempt)?;
        if !seen.insert(victim.uid) {
            return Err(format!("victim {} is named twice", victim.key));
        }
        let ground = rights.ground(state, &claim, workload);
        grounds.push(ground.ok_or_else(|| format!("there is no right to the room of {}", victim.key))?);
        rights.gives(state, workload);
    }
    // Those that were let past it end for it whatever the division is now: how much its pool has is the planner's word.
    let passed = shrunk.is_empty() && grounds.iter().all(|ground| *ground == Ground::Passed);
    if !passed && !rights.suffice(state, &claim) {
        return Err("its pool is not entitled to what it needs".into());
    }
    Ok((shrunk, grounds))
}

/// Only members that it has, and beyond its minimum.
fn check_shrink(state: &State, workload: &Workload, shrink: &Shrink) -> Result<(), String> {
    let key = &workload.key;
    let live = resizable(state, workload, shrink.attempt)?;
    match live.without(&shrink.members, &workload.spec) {
        Ok(_) if all_members(&shrink.members) > 0 => Ok(()),
        Ok(_) | Err(NotSpare::Absent) => Err(format!("{key} has not the members that it was to give")),
        Err(NotSpare::BelowFloor(group)) => {
            Err(format!("{key} would have fewer members of group {group} than its minimum"))
        }
    }
}

fn check_victim(workload: &Workload, attempt: protocol::ids::AttemptNumber) -> Result<(), String> {
    let key = &workload.key;
    let live = workload.live_attempt().filter(|a| a.number == attempt);
    let live = live.ok_or_else(|| format!("attempt {attempt} of {key} does not live any more"))?;
    if live.stop.is_some() || workload.phase.after(Event::Preempt) != Some(Phase::Draining) {
        return Err(format!("{key} is {}: it can't be preempted", workload.phase));
    }
    match workload.spec.preemptible {
        Preemptible::Yes => Ok(()),
        Preemptible::No => Err(format!("{key} may not be preempted")),
    }
}

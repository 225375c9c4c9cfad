//! An attempt is gone: what becomes of its workload. Only the workload's own failures count against its retries; what the
//! infrastructure broke is tried again for free, after a wait that grows so that a broken cluster can't spin. But not for
//! ever: a program that always takes its node down with it, or is always killed for want of memory where nobody can tell,
//! looks like broken infrastructure each time. After [`FREE_RETRIES`] free retries in a row of which none made progress,
//! the workload fails. That a cluster had no room after all says nothing about the program, and is not counted. What was
//! preempted goes back to its place in line at once.

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::UnixMs;

use crate::lifecycle::{Event, Phase};
use crate::planted;
use crate::state::service::had;
use crate::state::{Attempt, Happening, Workload};

/// The longest wait after a failure of the workload's own, in ms.
const MAX_USER_BACKOFF_MS: u64 = 3_600_000;
/// The wait after the first failure of the infrastructure, in ms; doubled with each one in a row.
const INFRASTRUCTURE_BACKOFF_MS: u64 = 1_000;
/// The longest wait after a failure of the infrastructure, in ms.
const MAX_INFRASTRUCTURE_BACKOFF_MS: u64 = 300_000;

/// How many times in a row an infrastructure failure is tried again for free, if no attempt meanwhile made progress. With the
/// waits between them that takes over four minutes: longer than a node or an agent needs to be started again.
pub const FREE_RETRIES: u32 = 8;
/// An attempt whose members had all been up for this long when it failed made progress, in ms.
pub const PROGRESS_MS: u64 = 600_000;

/// Ends the live attempt with its last word, which the attempt already carries as `reported`.
pub(super) fn end_attempt(workload: &mut Workload, state: &AttemptState, now: UnixMs) {
    let Some(attempt) = workload.attempts.last_mut() else { return };
    attempt.ended_at = Some(now);
    let number = attempt.number;
    workload.served = workload.served.saturating_add(had(attempt, now));
    let reported = Happening::Reported { attempt: number, state: state.clone() };
    // A cancel that was acknowledged is final: even an attempt that ended well before the stop reached it ends Cancelled.
    if workload.cancel_requested {
        if planted::is("cancel-not-final") {
            (workload.cancel_requested, workload.phase) = (false, Phase::Running);
            return requeue(workload, reported, FailureClass::Infrastructure, now, now);
        }
        return workload.enter(Event::Gone, reported, now);
    }
    // Its end was asked for to make room: whatever it did on the way out is no failure, unless it had ended well by then.
    if attempt_was_preempted(workload) && *state != AttemptState::Succeeded {
        return workload.enter(Event::Retry, reported, now);
    }
    // Nor is what was ended for being idle tried again: it would be idle again.
    let idle = workload.attempts.last().is_some_and(Attempt::is_idle);
    if idle && *state != AttemptState::Succeeded {
        return workload.enter(Event::GiveUp, reported, now);
    }
    let class = match state {
        AttemptState::Succeeded => return workload.enter(Event::Succeeded, reported, now),
        AttemptState::Failed { class, .. } => *class,
        // Stopped though nobody asked: the agent would not, or no longer, run it. Not the workload's fault.
        _ => FailureClass::Infrastructure,
    };
    let wait = match class {
        FailureClass::User => {
            workload.user_failures = workload.user_failures.saturating_add(1);
            if workload.user_failures > workload.spec.retries.limit {
                return workload.enter(Event::GiveUp, reported, now);
            }
            doubled(workload.spec.retries.backoff.0, workload.user_failures, MAX_USER_BACKOFF_MS)
        }
        FailureClass::Infrastructure if fruitless_failures(&workload.attempts) > FREE_RETRIES => {
            workload.enter(Event::GiveUp, reported, now);
            let failures = fruitless_failures(&workload.attempts);
            return workload.remember(Happening::GivenUp { failures }, now);
        }
        FailureClass::Infrastructure | FailureClass::Capacity => {
            doubled(INFRASTRUCTURE_BACKOFF_MS, free_failures(&workload.attempts), MAX_INFRASTRUCTURE_BACKOFF_MS)
        }
    };
    requeue(workload, reported, class, UnixMs(now.0.saturating_add(wait)), now);
}

fn attempt_was_preempted(workload: &Workload) -> bool {
    workload.attempts.last().is_some_and(Attempt::is_preempted)
}

fn requeue(workload: &mut Workload, reported: Happening, class: FailureClass, not_before: UnixMs, now: UnixMs) {
    let attempt = workload.attempts.last().map_or_else(Default::default, |a| a.number);
    workload.not_before = Some(not_before);
    workload.enter(Event::Retry, reported, now);
    workload.remember(Happening::Retried { attempt, class, not_before }, now);
}

/// `first` doubled for each failure after the first, at most `max`.
fn doubled(first: u64, failures: u32, max: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(63);
    first.saturating_mul(1 << doublings).min(max)
}

/// How many attempts in a row, up to the last, ended through no fault of the workload's, none of them after progress.
fn free_failures(attempts: &[Attempt]) -> u32 {
    count(free_row(attempts))
}

/// How many of those were failures of the infrastructure.
fn fruitless_failures(attempts: &[Attempt]) -> u32 {
    let full = |a: &&Attempt| matches!(&a.reported, Some(AttemptState::Failed { class: FailureClass::Capacity, .. }));
    count(free_row(attempts).filter(|a| !full(a)))
}

fn free_row(attempts: &[Attempt]) -> impl Iterator<Item = &Attempt> {
    let free = |a: &&Attempt| match &a.reported {
        _ if a.is_preempted() => false,
        Some(AttemptState::Failed { class, .. }) => *class != FailureClass::User && !made_progress(a),
        Some(AttemptState::Stopped) => !made_progress(a),
        _ => false,
    };
    attempts.iter().rev().take_while(free)
}

fn made_progress(attempt: &Attempt) -> bool {
    let ran = attempt.running_at.zip(attempt.ended_at).map(|(from, to)| to.0.saturating_sub(from.0));
    ran.is_some_and(|ms| ms >= PROGRESS_MS)
}

fn count<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> u32 {
    u32::try_from(attempts.count()).unwrap_or(u32::MAX)
}

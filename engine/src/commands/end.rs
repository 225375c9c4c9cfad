//! An attempt is gone: what becomes of its workload. Only the workload's own failures count against its retries; what the
//! infrastructure broke is tried again for free, after a wait that grows so that a broken cluster can't spin. What was
//! preempted goes back to its place in line at once.

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::UnixMs;

use crate::lifecycle::{Event, Phase};
use crate::planted;
use crate::state::{Attempt, Happening, Workload};

/// The longest wait after a failure of the workload's own, in ms.
const MAX_USER_BACKOFF_MS: u64 = 3_600_000;
/// The wait after the first failure of the infrastructure, in ms; doubled with each one in a row.
const INFRASTRUCTURE_BACKOFF_MS: u64 = 1_000;
/// The longest wait after a failure of the infrastructure, in ms.
const MAX_INFRASTRUCTURE_BACKOFF_MS: u64 = 300_000;

/// Ends the live attempt with its last word, which the attempt already carries as `reported`.
pub(super) fn end_attempt(workload: &mut Workload, state: &AttemptState, now: UnixMs) {
    let Some(attempt) = workload.attempts.last_mut() else { return };
    attempt.ended_at = Some(now);
    let number = attempt.number;
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

/// How many attempts in a row, up to the last, ended through no fault of the workload's.
fn free_failures(attempts: &[Attempt]) -> u32 {
    let free = |a: &&Attempt| match &a.reported {
        _ if a.is_preempted() => false,
        Some(AttemptState::Failed { class, .. }) => *class != FailureClass::User,
        Some(AttemptState::Stopped) => true,
        _ => false,
    };
    u32::try_from(attempts.iter().rev().take_while(free).count()).unwrap_or(u32::MAX)
}

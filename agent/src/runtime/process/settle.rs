//! Concludes an attempt that no guard will conclude: its guard was killed, or never began.
//!
//! Holds the guard's lock throughout, forbids a late guard, ends what is left of the attempt, and writes the outcome.

use std::io;
use std::time::Duration;

use protocol::errors::FailureClass;

use crate::guard::durable;
use crate::guard::plan::Plan;
use crate::guard::record::{Ending, Outcome, Record};
use crate::guard::sweep::{self, SweepError};

/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an attempt cannot be settled yet.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// A guard took the lock meanwhile.
    #[error("its guard lives after all")]
    GuardLives,
    /// Something does not end.
    #[error(transparent)]
    Left(#[from] SweepError),
    /// The record cannot be read or written.
    #[error("its record: {0}")]
    Record(#[from] io::Error),
}

/// Ends what is left of the attempt and makes its outcome durable: the one already decided, else `ending`, else what its
/// record tells. Blocks.
pub fn settle(record: &Record, attempt: &str, ending: Option<Ending>) -> Result<Outcome, SettleError> {
    let _lock = record.try_lock()?.ok_or(SettleError::GuardLives)?;
    let decided = record.outcome()?;
    if let Some(outcome) = decided.as_ref().filter(|outcome| outcome.gone) {
        return Ok(outcome.clone());
    }
    record.revoke()?;
    let plan = durable::read_json::<Plan>(&record.path("plan.json"))?;
    let scratch = plan.map(|plan| plan.scratch).unwrap_or_default();
    let ended = sweep::end_leftovers(attempt, &scratch, PATIENCE)?;
    let ending = match (decided, ending, record.stop()?) {
        (Some(outcome), ..) => outcome.ending,
        (None, Some(ending), _) => ending,
        (None, None, Some(stop)) => stop.why.ending(),
        (None, None, None) => Ending::Failed {
            class: FailureClass::Infrastructure,
            message: match record.started()? {
                Some(_) => format!("its guard was killed; {ended} processes that it left were ended"),
                None => "its agent or guard was killed before it began".into(),
            },
            exit_code: None,
        },
    };
    Record::remove_scratch(&scratch);
    let outcome = Outcome { ending, gone: true };
    record.decide(&outcome)?;
    Ok(outcome)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::guard::record::{Stop, StopWhy};

    #[test]
    fn what_was_decided_before_the_guard_died_stays() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::at(dir.path());
        record.decide(&Outcome { ending: Ending::Succeeded, gone: false }).unwrap();
        record.order_stop(Stop { grace_ms: 0, why: StopWhy::Order }).unwrap();
        let outcome = settle(&record, "settle-test-1", None).unwrap();
        assert_eq!(outcome, Outcome { ending: Ending::Succeeded, gone: true });
        assert!(record.is_revoked());
    }

    #[test]
    fn a_stop_without_an_outcome_is_stopped_and_neither_is_a_failure_of_the_infrastructure() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::at(dir.path().join("a"));
        std::fs::create_dir(record.dir()).unwrap();
        record.order_stop(Stop { grace_ms: 0, why: StopWhy::Order }).unwrap();
        assert_eq!(settle(&record, "settle-test-2", None).unwrap().ending, Ending::Stopped);
        let record = Record::at(dir.path().join("b"));
        std::fs::create_dir(record.dir()).unwrap();
        let ending = settle(&record, "settle-test-3", None).unwrap().ending;
        assert!(matches!(ending, Ending::Failed { class: FailureClass::Infrastructure, .. }), "{ending:?}");
    }

    #[test]
    fn nothing_is_settled_under_a_living_guard() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::at(dir.path());
        let _guard = record.try_lock().unwrap().unwrap();
        assert!(matches!(settle(&record, "settle-test-4", None), Err(SettleError::GuardLives)));
        assert!(!record.is_revoked());
    }
}

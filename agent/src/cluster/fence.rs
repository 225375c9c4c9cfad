//! Which attempts go on, of those that end themselves once nobody lets them: the coordinator says so with each lease, for as long as each
//! one's specification says, counted from when the lease was asked for.

use std::collections::BTreeMap;

use protocol::ids::{AttemptId, MonotonicMs};

use super::attempt::Record;
use super::interface::Output;

/// Tells the runtime of those that are held here and live. Of others an answer says nothing: they may be of another life of this agent.
pub(super) fn let_go_on(
    records: &BTreeMap<AttemptId, Record>,
    attempts: &[AttemptId],
    asked_at: MonotonicMs,
    out: &mut Vec<Output>,
) {
    for &attempt in attempts {
        let live = records.get(&attempt).filter(|record| !record.is_final());
        let after = live.and_then(|record| record.launched.as_ref()?.order.spec.fence());
        if let Some(after) = after {
            out.push(Output::LetGoOn { attempt, until: asked_at.plus(after.0) });
        }
    }
}

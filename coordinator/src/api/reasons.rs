//! Why each queued workload waits, as lists and pages show it: the leader's last plan, or on a follower a plan of its own,
//! made at most once a second because the core's thread has better things to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::plan;
use engine::reasons::Waiting;
use protocol::ids::Uid;

use crate::handle::View;

/// How old a follower's own plan may be.
const KEPT: Duration = Duration::from_secs(1);
/// Bindings that a follower's own plan makes at most: it wants the reasons, not the places.
const BINDINGS: usize = 64;

/// Why each queued workload waits.
type Kept = Arc<BTreeMap<Uid, Waiting>>;

/// A follower's own plan, kept for a moment.
#[derive(Debug, Default)]
pub struct Reasons {
    own: Mutex<Option<(Instant, Kept)>>,
}

impl Reasons {
    /// Runs `look` with the reasons by uid. A workload that waits but is not in them came after the plan was made.
    pub fn with<T>(&self, view: &View<'_>, look: impl FnOnce(&BTreeMap<Uid, Waiting>) -> T) -> T {
        match view.plan {
            Some(plan) => look(&plan.waiting),
            None => look(&self.own(view)),
        }
    }

    fn own(&self, view: &View<'_>) -> Arc<BTreeMap<Uid, Waiting>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, waiting)) = own.as_ref()
            && made.elapsed() < KEPT
        {
            return waiting.clone();
        }
        let waiting = Arc::new(plan::plan(view.state, view.capacity, view.now, BINDINGS).waiting);
        *own = Some((Instant::now(), waiting.clone()));
        waiting
    }
}

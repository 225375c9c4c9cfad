//! The right to change anything, as a moment up to which it lasts. Whoever changes something asks at the last moment before it does: so
//! a process that stood still finds it shut, whatever it was about to do.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use kube::client::Body;
use protocol::ids::MonotonicMs;
use tower::BoxError;

/// Once shut for good it never opens again.
const FOR_GOOD: u64 = u64::MAX;

/// Open up to a moment on this process's monotonic clock; shut at first.
#[derive(Debug)]
pub struct Gate {
    origin: Instant,
    until_ms: AtomicU64,
}

/// Why a request that changes something is not sent.
#[derive(Debug, thiserror::Error)]
#[error("this replica does not lead, so that it changes nothing")]
pub(crate) struct Shut;

impl Gate {
    /// A gate that is shut.
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), until_ms: AtomicU64::new(0) }
    }

    /// The time on the clock that it is opened by.
    pub(super) fn now(&self) -> MonotonicMs {
        MonotonicMs(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether something may be changed at this moment. At the deadline itself it may not.
    pub fn is_open(&self) -> bool {
        let until = self.until_ms.load(Ordering::Acquire);
        until != FOR_GOOD && self.now().0 < until
    }

    /// Keeps it open up to this moment.
    pub(super) fn open_until(&self, until: MonotonicMs) {
        let later = |known| (known < until.0 && known != FOR_GOOD).then_some(until.0);
        let _ = self.until_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// Shuts it for good.
    pub(super) fn shut(&self) {
        self.until_ms.store(FOR_GOOD, Ordering::Release);
    }
}

/// A request's body that is not written while the gate is shut. It is asked for as it goes out, when the connection is there: a request
/// whose body never comes is not carried out.
pub(crate) struct Guarded {
    body: Body,
    gate: Option<Arc<Gate>>,
}

impl Guarded {
    pub(crate) fn new(body: Body, gate: Option<Arc<Gate>>) -> Self {
        Self { body, gate }
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.gate.as_ref().is_some_and(|gate| !gate.is_open()) {
            return Poll::Ready(Some(Err(Shut.into())));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shut_before_and_after_and_for_good_once_told_so() {
        let gate = Gate::new();
        assert!(!gate.is_open());
        gate.open_until(MonotonicMs(60_000));
        gate.open_until(MonotonicMs(1));
        assert!(gate.is_open(), "a late answer to an early request shortens nothing");
        gate.shut();
        gate.open_until(MonotonicMs(120_000));
        assert!(!gate.is_open());
    }

    #[test]
    fn it_shuts_by_itself() {
        let gate = Gate::new();
        gate.open_until(gate.now().plus(30));
        assert!(gate.is_open());
        std::thread::sleep(std::time::Duration::from_millis(40));
        assert!(!gate.is_open());
    }

    #[tokio::test]
    async fn nothing_is_written_through_a_shut_gate() {
        let gate = Arc::new(Gate::new());
        let frame = |mut body: Guarded| async move {
            std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.expect("it has a body")
        };
        let body = || Guarded::new(Body::from(b"{}".to_vec()), Some(gate.clone()));
        assert!(frame(body()).await.is_err_and(|error| error.is::<Shut>()));
        gate.open_until(MonotonicMs(60_000));
        assert!(frame(body()).await.is_ok());
        gate.shut();
        assert!(frame(body()).await.is_err());
        assert!(frame(Guarded::new(Body::from(b"{}".to_vec()), None)).await.is_ok(), "where nobody else can act");
    }
}

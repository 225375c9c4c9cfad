//! The way out: the last view of the node, and the frames that tell what changed in it. Both threads of the sampler come here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::ids::{MonotonicMs, UnixMs};
use protocol::node::{DeviceReport, DriverState, Holders, NodeFrame};
use tokio::sync::mpsc;

use crate::node::changes::{Changes, View};
use crate::node::known::forget_readings;

/// Frames that may wait for their reader. When there is no room, changes gather until there is.
const FRAMES_WAITING: usize = 16;

#[derive(Debug)]
struct Inner {
    changes: Changes,
    out: mpsc::Sender<NodeFrame>,
    /// What the NVML thread said last.
    read: Option<View>,
    /// What was shown last: that, or a stall.
    shown: Option<View>,
    /// Whose pods have the devices, where somebody asks.
    holders: Option<Holders>,
}

/// See the module.
#[derive(Debug)]
pub struct Publisher {
    inner: Mutex<Inner>,
    start: Instant,
}

fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since.as_millis() as u64)
}

impl Publisher {
    /// A publisher and where its frames come out.
    pub fn new(changes: Changes) -> (Self, mpsc::Receiver<NodeFrame>) {
        let (out, frames) = mpsc::channel(FRAMES_WAITING);
        let inner = Inner { changes, out, read: None, shown: None, holders: None };
        (Self { inner: Mutex::new(inner), start: Instant::now() }, frames)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> MonotonicMs {
        MonotonicMs(self.start.elapsed().as_millis() as u64)
    }

    /// What was read just now.
    pub fn publish(&self, driver: DriverState, devices: Vec<DeviceReport>) {
        let mut inner = self.lock();
        let view = View { at: unix_now(), driver, devices, holders: inner.holders.clone() };
        inner.read = Some(view.clone());
        inner.show(view, self.now());
    }

    /// `call` has not returned for `for_ms`: readings are unknown until it does; the GPUs and their health stay.
    pub fn publish_stall(&self, call: &str, for_ms: u64) {
        let mut inner = self.lock();
        let mut devices = inner.read.as_ref().map(|v| v.devices.clone()).unwrap_or_default();
        devices.iter_mut().for_each(forget_readings);
        let driver = DriverState::Stalled { call: call.into(), for_ms };
        let holders = inner.holders.clone();
        inner.show(View { at: unix_now(), driver, devices, holders }, self.now());
    }

    /// Whose pods have the devices now. It goes out at once where anything is known of them.
    pub fn publish_holders(&self, holders: Holders) {
        let mut inner = self.lock();
        if inner.holders.as_ref() == Some(&holders) {
            return;
        }
        inner.holders = Some(holders.clone());
        if let Some(view) = inner.shown.take() {
            inner.show(View { holders: Some(holders), ..view }, self.now());
        }
    }

    /// The next frame is full, and comes now where anything is known.
    pub fn request_full(&self) {
        let mut inner = self.lock();
        inner.changes.request_full();
        if let Some(view) = inner.shown.take() {
            inner.show(view, self.now());
        }
    }

    /// Everything that is known, as a full frame under the last number sent.
    pub fn latest(&self) -> Option<NodeFrame> {
        let inner = self.lock();
        inner.shown.as_ref().map(|view| inner.changes.snapshot(view))
    }
}

impl Inner {
    fn show(&mut self, view: View, now: MonotonicMs) {
        if let Some(frame) = self.changes.next(&view, now)
            && let Ok(room) = self.out.try_reserve()
        {
            self.changes.sent(&frame, now);
            room.send(frame);
        }
        self.shown = Some(view);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::ids::NodeName;

    use super::*;

    fn driver(n: usize) -> DriverState {
        DriverState::Ready { version: n.to_string() }
    }

    #[test]
    fn a_reader_that_is_slow_gets_numbers_without_a_gap_and_the_last_news() {
        let (publisher, mut frames) = Publisher::new(Changes::new(NodeName::new("n1").unwrap(), 60_000));
        for n in 0..100 {
            publisher.publish(driver(n), Vec::new());
        }
        let mut last = 0;
        while let Ok(frame) = frames.try_recv() {
            last += 1;
            assert_eq!(frame.sequence, last);
        }
        assert_eq!(last as usize, FRAMES_WAITING);
        publisher.publish(driver(100), Vec::new());
        let frame = frames.try_recv().unwrap();
        assert_eq!((frame.sequence, frame.driver), (last + 1, driver(100)));
    }

    #[test]
    fn whose_the_devices_are_comes_at_once_and_stays_beside_later_readings() {
        let (publisher, mut frames) = Publisher::new(Changes::new(NodeName::new("n1").unwrap(), 60_000));
        let unknown = |cause: &str| Holders::Unknown { cause: cause.into() };
        publisher.publish_holders(unknown("a"));
        assert!(frames.try_recv().is_err(), "a frame begins with readings");
        publisher.publish(driver(1), Vec::new());
        assert_eq!(frames.try_recv().unwrap().holders, Some(unknown("a")));
        publisher.publish_holders(unknown("b"));
        assert_eq!(frames.try_recv().unwrap().holders, Some(unknown("b")));
        publisher.publish_holders(unknown("b"));
        publisher.publish_stall("nvmlX", 5);
        assert_eq!(frames.try_recv().unwrap().holders, None);
        assert_eq!(publisher.latest().unwrap().holders, Some(unknown("b")));
        publisher.publish(driver(1), Vec::new());
        assert_eq!(publisher.latest().unwrap().holders, Some(unknown("b")));
    }

    #[test]
    fn a_full_frame_that_is_asked_for_comes_at_once() {
        let (publisher, mut frames) = Publisher::new(Changes::new(NodeName::new("n1").unwrap(), 60_000));
        publisher.request_full();
        assert!(frames.try_recv().is_err());
        publisher.publish(driver(1), Vec::new());
        assert_eq!(frames.try_recv().unwrap().sequence, 1);
        publisher.request_full();
        let again = frames.try_recv().unwrap();
        assert_eq!((again.sequence, again.full), (2, true));
        assert_eq!(publisher.latest().unwrap(), again);
    }
}

//! Which frame is due: everything first and when asked, then only devices of which something changed. Pure.
//!
//! What was sent is what the difference is taken from, so a frame that found no room is not lost: its changes are in the next.

use std::collections::BTreeMap;

use protocol::ids::{MonotonicMs, NodeName, UnixMs};
use protocol::node::{DeviceReport, DriverState, Holders, NodeFrame};

/// Everything that is known of a node at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// When it was measured.
    pub at: UnixMs,
    /// The driver.
    pub driver: DriverState,
    /// All devices.
    pub devices: Vec<DeviceReport>,
    /// Whose pods have them; none where nobody asks.
    pub holders: Option<Holders>,
}

#[derive(Debug)]
struct Sent {
    driver: DriverState,
    devices: BTreeMap<String, DeviceReport>,
    holders: Option<Holders>,
    at: MonotonicMs,
}

/// What was sent so far.
#[derive(Debug)]
pub struct Changes {
    node: NodeName,
    heartbeat_ms: u64,
    sequence: u64,
    full_wanted: bool,
    sent: Option<Sent>,
}

/// Two states of a driver that stalls in one call are the same news; how long it has, the heartbeat says.
fn same_driver(a: &DriverState, b: &DriverState) -> bool {
    match (a, b) {
        (DriverState::Stalled { call: a, .. }, DriverState::Stalled { call: b, .. }) => a == b,
        _ => a == b,
    }
}

impl Changes {
    /// Nothing was sent yet. A frame is due at least every `heartbeat_ms`.
    pub fn new(node: NodeName, heartbeat_ms: u64) -> Self {
        Self { node, heartbeat_ms, sequence: 0, full_wanted: true, sent: None }
    }

    /// The next frame is to have all devices.
    pub fn request_full(&mut self) {
        self.full_wanted = true;
    }

    /// The frame that is due for `view`; none where nothing changed since the last one and that is not long ago.
    pub fn next(&self, view: &View, now: MonotonicMs) -> Option<NodeFrame> {
        let Some(sent) = self.sent.as_ref().filter(|_| !self.full_wanted) else {
            return Some(self.full(view));
        };
        // Only a full frame can say that a device is no more.
        if sent.devices.keys().any(|uuid| view.devices.iter().all(|d| &d.uuid != uuid)) {
            return Some(self.full(view));
        }
        let changed = |device: &&DeviceReport| sent.devices.get(&device.uuid) != Some(*device);
        let devices: Vec<_> = view.devices.iter().filter(changed).cloned().collect();
        let holders = view.holders.clone().filter(|_| sent.holders != view.holders);
        let news = !devices.is_empty() || holders.is_some() || !same_driver(&sent.driver, &view.driver);
        let due = news || now.since(sent.at) >= self.heartbeat_ms;
        due.then(|| self.frame(view, false, devices, holders))
    }

    /// `frame`, which `next` gave, was sent.
    pub fn sent(&mut self, frame: &NodeFrame, now: MonotonicMs) {
        self.sequence = frame.sequence;
        self.full_wanted = false;
        let (mut devices, holders) = match self.sent.take() {
            Some(sent) if !frame.full => (sent.devices, frame.holders.clone().or(sent.holders)),
            _ => (BTreeMap::new(), frame.holders.clone()),
        };
        for device in &frame.devices {
            devices.insert(device.uuid.clone(), device.clone());
        }
        self.sent = Some(Sent { driver: frame.driver.clone(), devices, holders, at: now });
    }

    /// All of `view` under the number of the last frame that was sent; takes no number of its own.
    pub fn snapshot(&self, view: &View) -> NodeFrame {
        NodeFrame { sequence: self.sequence, ..self.full(view) }
    }

    fn full(&self, view: &View) -> NodeFrame {
        self.frame(view, true, view.devices.clone(), view.holders.clone())
    }

    fn frame(&self, view: &View, full: bool, devices: Vec<DeviceReport>, holders: Option<Holders>) -> NodeFrame {
        NodeFrame {
            node: self.node.clone(),
            sequence: self.sequence + 1,
            full,
            at: view.at,
            driver: view.driver.clone(),
            devices,
            holders,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::node::{DeviceHealth, PodDevices};
    use protocol::sku::Sku;

    use super::*;

    fn device(index: u32, used: u64) -> DeviceReport {
        let sku = Sku::from_driver("NVIDIA H100 80GB HBM3");
        DeviceReport {
            memory_used_mib: Some(used),
            ..DeviceReport::unread(index, format!("GPU-{index}"), sku, DeviceHealth::Ok)
        }
    }

    fn view(used: &[u64]) -> View {
        let devices = used.iter().enumerate().map(|(i, &used)| device(i as u32, used)).collect();
        View { at: UnixMs(1), driver: DriverState::Ready { version: "580".into() }, devices, holders: None }
    }

    fn changes() -> Changes {
        Changes::new(NodeName::new("n1").unwrap(), 10_000)
    }

    fn send(changes: &mut Changes, view: &View, now: u64) -> Option<NodeFrame> {
        let frame = changes.next(view, MonotonicMs(now))?;
        changes.sent(&frame, MonotonicMs(now));
        Some(frame)
    }

    #[test]
    fn the_first_frame_is_full_and_the_next_has_only_what_changed() {
        let mut c = changes();
        let first = send(&mut c, &view(&[1, 2, 3]), 0).unwrap();
        assert_eq!((first.sequence, first.full, first.devices.len()), (1, true, 3));
        assert_eq!(send(&mut c, &view(&[1, 2, 3]), 1000), None);
        let second = send(&mut c, &view(&[1, 9, 3]), 2000).unwrap();
        assert_eq!((second.sequence, second.full), (2, false));
        assert_eq!(second.devices, vec![device(1, 9)]);
    }

    #[test]
    fn a_frame_that_was_not_sent_loses_nothing_and_takes_no_number() {
        let mut c = changes();
        send(&mut c, &view(&[1, 2]), 0).unwrap();
        assert!(c.next(&view(&[7, 2]), MonotonicMs(1)).is_some());
        let frame = send(&mut c, &view(&[7, 8]), 2).unwrap();
        assert_eq!((frame.sequence, frame.devices.len()), (2, 2));
    }

    #[test]
    fn a_full_frame_comes_when_asked_for_and_when_a_device_is_no_more() {
        let mut c = changes();
        send(&mut c, &view(&[1, 2]), 0).unwrap();
        c.request_full();
        assert!(send(&mut c, &view(&[1, 2]), 1).unwrap().full);
        let less = send(&mut c, &view(&[1]), 2).unwrap();
        assert!(less.full);
        assert_eq!(less.devices.len(), 1);
        assert_eq!(send(&mut c, &view(&[1]), 3), None);
    }

    #[test]
    fn an_unchanged_node_sends_an_empty_frame_at_each_heartbeat() {
        let mut c = changes();
        send(&mut c, &view(&[1]), 0).unwrap();
        assert_eq!(send(&mut c, &view(&[1]), 9_999), None);
        let beat = send(&mut c, &view(&[1]), 10_000).unwrap();
        assert_eq!((beat.sequence, beat.full, beat.devices.len()), (2, false, 0));
        assert_eq!(send(&mut c, &view(&[1]), 19_999), None);
    }

    #[test]
    fn a_stall_is_news_once_and_its_length_is_not() {
        let mut c = changes();
        send(&mut c, &view(&[1]), 0).unwrap();
        let stalled = |ms| View { driver: DriverState::Stalled { call: "nvmlX".into(), for_ms: ms }, ..view(&[1]) };
        assert!(send(&mut c, &stalled(2000), 1).is_some());
        assert_eq!(send(&mut c, &stalled(3000), 2), None);
        assert!(send(&mut c, &view(&[1]), 3).is_some());
    }

    #[test]
    fn whose_the_devices_are_is_said_when_it_changes_and_in_every_full_frame() {
        let mut c = changes();
        let held = |pod: &str| {
            let one = PodDevices {
                namespace: "d".into(),
                pod: pod.into(),
                container: "c".into(),
                devices: vec!["GPU-0".into()],
            };
            Some(Holders::Known { pods: vec![one] })
        };
        let with = |holders| View { holders, ..view(&[1, 2]) };
        assert_eq!(send(&mut c, &with(None), 0).unwrap().holders, None);
        let said = send(&mut c, &with(held("a")), 1).unwrap();
        assert_eq!((said.full, said.devices.len(), said.holders), (false, 0, held("a")));
        assert_eq!(send(&mut c, &with(held("a")), 2), None);
        // One that finds no room is said by the next, and what did not change is not said with other news.
        assert_eq!(c.next(&with(held("b")), MonotonicMs(3)).unwrap().holders, held("b"));
        assert_eq!(send(&mut c, &with(held("b")), 4).unwrap().holders, held("b"));
        let other = send(&mut c, &View { holders: held("b"), ..view(&[1, 9]) }, 5).unwrap();
        assert_eq!((other.devices.len(), other.holders), (1, None));
        c.request_full();
        assert_eq!(send(&mut c, &View { holders: held("b"), ..view(&[1, 9]) }, 6).unwrap().holders, held("b"));
        assert_eq!(send(&mut c, &View { holders: held("b"), ..view(&[1, 9]) }, 7), None);
    }

    #[test]
    fn applying_every_frame_gives_the_view() {
        let mut c = changes();
        let mut copy: BTreeMap<String, DeviceReport> = BTreeMap::new();
        let mut seed = 1u64;
        for now in 0..500 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let now_view = view(&[seed >> 62, seed >> 60 & 3, seed >> 58 & 3][..1 + (seed >> 56 & 1) as usize * 2]);
            if now % 7 == 0 {
                c.request_full();
            }
            let before = copy.clone();
            if let Some(frame) = c.next(&now_view, MonotonicMs(now)) {
                if frame.full {
                    copy.clear();
                }
                copy.extend(frame.devices.iter().map(|d| (d.uuid.clone(), d.clone())));
                // Every third one is not sent: the receiver never had it.
                if now % 3 == 0 {
                    copy = before;
                    continue;
                }
                c.sent(&frame, MonotonicMs(now));
            }
            assert_eq!(copy.values().cloned().collect::<Vec<_>>(), now_view.devices);
        }
    }
}

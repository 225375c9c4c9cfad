//! The two threads: one makes every NVML call and starts the driver again after it went, the other sees that a call blocks.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::node::{DriverState, Holders, NodeFrame};
use tokio::sync::mpsc;

use crate::node::NodeConfig;
use crate::node::changes::Changes;
use crate::node::known::Known;
use crate::node::nvml;
use crate::node::publish::Publisher;
use crate::node::session::{self, End};
use crate::node::watch::CallWatch;

/// Enough for NVML's own frames and for GPM's request of 8 KiB.
const STACK_BYTES: usize = 512 * 1024;

/// How long `stop` waits for a call to return before it leaves the thread to itself.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// The node role could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread for NVML: {0}; is the process at its limit of threads?")]
pub struct StartError(#[from] std::io::Error);

/// Waits that double, from a first to a longest.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at the first wait.
    pub fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, next: first }
    }

    /// The wait that is due; the one after it is twice as long.
    pub fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        wait
    }

    /// Things went well: back to the first wait.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// What both threads see.
#[derive(Debug)]
pub struct Shared {
    /// How to read.
    pub config: NodeConfig,
    /// The call under way.
    pub watch: CallWatch,
    /// The way out.
    pub publisher: Publisher,
    stop: Mutex<bool>,
    stopping: Condvar,
}

impl Shared {
    /// Waits for `deadline`; true where the sampler is to stop instead.
    pub fn stopped_before(&self, deadline: Instant) -> bool {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if *stop || left.is_zero() {
                return *stop;
            }
            stop = self.stopping.wait_timeout(stop, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The running node role. Dropped, it stops.
#[derive(Debug)]
pub struct NodeSampler {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
}

impl NodeSampler {
    /// Starts reading. A driver that is missing is no error: the frames say so, and it is tried again.
    ///
    /// The receiver needs no async runtime (`blocking_recv`). A reader that is slow gets fewer frames, each with more in it.
    pub fn start(config: NodeConfig) -> Result<(Self, mpsc::Receiver<NodeFrame>), StartError> {
        let changes = Changes::new(config.node.clone(), config.heartbeat.as_millis() as u64);
        let (publisher, frames) = Publisher::new(changes);
        let shared = Arc::new(Shared {
            config,
            watch: CallWatch::default(),
            publisher,
            stop: Mutex::new(false),
            stopping: Condvar::new(),
        });
        let mut sampler = Self { shared, reader: None, watcher: None };
        sampler.reader = Some(sampler.spawn("nvml", read)?);
        sampler.watcher = Some(sampler.spawn("nvml-watch", watch)?);
        Ok((sampler, frames))
    }

    fn spawn(&self, name: &str, body: fn(&Shared)) -> std::io::Result<JoinHandle<()>> {
        let shared = self.shared.clone();
        std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(move || body(&shared))
    }

    /// Everything that is known, as a full frame under the last number sent; none before the first reading.
    pub fn latest(&self) -> Option<NodeFrame> {
        self.shared.publisher.latest()
    }

    /// The next frame is to be full: for a reader that saw a gap or starts anew. It comes at once.
    pub fn request_full(&self) {
        self.shared.publisher.request_full();
    }

    /// Whose pods have the devices: goes out with the readings.
    pub fn publish_holders(&self, holders: Holders) {
        self.shared.publisher.publish_holders(holders);
    }

    /// Ends both threads. A thread that a call holds is left behind after a second: nothing can end such a call.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for NodeSampler {
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stopping.notify_all();
        let give_up = Instant::now() + STOP_WAIT;
        for thread in [self.watcher.take(), self.reader.take()].into_iter().flatten() {
            while !thread.is_finished() && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                // A thread that panicked said so on standard error.
                let _ = thread.join();
            }
        }
    }
}

/// The NVML thread.
fn read(shared: &Shared) {
    let mut known = Known::default();
    let mut missing = Backoff::new(shared.config.driver_retry);
    let mut lost = Backoff::new(shared.config.lost_retry);
    loop {
        let opened = shared.watch.during("nvmlInit_v2", || nvml::open(shared.config.nvml_lib.as_deref()));
        let cause = match opened {
            Ok(nvml) => {
                let opened = Instant::now();
                let end = session::run(&nvml, shared, &mut known, &mut lost);
                // Shorter lives ended before their first turn: that driver is as good as missing.
                if opened.elapsed() >= shared.config.interval {
                    missing.reset();
                }
                shared.watch.during("nvmlShutdown", || drop(nvml));
                match end {
                    End::Stopped => return,
                    End::LookAgain => continue,
                    End::Driver(cause) => cause,
                }
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(%cause, "no NVML");
        known.driver_gone(&format!("driver missing: {cause}"));
        shared.publisher.publish(DriverState::Missing { cause }, known.reports());
        if shared.stopped_before(Instant::now() + missing.next()) {
            return;
        }
    }
}

/// The thread that watches it.
fn watch(shared: &Shared) {
    let limit = shared.config.stall_after;
    while !shared.stopped_before(Instant::now() + limit / 2) {
        if let Some((call, lasted)) = shared.watch.stalled(limit) {
            shared.publisher.publish_stall(call, lasted.as_millis() as u64);
        }
    }
}

/// Reads everything once: a full frame with activity over one interval. A missing driver and a call that blocks are in the
/// frame, not errors.
pub fn run_once(config: NodeConfig) -> Result<NodeFrame, StartError> {
    let (sampler, mut frames) = NodeSampler::start(config)?;
    let frame = frames.blocking_recv();
    sampler.stop();
    frame.ok_or_else(|| StartError(std::io::Error::other("the NVML thread ended")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new((seconds(1), seconds(5)));
        let waits: Vec<_> = (0..5).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next(), seconds(1));
    }
}

//! Load: so many clients, each with one request under way at a time, for so long. The same for every peer.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

/// Time at the start of a round that is not counted: connections and caches warm up.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// What one client does again and again.
pub trait Client: Send + 'static {
    /// Puts one thing and returns once it is durable.
    fn put(&mut self, number: u64) -> impl Future<Output = Result<()>> + Send;
}

/// What a round gave.
pub struct Round {
    /// Acknowledged within the time.
    pub done: u64,
    /// For how long was counted.
    pub time: Duration,
    /// How long each took, in µs.
    pub latency: Histogram<u64>,
}

impl Round {
    /// A round of nothing, to add others to.
    pub fn none() -> Self {
        Self { done: 0, time: Duration::ZERO, latency: latencies() }
    }

    /// A second.
    pub fn per_s(&self) -> f64 {
        self.done as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// This share of requests took at most so many ms.
    pub fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Both together.
    pub fn add(&mut self, other: &Round) {
        self.done += other.done;
        self.time += other.time;
        self.latency += &other.latency;
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that hdrhistogram takes")
}

/// Runs all clients at once for `time` after the warm-up. An error of any of them ends the round.
pub async fn run<C: Client>(clients: Vec<C>, time: Duration) -> Result<Round> {
    let from = Instant::now() + WARM_UP;
    let until = from + time;
    let tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(one(client, from, until))).collect();
    let mut round = Round { time, ..Round::none() };
    for task in tasks {
        let latency = task.await??;
        round.done += latency.len();
        round.latency += latency;
    }
    Ok(round)
}

async fn one<C: Client>(mut client: C, from: Instant, until: Instant) -> Result<Histogram<u64>> {
    // A histogram of its own: clients share nothing. Few digits keep 1,000 of them small.
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 2)?;
    for number in 0.. {
        let start = Instant::now();
        client.put(number).await?;
        let end = Instant::now();
        if end >= until {
            break;
        }
        if end >= from {
            latency.saturating_record(end.duration_since(start).as_micros().max(1) as u64);
        }
    }
    Ok(latency)
}

//! Load: so many clients, each with one request under way at a time, for so long. The same for every peer.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::usage::cpu;

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
    /// Put in all, those of the warm-up too.
    pub puts: u64,
    /// CPU time that the servers took meanwhile, all together.
    pub servers: Duration,
    /// CPU time that the clients took.
    pub clients: Duration,
}

impl Round {
    /// A round of nothing, to add others to.
    pub fn none() -> Self {
        Self {
            done: 0,
            time: Duration::ZERO,
            latency: latencies(),
            puts: 0,
            servers: Duration::ZERO,
            clients: Duration::ZERO,
        }
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
        self.puts += other.puts;
        self.servers += other.servers;
        self.clients += other.clients;
    }

    /// CPU time that the servers took for a put, in µs: what does not depend on what else the machine does.
    pub fn servers_us(&self) -> f64 {
        self.servers.as_secs_f64() * 1e6 / self.puts.max(1) as f64
    }

    /// CPU time that the client took for a put, in µs.
    pub fn clients_us(&self) -> f64 {
        self.clients.as_secs_f64() * 1e6 / self.puts.max(1) as f64
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that hdrhistogram takes")
}

/// Runs all clients at once for `time` after the warm-up. An error of any of them ends the round.
pub async fn run<C: Client>(clients: Vec<C>, servers: &[u32], time: Duration) -> Result<Round> {
    let spent = || servers.iter().map(|server| cpu(*server)).sum::<Duration>();
    let (servers_before, clients_before) = (spent(), cpu(std::process::id()));
    let from = Instant::now() + WARM_UP;
    let until = from + time;
    let tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(one(client, from, until))).collect();
    let mut round = Round { time, ..Round::none() };
    for task in tasks {
        let (latency, puts) = task.await??;
        round.done += latency.len();
        round.latency += latency;
        round.puts += puts;
    }
    round.servers = spent().saturating_sub(servers_before);
    round.clients = cpu(std::process::id()).saturating_sub(clients_before);
    Ok(round)
}

async fn one<C: Client>(mut client: C, from: Instant, until: Instant) -> Result<(Histogram<u64>, u64)> {
    // A histogram of its own: clients share nothing. Few digits keep 1,000 of them small.
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 2)?;
    let mut puts = 0;
    for number in 0.. {
        let start = Instant::now();
        client.put(number).await?;
        let end = Instant::now();
        puts += 1;
        if end >= until {
            break;
        }
        if end >= from {
            latency.saturating_record(end.duration_since(start).as_micros().max(1) as u64);
        }
    }
    Ok((latency, puts))
}

//! The network between all processes: which directions are blocked, and how slow and lossy it is.

use super::process::{AGENTS, Process, REPLICAS};
use super::random::Random;

const ROWS: usize = REPLICAS + AGENTS;

/// How messages fare that are not blocked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Of a thousand messages between replicas, this many are lost.
    pub lost: u64,
    /// This many come twice.
    pub twice: u64,
    /// A message takes at most this long; each its own time, so they overtake each other.
    pub slowest_us: u64,
}

/// A quiet network: now and then something comes twice.
const FAIR: Weather = Weather { lost: 0, twice: 5, slowest_us: 2_000 };
const FASTEST_US: u64 = 100;
/// How late a copy of a message may come.
const LATEST_US: u64 = 10_000_000;

/// What is wrong with the network: a partition or bad weather, until it is healed.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// These directions are blocked, from row to row.
    Blocked(Vec<(Process, Process)>),
    /// Messages fare badly.
    Weather(Weather),
}

/// The network.
pub(crate) struct Network {
    troubles: Vec<(u64, Trouble)>,
    blocked: [[bool; ROWS]; ROWS],
    weather: Weather,
    last: u64,
}

impl Network {
    pub fn new() -> Self {
        Self { troubles: vec![], blocked: [[false; ROWS]; ROWS], weather: FAIR, last: 0 }
    }

    /// Adds trouble; returns its number, to heal it by.
    pub fn add(&mut self, trouble: Trouble) -> u64 {
        self.last += 1;
        self.troubles.push((self.last, trouble));
        self.settle();
        self.last
    }

    pub fn heal(&mut self, number: u64) {
        self.troubles.retain(|(n, _)| *n != number);
        self.settle();
    }

    pub fn heal_all(&mut self) {
        self.troubles.clear();
        self.settle();
    }

    fn settle(&mut self) {
        self.blocked = [[false; ROWS]; ROWS];
        self.weather = FAIR;
        for (_, trouble) in &self.troubles {
            match trouble {
                Trouble::Blocked(pairs) => {
                    for (from, to) in pairs {
                        self.blocked[from.row()][to.row()] = true;
                    }
                }
                Trouble::Weather(weather) => {
                    self.weather.lost = self.weather.lost.max(weather.lost);
                    self.weather.twice = self.weather.twice.max(weather.twice);
                    self.weather.slowest_us = self.weather.slowest_us.max(weather.slowest_us);
                }
            }
        }
    }

    pub fn is_blocked(&self, from: Process, to: Process) -> bool {
        self.blocked[from.row()][to.row()]
    }

    pub fn is_open_both_ways(&self, a: Process, b: Process) -> bool {
        !self.is_blocked(a, b) && !self.is_blocked(b, a)
    }

    /// How long a message takes.
    pub fn delay(&self, random: &mut Random) -> u64 {
        FASTEST_US + random.below(self.weather.slowest_us)
    }

    /// When each copy of a message between replicas arrives after it was sent; none where it is lost.
    pub fn copies(&self, from: Process, to: Process, random: &mut Random) -> Vec<u64> {
        if self.is_blocked(from, to) || random.chance(self.weather.lost) {
            return vec![];
        }
        let mut copies = vec![self.delay(random)];
        if random.chance(self.weather.twice) {
            // Most copies come soon; some so late that everything is over.
            let late = if random.chance(200) { LATEST_US } else { 10 * self.weather.slowest_us };
            copies.push(self.delay(random) + random.below(late));
        }
        copies
    }
}

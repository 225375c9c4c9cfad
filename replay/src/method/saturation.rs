//! How much of the GPUs is given out before nothing fits any more (the method of "Beware of Fragmentation", USENIX ATC '23).
//!
//! The pods in an order drawn by the seed, then pods drawn at random with replacement until 1.3 times the fleet's GPUs have been
//! asked for. They are placed one at a time; one that does not fit is skipped for good, one that fits anywhere must be placed, nothing
//! ends. Counted is the GPU given out when 100% and when 130% have arrived. Every placement is checked against the books.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::fleet::{Fleet, NodeRow, Pod, Split};
use crate::ours::World;
use crate::policy::Name;

/// How the fleet is cut into clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clusters {
    /// How many.
    pub count: usize,
    /// By what.
    pub split: Split,
}

impl Clusters {
    /// One flat cluster.
    pub const ONE: Clusters = Clusters { count: 1, split: Split::Random };
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// GPU given out when the fleet's GPUs have been asked for once, in percent.
    pub at_100: f64,
    /// When 1.3 times, in percent.
    pub at_130: f64,
    /// By what pods ask for: how many were placed, and how many came.
    pub accepted: BTreeMap<Pod, (u64, u64)>,
    /// GPU given out, in percent, each time that another percent had been asked for.
    pub curve: Vec<f64>,
}

/// Why there is no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Nothing could be saturated.
    #[error("the {0} no GPU: there is nothing to saturate")]
    NoGpus(&'static str),
    /// The policy broke the method's rules: a mistake in it.
    #[error("policy {policy} at pod {pod}: {what}")]
    Broke {
        /// The policy.
        policy: Name,
        /// The pod's number in the order of arrivals.
        pod: usize,
        /// What it did.
        what: &'static str,
    },
}

/// Pods in the order of their arrival, as numbers of the list.
pub fn arrivals(pods: &[Pod], gpu_milli: u64, seed: u64) -> Result<Vec<usize>, Failed> {
    let mut asked: u64 = pods.iter().map(Pod::gpu_milli).sum();
    if asked == 0 {
        return Err(Failed::NoGpus("pods ask for"));
    }
    let mut chance = Chance::new(seed, Chance::ARRIVALS);
    let mut order: Vec<usize> = (0..pods.len()).collect();
    chance.shuffle(&mut order);
    while asked * 10 < gpu_milli * 13 {
        let pod = chance.below(pods.len());
        asked += pods[pod].gpu_milli();
        order.push(pod);
    }
    Ok(order)
}

/// Runs one policy; `tick` is called with the parts of 130% that have arrived, in percent.
pub fn run(
    nodes: &[NodeRow],
    pods: &[Pod],
    clusters: Clusters,
    name: Name,
    seed: u64,
    mut tick: impl FnMut(u64),
) -> Result<Outcome, Failed> {
    let mut fleet = Fleet::new(nodes, clusters.count, clusters.split, seed);
    let all = fleet.gpu_milli();
    if all == 0 {
        return Err(Failed::NoGpus("nodes have"));
    }
    let world = World::new(&fleet);
    let mut policy = name.policy(&fleet, &world, seed);
    let percent = |milli: u64| 100.0 * milli as f64 / all as f64;
    let (mut asked, mut given) = (0, 0);
    let mut outcome = Outcome { at_100: 0.0, at_130: 0.0, accepted: BTreeMap::new(), curve: vec![] };
    let mut marks = (1..=130u64).peekable();
    for (number, pod) in arrivals(pods, all, seed)?.into_iter().enumerate() {
        let pod = &pods[pod];
        let placed = match policy.place(&fleet, pod) {
            Some(choice) if fleet.place(pod, choice) => true,
            Some(_) => return Err(broke(name, number, "it was put where it does not fit")),
            None if fleet.fits_anywhere(pod) => return Err(broke(name, number, "it fits and was not placed")),
            None => false,
        };
        asked += pod.gpu_milli();
        given += if placed { pod.gpu_milli() } else { 0 };
        let accepted = outcome.accepted.entry(pod.clone()).or_default();
        *accepted = (accepted.0 + u64::from(placed), accepted.1 + 1);
        while let Some(mark) = marks.next_if(|mark| asked * 100 >= all * mark) {
            outcome.curve.push(percent(given));
            match mark {
                100 => outcome.at_100 = percent(given),
                130 => outcome.at_130 = percent(given),
                _ => {}
            }
            tick(mark);
        }
        if marks.peek().is_none() {
            break;
        }
    }
    Ok(outcome)
}

fn broke(policy: Name, pod: usize, what: &'static str) -> Failed {
    Failed::Broke { policy, pod, what }
}

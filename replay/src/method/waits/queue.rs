//! The baselines: one line, first come, first served; where the first does not fit those behind it may start (greedy: a large job can
//! wait for as long as small ones come), but for `strict-fifo`, where everybody waits for the first. A policy chooses the
//! node of a job that needs one; a larger job gets whole nodes of one cluster, that of the policy's first choice where it has enough, else
//! the one that has most of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::accounts::Accounts;
use super::{Failed, Outcome, Trace};
use crate::fleet::Pod;
use crate::ours::World;
use crate::policy::{Name, Policy};

pub(super) fn run(trace: &Trace, name: Name, seed: u64, mut tick: impl FnMut(u64)) -> Result<Outcome, Failed> {
    let mut accounts = Accounts::new(trace, name);
    let world = World::new(&accounts.fleet);
    let mut policy = name.policy(&accounts.fleet, &world, seed);
    let mut coming = (0..trace.jobs.len()).peekable();
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut line: BTreeSet<usize> = BTreeSet::new();
    loop {
        let arrival = coming.peek().map(|job| trace.jobs[*job].arrival_ms);
        let end = ends.peek().map(|Reverse((at, _))| *at);
        let Some(now) = [arrival, end].into_iter().flatten().min() else { break };
        accounts.go_to(now);
        while let Some(Reverse((_, job))) = ends.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            ends.pop();
            accounts.end(job, &trace.pods(job).1)?;
        }
        while let Some(job) = coming.next_if(|job| trace.jobs[*job].arrival_ms <= now) {
            accounts.arrive(job);
            line.insert(job);
        }
        // What does not fit now does not fit for anybody behind who asks for the same.
        let mut hopeless: BTreeSet<u32> = BTreeSet::new();
        for job in line.clone() {
            let gpus = trace.jobs[job].gpus;
            let (members, pod) = trace.pods(job);
            if hopeless.contains(&gpus) {
                continue;
            }
            match choose(&accounts, policy.as_mut(), members, &pod) {
                Some(nodes) => {
                    accounts.start(job, &pod, nodes)?;
                    ends.push(Reverse((now + trace.jobs[job].duration_ms, job)));
                    line.remove(&job);
                }
                None if name == Name::StrictFifo => break,
                None => {
                    hopeless.insert(gpus);
                }
            }
        }
        tick(accounts.ended());
    }
    accounts.close()
}

fn choose(accounts: &Accounts<'_>, policy: &mut dyn Policy, members: u32, pod: &Pod) -> Option<Vec<usize>> {
    let fleet = &accounts.fleet;
    if members == 1 {
        return if fleet.fits_anywhere(pod) { Some(vec![policy.place(fleet, pod)?.node]) } else { None };
    }
    let mut whole: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for node in (0..fleet.nodes.len()).filter(|node| fleet.fits(pod, *node)) {
        whole.entry(fleet.cluster[node]).or_default().push(node);
    }
    whole.retain(|_, nodes| nodes.len() >= members as usize);
    let most = whole.iter().max_by_key(|(cluster, nodes)| (nodes.len(), Reverse(**cluster))).map(|(c, _)| *c)?;
    let wanted = policy.place(fleet, pod).map(|choice| fleet.cluster[choice.node]).filter(|c| whole.contains_key(c));
    whole.remove(&wanted.unwrap_or(most)).map(|mut nodes| {
        nodes.truncate(members as usize);
        nodes
    })
}

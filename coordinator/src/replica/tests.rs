//! Replicas linked in memory: what a single rule of the core promises. The simulation has the faults.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use protocol::ids::{Namespace, WorkloadKey, WorkloadName};
use protocol::resources::{Cpu, Gpus, Memory};
use protocol::workload::{BatchSpec, GroupSpec, WorkloadSpec};

use super::*;
use crate::raft::driver::Limits;
use crate::raft::{DriverConfig, ElectionTimeout, SimDisk, Store};

/// Three replicas; the first campaigns first.
struct Three {
    replicas: Vec<Replica>,
    now: u64,
    /// Whose messages are lost, both ways.
    cut_off: BTreeSet<u64>,
    answers: Vec<(u64, RequestId, Result<Outcome, ProposeError>)>,
}

fn command(name: &str, padding: usize) -> Command {
    let group = GroupSpec {
        name: "workers".parse().unwrap(),
        count: Some(1),
        min: None,
        max: None,
        cpu: Cpu(1000),
        memory: Memory(1),
        gpus: Gpus(0),
        gpu: vec![],
    };
    let batch = BatchSpec { command: vec!["x".repeat(1 + padding)], image: None, groups: vec![group] };
    Command::Submit {
        key: WorkloadKey { namespace: Namespace::new("a").unwrap(), name: WorkloadName::new(name).unwrap() },
        uid: Uid(name.bytes().fold(0, |sum, b| sum * 256 + u128::from(b))),
        spec: Box::new(WorkloadSpec { batch: Some(batch), ..WorkloadSpec::default() }),
    }
}

impl Three {
    fn new(limits: Limits) -> Self {
        let open = |id: u64| {
            let disk = SimDisk::new();
            Store::format(disk.clone(), ReplicaId(id)).unwrap();
            let election_timeout = ElectionTimeout::Fixed(10 + 4 * id as usize);
            let config = DriverConfig {
                election_timeout,
                limits,
                ..DriverConfig::new(ReplicaId(id), (1..=3).map(ReplicaId).collect())
            };
            let driver = Driver::open(config, Store::open(disk, ReplicaId(id)).unwrap()).unwrap();
            Replica::open(Settings::new(ReplicaId(id), id), driver).unwrap()
        };
        let mut three =
            Self { replicas: (1..=3).map(open).collect(), now: 0, cut_off: BTreeSet::new(), answers: vec![] };
        three.pass(60);
        assert!(three.replicas[0].reign().is_some(), "the first replica leads");
        three
    }

    fn now(&self) -> Now {
        Now { mono: MonotonicMs(self.now), unix: UnixMs(self.now) }
    }

    fn handle(&mut self, id: u64, input: Input) {
        let now = self.now();
        self.replicas[id as usize - 1].handle(now, input).unwrap();
    }

    /// Lets every message arrive until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut frames = Vec::new();
            for id in 1..=3 {
                let now = self.now();
                for output in self.replicas[id as usize - 1].flush(now).unwrap() {
                    match output {
                        Output::Peer(to, frame) => frames.push((id, to, frame)),
                        Output::Proposed(request, result) => self.answers.push((id, request, result)),
                        _ => {}
                    }
                }
            }
            if frames.is_empty() {
                return;
            }
            for (from, to, frame) in frames {
                if !self.cut_off.contains(&from) && !self.cut_off.contains(&to.0) {
                    self.handle(to.0, Input::Peer(ReplicaId(from), frame));
                }
            }
        }
    }

    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now += 25;
            for id in 1..=3 {
                self.handle(id, Input::Tick);
            }
            self.settle();
        }
    }
}

#[test]
fn a_follower_passes_a_command_on_and_answers_its_own_client_once_it_has_applied_it() {
    let mut three = Three::new(Limits::default());
    three.handle(3, Input::Propose(RequestId(7), command("w", 0)));
    three.settle();
    let [(3, RequestId(7), Ok(Outcome::Submitted { existed: false, .. }))] = three.answers[..] else {
        panic!("{:?}", three.answers)
    };
    assert_eq!(three.replicas[2].state().workloads.len(), 1, "its next read sees its write");
    assert_eq!(three.replicas[2].state_hash(), three.replicas[0].state_hash());
}

#[test]
fn what_raft_drops_is_answered_at_once_and_a_leaders_own_binding_may_be_made_again() {
    let mut three = Three::new(Limits { max_message_bytes: 500, max_uncommitted_bytes: 1_000, ..Limits::default() });
    three.cut_off = [1].into();
    // The first is taken whatever its size; it fills the room for what is not committed.
    three.handle(1, Input::Propose(RequestId(1), command("first", 2_000)));
    three.settle();
    assert!(three.answers.is_empty());
    three.handle(1, Input::Propose(RequestId(2), command("second", 2_000)));
    let now = three.now();
    let own = Command::LoseCluster { cluster: "eu".parse().unwrap() };
    three.replicas[0].propose_own(now, own);
    three.settle();
    assert_eq!(three.answers, vec![(1, RequestId(2), Err(ProposeError::Overloaded))]);
    assert!(three.replicas[0].proposals_taken() <= 1, "only the first is still on its way");
}

#[test]
fn a_command_that_finds_no_leader_waits_its_patience_and_is_then_unconfirmed() {
    let mut three = Three::new(Limits::default());
    three.cut_off = [1, 2, 3].into();
    three.pass(60);
    three.handle(2, Input::Propose(RequestId(1), command("w", 0)));
    three.settle();
    assert!(three.answers.is_empty());
    three.pass(2_000 / 25 + 1);
    assert_eq!(three.answers, vec![(2, RequestId(1), Err(ProposeError::Unconfirmed))]);
}

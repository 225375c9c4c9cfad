//! Commands: once, in order, under a lease, never of an old epoch.

use protocol::resources::Span;
use protocol::workload::OnClusterLoss;

use super::*;

fn agent() -> Agent {
    open(&Disk::default(), vec![]).0
}

#[test]
fn a_launch_starts_once_with_its_devices_and_is_reported() {
    let mut a = agent();
    connect(&mut a, 0, R1, 1, 30_000);
    let out = step(&mut a, 1, command(R1, 1, 1, launch(1, 2, 3)));
    assert_eq!(starts(&out), [attempt(1)]);
    let devices: Vec<_> = a.assignment(attempt(1)).unwrap().members.iter().map(|m| m.devices.clone()).collect();
    assert_eq!(devices, [vec![0, 1, 2], vec![3, 4, 5]]);
    let for_runtime = crate::runtime::Devices::from(a.assignment(attempt(1)).unwrap());
    assert_eq!(for_runtime.of(&GroupName::new("workers").unwrap(), 1), [3, 4, 5]);
    let (to, report) = &reports(&out)[0];
    assert_eq!((*to, report.revision, &report.state), (R1, 1, &AttemptState::Accepted));

    let again = step(&mut a, 2, command(R1, 1, 1, launch(1, 2, 3)));
    assert!(starts(&again).is_empty());
    assert_eq!(reports(&again).len(), 1, "a duplicate is answered with the attempt's state");
    let renumbered = step(&mut a, 3, command(R1, 2, 1, launch(1, 2, 3)));
    assert!(starts(&renumbered).is_empty(), "an attempt starts once under any number");
    assert_eq!(a.last_command(), CommandNumber(2));
}

#[test]
fn a_launch_waits_for_a_lease_and_what_follows_waits_behind_it() {
    let mut a = agent();
    let out = step(&mut a, 0, Input::Connected { replica: R1 });
    assert!(starts(&step(&mut a, 0, command(R1, 1, 1, launch(1, 1, 1)))).is_empty());
    assert!(reports(&step(&mut a, 0, command(R1, 2, 1, stop(9)))).is_empty());
    assert_eq!((a.last_command(), a.commands_waiting()), (CommandNumber(0), 2));
    // The lease counts from when it was asked for, and is over by now.
    assert!(starts(&step(&mut a, 500, lease(R1, nonce(&out), 1, 500))).is_empty());
    let asked = step(&mut a, 5_000, Input::Tick);
    let out = step(&mut a, 5_499, lease(R1, nonce(&asked), 1, 500));
    assert_eq!(starts(&out), [attempt(1)]);
    assert_eq!(a.last_command(), CommandNumber(2));
    assert!(starts(&step(&mut a, 5_500, command(R1, 3, 1, launch(2, 1, 1)))).is_empty());
}

#[test]
fn an_ended_session_takes_waiting_launches_along() {
    let mut a = agent();
    step(&mut a, 0, Input::Connected { replica: R1 });
    step(&mut a, 0, command(R1, 1, 1, launch(1, 1, 1)));
    step(&mut a, 0, Input::Disconnected { replica: R1 });
    connect(&mut a, 1, R1, 1, 30_000);
    assert_eq!((a.commands_waiting(), a.attempts().count()), (0, 0));
    assert_eq!(starts(&step(&mut a, 2, command(R1, 1, 1, launch(1, 1, 1)))), [attempt(1)]);
}

#[test]
fn an_old_epoch_never_acts_nor_grants() {
    let mut a = agent();
    connect(&mut a, 0, R2, 5, 1_000);
    let out = step(&mut a, 2_000, Input::Connected { replica: R1 });
    step(&mut a, 2_000, lease(R1, nonce(&out), 4, 30_000));
    assert!(!a.lease_valid(MonotonicMs(2_000)), "an old leader's lease grants nothing");
    connect(&mut a, 2_000, R2, 5, 30_000);
    let out = step(&mut a, 2_001, command(R1, 1, 4, launch(1, 1, 1)));
    assert!(starts(&out).is_empty() && reports(&out).is_empty());
    assert_eq!(starts(&step(&mut a, 2_002, command(R2, 1, 5, launch(1, 1, 1)))), [attempt(1)]);
}

#[cfg(feature = "planted")]
#[test]
fn the_planted_bug_of_epochs_acts_on_an_old_leaders_word() {
    crate::planted::select(Some("ignore-epoch"));
    let mut a = agent();
    connect(&mut a, 0, R2, 5, 30_000);
    step(&mut a, 0, Input::Connected { replica: R1 });
    let out = step(&mut a, 1, command(R1, 1, 4, launch(1, 1, 1)));
    crate::planted::select(None);
    assert_eq!(starts(&out), [attempt(1)]);
}

#[test]
fn an_epoch_is_remembered_over_a_restart() {
    let disk = Disk::default();
    let mut a = open(&disk, vec![]).0;
    connect(&mut a, 0, R2, 5, 1_000);
    drop(a);
    let mut a = open(&disk.crash(false), vec![]).0;
    assert_eq!(a.epoch(), Epoch(5));
    connect(&mut a, 0, R1, 4, 30_000);
    assert!(starts(&step(&mut a, 1, command(R1, 1, 4, launch(1, 1, 1)))).is_empty());
}

#[test]
fn a_launch_without_room_fails_with_numbers_and_starts_nothing() {
    let mut a = agent();
    connect(&mut a, 0, R1, 1, 30_000);
    step(&mut a, 1, command(R1, 1, 1, launch(1, 1, 6)));
    let before = a.table().columns();
    let out = step(&mut a, 2, command(R1, 2, 1, launch(2, 1, 3)));
    assert!(starts(&out).is_empty());
    let AttemptState::Failed { class, message, .. } = &reports(&out)[0].1.state else { panic!("not failed") };
    assert_eq!(*class, protocol::errors::FailureClass::Capacity);
    assert_eq!(message, "node a: a member of group workers needs 3 GPUs, and 2 are free");
    assert_eq!(a.table().columns(), before);
}

#[test]
fn a_stop_of_an_unknown_attempt_is_answered_stopped_and_of_a_live_one_goes_to_the_runtime() {
    let mut a = agent();
    connect(&mut a, 0, R1, 1, 30_000);
    let out = step(&mut a, 1, command(R1, 1, 1, stop(9)));
    assert_eq!(reports(&out)[0].1.state, AttemptState::Stopped);
    step(&mut a, 1, command(R1, 2, 1, launch(1, 1, 8)));
    let out = step(&mut a, 2, command(R1, 3, 1, stop(1)));
    assert!(out.contains(&Output::Stop { attempt: attempt(1), grace_ms: 1_000 }));
    assert!(reports(&out).is_empty(), "it is stopped once the runtime says that it is gone");
    let out = step(&mut a, 3, Input::Runtime { attempt: attempt(1), state: AttemptState::Stopped });
    assert_eq!(reports(&out)[0].1.revision, 2);
    // Its devices can be given out at once, also before the end is committed.
    assert_eq!(starts(&step(&mut a, 4, command(R1, 4, 1, launch(2, 1, 8)))), [attempt(2)]);
}

#[test]
fn reports_go_to_the_leader_until_it_commits_them_and_then_the_attempt_is_forgotten() {
    let mut a = agent();
    connect(&mut a, 0, R1, 1, 30_000);
    step(&mut a, 1, Input::Connected { replica: R2 });
    step(&mut a, 1, command(R1, 1, 1, launch(1, 1, 1)));
    let out = step(&mut a, 2, Input::Runtime { attempt: attempt(1), state: AttemptState::Succeeded });
    assert_eq!(reports(&out).iter().map(|(to, _)| *to).collect::<Vec<_>>(), [R1]);
    assert_eq!(reports(&step(&mut a, 3_100, Input::Tick)).len(), 1, "sent again");
    let asked = step(&mut a, 5_100, Input::Tick);
    let to_r2 = asked.iter().find_map(|o| match o {
        Output::Send { replica: R2, message: AgentMessage::LeaseRequest { nonce } } => Some(*nonce),
        _ => None,
    });
    let out = step(&mut a, 5_101, lease(R2, to_r2.unwrap(), 2, 30_000));
    assert_eq!(reports(&out)[0].0, R2, "a new leader hears what the old one did not commit");
    let committed = |revision| Input::FromCoordinator {
        replica: R2,
        message: CoordinatorMessage::ReportCommitted { attempt: attempt(1), revision },
    };
    assert!(!step(&mut a, 5_102, committed(1)).contains(&Output::Forget { attempt: attempt(1) }));
    assert!(step(&mut a, 5_103, committed(2)).contains(&Output::Forget { attempt: attempt(1) }));
    assert_eq!(a.attempts().count(), 0);
    assert!(reports(&step(&mut a, 9_000, Input::Tick)).is_empty());
}

#[test]
fn a_new_leader_that_wants_a_hello_gets_what_is_held_and_a_request_for_its_lease() {
    let mut a = agent();
    connect(&mut a, 0, R1, 1, 30_000);
    step(&mut a, 1, command(R1, 4, 1, launch(1, 1, 1)));
    let out = step(&mut a, 2, Input::FromCoordinator { replica: R1, message: CoordinatorMessage::HelloWanted });
    let Output::Send { message: AgentMessage::Hello { last_command, attempts, .. }, .. } = &out[0] else {
        panic!("{out:?}")
    };
    assert_eq!((*last_command, attempts[0].attempt), (CommandNumber(4), attempt(1)));
    step(&mut a, 3, lease(R1, nonce(&out), 2, 30_000));
    assert_eq!(a.epoch(), Epoch(2));
}

mod properties {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Move {
        Wait(u64),
        Connect(u8),
        Disconnect(u8),
        /// The leader of this epoch, on its replica's session, sends a window of its commands.
        Commands {
            epoch: u8,
            from: u8,
            count: u8,
        },
        /// Answers the latest request to a replica.
        Grant {
            epoch: u8,
            ttl: u64,
        },
        Runtime(u8, bool),
        Commit(u8),
        Crash {
            keep_unsynced: bool,
        },
    }

    fn moves() -> impl Strategy<Value = Move> {
        prop_oneof![
            3 => (0u64..4_000).prop_map(Move::Wait),
            2 => (0u8..3).prop_map(Move::Connect),
            1 => (0u8..3).prop_map(Move::Disconnect),
            6 => (1u8..6, 1u8..8, 1u8..5).prop_map(|(epoch, from, count)| Move::Commands { epoch, from, count }),
            4 => (1u8..6, 100u64..6_000).prop_map(|(epoch, ttl)| Move::Grant { epoch, ttl }),
            3 => (0u8..8, any::<bool>()).prop_map(|(w, done)| Move::Runtime(w, done)),
            2 => (0u8..8).prop_map(Move::Commit),
            1 => any::<bool>().prop_map(|keep_unsynced| Move::Crash { keep_unsynced }),
        ]
    }

    /// What the model knows, from the inputs and outputs alone.
    #[derive(Default)]
    struct Model {
        started: BTreeSet<AttemptId>,
        running: BTreeMap<AttemptId, AttemptState>,
        said: BTreeMap<(AttemptId, u64), AttemptState>,
        asked: BTreeMap<ReplicaId, (u64, u64)>,
        until: u64,
        epoch: u64,
        connected: BTreeSet<ReplicaId>,
    }

    impl Model {
        fn check(&mut self, now: u64, command_epoch: Option<u64>, out: &[Output]) -> Result<(), TestCaseError> {
            for o in out {
                match o {
                    Output::Start { order, .. } => {
                        prop_assert!(self.started.insert(order.attempt), "{} started twice", order.attempt);
                        prop_assert!(now < self.until, "started at {now}, the lease ended at {}", self.until);
                        if let Some(epoch) = command_epoch {
                            prop_assert!(epoch >= self.epoch, "a command of epoch {epoch} acted after {}", self.epoch);
                        }
                        self.running.insert(order.attempt, AttemptState::Starting { waiting_for: "it".into() });
                    }
                    Output::Stop { attempt, .. } => {
                        self.running.entry(*attempt).and_modify(|s| *s = AttemptState::Stopped);
                    }
                    Output::Forget { attempt } => {
                        let state = self.running.remove(attempt);
                        prop_assert!(state.is_none_or(|s| s.is_final()), "a live attempt was forgotten");
                        // A stop that comes late begins anew at revision 1; to a coordinator that committed the end it is nothing.
                        self.said.retain(|(said, _), _| said != attempt);
                    }
                    Output::Send { message: AgentMessage::Report(r), .. } => {
                        let before = self.said.insert((r.attempt, r.revision), r.state.clone());
                        prop_assert!(before.is_none_or(|b| b == r.state), "revision {} changed", r.revision);
                    }
                    Output::Send { replica, message: AgentMessage::LeaseRequest { nonce } } => {
                        self.asked.insert(*replica, (*nonce, now));
                    }
                    _ => {}
                }
            }
            Ok(())
        }
    }

    /// Epoch e is led by replica e mod 3.
    fn leader(epoch: u8) -> ReplicaId {
        ReplicaId(u64::from(epoch % 3))
    }

    fn run(moves: Vec<Move>) -> Result<(), TestCaseError> {
        let mut disk = Disk::default();
        let mut agent = open(&disk, vec![]).0;
        let mut m = Model::default();
        let mut now = 0;
        for mv in moves {
            match mv {
                Move::Wait(ms) => {
                    now += ms;
                    let out = step(&mut agent, now, Input::Tick);
                    m.check(now, None, &out)?;
                }
                Move::Connect(r) => {
                    let replica = ReplicaId(r.into());
                    m.connected.insert(replica);
                    let out = step(&mut agent, now, Input::Connected { replica });
                    m.check(now, None, &out)?;
                }
                Move::Disconnect(r) => {
                    let replica = ReplicaId(r.into());
                    m.connected.remove(&replica);
                    m.asked.remove(&replica);
                    let out = step(&mut agent, now, Input::Disconnected { replica });
                    m.check(now, None, &out)?;
                }
                Move::Commands { epoch, from, count } => {
                    let replica = leader(epoch);
                    for number in from..from + count {
                        let w = u128::from(number / 2);
                        let order = if number % 2 == 0 { launch(w, 1, 1) } else { stop(w) };
                        let out = step(&mut agent, now, command(replica, number.into(), epoch.into(), order));
                        m.check(now, Some(epoch.into()), &out)?;
                        if m.connected.contains(&replica) {
                            m.epoch = m.epoch.max(epoch.into());
                        }
                    }
                }
                Move::Grant { epoch, ttl } => {
                    let replica = leader(epoch);
                    let Some((nonce, at)) = m.asked.get(&replica).copied() else { continue };
                    if m.connected.contains(&replica) && u64::from(epoch) >= m.epoch {
                        m.asked.remove(&replica);
                        m.epoch = epoch.into();
                        m.until = m.until.max(at + ttl);
                    }
                    let out = step(&mut agent, now, lease(replica, nonce, epoch.into(), ttl));
                    m.check(now, None, &out)?;
                }
                Move::Runtime(w, done) => {
                    let id = attempt(w.into());
                    let Some(state) = m.running.get_mut(&id) else { continue };
                    if !state.is_final() {
                        *state = if done { AttemptState::Succeeded } else { AttemptState::Running };
                    }
                    let state = state.clone();
                    let out = step(&mut agent, now, Input::Runtime { attempt: id, state });
                    m.check(now, None, &out)?;
                }
                Move::Commit(w) => {
                    let id = attempt(w.into());
                    let Some(revision) = m.said.keys().filter(|(a, _)| *a == id).map(|(_, r)| *r).max() else {
                        continue;
                    };
                    let message = CoordinatorMessage::ReportCommitted { attempt: id, revision };
                    for replica in m.connected.clone() {
                        let input = Input::FromCoordinator { replica, message: message.clone() };
                        let out = step(&mut agent, now, input);
                        m.check(now, None, &out)?;
                    }
                }
                Move::Crash { keep_unsynced } => {
                    drop(agent);
                    disk = disk.crash(keep_unsynced);
                    let found = m.running.clone().into_iter().collect();
                    let journal = Journal::open(disk.clone(), Incarnation(8)).unwrap();
                    let (opened, out) = Agent::open(journal, config(), found, MonotonicMs(now), UNIX).unwrap();
                    agent = opened;
                    (m.until, m.asked, m.connected) = (0, BTreeMap::new(), BTreeSet::new());
                    m.check(now, None, &out)?;
                }
            }
            let live: BTreeSet<_> = m.running.iter().filter(|(_, s)| !s.is_final()).map(|(a, _)| *a).collect();
            for report in agent.attempts() {
                prop_assert!(!report.state.is_final() || !live.contains(&report.attempt), "a live attempt said final");
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn whatever_is_repeated_reordered_or_lost_each_attempt_starts_once_under_a_lease(
            moves in proptest::collection::vec(moves(), 1..60)
        ) {
            run(moves)?;
        }
    }
}

#[test]
fn attempts_that_end_themselves_are_let_go_on_as_the_lease_says_counted_from_its_request() {
    let disk = Disk::default();
    let (mut agent, _) = open(&disk, vec![]);
    connect(&mut agent, 0, R1, 1, 30_000);
    let Order::Launch(mut order) = launch(1, 1, 1) else { panic!() };
    order.spec.on_cluster_loss = OnClusterLoss::Failover;
    order.spec.failover_after = Some(Span(60_000));
    let out = step(&mut agent, 1_000, command(R1, 1, 1, Order::Launch(order)));
    assert_eq!(starts(&out), [attempt(1)]);
    // It asks at once, for the attempt does not begin before it is let.
    let asked = nonce(&out);
    step(&mut agent, 1_050, command(R1, 2, 1, launch(2, 1, 1)));
    let message = |attempts: Vec<AttemptId>, nonce| CoordinatorMessage::Lease {
        nonce,
        epoch: Epoch(1),
        ttl_ms: 30_000,
        attempts,
    };
    let heard = |message| Input::FromCoordinator { replica: R1, message };
    let leave = |out: &[Output]| -> Vec<(AttemptId, MonotonicMs)> {
        let leave = |o: &Output| match o {
            Output::LetGoOn { attempt, until } => Some((*attempt, *until)),
            _ => None,
        };
        out.iter().filter_map(leave).collect()
    };
    // Of one that goes on for ever, and of one that it does not hold, an answer means nothing.
    let all = vec![attempt(1), attempt(2), attempt(3)];
    let out = step(&mut agent, 9_000, heard(message(all.clone(), asked)));
    assert_eq!(leave(&out), [(attempt(1), MonotonicMs(61_000))]);
    assert_eq!(leave(&step(&mut agent, 9_001, heard(message(all.clone(), asked)))), [], "an answer counts once");
    // The next request went out meanwhile.
    let out = step(&mut agent, 10_500, heard(message(vec![], nonce(&out))));
    assert_eq!(leave(&out), [], "it is not let go on any more");
    let out = step(&mut agent, 11_000, Input::Runtime { attempt: attempt(1), state: AttemptState::Succeeded });
    assert_eq!(leave(&out), []);
    let out = step(&mut agent, 16_000, Input::Tick);
    assert_eq!(leave(&step(&mut agent, 16_001, heard(message(all, nonce(&out))))), [], "it has ended");
}

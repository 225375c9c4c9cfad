//! Replicas around one Lease in virtual time: at no moment do two of them act, whatever is lost, late or skewed.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use proptest::prelude::*;
use protocol::ids::{Epoch, MonotonicMs};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::election::{Answer, Ask, Election, Lost, Next};
use super::gate::Gate;
use super::lease::{Hand, Seen};
use super::settings::LeaseTimes;
use crate::kube::with_causes;

const TIMES: (u64, u64, u64) = (15_000, 10_000, 2_000);

/// The API server, as far as one Lease goes.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
    uid: u128,
}

impl Server {
    fn read(&self) -> Answer {
        self.lease.clone().map_or(Answer::Absent, |lease| Answer::Is(Seen::of(lease).unwrap()))
    }

    fn delete(&mut self) {
        self.lease = None;
    }

    /// Carries a request out, as one replica whose wall clock says `wall` asks it.
    fn carry_out(&mut self, me: &str, ask: &Ask, epoch: u64, wall: i64) -> Answer {
        let hand = Hand {
            namespace: "own",
            name: "agent-here",
            me,
            times: &LeaseTimes::default(),
            epoch: Epoch(epoch),
            now: Timestamp::from_millisecond(wall).unwrap(),
        };
        match ask {
            Ask::Look => self.read(),
            Ask::Take(over) => self.write(over.as_ref(), hand.take(over.as_ref())),
            Ask::Renew(over) => self.write(Some(over), hand.renew(over)),
        }
    }

    fn release(&mut self, me: &str, wall: i64) {
        let Answer::Is(seen) = self.read() else { return };
        let times = LeaseTimes::default();
        let now = Timestamp::from_millisecond(wall).unwrap();
        let hand = Hand { namespace: "own", name: "agent-here", me, times: &times, epoch: Epoch(0), now };
        let released = hand.release(&seen);
        self.write(Some(&seen), released);
    }

    fn write(&mut self, over: Option<&Seen>, mut object: Lease) -> Answer {
        match (&self.lease, over) {
            (None, Some(_)) => return Answer::Absent,
            (Some(_), None) => return Answer::Conflict,
            (Some(there), Some(over)) if there.metadata.resource_version != Some(over.version.clone()) => {
                return Answer::Conflict;
            }
            (None, None) => {
                self.uid += 1;
                object.metadata.uid = Some(uuid::Uuid::from_u128(self.uid).to_string());
            }
            (Some(_), Some(_)) => {}
        }
        // As the API server does with what changes nothing.
        if self.lease.as_ref() == Some(&object) {
            return self.read();
        }
        self.version += 1;
        object.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(object);
        self.read()
    }
}

fn candidate(me: &str, now: u64) -> Election {
    Election::new(me.to_owned(), LeaseTimes::default(), MonotonicMs(now))
}

/// Lets a replica ask and be answered at once until it has nothing to do at `now`. How it lost, where it did.
fn turn(server: &mut Server, me: &str, election: &mut Election, now: u64) -> Option<Lost> {
    loop {
        match election.next(MonotonicMs(now)) {
            Next::Wait(until) => {
                assert!(until.0 > now, "it would turn for ever");
                return None;
            }
            Next::Lost(lost) => return Some(lost),
            Next::Ask(ask) => {
                let answer = server.carry_out(me, &ask, 0, now as i64);
                election.answered(&ask, MonotonicMs(now), answer, MonotonicMs(now));
            }
        }
    }
}

fn acts(election: &Election, now: u64) -> bool {
    election.acts(MonotonicMs(now)).is_some()
}

/// `a` leads by the Lease that it made at 0, and `b` has seen that.
fn led() -> (Server, Election, Election, u64) {
    let (mut server, mut a, mut b) = (Server::default(), candidate("a", 0), candidate("b", 0));
    for now in (0..=16_000).step_by(250) {
        assert_eq!(turn(&mut server, "a", &mut a, now), None);
        assert_eq!(turn(&mut server, "b", &mut b, now), None);
        assert_eq!(acts(&a, now), now >= TIMES.0, "at {now} ms");
        assert!(!acts(&b, now));
    }
    (server, a, b, 16_000)
}

#[test]
fn whoever_makes_the_lease_leads_once_a_leader_of_a_deleted_one_must_have_stopped() {
    let (mut server, mut a, mut b, start) = led();
    server.delete();
    let mut a_lost = None;
    for now in (start..start + 40_000).step_by(250) {
        a_lost = a_lost.or_else(|| turn(&mut server, "a", &mut a, now));
        turn(&mut server, "b", &mut b, now);
        assert!(!(acts(&a, now) && acts(&b, now)));
        // It found that out at its next look.
        assert_eq!(acts(&b, now), now >= start + 250 + TIMES.0, "at {now} ms");
    }
    assert_eq!(a_lost, Some(Lost::Taken { holder: "b".to_owned() }));
}

#[test]
fn a_leader_that_is_not_answered_stops_at_its_deadline_and_the_other_takes_over_at_the_lease_s_end() {
    let (mut server, mut a, mut b, start) = led();
    a.hurry(MonotonicMs(start));
    let Next::Ask(ask) = a.next(MonotonicMs(start)) else { panic!("it renews") };
    // It is carried out, and the answer is lost: what counts is the renewal before that was answered.
    server.carry_out("a", &ask, 0, start as i64);
    let deadline = a.holds().unwrap().1.0;
    let mut took_over = None;
    for now in (start..start + 20_000).step_by(50) {
        assert_eq!(acts(&a, now), now < deadline);
        turn(&mut server, "b", &mut b, now);
        if acts(&b, now) {
            took_over.get_or_insert(now);
        }
    }
    let after = took_over.unwrap() - start;
    assert!((TIMES.0..=TIMES.0 + 500).contains(&after), "{after} ms");
    assert_eq!(a.next(MonotonicMs(deadline)), Next::Lost(Lost::Deadline { deadline_ms: TIMES.1 }));
    assert!(!acts(&a, start + 1), "once lost it is lost for good");
}

#[test]
fn an_answer_counts_from_when_it_was_asked_for() {
    let (_, mut a, _, start) = led();
    a.hurry(MonotonicMs(start));
    let Next::Ask(ask) = a.next(MonotonicMs(start)) else { panic!("it renews") };
    let Ask::Renew(over) = &ask else { panic!("it renews") };
    // 9 s under way.
    a.answered(&ask, MonotonicMs(start), Answer::Is(over.clone()), MonotonicMs(start + 9_000));
    assert!(acts(&a, start + TIMES.1 - 1) && !acts(&a, start + TIMES.1));
}

#[test]
fn a_renewal_that_was_carried_out_unanswered_is_found_to_be_its_own() {
    let (mut server, mut a, _, start) = led();
    a.hurry(MonotonicMs(start));
    let Next::Ask(ask) = a.next(MonotonicMs(start)) else { panic!("it renews") };
    server.carry_out("a", &ask, 0, start as i64);
    a.answered(&ask, MonotonicMs(start), Answer::Failed, MonotonicMs(start + 100));
    let again = start + 100 + TIMES.2;
    assert_eq!(turn(&mut server, "a", &mut a, again), None);
    assert_eq!(a.acts(MonotonicMs(again)), Some(MonotonicMs(again + TIMES.1)));
}

#[test]
fn a_released_lease_is_taken_at_the_next_look() {
    let (mut server, _, mut b, start) = led();
    server.release("a", start as i64);
    turn(&mut server, "b", &mut b, start + 250);
    assert!(acts(&b, start + 250));
    let Answer::Is(seen) = server.read() else { panic!("it is there") };
    assert_eq!((seen.transitions(), seen.holder.as_deref()), (1, Some("b")));
}

#[test]
fn a_lease_that_changes_is_alive_whatever_its_times_say() {
    let (mut server, mut a, mut b, start) = led();
    // The leader's wall clock stands still, then goes back by an hour: each renewal is a change all the same.
    for now in (start..start + 60_000).step_by(250) {
        let wall = if now < start + 30_000 { 5 } else { -3_600_000 };
        while let Next::Ask(ask) = a.next(MonotonicMs(now)) {
            let answer = server.carry_out("a", &ask, 0, wall);
            a.answered(&ask, MonotonicMs(now), answer, MonotonicMs(now));
        }
        turn(&mut server, "b", &mut b, now);
        assert!(acts(&a, now) && !acts(&b, now), "at {now} ms");
    }
}

#[test]
fn a_replica_that_loses_the_race_for_a_lease_that_ran_out_waits_anew() {
    let (mut server, _, mut b, start) = led();
    let mut c = candidate("c", start);
    for now in (start..start + TIMES.0).step_by(250) {
        turn(&mut server, "b", &mut b, now);
        turn(&mut server, "c", &mut c, now);
    }
    let now = start + TIMES.0 + 250;
    let asks = [&mut b, &mut c].map(|one| {
        loop {
            match one.next(MonotonicMs(now)) {
                Next::Ask(Ask::Take(over)) => break Ask::Take(over),
                Next::Ask(ask) => one.answered(&ask, MonotonicMs(now), server.read(), MonotonicMs(now)),
                other => panic!("{other:?}"),
            }
        }
    });
    for (me, one, ask) in [("b", &mut b, &asks[0]), ("c", &mut c, &asks[1])] {
        let answer = server.carry_out(me, ask, 0, now as i64);
        one.answered(ask, MonotonicMs(now), answer, MonotonicMs(now));
    }
    turn(&mut server, "c", &mut c, now);
    assert!(acts(&b, now) && !acts(&c, now));
    assert!(!acts(&c, now + TIMES.0 - 1));
}

#[test]
fn the_highest_epoch_stays_in_the_lease_through_every_hand() {
    let mut server = Server::default();
    let epoch = |server: &Server| match server.read() {
        Answer::Is(seen) => seen.epoch(),
        other => panic!("{other:?}"),
    };
    server.carry_out("a", &Ask::Take(None), 7, 0);
    let Answer::Is(seen) = server.read() else { panic!("it is there") };
    server.carry_out("a", &Ask::Renew(seen), 9, 1);
    server.release("a", 2);
    assert_eq!(epoch(&server), Epoch(9));
    let Answer::Is(seen) = server.read() else { panic!("it is there") };
    server.carry_out("b", &Ask::Take(Some(seen)), 0, 3);
    assert_eq!(epoch(&server), Epoch(9));
}

/// One replica of the random histories: asks are under way for a while, and answers too.
struct Party {
    name: String,
    election: Option<Election>,
    /// What is under way: the request, when it was asked, when it arrives, and when its answer does.
    asked: Option<(Ask, u64, u64, u64)>,
    answer: Option<Answer>,
    /// Stands still until then.
    paused_until: u64,
    lives: u32,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Requests and answers are late or lost, clocks' dates jump, replicas stand still, are killed and come again under another name,
    /// the Lease is deleted: nobody acts beside another. And once all is well somebody leads.
    #[test]
    fn never_do_two_act(faults in prop::collection::vec((0u8..8, 0usize..3, 0u64..30_000, 50u64..20_000), 0..40)) {
        let mut server = Server::default();
        let mut parties: Vec<Party> = (0..3).map(|n| Party {
            name: format!("p{n}.0"), election: Some(candidate(&format!("p{n}.0"), 0)), asked: None, answer: None, paused_until: 0, lives: 0,
        }).collect();
        let mut slow = [(0u64, 0u64); 3];
        let mut lost = [0u64; 3];
        let mut faults = faults.into_iter();
        let mut next_fault = 0;
        let mut calm_since = None;
        for now in (0u64..).step_by(50) {
            if now >= next_fault && calm_since.is_none() {
                match faults.next() {
                    None => { calm_since = Some(now); slow = Default::default(); lost = Default::default(); }
                    Some((kind, who, long, pause)) => {
                        next_fault = now + pause;
                        match kind {
                            0 => parties[who].paused_until = now + long,
                            1 => { parties[who].election = None; parties[who].paused_until = now + long / 4; }
                            2 => slow[who] = (long / 2, 100),
                            3 => slow[who] = (100, long / 2),
                            4 => lost[who] = now + long,
                            5 => server.delete(),
                            6 => slow[who] = (0, 0),
                            _ => if let Some(name) = parties.iter().find(|p| p.election.as_ref().is_some_and(|e| e.holds().is_some())).map(|p| p.name.clone()) {
                                // A clean stop.
                                let place = parties.iter().position(|p| p.name == name).unwrap();
                                let may = parties[place].election.take().is_some_and(|e| e.may_release(MonotonicMs(now)));
                                if may && matches!(server.read(), Answer::Is(seen) if seen.holder == Some(name.clone())) {
                                    server.release(&name, now as i64);
                                }
                            },
                        }
                    }
                }
            }
            for (n, party) in parties.iter_mut().enumerate() {
                // What is under way arrives also where who sent it is gone or stands still.
                if let Some((ask, _, arrives, _)) = &party.asked
                    && *arrives <= now && party.answer.is_none()
                {
                    let wall = now as i64 + [0, 600_000, -600_000][n];
                    party.answer = Some(server.carry_out(&party.name, ask, 0, wall));
                }
                if now < party.paused_until {
                    continue;
                }
                let Some(election) = &mut party.election else {
                    if party.asked.as_ref().is_none_or(|_| party.answer.is_some()) {
                        party.lives += 1;
                        party.name = format!("p{n}.{}", party.lives);
                        (party.asked, party.answer) = (None, None);
                        party.election = Some(candidate(&party.name, now));
                    }
                    continue;
                };
                if let Some((ask, asked, _, back)) = party.asked.clone() {
                    let timed_out = now >= asked + 4_000;
                    if (back <= now && party.answer.is_some() && now >= lost[n]) || (timed_out && party.answer.is_some()) {
                        let answer = party.answer.take().unwrap();
                        let answer = if timed_out || now < lost[n] { Answer::Failed } else { answer };
                        election.answered(&ask, MonotonicMs(asked), answer, MonotonicMs(now));
                        party.asked = None;
                    }
                }
                if party.asked.is_none() {
                    match election.next(MonotonicMs(now)) {
                        Next::Ask(ask) => {
                            let arrives = now + slow[n].0;
                            party.asked = Some((ask, now, arrives, arrives + slow[n].1));
                        }
                        Next::Wait(_) => {}
                        Next::Lost(_) => party.election = None,
                    }
                }
            }
            // A replica that stands still acts no less for it: whatever it had begun may come.
            let acting: Vec<&str> = parties.iter()
                .filter(|p| p.election.as_ref().is_some_and(|e| acts(e, now)))
                .map(|p| &*p.name).collect();
            prop_assert!(acting.len() < 2, "at {now} ms {acting:?} act");
            if let Some(calm) = calm_since && now > calm + 100_000 {
                prop_assert_eq!(acting.len(), 1, "nobody leads");
                break;
            }
        }
    }
}

/// A server that has a config map, and the first lines of all requests that came whole.
async fn server() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(vec![])));
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut stream, mut lines) = (BufReader::new(stream), vec![]);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|n| n > 2) {
                lines.push(std::mem::take(&mut line).to_lowercase());
            }
            let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if stream.read_exact(&mut body).await.is_err() || lines.is_empty() {
                continue;
            }
            heard.lock().unwrap().push(lines[0].split(' ').next().unwrap_or_default().to_owned());
            let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"}}"#;
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{map}", map.len());
            stream.into_inner().write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_client_reads_behind_a_shut_gate_and_changes_nothing() {
    let (address, asked) = server().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let gate = Arc::new(Gate::new());
    let access = crate::kube::Access::Kubeconfig { file, context: None };
    let client = crate::kube::connect_behind(&access, gate.clone()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "n");
    let map = ConfigMap::default();
    let makes = async || maps.create(&PostParams::default(), &map).await;
    let ends = async || maps.delete("m", &DeleteParams::default()).await;

    let refused = makes().await.unwrap_err();
    assert!(with_causes(&refused).contains("does not lead"), "{refused:?}");
    maps.get("m").await.unwrap();
    gate.open_until(gate.now().plus(60_000));
    makes().await.unwrap();
    ends().await.unwrap();
    gate.shut();
    makes().await.unwrap_err();
    ends().await.unwrap_err();
    maps.get("m").await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["get", "post", "delete", "get"]);
}

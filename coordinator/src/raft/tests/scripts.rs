//! Golden scripts, after those of etcd's raft: a line is a command, the indented lines below it are what happened.
//!
//! `BLESS=1 cargo test -p coordinator scripts` writes what happens into the files; review that as a diff.

use std::fmt::Write;
use std::path::Path;

use super::cluster::{Cluster, id};
use super::*;
use crate::raft::disk::Fate;

struct Script {
    cluster: Cluster,
    next: u64,
}

impl Script {
    /// Does one command. Its story is what it says.
    fn run(&mut self, line: &str) -> Vec<String> {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let cluster = &mut self.cluster;
        match words[0] {
            "replicas" => {
                *cluster = Cluster::new(number(1), None);
                cluster.tell_messages = true;
            }
            "tick" => cluster.ticks(number(1) as usize),
            "campaign" => cluster.up.get_mut(&id(number(1))).unwrap().driver.campaign(),
            "settle" => cluster.settle(),
            "propose" => {
                self.next += 1;
                match cluster.up.get_mut(&id(number(1))).unwrap().driver.propose(self.next, words[2].into()) {
                    Ok(()) => {}
                    Err(error) => cluster.story.push(error.to_string()),
                }
            }
            "read" => match cluster.up.get_mut(&id(number(1))).unwrap().driver.read_index(number(2)) {
                Ok(()) => {}
                Err(error) => cluster.story.push(error.to_string()),
            },
            // Persists, sends and applies on one replica; what it sends stays on its way.
            "step" => {
                let sent = cluster.network.len();
                if cluster.step(id(number(1))).is_err() {
                    cluster.up.remove(&id(number(1)));
                    cluster.story.push(format!("{} stops: its disk failed", number(1)));
                }
                cluster.story.push(format!("{} messages on their way", cluster.network.len() - sent));
            }
            // The disk keeps what was synced, no more.
            "crash" => cluster.crash(id(number(1)), |_| Fate::Lost),
            "fail-disk" => cluster.disk(id(number(1))).arm_crash(0),
            "start" => cluster.start(id(number(1))).unwrap(),
            "isolate" => cluster.isolate(id(number(1))),
            "heal" => cluster.cut.clear(),
            "compact" => cluster.compact(id(number(1)), number(2)),
            "log" => {
                let replica = &cluster.up[&id(number(1))];
                let store = replica.driver.store();
                let log = store.log(0, u64::MAX);
                let entries: Vec<_> = log.iter().map(|e| format!("{}/{}", e.index, e.term)).collect();
                let HardState { term, vote, commit } = store.hard_state();
                let snapshot = store.latest_snapshot().map_or("none".to_owned(), |s| format!("{}/{}", s.index, s.term));
                let states = &mut cluster.story;
                states.push(format!("disk: term {term} vote {vote} commit {commit} snapshot {snapshot}"));
                states.push(format!("log: {}", entries.join(" ")));
                let applied: Vec<_> = self.cluster.applied(id(number(1))).iter().map(|p| p.to_string()).collect();
                self.cluster.story.push(format!("applied: {}", applied.join(" ")));
            }
            other => panic!("no such command: {other}"),
        }
        std::mem::take(&mut self.cluster.story)
    }
}

/// The script with what happens now.
fn replay(text: &str) -> String {
    let mut script = Script { cluster: Cluster::new(1, None), next: 0 };
    let mut replayed = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(replayed, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            for happened in script.run(line) {
                writeln!(replayed, "  {}", happened.trim_end()).unwrap();
            }
        }
    }
    replayed
}

fn golden(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/tests/scripts").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let replayed = replay(&text);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, replayed).unwrap();
    } else {
        let differs = text.lines().zip(replayed.lines()).position(|(a, b)| a != b);
        assert_eq!(replayed, text, "{name} differs first in line {:?}", differs.map(|line| line + 1));
    }
}

#[test]
fn an_election_goes_as_written() {
    golden("election.txt");
}

#[test]
fn replication_goes_as_written() {
    golden("replicate.txt");
}

#[test]
fn a_leader_s_crash_goes_as_written() {
    golden("leader_crash.txt");
}

#[test]
fn the_install_of_a_snapshot_goes_as_written() {
    golden("snapshot.txt");
}

#[test]
fn reads_go_as_written() {
    golden("reads.txt");
}

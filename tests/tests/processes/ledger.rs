//! A file to which every member of every attempt writes as it starts, goes on and ends. Lines are appended whole, so their
//! order in the file is the order in which they happened: what ran, how often, and what ran at the same time is read from
//! it, and not from anything that the product says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::api::{batch, phase};
use super::world::{MARK, World};
use crate::Done;

/// What a member does: say that it starts, go on for `BEATS` tenths of a second, say that it ends.
const MEMBER: &str = r#"say() { echo "$1 $TIDEWATER_WORKLOAD $TIDEWATER_ATTEMPT $RANK" >> "$LEDGER"; }
say start; n=0; while [ $n -lt $BEATS ]; do sleep 0.1; say beat; n=$((n + 1)); done; say end"#;

/// The file.
pub struct Ledger {
    path: PathBuf,
    mark: String,
}

/// What one attempt's members wrote.
#[derive(Debug, Default)]
struct Attempt {
    first: usize,
    last: usize,
    starts: BTreeMap<String, u32>,
    ends: BTreeMap<String, u32>,
}

impl Ledger {
    /// An empty one.
    pub fn new(world: &World) -> Self {
        Self { path: world.path("ledger"), mark: world.mark().to_owned() }
    }

    /// A workload whose members write to it.
    pub fn workload(&self, name: &str, members: u32, beats: u32) -> Value {
        let env =
            [("LEDGER", self.path.display().to_string()), ("BEATS", beats.to_string()), (MARK, self.mark.clone())];
        batch(name, &["sh", "-c", MEMBER], members, &env)
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        std::fs::read_to_string(&self.path).unwrap_or_default().lines().count()
    }

    /// How often a workload wrote this word.
    pub fn count(&self, word: &str, workload: &str) -> usize {
        let beginning = format!("{word} default/{workload} ");
        std::fs::read_to_string(&self.path).unwrap_or_default().lines().filter(|l| l.starts_with(&beginning)).count()
    }

    fn attempts(&self) -> anyhow::Result<BTreeMap<String, BTreeMap<u32, Attempt>>> {
        let mut all: BTreeMap<String, BTreeMap<u32, Attempt>> = BTreeMap::new();
        let written = std::fs::read_to_string(&self.path).unwrap_or_default();
        for (at, line) in written.lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            let [word, workload, attempt, rank] = words[..] else { bail!("line {at} of the ledger: {line:?}") };
            let name = workload.strip_prefix("default/").with_context(|| line.to_owned())?;
            let number = attempt.rsplit('-').next().and_then(|n| n.parse().ok()).with_context(|| line.to_owned())?;
            let attempts = all.entry(name.to_owned()).or_default();
            let attempt = attempts.entry(number).or_insert_with(|| Attempt { first: at, ..Attempt::default() });
            attempt.last = at;
            match word {
                "start" => *attempt.starts.entry(rank.to_owned()).or_default() += 1,
                "end" => *attempt.ends.entry(rank.to_owned()).or_default() += 1,
                _ => {}
            }
        }
        Ok(all)
    }

    /// Every workload's attempts ran one after the other, each at most once; one that succeeded ran to its end, with all
    /// its members, in the attempt that is said to have succeeded; one that is not known never ran.
    pub fn check(&self, workloads: &BTreeMap<String, Value>) -> anyhow::Result<()> {
        let all = self.attempts()?;
        for (name, attempts) in &all {
            let workload = workloads.get(name).with_context(|| format!("{name} ran and is not known"))?;
            let mut before: Option<(u32, usize)> = None;
            for (number, attempt) in attempts {
                for (rank, starts) in &attempt.starts {
                    ensure!(*starts == 1, "{name}: attempt {number}, rank {rank} was started {starts} times");
                }
                if let Some((earlier, last)) = before {
                    ensure!(
                        last < attempt.first,
                        "{name}: attempt {earlier} still ran (line {last}) when attempt {number} began (line {})",
                        attempt.first
                    );
                }
                before = Some((*number, attempt.last));
            }
            let told = workload["status"]["attempts"].as_array().map_or(0, Vec::len);
            let ran = attempts.keys().copied().max().unwrap_or_default() as usize;
            ensure!(ran <= told, "{name}: attempt {ran} ran, and only {told} are known");
        }
        for (name, workload) in workloads.iter().filter(|(_, w)| phase(w) == "Succeeded") {
            let members = workload["spec"]["batch"]["groups"][0]["count"].as_u64().unwrap_or_default();
            let last = workload["status"]["attempts"].as_array().and_then(|a| a.last()).cloned().unwrap_or_default();
            let number = last["id"]["number"].as_u64().with_context(|| last.to_string())? as u32;
            let ran = all.get(name).and_then(|attempts| attempts.get(&number));
            let ran = ran.with_context(|| format!("{name} succeeded, and its attempt {number} never ran"))?;
            let ranks: BTreeSet<&String> = ran.ends.keys().collect();
            ensure!(
                ranks.len() as u64 == members && ran.ends.values().all(|ends| *ends == 1),
                "{name} succeeded: of its {members} members these ended: {:?}",
                ran.ends
            );
        }
        Ok(())
    }
}

/// The check itself: it finds what it is there for.
pub fn finds_faults(world: &World) -> anyhow::Result<Done> {
    let uid = "00000000-0000-4000-8000-000000000001";
    let told = |phase: &str, attempts: u32| {
        let mut workload = Ledger::new(world).workload("w", 2, 1);
        let attempts: Vec<Value> = (1..=attempts).map(|n| json!({"id": {"workload": uid, "number": n}})).collect();
        workload["status"] = json!({"phase": phase, "attempts": attempts});
        BTreeMap::from([("w".to_owned(), workload)])
    };
    let whole = "start 1-0,start 1-1,beat 1-0,end 1-0,end 1-1";
    let cases = [
        (whole, told("Succeeded", 1), ""),
        ("start 1-0,start 1-1,start 2-0,start 2-1,end 2-1,end 2-0", told("Succeeded", 2), ""),
        ("start 1-0,start 1-0", told("Running", 1), "started 2 times"),
        ("start 1-0,start 2-0,beat 1-0", told("Running", 2), "still ran"),
        ("start 1-0,start 1-1,end 1-0", told("Succeeded", 1), "of its 2 members"),
        (whole, told("Succeeded", 2), "attempt 2 never ran"),
        ("start 1-0,start 2-0", told("Running", 1), "only 1 are known"),
        (whole, BTreeMap::new(), "is not known"),
    ];
    for (lines, told, expected) in cases {
        let line = |line: &str| {
            let (word, rest) = line.split_once(' ').unwrap_or_default();
            let (attempt, rank) = rest.split_once('-').unwrap_or_default();
            format!("{word} default/w {uid}-{attempt} {rank}\n")
        };
        std::fs::write(world.path("ledger"), lines.split(',').map(line).collect::<String>())?;
        let found = Ledger::new(world).check(&told).err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{lines}: {found:?}");
    }
    Ok(Done::Holds)
}

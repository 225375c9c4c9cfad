//! Questions of the script language about the time to come: forecasts, and what would be if.

use std::fmt::Write;

use engine::ahead::{Edit, Fate, forecast, whatif};

use super::script::{World, data_of, pool, pool_of, spec_of};
use super::*;

fn edit(words: &[&str]) -> Edit {
    let place = || cluster(words[1]);
    match words[0] {
        "cluster" => Edit::AddCluster { cluster: place(), region: Region::new(words[2]).unwrap() },
        "nodes" => {
            let (count, gpus) = words[2].split_once('x').unwrap();
            Edit::AddNodes {
                cluster: place(),
                count: count.parse().unwrap(),
                sku: Some(words[3]).filter(|s| *s != "-").map(Sku::from_driver),
                gpus: gpus.parse().unwrap(),
                cpu: words.get(4).map(|cpu| cpu.parse().unwrap()),
                memory: words.get(5).map(|memory| memory.parse().unwrap()),
            }
        }
        "drain" => match words.get(2) {
            Some(&"waits") => Edit::DrainCluster { cluster: place(), waits: true },
            Some(node) => Edit::DrainNode { cluster: place(), node: NodeName::new(*node).unwrap() },
            None => Edit::DrainCluster { cluster: place(), waits: false },
        },
        "uncordon" => Edit::OpenCluster { cluster: place() },
        "pool" => Edit::SetPool { name: pool(words[1]), spec: Box::new(pool_of(&words[2..])) },
        "data" => Edit::SetData { name: DataName::new(words[1]).unwrap(), spec: Box::new(data_of(&words[2..])) },
        "drop-data" => Edit::DeleteData { name: DataName::new(words[1]).unwrap() },
        "drop-pool" => Edit::DeletePool { name: pool(words[1]) },
        "submit" => Edit::Submit { key: key(words[1]), spec: Box::new(spec_of(&words[2..])) },
        other => panic!("{other:?} is no edit"),
    }
}

fn fate(fate: &Fate) -> String {
    let from = |from: &Option<ClusterName>| from.as_ref().map_or(String::new(), |c| format!(" (from {c})"));
    match fate {
        Fate::Absent => "is not there".into(),
        Fate::Runs { cluster } => format!("runs in {cluster}"),
        Fate::Starts { cluster, at, from: moved } => format!("starts at {at} in {cluster}{}", from(moved)),
        Fate::Waits { why, from: moved } => format!("{why}{}", from(moved)),
    }
}

impl World {
    pub fn forecast(&self, name: &str) -> String {
        let found =
            forecast(self.state.clone(), self.fleet.capacity.clone(), self.memory.clone(), self.at(), &key(name));
        let Some(found) = found else { return "no such workload".into() };
        let mut story = format!("{}\n", found.text);
        for ended in &found.after {
            writeln!(story, "after {} at {} ({})", ended.workload, ended.at, ended.basis).unwrap();
        }
        story
    }

    pub fn whatif(&self, words: &[&str]) -> String {
        let edits: Vec<Edit> = words.split(|w| *w == "+").map(edit).collect();
        match whatif(self.state.clone(), self.fleet.capacity.clone(), self.memory.clone(), self.at(), &edits) {
            Err((_, fault)) => format!("refused: {fault}"),
            Ok(changes) => {
                let mut story = format!("{} change, {} stay\n", changes.changed, changes.same);
                for change in &changes.changes {
                    let (before, after) = (fate(&change.before), fate(&change.after));
                    writeln!(story, "{}: {before} -> {after}", change.workload).unwrap();
                }
                story
            }
        }
    }
}

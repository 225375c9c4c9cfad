//! What tests ask of coordinators over HTTP, of whichever answers, again until one does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::world::{LOOK, PATIENCE, wait_for};

const WORKLOADS: &str = "/apis/tidewater.dev/v1/namespaces/default/workloads";

/// The coordinators.
pub struct Api {
    urls: Vec<String>,
    /// The one that answered last: asked first, because one that stands still costs a request's whole time.
    answered: std::cell::Cell<usize>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Api {
    /// Coordinators at these addresses.
    pub fn new(urls: Vec<String>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { urls, answered: 0.into(), client, runtime })
    }

    /// The coordinators' addresses.
    pub fn places(&self) -> &[String] {
        &self.urls
    }

    fn one(&self, url: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, String)> {
        self.runtime.block_on(async {
            let url = format!("{url}{path}");
            let request = match body {
                Some(body) => self.client.post(url).json(body),
                None => self.client.get(url),
            };
            let answer = request.send().await?;
            Ok((answer.status().as_u16(), answer.text().await?))
        })
    }

    /// The first answer below 500 of any coordinator.
    fn ask(&self, path: &str, body: Option<&Value>, within: Duration) -> anyhow::Result<Value> {
        let began = Instant::now();
        let mut last = String::new();
        loop {
            for _ in 0..self.urls.len() {
                let place = self.answered.get();
                match self.one(&self.urls[place], path, body) {
                    Ok((200..=299, text)) => return serde_json::from_str(&text).with_context(|| text.clone()),
                    Ok((code, text)) if code < 500 => bail!("{path}: {code}: {text}"),
                    Ok((code, text)) => last = format!("{code}: {text}"),
                    Err(error) => last = format!("{error:#}"),
                }
                self.answered.set((place + 1) % self.urls.len());
            }
            if began.elapsed() > within {
                bail!("{path}: no answer within {} s; the last: {last}", within.as_secs());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Reads something.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(path, None, PATIENCE)
    }

    /// Hands a workload in, again until it is acknowledged: its uid makes that safe.
    pub fn submit(&self, workload: &Value) -> anyhow::Result<()> {
        self.ask(WORKLOADS, Some(workload), PATIENCE).map(drop)
    }

    /// Cancels one.
    pub fn cancel(&self, name: &str) -> anyhow::Result<()> {
        self.ask(&format!("{WORKLOADS}/{name}/cancel"), Some(&json!({})), PATIENCE).map(drop)
    }

    /// One workload.
    pub fn workload(&self, name: &str) -> anyhow::Result<Value> {
        self.get(&format!("{WORKLOADS}/{name}"))
    }

    /// Every workload by name.
    pub fn workloads(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        let list = self.get(WORKLOADS)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.into_iter().map(|w| (text(&w["metadata"]["name"]), w)).collect())
    }

    /// Waits until a workload is in one of these phases.
    pub fn until(&self, name: &str, phases: &[&str], within: Duration) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let found = wait_for(&format!("{name} as {phases:?}"), within, || {
            last = self.workload(name)?;
            Ok(phases.contains(&phase(&last).as_str()).then(|| last.clone()))
        });
        found.with_context(|| last["status"].to_string())
    }

    /// A workload's log while it grows: the answer's code and what comes before it ends or breaks off.
    pub fn growing_log(&self, namespace: &str, name: &str) -> anyhow::Result<(u16, String)> {
        self.one(&self.urls[self.answered.get()], &format!("/logs/{namespace}/{name}?follow=true"), None)
    }

    /// A cluster's phase; empty where it is not known.
    pub fn cluster_phase(&self, name: &str) -> anyhow::Result<String> {
        let list = self.get("/apis/tidewater.dev/v1/clusters")?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let found = items.iter().find(|c| c["metadata"]["name"] == name);
        Ok(found.map(|c| text(&c["status"]["phase"])).unwrap_or_default())
    }

    /// Whether the coordinator at this place says that it is ready, and what it says.
    pub fn readiness(&self, place: usize) -> (bool, String) {
        match self.one(&self.urls[place], "/readyz", None) {
            Ok((code, text)) => (code == 200, text),
            Err(error) => (false, format!("{error:#}")),
        }
    }

    /// The number of the replica that leads, as any replica says that follows it or is it.
    pub fn leader(&self) -> anyhow::Result<u64> {
        wait_for("a leader", PATIENCE, || {
            for place in 0..self.urls.len() {
                let (ready, text) = self.readiness(place);
                let named = text.split("leader: replica ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
                if let (true, Some(leader)) = (ready, named) {
                    return Ok(Some(leader));
                }
            }
            Ok(None)
        })
    }
}

/// A workload's phase.
pub fn phase(workload: &Value) -> String {
    text(&workload["status"]["phase"])
}

/// How many workloads are in each phase.
pub fn phases(workloads: &BTreeMap<String, Value>) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    workloads.values().for_each(|w| *found.entry(phase(w)).or_default() += 1);
    found
}

/// Where each of a workload's attempts went, the first one first.
pub fn clusters_of(workload: &Value) -> Vec<String> {
    let attempts = workload["status"]["attempts"].as_array().cloned().unwrap_or_default();
    attempts.iter().map(|attempt| text(&attempt["cluster"])).collect()
}

/// A JSON string as it is.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether a phase is a last one.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed" | "Cancelled")
}

/// A batch workload in which each member runs this command.
pub fn batch(name: &str, command: &[&str], members: u32, env: &[(&str, String)]) -> Value {
    let env: BTreeMap<&str, &String> = env.iter().map(|(name, value)| (*name, value)).collect();
    json!({
        "apiVersion": "tidewater.dev/v1",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "default", "uid": uuid::Uuid::new_v4().to_string()},
        "spec": {
            "batch": {
                "command": command,
                "groups": [{"name": "ranks", "count": members, "cpu": 1, "memory": "64Mi"}],
            },
            "env": env,
        },
    })
}

//! The check's own federation: a coordinator and an agent of each cluster as processes of this machine, asked by `tidewater`'s own commands.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use testbed::free_port;
use testbed::process::{Lifetime, Process, Program, tail};

use super::cluster::Cluster;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// How long a process has to end by itself.
const TO_END: Duration = Duration::from_secs(20);

/// The federation; its processes end with this value.
pub struct Federation {
    program: PathBuf,
    folder: PathBuf,
    server: String,
    /// The coordinator first: an agent that finds none waits before it tries again.
    processes: Vec<Process>,
}

impl Federation {
    /// Starts it, and waits until every cluster can be placed on.
    pub async fn start(program: &Path, folder: &Path, clusters: &[Cluster], within: Duration) -> anyhow::Result<Self> {
        let quic = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut federation = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            server: format!("http://{http}"),
            processes: vec![],
        };
        let fleet = folder.join("fleet.toml");
        let names = clusters.iter().map(|cluster| &cluster.name);
        fs::write(
            &fleet,
            names.map(|n| format!("[[cluster]]\nname = \"{n}\"\nregion = \"{n}\"\n")).collect::<String>(),
        )?;
        let mut arguments: Vec<OsString> = vec!["coordinator".into(), "--data-dir".into(), folder.join("data").into()];
        arguments.extend(["--identity".into(), federation.identity("--replica", "1")?]);
        arguments.extend(["--listen".into(), quic.to_string().into(), "--http".into(), http.to_string().into()]);
        federation.begin("coordinator", "coordinator", arguments)?;
        for cluster in clusters {
            let identity = federation.identity("--cluster", &cluster.name)?;
            let mut arguments: Vec<OsString> = vec!["agent".into(), "--cluster".into(), (&cluster.name).into()];
            arguments.extend(["--kubernetes".into(), "--kubeconfig".into(), (&cluster.kubeconfig).into()]);
            arguments.extend(["--own-namespace".into(), cluster.of_agent().into(), "--fleet".into(), (&fleet).into()]);
            arguments.extend(["--identity".into(), identity, "--coordinator".into(), format!("1={quic}").into()]);
            // Where it keeps logs, once their pods are gone.
            arguments.extend(["--data-dir".into(), folder.join(&cluster.name).join("data").into()]);
            federation.begin("agent", &cluster.name, arguments)?;
        }
        federation.until_ready(clusters, within).await?;
        Ok(federation)
    }

    fn identity(&self, whose: &str, name: &str) -> anyhow::Result<OsString> {
        let ca = self.folder.join("ca").display().to_string();
        let said = self.command(&["identity", "--ca", &ca, whose, name])?;
        Ok(said.trim().into())
    }

    fn begin(&mut self, name: &'static str, folder: &str, arguments: Vec<OsString>) -> anyhow::Result<()> {
        let folder = self.folder.join(folder);
        fs::create_dir(&folder)?;
        let program = Program {
            name,
            path: self.program.clone(),
            arguments,
            environment: vec![],
            folder,
            lifetime: Lifetime::Ours,
        };
        let started = program.start().with_context(|| self.program.display().to_string())?;
        self.processes.push(started);
        Ok(())
    }

    async fn until_ready(&mut self, clusters: &[Cluster], within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            for process in &mut self.processes {
                if let Some(status) = process.ended() {
                    bail!("{} ended with {status}: {}", process.program().name, tail(&process.program().log()));
                }
            }
            let late = self.not_ready(clusters);
            if late.is_empty() {
                return Ok(());
            }
            ensure!(began.elapsed() < within, "not ready after {} s: {}", within.as_secs(), late.join("; "));
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The clusters that can't be placed on yet, with why: they are not ready, or nothing has been heard of their nodes.
    fn not_ready(&self, clusters: &[Cluster]) -> Vec<String> {
        let (seen, rows) = match (self.json(&["clusters"]), self.json(&["capacity"])) {
            (Ok(seen), Ok(rows)) => (seen, rows),
            (Err(error), _) | (_, Err(error)) => return vec![format!("the coordinator: {error:#}")],
        };
        let late = |cluster: &&Cluster| {
            let one = items(&seen, "items").iter().find(|one| one["metadata"]["name"] == *cluster.name);
            let ready = one.is_some_and(|one| one["status"]["phase"] == "Ready");
            !ready || !items(&rows, "rows").iter().any(|row| row["cluster"] == *cluster.name)
        };
        let why = |cluster: &Cluster| {
            let log = self.folder.join(&cluster.name).join("agent.log");
            format!("{}, whose agent says: {}", cluster.name, tail(&log))
        };
        clusters.iter().filter(late).map(why).collect()
    }

    /// What a command of `tidewater` prints.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.command(&[&["--server", &self.server], arguments].concat())
    }

    /// The same, as JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&[arguments, &["-o", "json"]].concat())?)?)
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.program).args(arguments).output();
        let output = output.with_context(|| self.program.display().to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tidewater {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A file for such a command.
    pub fn file(&self, name: &str, content: &Value) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, content.to_string())?;
        Ok(path.display().to_string())
    }

    /// Has every process end by itself.
    pub fn stop(self) {
        // The agents before it.
        for mut process in self.processes.into_iter().rev() {
            process.end(TO_END);
        }
    }
}

/// A list in an answer.
pub fn items<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

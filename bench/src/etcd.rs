//! The peer: a 3-member etcd on loopback, as Debian's etcd-server packs it, with its own defaults but the quota.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::federation::free_ports;

/// Three members.
pub struct Etcd {
    members: Vec<Child>,
    clients: Vec<SocketAddr>,
}

impl Etcd {
    /// Starts three members with their data below `folder`, and waits until they are healthy.
    pub fn start(folder: &Path) -> Result<Self> {
        let ports = free_ports(6)?;
        let (clients, peers) = ports.split_at(3);
        let cluster: Vec<String> = peers.iter().enumerate().map(|(i, p)| format!("m{i}=http://{p}")).collect();
        let mut etcd = Self { members: Vec::new(), clients: clients.to_vec() };
        for i in 0..3 {
            let (client, peer) = (format!("http://{}", clients[i]), format!("http://{}", peers[i]));
            let member = Command::new("etcd")
                .args(["--name", &format!("m{i}"), "--data-dir"])
                .arg(folder.join(format!("m{i}")))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
                // The default of 2 GiB would end a long run; it does not change the speed.
                .args(["--quota-backend-bytes", "8589934592", "--logger", "zap", "--log-level", "error"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start etcd: apt-get install etcd-server etcd-client")?;
            etcd.members.push(member);
        }
        let end = Instant::now() + Duration::from_secs(60);
        while etcd.ctl(&["endpoint", "health"]).is_err() {
            if Instant::now() > end {
                bail!("etcd is not healthy after 60 s");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(etcd)
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let endpoints: Vec<String> = self.clients.iter().map(ToString::to_string).collect();
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoints.join(",")])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot start etcdctl: apt-get install etcd-client")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `check perf` fails where the machine is too slow for a load, and says what it measured all the same.
        if !output.status.success() && !text.contains("Throughput") {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("etcdctl {}: {}", arguments.join(" "), text.lines().last().unwrap_or("failed"));
        }
        Ok(text)
    }

    /// The members' process ids.
    pub fn processes(&self) -> Vec<u32> {
        self.members.iter().map(Child::id).collect()
    }

    /// Where the leader takes clients.
    pub fn leader(&self) -> Result<SocketAddr> {
        let text = self.ctl(&["endpoint", "status", "-w", "json"])?;
        let all: Vec<Value> = serde_json::from_str(&text).context("etcdctl endpoint status")?;
        let leads = |one: &&Value| {
            let status = &one["Status"];
            !status["leader"].is_null() && status["leader"] == status["header"]["member_id"]
        };
        let leader = all.iter().find(leads).context("etcd has no leader")?;
        Ok(leader["Endpoint"].as_str().context("its endpoint")?.parse()?)
    }

    /// Writes a second by etcd's own measure, `etcdctl check perf --load=l` (500 clients, at most 8,000 a second, for 60 s).
    pub fn check_perf(&self) -> Result<f64> {
        let text = self.ctl(&["check", "perf", "--load=l"])?;
        let number = |line: &str| -> Option<f64> {
            line.contains("Throughput").then(|| line.split_whitespace().find_map(|word| word.parse().ok()))?
        };
        text.lines().find_map(number).with_context(|| format!("etcdctl check perf said: {text}"))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // One that ended by itself has been noticed by the clients.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

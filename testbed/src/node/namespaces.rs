//! The namespaces of a node: how the network's is joined to this machine, and what the mounts in it are.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Link, NodeError};
use crate::process::Record;

/// How long a program may take from its start to its namespace.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// Joins the network namespace that this process holds to this machine: a pair of links, an address at each end, a route to
/// the node's pods here and a way out of them there. All of it goes with the namespace.
pub(crate) async fn open_network(holder: i32, link: Link) -> Result<(), NodeError> {
    let failed = |said: String| NodeError::Network { said };
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let own = namespace("self").map_err(|cause| failed(cause.to_string()))?;
    let began = Instant::now();
    while namespace(&holder.to_string()).is_ok_and(|held| held == own) {
        if began.elapsed() > PATIENCE {
            return Err(failed(format!("process {holder} made no namespace")));
        }
        tokio::time::sleep(LOOK).await;
    }
    let (interface, host, node, pods) = (link.interface(), link.host(), link.node(), link.pods());
    let here = format!(
        "ip link add name {interface} type veth peer name eth0 netns {holder} && \
         ip address add {host}/24 dev {interface} && ip link set {interface} up"
    );
    let there = format!(
        "ip link set lo up && ip address add {node}/24 dev eth0 && ip link set eth0 up && ip route add default via {host} && \
         echo 1 > /proc/sys/net/ipv4/ip_forward"
    );
    shell(&["sh", "-c", &here]).map_err(failed)?;
    shell(&["nsenter", &format!("--net=/proc/{holder}/ns/net"), "sh", "-c", &there]).map_err(failed)?;
    shell(&["ip", "route", "add", &pods, "via", &node.to_string()]).map_err(failed)
}

fn shell(line: &[&str]) -> Result<(), String> {
    let mut command = Command::new(line[0]);
    let output = command.args(&line[1..]).stdin(Stdio::null()).output().map_err(|cause| cause.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// What the first process of the namespaces does: mounts, then waits for its end and for those that have lost their parent.
/// It stands in the cluster's folder.
pub(super) const INIT: &str = "\
set -eu
# Where programs have fixed places they find the node's own, not the machine's.
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs -o mode=755 none /var
mkdir -p /run/netns /run/lock /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log /var/tmp
ln -s /run /var/run
mount --bind node/kubelet /var/lib/kubelet
mount --bind node/containerd /var/lib/containerd
mount --bind node/log /var/log
# Volumes that pods share with the node need it; no other namespace is a peer.
mount --make-rshared /
: > node/ready
sleep infinity &
wait
";

/// Waits for what a program that opens namespaces runs in them.
pub(crate) async fn child_of(parent: i32) -> Option<Record> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(child) = Record::child_of(parent) {
            return Some(child);
        }
        Record::of(parent)?;
        tokio::time::sleep(LOOK).await;
    }
    None
}

//! Whether this machine can run a real node, and what it lacks if it cannot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::control_plane::Component;

/// Where distributions put the CNI plugins.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const CNI_PLUGINS: [&str; 3] = ["ptp", "host-local", "loopback"];
/// What a node starts, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables-restore", "iptables"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];
/// `CAP_SYS_RESOURCE`: without it no process may be made less likely to be killed for memory.
const SYS_RESOURCE: u32 = 24;

/// Why this machine can't run a real node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeLack {
    /// Not root.
    #[error("a real node needs root: it makes namespaces, mounts and cgroups; run it with sudo")]
    Root,
    /// A program is missing.
    #[error(
        "a real node needs {program}, which is not in PATH; install Debian's package {package}, or what has it elsewhere"
    )]
    Program {
        /// Which.
        program: &'static str,
        /// What has it.
        package: &'static str,
    },
    /// The plugins that give pods a network are missing.
    #[error("a real node needs the CNI plugins {}; install Debian's package containernetworking-plugins", CNI_PLUGINS.join(", "))]
    Cni,
    /// No Java for the Spark operator.
    #[error(
        "the Spark operator submits by Spark's own program, which needs Java; install Debian's package openjdk-17-jre-headless"
    )]
    Java,
    /// No cgroups that may be made.
    #[error("a real node needs cgroups: {0} is not there or not writable; in a container, start it privileged")]
    Cgroups(PathBuf),
    /// Something that the kernel or the sandbox around this machine forbids.
    #[error("a real node needs {what}, and this machine refuses it: {said}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What was answered.
        said: String,
    },
}

/// What a node needs to know of the machine that it runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where the CNI plugins are.
    pub(super) cni: PathBuf,
    /// Whether processes may be made less likely to be killed for memory.
    pub(super) lowers_oom_score: bool,
}

/// Looks at this machine: root, programs, cgroups, namespaces, overlay mounts and NAT, each tried in namespaces that end
/// with the try.
pub fn check() -> Result<Machine, NodeLack> {
    if !rustix::process::geteuid().is_root() {
        return Err(NodeLack::Root);
    }
    for (program, package) in PROGRAMS {
        find(program).ok_or(NodeLack::Program { program, package })?;
    }
    let has_all = |folder: &Path| CNI_PLUGINS.iter().all(|plugin| folder.join(plugin).exists());
    let cni = CNI_FOLDERS.into_iter().map(PathBuf::from).find(|folder| has_all(folder)).ok_or(NodeLack::Cni)?;
    let writable = |folder: &Path| rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
    let hierarchies = super::cgroups::hierarchies();
    if let Some(closed) = hierarchies.iter().find(|hierarchy| !writable(hierarchy)) {
        return Err(NodeLack::Cgroups(closed.clone()));
    }
    if hierarchies.is_empty() {
        return Err(NodeLack::Cgroups("/sys/fs/cgroup".into()));
    }
    tried("namespaces and mounts of its own", "mount -t tmpfs none /run && mkdir /run/l /run/u /run/m")?;
    tried(
        "overlay mounts",
        "mount -t tmpfs none /run && mkdir /run/l /run/u /run/w /run/m && \
         mount -t overlay none -o lowerdir=/run/l,upperdir=/run/u,workdir=/run/w /run/m",
    )?;
    tried("links between network namespaces", "ip link add name one type veth peer name two")?;
    tried("address translation by iptables", "iptables -w -t nat -A POSTROUTING -j MASQUERADE")?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Ok(Machine { cni, lowers_oom_score: has_capability(&status, SYS_RESOURCE) })
}

/// The same, and what these operators beside it need of this machine.
pub fn check_with(operators: &[Component]) -> Result<Machine, NodeLack> {
    if operators.contains(&Component::SparkOperator) && find("java").is_none() {
        return Err(NodeLack::Java);
    }
    check()
}

/// The file of a program in `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn tried(what: &'static str, script: &str) -> Result<(), NodeLack> {
    let refused = |said: String| NodeLack::Refused { what, said };
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]);
    let output = command.stdin(Stdio::null()).output().map_err(|cause| refused(cause.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Whether the effective set that `/proc/self/status` shows has this capability.
fn has_capability(status: &str, number: u32) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_by_their_number() {
        assert!(has_capability("Name:\tx\nCapEff:\t000001ffffffffff\n", SYS_RESOURCE));
        assert!(!has_capability("Name:\tx\nCapEff:\t000001fffeffffff\n", SYS_RESOURCE));
        assert!(!has_capability("", SYS_RESOURCE));
    }

    #[test]
    fn every_lack_names_its_cure_or_what_was_answered() {
        let program = NodeLack::Program { program: "runc", package: "runc" };
        assert!(program.to_string().contains("install Debian's package runc"), "{program}");
        assert!(NodeLack::Cni.to_string().contains("containernetworking-plugins"), "{}", NodeLack::Cni);
        let refused = tried("nothing", "echo no >&2; exit 1").expect_err("it fails");
        assert!(matches!(refused, NodeLack::Refused { .. }), "{refused}");
    }
}

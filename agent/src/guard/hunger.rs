//! Whether the kernel killed processes for want of memory while an attempt ran. A process that was killed so can't say it,
//! and its signal is the same as anybody's SIGKILL; but the kernel counts.
//!
//! The count of the memory cgroup that the guard is in, and with it every process of the attempt, is evidence against the
//! attempt: memory ran out within its own bounds. Where there is no such cgroup the machine's count is looked at, which only
//! says that the machine was short of memory: the kernel may have chosen this attempt for what another took.
//! Sources: Linux' Documentation/admin-guide/cgroup-v2.rst (`memory.events`), cgroup-v1/memory.rst (`memory.oom_control`),
//! and `/proc/vmstat`, each with a line `oom_kill N`.

use std::fs;
use std::path::{Path, PathBuf};

/// The kernel's count, as it was when the attempt began.
#[derive(Debug)]
pub struct Hunger {
    cgroup: Option<(PathBuf, u64)>,
    machine: Option<u64>,
}

/// What the count says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// So many processes of the attempt's memory cgroup were killed for want of memory.
    Cgroup(u64),
    /// So many processes of this machine were.
    Machine(u64),
}

const MACHINE: &str = "/proc/vmstat";

impl Hunger {
    /// Notes the count.
    pub fn watch() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let counted = candidates(&own, Path::new("/sys/fs/cgroup")).into_iter().find_map(|file| {
            let count = count(&file)?;
            Some((file, count))
        });
        Self { cgroup: counted, machine: count(Path::new(MACHINE)) }
    }

    /// What happened since; none where nothing was killed so, or where nobody counts.
    pub fn evidence(&self) -> Option<Evidence> {
        if let Some((file, before)) = &self.cgroup {
            return count(file)?.checked_sub(*before).filter(|n| *n > 0).map(Evidence::Cgroup);
        }
        let now = count(Path::new(MACHINE))?;
        now.checked_sub(self.machine?).filter(|n| *n > 0).map(Evidence::Machine)
    }
}

/// Where the kernel may count for the cgroups of `/proc/self/cgroup`: version 2 has one line `0::PATH`, version 1 a line
/// `N:CONTROLLERS:PATH` for each hierarchy.
fn candidates(own: &str, root: &Path) -> Vec<PathBuf> {
    let place = |below: &str, path: &str, file: &str| root.join(below).join(path.trim_start_matches('/')).join(file);
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            match controllers {
                "" => Some(place("", path, "memory.events")),
                some if some.split(',').any(|c| c == "memory") => Some(place("memory", path, "memory.oom_control")),
                _ => None,
            }
        })
        .collect()
}

fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_found() {
        let root = Path::new("/sys/fs/cgroup");
        let v2 = candidates("0::/system.slice/agent.service\n", root);
        assert_eq!(v2, [Path::new("/sys/fs/cgroup/system.slice/agent.service/memory.events")]);
        let v1 = candidates("5:cpu,cpuacct:/a\n4:memory:/docker/0a\n0::/\n", root);
        let expected = ["/sys/fs/cgroup/memory/docker/0a/memory.oom_control", "/sys/fs/cgroup/memory.events"];
        assert_eq!(v1, expected.map(PathBuf::from));
        assert!(candidates("nonsense\n\n1:\n", root).is_empty());
    }

    #[test]
    fn only_what_was_killed_since_counts_and_the_cgroups_word_is_the_one_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        let write =
            |n: u64| fs::write(&file, format!("low 0\noom {}\noom_kill {n}\noom_group_kill 9\n", n + 5)).unwrap();
        write(3);
        let hunger = Hunger { cgroup: Some((file.clone(), count(&file).unwrap())), machine: Some(0) };
        assert_eq!(hunger.evidence(), None);
        write(5);
        assert_eq!(hunger.evidence(), Some(Evidence::Cgroup(2)));
        // A cgroup that was made anew counts from 0: that is no evidence.
        write(0);
        assert_eq!(hunger.evidence(), None);
        let nobody_counts = Hunger { cgroup: None, machine: None };
        assert_eq!(nobody_counts.evidence(), None);
    }
}

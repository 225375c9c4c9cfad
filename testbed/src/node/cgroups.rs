//! The node's own branch of every cgroup hierarchy: its pods are below it, and nothing else of the machine is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of a group whose last process has been killed.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// The roots of the hierarchies of this machine: one for each controller with cgroups v1, one for all with v2. Where both are
/// mounted, containers get a group in each.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    roots(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn roots(mounts: &str) -> Vec<PathBuf> {
    let root = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let (place, kind) = (*fields.get(1)?, *fields.get(2)?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(place))
    };
    mounts.lines().filter_map(root).collect()
}

/// Makes the branch.
pub(super) fn make(name: &str) -> io::Result<()> {
    for root in hierarchies() {
        // With cgroups v2 a group has the controllers that its parent passes on. Those that cannot be passed on here the
        // kubelet names when it misses them.
        for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
            let passed_on = root.join("cgroup.subtree_control");
            if passed_on.exists() {
                let _ = fs::write(&passed_on, format!("+{controller}"));
            }
        }
        fs::create_dir_all(root.join(name))?;
    }
    Ok(())
}

/// Removes it and what is below. Its processes have been killed, and the kernel lets go of them in its own time.
pub(super) fn remove(name: &str) -> io::Result<()> {
    let began = Instant::now();
    for root in hierarchies() {
        let branch = root.join(name);
        while let Err(cause) = remove_branch(&branch) {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::new(cause.kind(), format!("{}: {cause}", branch.display())));
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// A group's files are not ours to delete; it goes once nothing is below it.
fn remove_branch(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_branch(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_counts_and_nothing_else() {
        let mixed = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                     tmpfs /sys/fs/cgroup tmpfs rw 0 0\n";
        assert_eq!(roots(mixed), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }

    #[test]
    fn a_branch_goes_with_what_is_below_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let branch = dir.path().join("branch");
        fs::create_dir_all(branch.join("a/b")).expect("made");
        remove_branch(&branch).expect("removed");
        assert!(!branch.exists());
        remove_branch(&branch).expect("what is not there is removed");
    }
}

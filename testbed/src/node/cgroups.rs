//! The node's own branch of every cgroup hierarchy: its pods are below it, and nothing else of the machine is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of a group whose last process has been killed.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// The roots of the hierarchies of this machine: one for each controller with cgroups v1, one for all with v2.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    roots(&mounts)
}

fn roots(mounts: &str) -> Vec<PathBuf> {
    let line = |line: &str| -> Option<(PathBuf, bool, bool)> {
        let fields: Vec<&str> = line.split(' ').collect();
        let (place, kind, options) = (*fields.get(1)?, *fields.get(2)?, *fields.get(3)?);
        let named = options.split(',').any(|option| option.starts_with("name="));
        matches!(kind, "cgroup" | "cgroup2").then(|| (PathBuf::from(place), kind == "cgroup", named))
    };
    let all: Vec<_> = mounts.lines().filter_map(line).collect();
    let of_v1 = all.iter().any(|(_, v1, named)| *v1 && !named);
    all.into_iter().filter(|(_, v1, _)| *v1 == of_v1).map(|(place, ..)| place).collect()
}

/// Makes the branch.
pub(super) fn make(name: &str) -> io::Result<()> {
    for root in hierarchies() {
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
    fn all_controllers_count_and_the_other_version_does_not() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                  cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ntmpfs /x tmpfs rw 0 0\n";
        assert_eq!(roots(v1), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/systemd"].map(PathBuf::from));
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(roots(v2), [PathBuf::from("/sys/fs/cgroup")]);
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

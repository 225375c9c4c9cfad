//! Finds processes through `/proc`: a guard's descendants, and what an attempt left behind when its guard was killed.
//!
//! Reads `/proc` and sends signals; called by the guard, and by the agent once it holds a dead guard's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{MARK, MEMBER, sys};

/// What asks a process to end. A stopped one acts on SIGTERM only once it goes on.
pub const POLITE: [i32; 2] = [libc::SIGTERM, libc::SIGCONT];

/// Processes that would not end.
#[derive(Debug, thiserror::Error)]
#[error(
    "processes {pids:?} of attempt {attempt} do not end on SIGKILL: they hang in the kernel or belong to another user; end them by hand or restart the machine"
)]
pub struct SweepError {
    /// The attempt.
    pub attempt: String,
    /// Who is left.
    pub pids: Vec<i32>,
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// State and parent of a process, from `/proc/PID/stat`.
fn stat(pid: i32) -> Option<(u8, i32)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything, brackets too: the fields begin after the last one.
    let after = text.iter().rposition(|c| *c == b')')? + 2;
    let mut fields = std::str::from_utf8(text.get(after..)?).ok()?.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.next()?.parse().ok()?))
}

fn lives(state: u8) -> bool {
    !matches!(state, b'Z' | b'X')
}

/// Every living process below `root`, not `root` itself.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<(i32, bool)>> = BTreeMap::new();
    for pid in pids() {
        if let Some((state, parent)) = stat(pid) {
            children.entry(parent).or_default().push((pid, lives(state)));
        }
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([root]);
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for (pid, living) in children.get(&parent).into_iter().flatten() {
            if seen.insert(*pid) {
                next.push(*pid);
                if *living {
                    found.push(*pid);
                }
            }
        }
    }
    found
}

/// Sends these signals to each of these processes. That one can't be sent, as to what became another user's, is told to `note`.
pub fn signal(pids: impl IntoIterator<Item = i32>, signals: &[i32], note: fn(fmt::Arguments<'_>)) {
    for pid in pids {
        for &signal in signals {
            if let Err(e) = sys::signal(pid, signal) {
                note(format_args!("cannot send {} to process {pid}: {e}", sys::signal_name(signal)));
            }
        }
    }
}

/// The same to every living process below this one.
pub fn signal_descendants(signals: &[i32], note: fn(fmt::Arguments<'_>)) {
    signal(descendants(std::process::id() as i32), signals, note);
}

/// Every living process of the attempt, whoever its parent is: those started with its mark, and those that have a file
/// open, or stand, in a folder that only this attempt uses (some programs overwrite their environment with a title).
pub fn leftovers(attempt: &str, private: &[PathBuf]) -> Vec<i32> {
    let mark = format!("{MARK}={attempt}");
    let own = std::process::id() as i32;
    pids()
        .into_iter()
        .filter(|pid| *pid != own && *pid > 1)
        .filter(|pid| is_marked(*pid, mark.as_bytes()) || private.iter().any(|dir| uses(*pid, dir)))
        .filter(|pid| stat(*pid).is_some_and(|(state, _)| lives(state)))
        .collect()
}

/// Every living process of one member of an attempt, by its marks, and those below them.
pub fn of_member(attempt: &str, member: &str) -> BTreeSet<i32> {
    let (mark, name) = (format!("{MARK}={attempt}"), format!("{MEMBER}={member}"));
    let own = std::process::id() as i32;
    let marked = pids().into_iter().filter(|pid| *pid != own && *pid > 1);
    let marked = marked.filter(|pid| is_marked(*pid, mark.as_bytes()) && is_marked(*pid, name.as_bytes()));
    with_descendants(marked.collect())
}

/// These processes, as far as they live, and every living one below them.
pub fn with_descendants(pids: BTreeSet<i32>) -> BTreeSet<i32> {
    let below: Vec<i32> = pids.iter().flat_map(|pid| descendants(*pid)).collect();
    let living = |pid: &i32| stat(*pid).is_some_and(|(state, _)| lives(state));
    pids.into_iter().chain(below).filter(living).collect()
}

fn is_marked(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|c| *c == 0).any(|var| var == mark))
}

fn uses(pid: i32, dir: &Path) -> bool {
    let inside = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    let proc = PathBuf::from(format!("/proc/{pid}"));
    inside(proc.join("cwd")) || fs::read_dir(proc.join("fd")).is_ok_and(|fds| fds.flatten().any(|fd| inside(fd.path())))
}

/// Kills what an attempt left behind and waits until none of it is left; returns how many were found.
/// Blocks, for at most `patience`. Only for the holder of the attempt's lock.
pub fn end_leftovers(attempt: &str, private: &[PathBuf], patience: Duration) -> Result<usize, SweepError> {
    let began = Instant::now();
    let mut ended = BTreeSet::new();
    loop {
        let left = leftovers(attempt, private);
        if left.is_empty() {
            return Ok(ended.len());
        }
        if began.elapsed() > patience {
            return Err(SweepError { attempt: attempt.to_owned(), pids: left });
        }
        for pid in left {
            ended.insert(pid);
            // A process that may not be signalled stays on the list and is named in the error.
            let _ = sys::signal(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_is_a_living_descendant_until_it_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(descendants(std::process::id() as i32).contains(&pid));
        child.kill().unwrap();
        // Not reaped yet: a zombie does not live.
        while stat(pid).unwrap().0 != b'Z' {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!descendants(std::process::id() as i32).contains(&pid));
        child.wait().unwrap();
    }

    #[test]
    fn leftovers_are_found_by_mark_and_by_private_folder_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mark = format!("sweep-test-{}", std::process::id());
        let mut marked = Command::new("sleep").arg("60").env(MARK, &mark).spawn().unwrap();
        let mut inside = Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").env(MARK, format!("{mark}0")).spawn().unwrap();
        let private = [dir.path().to_owned()];
        // A reaper, as init would be: a zombie is gone to us, yet `wait` keeps the test clean.
        assert_eq!(end_leftovers(&mark, &private, Duration::from_secs(10)).unwrap(), 2);
        assert!(leftovers(&mark, &private).is_empty());
        marked.wait().unwrap();
        inside.wait().unwrap();
        assert!(other.try_wait().unwrap().is_none(), "another attempt's process lives on");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

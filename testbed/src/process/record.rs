//! The name of a process that outlives whoever started it: its id, when it started and in which boot. An id alone is
//! given out again; with its start it names one process for ever.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// One process of this machine, never another one with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub pid: i32,
    /// Since the boot, in clock ticks.
    started: u64,
    boot: String,
}

impl Record {
    /// The process that has this id now; `None` if there is none, or only what is left of one.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything. After it: state (field 3), …, start time (field 22).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { pid, started: fields.get(19)?.parse().ok()?, boot })
    }

    /// The only child of a process, such as what a program that opens namespaces runs in them.
    pub fn child_of(parent: i32) -> Option<Self> {
        let numbers = fs::read_dir("/proc").ok()?.flatten();
        let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| parent_of(*pid) == Some(parent)).find_map(Self::of)
    }

    /// Whether this very process lives.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Signals it, if it lives.
    pub fn signal(&self, signal: Signal) {
        if self.lives()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // One that has just ended is no error.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether none of its threads runs: each takes note of a stop by itself, on a busy machine some time after it was sent.
    pub fn is_stopped(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return false };
        let stops = |stat: &str| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| matches!(rest.trim_start().chars().next(), Some('T' | 't' | 'Z')))
        };
        // A thread that has ended meanwhile is not one that runs.
        threads.flatten().all(|thread| fs::read_to_string(thread.path().join("stat")).map_or(true, |stat| stops(&stat)))
    }

    /// Writes it down.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        fs::write(file, format!("{} {} {}\n", self.pid, self.started, self.boot))
    }

    /// Reads it again; `None` if it is not there or not whole.
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        })
    }
}

/// Field 4 of its `stat`.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Record::of(std::process::id() as i32).expect("this process");
        assert!(own.lives());
        assert!(!Record { started: own.started + 1, ..own.clone() }.lives(), "another with its id");
        assert!(!Record { boot: "earlier".to_owned(), ..own }.lives(), "of an earlier boot");
    }

    #[test]
    fn a_process_is_stopped_once_all_its_threads_are() {
        let mut sleep = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let record = Record::of(sleep.id() as i32).expect("it lives");
        let until = |stopped: bool| {
            (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                record.is_stopped() == stopped
            })
        };
        assert!(!record.is_stopped());
        record.signal(Signal::STOP);
        assert!(until(true));
        record.signal(Signal::CONT);
        assert!(until(false));
        sleep.kill().and_then(|()| sleep.wait()).expect("a child");
    }

    #[test]
    fn a_child_is_found() {
        let mut sleep = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let own = std::process::id() as i32;
        // Other tests of this process may have children too.
        let found = Record::child_of(own).expect("a child");
        assert_eq!(parent_of(found.pid), Some(own));
        assert_eq!(parent_of(sleep.id() as i32), Some(own));
        sleep.kill().and_then(|()| sleep.wait()).expect("a child");
    }

    #[test]
    fn what_is_written_is_read_again_and_half_of_it_is_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("x.pid");
        let own = Record::of(std::process::id() as i32).expect("this process");
        own.write(&file).expect("written");
        assert_eq!(Record::read(&file), Some(own));
        fs::write(&file, "12 ").expect("written");
        assert_eq!(Record::read(&file), None);
    }
}

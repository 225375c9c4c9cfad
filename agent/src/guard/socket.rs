//! How an agent talks to a guard: lines of JSON on a unix socket in the attempt's folder.
//!
//! A `watch` is answered with the status now and at each change; a `stop` is a change like any other. The end of the
//! stream says that the guard ended; `outcome.json` then says how.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::Stop;

/// The socket's name in the attempt's folder.
pub const SOCKET: &str = "guard.sock";
/// The longest request, in bytes.
const MAX_REQUEST: usize = 4096;
/// The most connections at once; more are closed unread.
const MAX_CLIENTS: usize = 16;

/// From an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "op")]
pub enum Request {
    /// Say the status now and at each change.
    Watch,
    /// End the attempt.
    Stop(Stop),
    /// Look at the order of which members are to come and go.
    Resize,
    /// Answers [`Status::Asks`]: the attempt may go on.
    GoOn {
        /// The question.
        asked: u64,
        /// For how long from then, in ms.
        ttl_ms: u64,
    },
}

/// What agents ask that is not answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// End the attempt.
    Stop(Stop),
    /// Look at the order of which members are to come and go.
    Resize,
    /// The attempt may go on.
    GoOn {
        /// When that was asked.
        asked: u64,
        /// For how long from then, in ms.
        ttl_ms: u64,
    },
}

/// From a guard: how far its attempt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Status {
    /// Not every member is up.
    Starting {
        /// What it waits for.
        waiting_for: String,
    },
    /// Every member is up.
    Running,
    /// Members that came or were to go while it runs and are gone: all so far.
    Members {
        /// By name.
        gone: Vec<String>,
    },
    /// May the attempt go on?
    Asks {
        /// Names the question.
        asked: u64,
    },
    /// The outcome is decided; what is left is being ended.
    Ending,
    /// Nothing is left and `outcome.json` is written; the stream ends after this.
    Gone,
}

/// A path to `name` in an open folder that is short enough for a socket's address (108 bytes), however deep the folder.
pub fn short_path(dir: &File, name: &str) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name)
}

/// The guard's end.
pub struct Server {
    listener: UnixListener,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    unread: Vec<u8>,
    watches: bool,
}

impl Server {
    /// Listens in the attempt's folder, in place of a dead guard's socket.
    pub fn listen(dir: &Path) -> io::Result<Self> {
        let folder = File::open(dir)?;
        let path = short_path(&folder, SOCKET);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: vec![] })
    }

    /// What to wait on.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        std::iter::once(self.listener.as_raw_fd()).chain(self.clients.iter().map(|c| c.stream.as_raw_fd()))
    }

    /// Takes new connections, tells new watchers how things are, and returns what was asked.
    pub fn serve(&mut self, status: &[Status]) -> Vec<Asked> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, unread: vec![], watches: false });
            }
        }
        let mut asked = Vec::new();
        self.clients.retain_mut(|client| client.read(status, &mut asked));
        asked
    }

    /// Tells every watcher.
    pub fn tell(&mut self, status: &Status) {
        self.clients.retain_mut(|client| !client.watches || client.say(status));
    }
}

impl Client {
    /// False once the connection is of no more use.
    fn read(&mut self, status: &[Status], asked: &mut Vec<Asked>) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => self.unread.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.unread.len() > MAX_REQUEST {
                return false;
            }
        }
        while let Some(end) = self.unread.iter().position(|c| *c == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Request::Watch) => {
                    self.watches = true;
                    if !status.iter().all(|status| self.say(status)) {
                        return false;
                    }
                }
                Ok(Request::Stop(stop)) => asked.push(Asked::Stop(stop)),
                Ok(Request::Resize) => asked.push(Asked::Resize),
                Ok(Request::GoOn { asked: at, ttl_ms }) => asked.push(Asked::GoOn { asked: at, ttl_ms }),
                Err(_) => return false,
            }
        }
        true
    }

    /// A watcher that does not read its few lines is let go, never waited for: it connects again.
    fn say(&mut self, status: &Status) -> bool {
        serde_json::to_string(status).is_ok_and(|line| self.stream.write_all(format!("{line}\n").as_bytes()).is_ok())
    }
}

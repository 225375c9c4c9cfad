//! Starts processes, all from one thread that lives as long as this process.
//!
//! The kernel ends a tied child when the *thread* that started it ends. Threads of tests and of async runtimes come and
//! go, so none of them may be the one.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

use super::sys;

/// How long a process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as this process at most.
    Ours,
    /// Until somebody ends it; it has a session of its own.
    Detached,
}

type Order = (Command, Sender<io::Result<Child>>);

static STARTER: LazyLock<io::Result<Mutex<Sender<Order>>>> = LazyLock::new(|| {
    let (send, receive) = channel();
    thread::Builder::new().name("process-starter".to_owned()).spawn(move || start_all(&receive))?;
    Ok(Mutex::new(send))
});

fn start_all(orders: &Receiver<Order>) {
    while let Ok((mut command, answer)) = orders.recv() {
        // Nobody listens any more: then dropping the child leaves it to its tie.
        let _ = answer.send(command.spawn());
    }
}

/// Starts a process with this lifetime.
pub fn spawn(mut command: Command, lifetime: Lifetime) -> io::Result<Child> {
    match lifetime {
        Lifetime::Ours => sys::tie_to_starter(&mut command),
        Lifetime::Detached => sys::leave_session(&mut command),
    }
    let starter = STARTER.as_ref().map_err(|cause| io::Error::new(cause.kind(), cause.to_string()))?;
    let (send, receive) = channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, send)).map_err(|_| gone())?;
    receive.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut sleep = Command::new("sleep");
        sleep.arg("30");
        let mut child = thread::spawn(move || spawn(sleep, Lifetime::Ours)).join().expect("no panic").expect("started");
        thread::sleep(std::time::Duration::from_millis(100));
        assert!(child.try_wait().expect("a child").is_none(), "it died with the thread");
        child.kill().and_then(|()| child.wait()).expect("a child");
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let error = spawn(Command::new("/no/such/program"), Lifetime::Ours).expect_err("nothing to start");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

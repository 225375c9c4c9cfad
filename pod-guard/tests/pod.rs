//! The guard as a program, with an agent played by this test at a real socket. Here it is no container's first process, so that it has to
//! leave nobody behind by itself.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pod_guard::words::{Key, Unproved};

const GUARD: &str = env!("CARGO_BIN_EXE_tidewater-pod-guard");
const ATTEMPT: &str = "0123-1";

/// An agent that lets the attempt go on for so many ms from each question; 0: it closes the connection.
struct Agent {
    address: SocketAddr,
    ttl_ms: Arc<AtomicU64>,
    key: String,
}

impl Agent {
    fn that_lets(ttl_ms: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (key, ttl_ms) = (Key::new_text().unwrap(), Arc::new(AtomicU64::new(ttl_ms)));
        let (proves, says) = (Key::read(&key).unwrap(), ttl_ms.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (proves, says) = (proves.clone(), says.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut lines = BufReader::new(stream.try_clone().unwrap());
                    let mut line = String::new();
                    while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                        let question = Unproved::read(&line).unwrap().proved_by(&proves).unwrap();
                        assert_eq!(question.attempt, ATTEMPT);
                        match says.load(Ordering::SeqCst) {
                            0 => return,
                            ttl_ms => stream.write_all(question.answer(&proves, ttl_ms).as_bytes()).unwrap(),
                        }
                        line.clear();
                    }
                });
            }
        });
        Self { address, ttl_ms, key }
    }

    /// A guard of this shell script.
    fn guard(&self, after_ms: u64, script: &str) -> Child {
        self.guard_of(after_ms, &["sh", "-c", script])
    }

    fn guard_of(&self, after_ms: u64, argv: &[&str]) -> Child {
        let mut command = Command::new(GUARD);
        command.args(["run", "--"]).args(argv).env("TIDEWATER_ATTEMPT", ATTEMPT).env("OWN", "mine");
        command.env("TIDEWATER_GUARD_ADDRESS", self.address.to_string()).env("TIDEWATER_GUARD_KEY", &self.key);
        command.env("TIDEWATER_GUARD_AFTER_MS", after_ms.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

fn ended(guard: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = guard.wait_with_output().unwrap();
    assert_eq!(status.signal(), None);
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn until_there(file: &Path) {
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "{} does not come", file.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn it_is_the_command_to_everybody() {
    let agent = Agent::that_lets(60_000);
    let script =
        "echo out; echo err >&2; echo own $OWN attempt $TIDEWATER_ATTEMPT guard ${TIDEWATER_GUARD_KEY-none}; exit 7";
    let (code, out, err) = ended(agent.guard(60_000, script));
    assert_eq!((code, &*out), (Some(7), "out\nown mine attempt 0123-1 guard none\n"), "{err}");
    assert_eq!(err, "err\n");
    let (code, _, _) = ended(agent.guard(60_000, "kill -9 $$"));
    assert_eq!(code, Some(137));
    let (code, _, err) = ended(agent.guard_of(60_000, &["/nowhere/there"]));
    assert_eq!(code, Some(127));
    assert!(err.contains("/nowhere/there cannot be started"), "{err}");
}

#[test]
fn nothing_begins_before_it_was_let() {
    let dir = tempfile::tempdir().unwrap();
    let (agent, begun) = (Agent::that_lets(0), dir.path().join("begun"));
    let guard = agent.guard(60_000, &format!("touch {}", begun.display()));
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!begun.exists());
    agent.ttl_ms.store(60_000, Ordering::SeqCst);
    let (code, _, err) = ended(guard);
    assert_eq!(code, Some(0), "{err}");
    assert!(begun.exists() && err.contains("waits for leave to begin"), "{err}");
}

#[test]
fn who_does_not_have_the_key_lets_nothing_begin() {
    let dir = tempfile::tempdir().unwrap();
    let (agent, begun) = (Agent::that_lets(60_000), dir.path().join("begun"));
    // It proves its words by another key; this test's agent would take no question of that, so that it answers here by hand.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let _ = writeln!(stream, "may {} {} 60000 {}", words[2], words[3], words[4].trim());
        }
    });
    let guard = Agent { address, ..agent }.guard(2_000, &format!("touch {}", begun.display()));
    let (code, _, err) = ended(guard);
    assert_eq!(code, Some(75));
    assert!(!begun.exists() && err.contains("nobody let attempt 0123-1 begin for 2 s"), "{err}");
    assert!(err.contains("is not this attempt's agent"), "{err}");
}

#[test]
fn a_signal_is_the_commands_to_act_on() {
    let dir = tempfile::tempdir().unwrap();
    let (agent, begun) = (Agent::that_lets(60_000), dir.path().join("begun"));
    let script = format!("trap 'echo told; exit 9' TERM; touch {}; while :; do sleep 0.05; done", begun.display());
    let guard = agent.guard(60_000, &script);
    until_there(&begun);
    pod_guard::sys::signal(guard.id() as i32, 15).unwrap();
    let (code, out, err) = ended(guard);
    assert_eq!((code, &*out), (Some(9), "told\n"), "{err}");

    let waits = Agent::that_lets(0);
    let guard = waits.guard(60_000, "true");
    std::thread::sleep(Duration::from_millis(300));
    pod_guard::sys::signal(guard.id() as i32, 15).unwrap();
    assert_eq!(ended(guard).0, Some(143), "there is no command yet");
}

#[test]
fn what_is_not_let_go_on_ends_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let (agent, polite, deaf) = (Agent::that_lets(4_000), dir.path().join("polite"), dir.path().join("deaf"));
    let script = format!(
        "setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 0.05; done' & \
         trap 'echo $SECONDS > {}; exit 0' TERM; while :; do sleep 0.05; done",
        deaf.display(),
        polite.display()
    );
    let guard = agent.guard(4_000, &script);
    until_there(&deaf);
    // It goes on for longer than that as long as it is let.
    std::thread::sleep(Duration::from_millis(6_000));
    assert!(!polite.exists());
    agent.ttl_ms.store(0, Ordering::SeqCst);
    let cut = Instant::now();
    let (code, _, err) = ended(guard);
    let took = cut.elapsed();
    assert_eq!(code, Some(75), "{err}");
    assert!(err.contains("nobody let attempt 0123-1 go on for 4 s"), "{err}");
    assert!(polite.exists(), "it was asked politely");
    assert!(!lives(&fs::read_to_string(&deaf).unwrap()), "somebody is left");
    // The last leave was for four seconds, and ten more are for the end.
    assert!((9_000..16_000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_copy_is_the_same_program() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("guard");
    assert!(Command::new(GUARD).arg("install").arg(&to).status().unwrap().success());
    assert_eq!(fs::read(&to).unwrap(), fs::read(GUARD).unwrap());
    let misused = Command::new(&to).args(["run", "--", "true"]).env_remove("TIDEWATER_ATTEMPT").output().unwrap();
    assert_eq!(misused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&misused.stderr).contains("TIDEWATER_ATTEMPT is not set"));
    assert_eq!(Command::new(&to).arg("go").output().unwrap().status.code(), Some(2));
}

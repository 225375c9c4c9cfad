//! `tidewater dashboard` against the stand-in: what it prints, passes on and ends with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::fake::{Answer, Fake, ok, refuse};
use super::objects::{event, list, workload_with};
use super::{Ran, run, tidewater};

const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

/// An upgrade to what the page of an attempt says.
fn page(attempt: u32) -> Answer {
    let head =
        ["tidewater-framework: ray".into(), "tidewater-token: secret".into(), format!("tidewater-attempt: {attempt}")];
    Answer::Upgrade(head.into(), PAGE.into())
}

/// What an address says.
fn visit(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// Shows the page of `w` while `visits` goes on; then `w` ends so. Returns how the command ended.
fn shown(last: &'static str, visits: impl FnOnce(&str)) -> Ran {
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let fake = Fake::start(move |request| match (request.path.split('?').next().unwrap(), request.nth) {
        // The first is its own question whether anybody answers there.
        ("/dashboard/default/w", 0 | 1) => page(1),
        ("/dashboard/default/w", 2) => refuse(409, "Conflict", "attempt 2 is on its way"),
        ("/dashboard/default/w", _) => page(2),
        (_, _) if request.path.contains("watch") => {
            while !ends.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let steps = [("Queued", 1), ("Unknown", 2), ("Running", 2), (last, 2)];
            let events = steps.map(|(phase, attempts)| (30, event("MODIFIED", &workload_with("w", phase, attempts))));
            Answer::Stream(events.into(), super::fake::End::Well)
        }
        _ => ok(list(5, &[workload_with("w", "Running", 1)])),
    });
    let mut child = tidewater(Some(&fake.url), &["dashboard", "w"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    visits(line.strip_prefix("http://").unwrap_or_else(|| panic!("{line:?}")).trim_end_matches("/\n"));
    over.store(true, Ordering::Relaxed);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: rest, stderr }
}

#[test]
fn a_page_is_shown_from_attempt_to_attempt_until_the_workload_has_ended() {
    let ran = shown("Succeeded", |address| {
        assert_eq!(visit(address), PAGE);
        let none = visit(address);
        assert!(none.starts_with("HTTP/1.1 503 ") && none.ends_with("attempt 2 is on its way\n"), "{none}");
        assert_eq!(visit(address), PAGE);
    });
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    let lines = [
        "Ray's dashboard of default/w, attempt 1; Ctrl-C ends it",
        "it asks for this token: secret",
        "warning: attempt 2 is on its way",
        "Ray's dashboard of default/w, attempt 2; Ctrl-C ends it",
        "it asks for this token: secret",
        "attempt 1 has ended; the page of the next one is shown here once it is up",
        "cluster eu-1 is not heard from: its page can't be reached until it is",
        "from here on it is the page of attempt 2",
        "default/w has ended (Succeeded), and its page is gone with it",
    ];
    assert_eq!(ran.stderr.lines().collect::<Vec<_>>(), lines);
    let ran = shown("Failed", |_| {});
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.ends_with("error: default/w has ended (Failed), and its page is gone with it\n"), "{ran:?}");
}

#[test]
fn who_has_no_page_is_told_and_no_address_is_printed() {
    let told = |code, reason: &'static str| {
        let fake = Fake::start(move |_| refuse(code, reason, "there is none"));
        run(&fake.url, &["--retry-for", "200ms", "dashboard", "w"])
    };
    for (code, reason, exit) in [(404, "NotFound", 3), (409, "Conflict", 1), (503, "ServiceUnavailable", 4)] {
        let ran = told(code, reason);
        assert_eq!((ran.code, ran.stdout.as_str()), (exit, ""), "{ran:?}");
        assert_eq!(ran.stderr, "error: there is none\n");
    }
    // It can be reached, and says nothing.
    let fake = Fake::start(|_| Answer::Upgrade(vec!["tidewater-attempt: 1".into()], String::new()));
    let ran = run(&fake.url, &["dashboard", "w"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr.contains("the page of attempt 1 of default/w does not answer: it ends every connection"),
        "{ran:?}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = run(&fake.url, &["dashboard", "w", "--port", &port]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains(&format!("can't listen at 127.0.0.1:{port}")), "{ran:?}");
}

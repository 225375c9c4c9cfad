//! Requests on bad days: silence, refusals, lost connections, and watches that break.

use std::io::{BufRead, BufReader};

use serde_json::json;

use super::fake::{Answer, End, Fake, ok, refuse};
use super::objects::{event, list, workload};
use super::{finish, run, tidewater};

const WORKLOADS: &str = "/apis/tidewater.dev/v1/namespaces/default/workloads";

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_server_that_does_not_answer_is_told_in_one_line() {
    let address = nobody();
    let ran = run(&address, &["get", "--retry-for", "0s"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (4, ""));
    assert_eq!(
        ran.stderr,
        format!(
            "error: can't reach the server at {address}/: Connection refused (os error 111) (is it running? `tidewater dev` starts one)\n"
        )
    );
}

#[test]
fn of_several_servers_one_that_answers_is_enough() {
    let fake = Fake::start(|_| ok(list(1, &[workload("a", "Running")])));
    let ran = run(&format!("{},{}", nobody(), fake.url), &["get"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("Running"));
}

#[test]
fn what_is_not_now_is_tried_again_until_it_is() {
    let fake = Fake::start(|request| match request.nth {
        0 => refuse(503, "ServiceUnavailable", "there is no leader"),
        1 => Answer::Drop,
        _ => ok(list(1, &[workload("a", "Running")])),
    });
    let ran = run(&fake.url, &["get"]);
    assert_eq!((ran.code, fake.requests().len()), (0, 3), "{ran:?}");
}

#[test]
fn what_stays_unavailable_is_told_in_the_servers_words() {
    let fake = Fake::start(|_| refuse(503, "ServiceUnavailable", "there is no leader"));
    let ran = run(&fake.url, &["get", "--retry-for", "200ms"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (4, "error: there is no leader\n"));
    assert!(fake.requests().len() > 1);
}

#[test]
fn a_refusal_is_final_and_its_kind_decides_the_exit_code() {
    for (code, reason, exit) in
        [(400, "BadRequest", 2), (422, "Invalid", 2), (403, "Forbidden", 1), (404, "NotFound", 3), (500, "Internal", 1)]
    {
        let fake = Fake::start(move |_| refuse(code, reason, "no, because"));
        let ran = run(&fake.url, &["get"]);
        assert_eq!((ran.code, ran.stderr.as_str(), fake.requests().len()), (exit, "error: no, because\n", 1), "{code}");
    }
}

#[test]
fn a_server_that_is_no_coordinator_is_told_as_that() {
    let other = Fake::start(|_| Answer::Whole(404, vec![], "<html>".into()));
    let ran = run(&other.url, &["get"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is it a Tidewater coordinator?"), "{ran:?}");
    let page = Fake::start(|_| Answer::Whole(200, vec![], "<html>".into()));
    let ran = run(&page.url, &["get"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("gave an answer that makes no sense here"), "{ran:?}");
}

#[test]
fn a_delete_whose_answer_was_lost_is_done_and_not_missing() {
    let fake = Fake::start(|request| if request.nth == 0 { Answer::Drop } else { refuse(404, "NotFound", "gone") });
    let ran = run(&fake.url, &["delete", "a"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "workload/a deleted\n"), "{ran:?}");
    assert_eq!(fake.requests()[1].method, "DELETE");
}

#[test]
fn of_several_cancelled_workloads_a_missing_one_does_not_stop_the_rest() {
    let fake = Fake::start(|request| match request.path.contains("/gone/") {
        true => refuse(404, "NotFound", "workload gone not found"),
        false => ok(json!({})),
    });
    let ran = run(&fake.url, &["cancel", "a", "gone", "b"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "workload/a cancelled\nworkload/b cancelled\n"));
    assert_eq!(ran.stderr, "error: workload gone not found\n");
    assert_eq!(fake.requests()[2].path, format!("{WORKLOADS}/b/cancel"));
}

#[test]
fn forgetting_needs_a_reason_sends_it_and_shows_what_the_server_warns_of() {
    let fake = Fake::start(|_| Answer::Whole(200, vec!["warning: 299 - \"on your word\"".into()], "{}".into()));
    let ran = run(&fake.url, &["forget", "a"]);
    assert_eq!((ran.code, fake.requests().len()), (2, 0), "{ran:?}");
    assert!(ran.stderr.contains("--reason"), "{ran:?}");
    let ran = run(&fake.url, &["forget", "a", "--attempt", "2", "--reason", "its node is gone"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "workload/a: its attempt is forgotten\n"), "{ran:?}");
    assert!(ran.stderr.contains("on your word"), "{ran:?}");
    let sent = fake.requests().remove(0);
    assert_eq!((sent.method.as_str(), sent.path), ("POST", format!("{WORKLOADS}/a/forget")));
    assert_eq!(sent.body, json!({"attempt": 2, "reason": "its node is gone"}).to_string());
}

#[test]
fn a_watch_survives_a_lost_connection_and_a_version_that_is_too_old() {
    let fake = Fake::start(|request| match (request.path.as_str(), request.nth) {
        (WORKLOADS, 0) => ok(list(5, &[workload("a", "Queued")])),
        (WORKLOADS, _) => ok(list(20, &[workload("a", "Succeeded"), workload("b", "Running")])),
        (path, 0) if path.ends_with("resourceVersion=5") => {
            let mut running = workload("a", "Running");
            running["metadata"]["resourceVersion"] = json!("8");
            let line = event("MODIFIED", &running);
            let (head, tail) = line.split_at(40);
            Answer::Stream(vec![(0, head.into()), (50, tail.into())], End::Broken)
        }
        (path, 0) if path.ends_with("resourceVersion=8") => {
            let bookmark = event("BOOKMARK", &json!({"metadata": {"resourceVersion": "9"}}));
            Answer::Stream(vec![(0, bookmark)], End::Well)
        }
        (path, _) if path.ends_with("resourceVersion=9") => refuse(410, "Expired", "too old"),
        _ => Answer::Stream(vec![(60_000, String::new())], End::Well),
    });
    let mut child = tidewater(Some(&fake.url), &["get", "-w"]).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen: Vec<(String, String)> = lines
        .skip(1)
        .take(4)
        .map(|line| {
            let line = line.unwrap();
            let mut words = line.split_whitespace();
            (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
        })
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let seen: Vec<(&str, &str)> = seen.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(seen, [("a", "Queued"), ("a", "Running"), ("a", "Succeeded"), ("b", "Running")]);
}

#[test]
fn a_time_limit_ends_whatever_takes_longer() {
    let fake = Fake::start(|request| match request.path.contains("watch") {
        true => Answer::Stream(vec![(60_000, String::new())], End::Well),
        false => ok(list(5, &[])),
    });
    let ran = run(&fake.url, &["get", "-w", "--timeout", "300ms"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (124, "error: gave up after 300ms (--timeout)\n"));
}

#[test]
fn the_server_is_found_in_a_kubeconfig() {
    let fake = Fake::start(|_| ok(list(1, &[workload("a", "Running")])));
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: dev\ncontexts:\n- {{name: dev, context: {{cluster: dev}}}}\n\
         clusters:\n- {{name: dev, cluster: {{server: '{}'}}}}\n",
        fake.url
    );
    let named = dir.path().join("elsewhere");
    std::fs::write(&named, &text).unwrap();
    assert_eq!(finish(tidewater(None, &["get"]).env("TIDEWATER_KUBECONFIG", &named)).code, 0);
    let written = dir.path().join("tidewater/dev");
    std::fs::create_dir_all(&written).unwrap();
    std::fs::write(written.join("kubeconfig"), &text).unwrap();
    assert_eq!(finish(tidewater(None, &["get"]).env("XDG_DATA_HOME", dir.path())).code, 0);
    assert_eq!(fake.requests().len(), 2);
}

//! Handing in, waiting, and following: what is sent, that it is sent once in effect, and how the end is told.

use serde_json::{Value, json};

use super::fake::{Answer, End, Fake, Request, ok, refuse};
use super::objects::{event, list, workload_with};
use super::{finish, run, run_with_input, tidewater};

const WORKLOADS: &str = "/apis/tidewater.dev/v1/namespaces/default/workloads";
const MANIFEST: &str = "apiVersion: tidewater.dev/v1\nkind: Workload\nmetadata: {name: job}\nspec:\n  workingDir: src\n  batch:\n    command: [\"true\"]\n    groups: [{cpu: 1, memory: 1Gi}]\n";

/// Accepts a workload as it was sent.
fn accept(request: &Request) -> Answer {
    Answer::Whole(201, vec![], request.body.clone())
}

fn sent(request: &Request) -> Value {
    serde_json::from_str(&request.body).unwrap()
}

#[test]
fn a_manifest_is_sent_with_a_uid_and_an_absolute_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("m.yaml"), MANIFEST).unwrap();
    std::fs::write(dir.path().join("n.yaml"), MANIFEST.replace("  workingDir: src\n", "").replace("job", "other"))
        .unwrap();
    let fake = Fake::start(accept);
    let path = dir.path().join("n.yaml");
    let ran = finish(
        tidewater(Some(&fake.url), &["submit", "-f", "m.yaml", "-f", path.to_str().unwrap()]).current_dir(dir.path()),
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, "workload/job created\nworkload/other created\n", "")
    );
    let requests = fake.requests();
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", WORKLOADS));
    let (first, second) = (sent(&requests[0]), sent(&requests[1]));
    let root = dir.path().canonicalize().unwrap();
    assert_eq!(first["spec"]["workingDir"], root.join("src").to_str().unwrap());
    assert_eq!(second["spec"]["workingDir"], root.to_str().unwrap());
    assert_eq!(first["metadata"]["namespace"], "default");
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert!(first["metadata"]["uid"].is_string());
}

#[test]
fn standard_input_is_meant_from_the_current_folder_and_may_hold_several_documents() {
    let fake = Fake::start(accept);
    let two = format!(
        "{MANIFEST}---\n{}",
        MANIFEST.replace("job", "job-2").replace("metadata: {", "metadata: {namespace: vision, ")
    );
    let ran = run_with_input(&fake.url, &["submit", "-f", "-"], two.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    let requests = fake.requests();
    let here = std::env::current_dir().unwrap();
    assert_eq!(sent(&requests[0])["spec"]["workingDir"], here.join("src").to_str().unwrap());
    assert_eq!(requests[1].path, "/apis/tidewater.dev/v1/namespaces/vision/workloads");
}

#[test]
fn the_command_line_describes_a_batch_a_ray_job_or_a_spark_application() {
    let fake = Fake::start(accept);
    let submit = |args: &[&str]| {
        let ran = run(&fake.url, &[&["submit", "--name", "w"], args].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        sent(fake.requests().last().unwrap())["spec"].clone()
    };
    let batch = submit(&[
        "--count",
        "2",
        "--gpus",
        "8",
        "--gpu",
        "nvidia h200,H100",
        "--cpu",
        "500m",
        "--env",
        "A=b=c",
        "--priority",
        "-5",
        "--",
        "run",
        "--it",
    ]);
    assert_eq!(
        batch["batch"],
        json!({"command": ["run", "--it"], "groups": [{"name": "workers", "count": 2, "cpu": "0.5", "memory": "1Gi", "gpus": "8", "gpu": ["H200", "H100"]}]})
    );
    assert_eq!((&batch["env"], &batch["priority"]), (&json!({"A": "b=c"}), &json!(-5)));
    let ray = submit(&[
        "--framework",
        "ray",
        "--head-memory",
        "4Gi",
        "--region",
        "eu",
        "--retries",
        "3",
        "--",
        "python",
        "a b.py",
    ]);
    assert_eq!(ray["ray"]["entrypoint"], "python 'a b.py'");
    assert_eq!(ray["ray"]["head"], json!({"cpu": "1", "memory": "4Gi"}));
    assert_eq!((&ray["placement"]["regions"]["require"], &ray["retries"]["limit"]), (&json!(["eu"]), &json!(3)));
    let spark = submit(&["--framework", "spark", "--count", "3", "--", "app.py", "10"]);
    assert_eq!((&spark["spark"]["main"], &spark["spark"]["arguments"]), (&json!("app.py"), &json!(["10"])));
    assert_eq!(spark["spark"]["executors"]["count"], 3);
}

#[test]
fn a_submission_whose_answer_was_lost_is_sent_again_with_the_same_uid() {
    let fake = Fake::start(|request| match request.nth {
        0 => Answer::Drop,
        1 => refuse(503, "ServiceUnavailable", "there is no leader"),
        _ => accept(request),
    });
    let ran = run(&fake.url, &["submit", "--name", "w", "--", "true"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "workload/w created\n"), "{ran:?}");
    let uids: Vec<Value> = fake.requests().iter().map(|r| sent(r)["metadata"]["uid"].clone()).collect();
    assert_eq!(uids.len(), 3);
    assert!(uids.iter().all(|uid| *uid == uids[0]));
}

#[test]
fn a_name_that_our_own_lost_try_has_taken_is_ours() {
    let taken = std::sync::Mutex::new(String::new());
    let fake = Fake::start(move |request| match (request.method.as_str(), request.nth) {
        ("POST", 0) => {
            *taken.lock().unwrap() = request.body.clone();
            Answer::Drop
        }
        ("POST", _) => refuse(409, "AlreadyExists", "workload w exists"),
        _ => Answer::Whole(200, vec![], taken.lock().unwrap().clone()),
    });
    let ran = run(&fake.url, &["submit", "--name", "w", "--", "true"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "workload/w created\n"), "{ran:?}");
}

#[test]
fn a_name_that_another_has_taken_is_a_failure() {
    let fake = Fake::start(|_| refuse(409, "AlreadyExists", "workload default/w exists already"));
    let ran = run(&fake.url, &["submit", "--name", "w", "--", "true"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: workload w: workload default/w exists already\n"));
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn warnings_are_shown_and_do_not_fail() {
    let header = "warning: 299 - \"no cluster could ever hold it: \\\"workers\\\" needs 9\"";
    let fake = Fake::start(move |request| Answer::Whole(201, vec![header.into()], request.body.clone()));
    let ran = run(&fake.url, &["submit", "--name", "w", "--", "true"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "warning: w: no cluster could ever hold it: \"workers\" needs 9\n")
    );
}

/// A coordinator on which `w` is queued, then runs twice, then ends in `last`.
fn story(last: &'static str) -> Fake {
    let states = |from: usize| {
        let all = [("Queued", 0), ("Running", 1), ("Queued", 1), ("Running", 2), (last, 2)];
        all[from..]
            .iter()
            .map(|(phase, attempts)| (30, event("MODIFIED", &workload_with("w", phase, *attempts))))
            .collect()
    };
    Fake::start(move |request| match (request.method.as_str(), request.path.split('?').next().unwrap()) {
        ("POST", _) => accept(request),
        (_, "/logs/default/w") if request.path.contains("attempt=1") => {
            Answer::Stream(vec![(0, "one\n".into())], End::Well)
        }
        (_, "/logs/default/w") if request.nth == 0 => Answer::Stream(vec![(0, "two\nth".into())], End::Broken),
        (_, "/logs/default/w") => Answer::Stream(vec![(0, "two\n".into()), (10, "three\n".into())], End::Well),
        (_, WORKLOADS) if request.path.contains("watch") => Answer::Stream(states(1), End::Well),
        (_, WORKLOADS) => ok(list(5, &[workload_with("w", "Queued", 0)])),
        // Asked before the first attempt and after each.
        (_, _) => match request.nth {
            0 => ok(workload_with("w", "Queued", 0)),
            1 => ok(workload_with("w", "Running", 2)),
            _ => ok(workload_with("w", last, 2)),
        },
    })
}

#[test]
fn waiting_tells_each_phase_once_and_ends_as_the_workload_did() {
    let ran = run(&story("Succeeded").url, &["submit", "--name", "w", "--wait", "--", "true"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "workload/w created\n"), "{ran:?}");
    assert_eq!(
        ran.stderr,
        "w: Queued: it is Queued\nw: Running: it is Running\nw: Queued: it is Queued\nw: Running: it is Running\nw: Succeeded: it is Succeeded\n"
    );
    for (phase, word) in [("Failed", "failed"), ("Cancelled", "cancelled")] {
        let ran = run(&story(phase).url, &["submit", "--name", "w", "--wait", "--", "true"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.ends_with(&format!("error: w {word}: it is {phase}\n")), "{ran:?}");
    }
}

#[test]
fn following_prints_every_attempts_log_once_through_a_broken_stream() {
    let ran = run(&story("Succeeded").url, &["submit", "--name", "w", "--follow", "--", "true"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "workload/w created\none\ntwo\nthree\n"), "{ran:?}");
}

#[test]
fn waiting_for_a_workload_that_is_deleted_ends_badly() {
    let fake = Fake::start(|request| match (request.method.as_str(), request.path.contains("watch")) {
        ("POST", _) => accept(request),
        (_, true) => Answer::Stream(vec![(0, event("DELETED", &workload_with("w", "Running", 1)))], End::Well),
        _ => ok(list(5, &[workload_with("w", "Running", 1)])),
    });
    let ran = run(&fake.url, &["submit", "--name", "w", "--wait", "--", "true"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.ends_with("error: w was deleted\n"), "{ran:?}");
}

#[test]
fn logs_follow_one_attempt_or_all_that_come() {
    let ran = run(&story("Succeeded").url, &["logs", "w", "-f", "--attempt", "1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "one\n"), "{ran:?}");
    let ran = run(&story("Failed").url, &["logs", "w", "-f", "--attempt", "3"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: w has no attempt 3\n"), "{ran:?}");
}

#[test]
fn an_interrupt_says_that_the_workload_goes_on() {
    let fake = Fake::start(|request| match (request.method.as_str(), request.path.contains("watch")) {
        ("POST", _) => accept(request),
        (_, true) => Answer::Stream(vec![(60_000, String::new())], End::Well),
        _ => ok(list(5, &[workload_with("w", "Running", 1)])),
    });
    let child = tidewater(Some(&fake.url), &["submit", "--name", "w", "--wait", "--", "true"]).spawn().unwrap();
    while !fake.requests().iter().any(|r| r.path.contains("watch")) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with("not waiting any longer; w goes on (`tidewater cancel w` ends it)\n"), "{said}");
}

#[test]
fn a_log_that_ends_before_its_attempt_is_taken_up_again_where_it_stopped() {
    let mut going_on = workload_with("w", "Running", 1);
    going_on["status"]["attempts"][0]["endedAt"] = Value::Null;
    let fake = Fake::start(move |request| match request.path.split('?').next().unwrap() {
        "/logs/default/w" if request.nth == 0 => Answer::Stream(vec![(0, "one\n".into())], End::Well),
        "/logs/default/w" => Answer::Stream(vec![(0, "one\ntwo\n".into())], End::Well),
        // Asked at the start, after the first stream, after the second, and for the next attempt.
        _ if request.nth < 2 => ok(going_on.clone()),
        _ => ok(workload_with("w", "Succeeded", 1)),
    });
    let ran = run(&fake.url, &["logs", "w", "-f", "--attempt", "1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "one\ntwo\n"), "{ran:?}");
}

#[test]
fn a_log_that_can_not_be_had_is_told_and_the_wait_goes_on() {
    let fake = Fake::start(|request| match (request.method.as_str(), request.path.split('?').next().unwrap()) {
        ("POST", _) => accept(request),
        (_, "/logs/default/w") => refuse(404, "NotFound", "the log is gone"),
        (_, WORKLOADS) if request.path.contains("watch") => {
            Answer::Stream(vec![(300, event("MODIFIED", &workload_with("w", "Succeeded", 1)))], End::Well)
        }
        (_, WORKLOADS) => ok(list(5, &[workload_with("w", "Running", 1)])),
        _ => ok(workload_with("w", "Running", 1)),
    });
    let ran = run(&fake.url, &["submit", "--name", "w", "--follow", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("warning: w: its log can't be followed: the log is gone\n"), "{ran:?}");
    assert!(ran.stderr.ends_with("w: Succeeded: it is Succeeded\n"), "{ran:?}");
    let watched = fake.requests().into_iter().find(|r| r.path.contains("watch")).unwrap();
    assert_eq!(watched.path, format!("{WORKLOADS}?watch=true&resourceVersion=5&fieldSelector=metadata.name%3Dw"));
}

#[test]
fn logs_of_several_workloads_are_told_apart_line_by_line() {
    let fake = Fake::start(|request| {
        let name = if request.path.contains("job-2") { "job-2" } else { "job" };
        match (request.method.as_str(), request.path.split('?').next().unwrap()) {
            ("POST", _) => accept(request),
            (_, path) if path.starts_with("/logs/") => {
                Answer::Stream(vec![(0, format!("{name} sa")), (20, "ys hi".into())], End::Well)
            }
            (_, WORKLOADS) => {
                ok(list(5, &[workload_with("job", "Succeeded", 1), workload_with("job-2", "Succeeded", 1)]))
            }
            _ => ok(workload_with(name, "Succeeded", 1)),
        }
    });
    let two = format!("{MANIFEST}---\n{}", MANIFEST.replace("job", "job-2"));
    let ran = run_with_input(&fake.url, &["submit", "-f", "-", "--follow"], two.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut lines: Vec<&str> = ran.stdout.lines().skip(2).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[job-2] job-2 says hi", "[job] job says hi"]);
}

#[test]
fn a_log_is_not_asked_for_before_its_attempt_runs() {
    let mut bound = workload_with("w", "Bound", 1);
    bound["status"]["attempts"][0]["runningAt"] = Value::Null;
    bound["status"]["attempts"][0]["endedAt"] = Value::Null;
    let listed = bound.clone();
    let fake = Fake::start(move |request| match request.path.split('?').next().unwrap() {
        "/logs/default/w" => Answer::Stream(vec![(0, "one\n".into())], End::Well),
        WORKLOADS if request.path.contains("watch") => {
            Answer::Stream(vec![(100, event("MODIFIED", &workload_with("w", "Succeeded", 1)))], End::Well)
        }
        WORKLOADS => ok(list(5, std::slice::from_ref(&listed))),
        _ if request.nth == 0 => ok(bound.clone()),
        _ => ok(workload_with("w", "Succeeded", 1)),
    });
    let ran = run(&fake.url, &["logs", "w", "-f"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "one\n"), "{ran:?}");
    let paths: Vec<String> = fake.requests().into_iter().map(|r| r.path).collect();
    let at = |part: &str| paths.iter().position(|p| p.contains(part)).unwrap();
    assert!(at("watch") < at("/logs/"), "{paths:?}");
}

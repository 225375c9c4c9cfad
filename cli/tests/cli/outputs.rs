//! What is printed into a pipe: plain, stable, one line a row. Golden where it is long.

use serde_json::Value;

use super::fake::{Answer, Fake, ok, refuse};
use super::objects::{
    capacity, changes, clusters, created, forecast, list, nodes, placed, waiting, workload, workload_with,
};
use super::{Ran, finish, run, tidewater};

/// A coordinator with three workloads, two clusters and an explanation for two.
fn federation() -> Fake {
    Fake::start(|request| match request.path.split('?').next().unwrap() {
        "/apis/tidewater.dev/v1/namespaces/default/workloads" | "/apis/tidewater.dev/v1/workloads" => ok(list(
            9,
            &[workload("waits", "Queued"), workload_with("runs", "Running", 1), workload_with("fell", "Failed", 2)],
        )),
        "/apis/tidewater.dev/v1/namespaces/default/workloads/runs" => ok(workload_with("runs", "Running", 1)),
        "/apis/tidewater.dev/v1/namespaces/default/workloads/fell" => ok(failed()),
        "/apis/tidewater.dev/v1/namespaces/empty/workloads" => ok(list(9, &[])),
        "/apis/tidewater.dev/v1/clusters" => ok(clusters()),
        "/apis/tidewater.dev/v1/clusters/eu-1/nodes" => ok(nodes()),
        "/capacity" => ok(capacity()),
        "/forecast/default/waits" => ok(forecast()),
        "/whatif" => ok(changes()),
        "/explain/default/waits" => ok(waiting()),
        "/explain/default/runs" => ok(placed()),
        "/explain/default/newer" => ok(serde_json::json!({"phase": "Dreaming", "text": "it dreams of GPUs"})),
        "/logs/default/runs" => Answer::Whole(200, vec![], "first\nlast\n".into()),
        _ => refuse(404, "NotFound", "there is no such thing"),
    })
}

/// Runs a command that must succeed.
fn shown(args: &[&str]) -> String {
    let ran = run(&federation().url, args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    ran.stdout.replace(created(), "2026-01-01T00:00:00Z")
}

/// One whose failure is told with the end of its log.
fn failed() -> serde_json::Value {
    let mut fell = workload_with("fell", "Failed", 1);
    let why = "attempt 1 on eu-1: failed (user, exit code 1): member workers-0 ended with exit code 1; the end of its log:\nline 1\nline 2";
    fell["status"]["message"] = why.into();
    fell["status"]["attempts"][0]["state"] = why.trim_start_matches("attempt 1 on eu-1: ").into();
    fell
}

#[test]
fn the_end_of_an_attempt_is_told_at_length_once_and_in_its_table_by_its_kind() {
    let text = shown(&["describe", "fell"]);
    assert!(
        text.contains("Message:     attempt 1 on eu-1: failed (user, exit code 1): member workers-0 ended"),
        "{text}"
    );
    let row = text.lines().find(|line| line.trim_start().starts_with("1   eu-1")).unwrap();
    assert!(row.contains("failed (user, exit code 1)   ") && !row.contains("member"), "{text}");
    assert_eq!(text.matches("line 2").count(), 1, "{text}");
}

#[test]
fn tables_are_as_reviewed() {
    insta::assert_snapshot!("get", shown(&["get"]));
    insta::assert_snapshot!("get_all_wide", shown(&["get", "-A", "-o", "wide"]));
    insta::assert_snapshot!("describe", shown(&["describe", "runs"]));
    insta::assert_snapshot!("clusters", shown(&["clusters"]));
    insta::assert_snapshot!("clusters_wide", shown(&["get", "clusters", "-o", "wide"]));
    insta::assert_snapshot!("nodes", shown(&["clusters", "eu-1"]));
    insta::assert_snapshot!("capacity", shown(&["capacity", "--gang", "2", "--gpus-per-node", "8", "-o", "wide"]));
}

#[test]
fn explanations_are_as_reviewed() {
    insta::assert_snapshot!("why_waiting", shown(&["why", "waits"]));
    insta::assert_snapshot!("why_placed", shown(&["why", "runs"]));
}

#[test]
fn the_time_to_come_is_as_reviewed() {
    insta::assert_snapshot!("forecast", shown(&["forecast", "waits"]));
    insta::assert_snapshot!("whatif", shown(&["whatif", "--drain", "us-1", "--add-nodes", "eu-1:4x8xH100"]));
}

#[test]
fn what_is_to_be_imagined_is_sent_in_order_or_refused_before_anything_is_sent() {
    let server = federation();
    let args = ["whatif", "--drain", "us-1/n-1", "--delete-pool", "ads", "--add-nodes", "eu-1:2x8xH100", "-o", "json"];
    assert_eq!(run(&server.url, &args).code, 0);
    let body: Value = serde_json::from_str(&server.requests()[0].body).unwrap();
    let kinds: Vec<&str> = body["edits"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["addNodes", "drainNode", "deletePool"], "{body}");
    assert_eq!((&body["edits"][0]["count"], &body["edits"][0]["sku"]), (&2.into(), &"H100".into()));
    let ran = run(&server.url, &["whatif"]);
    assert!(ran.code == 2 && ran.stderr.contains("nothing is different"), "{ran:?}");
    let ran = run(&server.url, &["whatif", "--add-nodes", "eu-1:4x8"]);
    assert!(ran.code == 2 && ran.stderr.contains("COUNTxGPUSxMODEL"), "{ran:?}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn reasons_of_a_newer_server_are_shown_in_its_own_words() {
    assert_eq!(shown(&["why", "newer"]), "it dreams of GPUs\n");
}

#[test]
fn json_and_yaml_carry_the_same_objects() {
    let json = run(&federation().url, &["get", "runs", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["spec"]["batch"]["command"], serde_json::json!(["true"]));
    let yaml = run(&federation().url, &["get", "runs", "-o", "yaml"]).stdout;
    assert!(yaml.contains("kind: Workload\n") && yaml.contains("phase: Running\n"), "{yaml}");
    let all = run(&federation().url, &["get", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&all).unwrap()["items"].as_array().unwrap().len(), 3);
    let why = run(&federation().url, &["why", "waits", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&why).unwrap(), waiting());
    let capacity = run(&federation().url, &["capacity", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&capacity).unwrap()["gang"]["largest"], 3);
}

#[test]
fn what_is_printed_as_yaml_can_be_submitted_again() {
    let yaml = run(&federation().url, &["get", "runs", "-o", "yaml"]).stdout;
    let fake = Fake::start(|request| ok(serde_json::from_str::<Value>(&request.body).unwrap()));
    let ran = super::run_with_input(&fake.url, &["submit", "-f", "-"], yaml.as_bytes());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "workload/runs created\n"), "{ran:?}");
}

#[test]
fn an_empty_list_is_no_table_but_still_an_object() {
    let ran = run(&federation().url, &["get", "-n", "empty"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", "No workloads in namespace empty.\n"));
    let json = run(&federation().url, &["get", "-n", "empty", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["items"], serde_json::json!([]));
}

#[test]
fn logs_are_printed_as_they_are() {
    assert_eq!(shown(&["logs", "runs"]), "first\nlast\n");
}

#[test]
fn the_question_for_capacity_is_passed_on_under_the_models_own_name() {
    let fake = federation();
    run(
        &fake.url,
        &["capacity", "--sku", "nvidia h100 80gb hbm3", "--region", "eu", "--gang", "4", "--gpus-per-node", "8"],
    );
    assert_eq!(fake.requests()[0].path, "/capacity?sku=H100&region=eu&gang=4&gpus-per-node=8");
}

#[test]
fn a_pipe_gets_colours_only_by_force_and_never_with_no_color() {
    let coloured = |name: &str, args: &[&str]| {
        let fake = federation();
        let ran = finish(tidewater(Some(&fake.url), args).env(name, "1"));
        assert_eq!(ran.code, 0);
        ran.stdout.contains('\u{1b}')
    };
    assert!(!coloured("UNRELATED", &["get"]));
    assert!(coloured("CLICOLOR_FORCE", &["get"]));
    assert!(!coloured("CLICOLOR_FORCE", &["get", "--no-color"]));
    assert!(!coloured("NO_COLOR", &["get"]));
    assert!(coloured("CLICOLOR_FORCE", &["why", "waits"]));
    assert!(!coloured("CLICOLOR_FORCE", &["get", "-o", "json"]));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = federation();
    let mut child = tidewater(Some(&fake.url), &["get"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_missing_workload_has_an_exit_code_of_its_own() {
    for args in [&["describe", "gone"][..], &["why", "gone"], &["logs", "gone"], &["get", "gone"], &["cancel", "gone"]]
    {
        let Ran { code, stdout, stderr } = run(&federation().url, args);
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (3, "", "error: there is no such thing\n"), "{args:?}");
    }
}

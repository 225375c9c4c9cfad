//! Clusters taken out of service and back: what is sent, how a drain shows how far it is, and how its waiting ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::fake::{Fake, Request, ok, refuse};
use super::objects::{changes, clusters, list, workload_with};
use super::{Ran, run};

const EU: &str = "/apis/tidewater.dev/v1/clusters/eu-1";

/// Clusters of which one is drained, with so much left.
fn drained(left: u64, drain: Option<Value>) -> Value {
    let mut cluster = clusters()["items"][0].clone();
    let status = &mut cluster["status"];
    (status["phase"], status["running"]) = (json!(if left > 0 { "Draining" } else { "Drained" }), json!(left));
    status["cordon"] = json!({"since": "2026-01-02T03:04:05.000Z", "reason": "ann", "drain": drain,
        "message": "cluster eu-1 is drained (since 2026-01-02T03:04:05.000Z, ann): tidewater cluster uncordon eu-1"});
    cluster
}

fn drain(to_end: u64, ending: u64, waits_for: &[&str], unseen: &[&str]) -> Option<Value> {
    Some(json!({"since": "2026-01-02T03:04:05.000Z", "force": false, "toEnd": to_end, "ending": ending,
        "waitsFor": waits_for, "waitsForCount": waits_for.len(), "unseen": unseen, "unseenCount": unseen.len()}))
}

/// What is seen of the cluster, look by look; the last stays.
fn federation(looks: Vec<Value>) -> Fake {
    let look = AtomicUsize::new(0);
    Fake::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", EU) => {
            let at = look.fetch_add(1, Ordering::Relaxed).min(looks.len() - 1);
            if looks[at].is_null() { refuse(404, "NotFound", "cluster eu-1 has not joined") } else { ok(&looks[at]) }
        }
        ("GET", "/apis/tidewater.dev/v1/clusters") => {
            let mut all = clusters();
            all["items"][0] = drained(0, drain(0, 0, &[], &[]));
            ok(all)
        }
        ("GET", "/apis/tidewater.dev/v1/workloads") => {
            let mut firm = workload_with("firm", "Running", 1);
            firm["spec"]["preemptible"] = json!(false);
            ok(list(7, &[firm, workload_with("soft", "Running", 1)]))
        }
        ("POST", "/whatif") => ok(changes()),
        ("POST" | "DELETE", path) if path.contains("eu-9") => {
            refuse(404, "NotFound", "there is no cluster eu-9; there are eu-1, eu-2")
        }
        ("POST" | "DELETE", _) => ok(json!({"status": "Success"})),
        _ => refuse(404, "NotFound", "there is no such thing"),
    })
}

fn asked(fake: &Fake, method: &str) -> Vec<(String, Value)> {
    let told = |r: &Request| (r.path.clone(), serde_json::from_str(&r.body).unwrap_or(Value::Null));
    fake.requests().iter().filter(|r| r.method == method).map(told).collect()
}

fn drains(looks: Vec<Value>) -> Ran {
    run(&federation(looks).url, &["cluster", "drain", "eu-1"])
}

#[test]
fn each_word_is_sent_for_each_cluster() {
    let fake = federation(vec![Value::Null]);
    let ran = run(&fake.url, &["cluster", "cordon", "eu-1", "eu-9", "eu-2", "--reason", "ann: switches"]);
    assert_eq!(ran.stdout, "cluster/eu-1 cordoned\ncluster/eu-2 cordoned\n");
    assert_eq!((ran.code, ran.stderr.contains("there are eu-1, eu-2")), (3, true), "{ran:?}");
    assert_eq!(asked(&fake, "POST")[0], (format!("{EU}/cordon"), json!({"reason": "ann: switches"})));
    assert_eq!(run(&fake.url, &["cluster", "uncordon", "eu-1"]).stdout, "cluster/eu-1 uncordoned\n");
    let ran = run(&fake.url, &["cluster", "drain", "eu-1", "--no-wait", "--force", "--max-at-once", "2"]);
    assert_eq!(ran.stdout, "cluster/eu-1 is being drained\n");
    let drain = asked(&fake, "POST").pop().unwrap();
    assert_eq!(drain, (format!("{EU}/drain"), json!({"reason": null, "force": true, "maxAtOnce": 2})));
    let ran = run(&fake.url, &["cluster", "remove", "eu-1", "--reason", "gone", "--lost-for-good"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "cluster/eu-1 removed\n"));
    let removed = fake.requests().into_iter().find(|r| r.method == "DELETE").unwrap();
    assert_eq!(removed.path, format!("{EU}?reason=gone&lostForGood=true"));
    assert_eq!(run(&fake.url, &["cluster", "drain", "eu-1", "--max-at-once", "0"]).code, 2);
}

#[test]
fn a_drain_is_waited_for_and_names_what_it_waits_for() {
    let ran = drains(vec![
        drained(3, drain(1, 1, &["default/firm"], &[])),
        drained(1, drain(0, 0, &["default/firm"], &[])),
        drained(1, drain(0, 0, &[], &["default/lost"])),
        drained(0, drain(0, 0, &[], &[])),
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "cluster/eu-1 drained\n"), "{ran:?}");
    insta::assert_snapshot!("drain_progress", ran.stderr);
    // Somebody removed it meanwhile: nothing was left.
    assert_eq!(drains(vec![drained(1, drain(1, 0, &[], &[])), Value::Null]).code, 0);
    // Or said that it is not to be drained.
    let ran = drains(vec![drained(1, drain(1, 0, &[], &[])), drained(1, None)]);
    assert_eq!((ran.code, ran.stderr.contains("eu-1 is not drained any more")), (1, true), "{ran:?}");
}

#[test]
fn a_dry_run_changes_nothing_and_names_whom_it_would_wait_for() {
    let fake = federation(vec![Value::Null]);
    let ran = run(&fake.url, &["cluster", "drain", "eu-1", "--dry-run"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("firm may not be preempted") && !ran.stderr.contains("soft may"), "{ran:?}");
    let sent = asked(&fake, "POST");
    let edits = json!({"edits": [{"kind": "drainCluster", "cluster": "eu-1", "waits": true}]});
    assert_eq!(sent, [("/whatif".to_owned(), edits)]);
}

#[test]
fn the_list_of_clusters_names_cordons_below_it() {
    let ran = run(&federation(vec![Value::Null]).url, &["clusters"]);
    insta::assert_snapshot!("clusters_cordoned", ran.stdout);
}

//! Pools on the command line: the tree with its bars, what is sent, and faults with file, line and field.

use serde_json::{Value, json};

use super::fake::{Fake, ok, refuse};
use super::{Ran, run, run_with_input};

fn pool(name: &str, spec: Value, leaf: bool, gpu: [&str; 5]) -> Value {
    let [reservation, entitlement, allocated, pending, idle] = gpu;
    json!({"apiVersion": "tidewater.dev/v1", "kind": "ResourcePool", "metadata": {"name": name, "resourceVersion": "7"},
        "spec": spec,
        "status": {"depth": 1, "leaf": leaf, "queued": 1, "running": 2, "resources": {
            "gpu": {"reservation": reservation, "limit": "48", "share": 2, "type": "ELASTIC", "entitlement": entitlement,
                "allocated": allocated, "pending": pending, "idle": idle},
            "cpu": {"reservation": "0", "share": 1, "type": "STATIC", "entitlement": "32.5", "allocated": "4", "pending": "0"}}}})
}

fn federation() -> Fake {
    Fake::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/apis/tidewater.dev/v1/resourcepools") => ok(json!({
            "apiVersion": "tidewater.dev/v1", "kind": "ResourcePoolList", "metadata": {"resourceVersion": "9"},
            "items": [
                pool("default", json!({}), true, ["0", "8", "0", "0", "0"]),
                pool("ml", json!({}), false, ["24", "40", "44", "8", "8"]),
                pool("research", json!({"parent": "ml"}), true, ["16", "16", "24", "0", "8"]),
                pool("vision", json!({"parent": "ml"}), true, ["8", "24", "20", "8", "0"]),
            ]
        })),
        ("GET", "/apis/tidewater.dev/v1/ownershiprules") => ok(json!({
            "apiVersion": "tidewater.dev/v1", "kind": "OwnershipRuleList", "metadata": {"resourceVersion": "9"},
            "items": [{"apiVersion": "tidewater.dev/v1", "kind": "OwnershipRule", "metadata": {"name": "team-a"},
                "spec": {"parent": "org"}, "status": {"pool": "research"}}]
        })),
        ("PUT", _) => ok(serde_json::from_str::<Value>(&request.body).unwrap()),
        ("DELETE", "/apis/tidewater.dev/v1/resourcepools/research") => refuse(
            409,
            "Conflict",
            "pool research has 3 workloads that have not ended: let them end, or cancel them, first",
        ),
        ("DELETE", _) => ok(json!({"status": "Success"})),
        _ => refuse(404, "NotFound", "there is no such thing"),
    })
}

fn shown(args: &[&str]) -> String {
    let ran = run(&federation().url, args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    ran.stdout
}

#[test]
fn pools_and_rules_are_as_reviewed() {
    insta::assert_snapshot!("pools", shown(&["pools"]));
    insta::assert_snapshot!("pools_wide", shown(&["pools", "-o", "wide"]));
    insta::assert_snapshot!("pools_cpu", shown(&["pools", "--resource", "cpu"]));
    insta::assert_snapshot!("pool_rules", shown(&["pool", "rules"]));
    let json: Value = serde_json::from_str(&shown(&["pools", "-o", "json"])).unwrap();
    assert_eq!(json["items"][2]["status"]["resources"]["gpu"]["idle"], "8");
    assert!(shown(&["pools", "-o", "yaml"]).contains("entitlement: \"40\""), "{}", shown(&["pools", "-o", "yaml"]));
}

const GOOD: &str = "apiVersion: tidewater.dev/v1\nkind: ResourcePool\nmetadata: {name: research}\nspec:\n  parent: ml\n  \
                    resources:\n    gpu/H100: {reservation: 16, limit: 32, share: 2, type: ELASTIC}\n    cpu: {reservation: 500m}\n";
const RULE: &str =
    "apiVersion: tidewater.dev/v1\nkind: OwnershipRule\nmetadata: {name: team-a}\nspec: {pool: research}\n";

fn apply(text: &str) -> Ran {
    run_with_input(&federation().url, &["pool", "apply", "-f", "-"], text.as_bytes())
}

#[test]
fn what_is_applied_is_sent_in_the_order_in_which_it_is_written() {
    let fake = federation();
    let ran = run_with_input(&fake.url, &["pool", "apply", "-f", "-"], format!("{GOOD}---\n{RULE}").as_bytes());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "pool/research applied\nownershiprule/team-a applied\n"),
        "{ran:?}"
    );
    let sent: Vec<(String, String)> = fake.requests().into_iter().map(|r| (r.method, r.path)).collect();
    let root = "/apis/tidewater.dev/v1";
    assert_eq!(
        sent,
        [
            ("PUT".to_owned(), format!("{root}/resourcepools/research")),
            ("PUT".to_owned(), format!("{root}/ownershiprules/team-a"))
        ]
    );
    let body: Value = serde_json::from_str(&fake.requests()[0].body).unwrap();
    assert_eq!(
        body["spec"]["resources"],
        json!({"cpu": {"reservation": "0.5", "share": 1, "type": "ELASTIC"},
            "gpu/H100": {"reservation": "16", "limit": "32", "share": 2, "type": "ELASTIC"}})
    );
}

#[test]
fn faults_are_told_with_line_and_field_and_nothing_is_sent() {
    let faults = [
        (
            "reservation: 16",
            "reservation: 40",
            "standard input:7:16: spec.resources[\"gpu/H100\"].reservation: it is 40, above the limit of 32: lower it, or raise the limit",
        ),
        ("reservation: 16", "reservation: -1", "\"-1\" is no amount of gpus"),
        ("reservation: 16", "reservation: 99999999999999999999", "is no amount of gpus"),
        ("share: 2", "share: 0", "share: it is 0: write 1 to 1000000"),
        ("gpu/H100", "gpu/H10O", "did you mean H100?"),
        ("gpu/H100", "gpus", "\"gpus\" is no resource: write cpu, memory, gpu or gpu/MODEL"),
        ("ELASTIC", "elastic", "\"elastic\" is none of ELASTIC, STATIC"),
        ("parent: ml", "parnt: ml", "standard input:5:3: spec.parnt: unknown field: did you mean parent?"),
        ("kind: ResourcePool", "kind: Pool", "kind: it is \"Pool\": write ResourcePool or OwnershipRule"),
        (
            "name: research",
            "name: research, namespace: a",
            "metadata.namespace: pools and ownership rules are in no namespace",
        ),
    ];
    for (from, to, expected) in faults {
        let ran = apply(&GOOD.replacen(from, to, 1));
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{to}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{to}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: standard input:"), "{to}: {}", ran.stderr);
    }
}

#[test]
fn a_pool_that_can_not_go_does_not_keep_the_others() {
    let ran = run(&federation().url, &["pool", "delete", "research", "vision"]);
    assert_eq!(ran.stdout, "pool/vision deleted\n");
    assert!(ran.stderr.contains("has 3 workloads that have not ended"), "{ran:?}");
    assert_ne!(ran.code, 0);
    assert_eq!(shown(&["pool", "delete-rule", "team-a"]), "ownershiprule/team-a deleted\n");
}

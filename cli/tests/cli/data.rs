//! Data locations on the command line: the table, what is sent, and faults with file, line and field.

use serde_json::{Value, json};

use super::fake::{Fake, ok, refuse};
use super::{run, run_with_input};

fn data(name: &str, spec: Value, used_by: u64, users: &[&str]) -> Value {
    json!({"apiVersion": "tidewater.dev/v1", "kind": "DataLocation", "metadata": {"name": name, "resourceVersion": "7"},
        "spec": spec, "status": {"usedBy": used_by, "users": users}})
}

fn federation() -> Fake {
    Fake::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/apis/tidewater.dev/v1/datalocations") => ok(json!({
            "apiVersion": "tidewater.dev/v1", "kind": "DataLocationList", "metadata": {"resourceVersion": "9"},
            "items": [
                data("corpus", json!({"size": "800Gi", "clusters": ["ap-1", "eu-1", "eu-2", "eu-3", "us-1"]}), 12,
                    &["default/a", "default/b", "vision/c", "vision/d"]),
                data("imagenet", json!({"size": "2Ti", "clusters": ["eu-1"], "regions": ["us-east"]}), 0, &[]),
            ]
        })),
        ("PUT", _) => ok(serde_json::from_str::<Value>(&request.body).unwrap()),
        ("DELETE", "/apis/tidewater.dev/v1/datalocations/corpus") => {
            refuse(404, "NotFound", "there is no data location corpus")
        }
        ("DELETE", _) => ok(json!({"status": "Success"})),
        ("POST", "/whatif") => ok(json!({"now": 0, "changes": [], "changed": 0, "same": 3})),
        _ => refuse(404, "NotFound", "there is no such thing"),
    })
}

fn shown(args: &[&str]) -> String {
    let ran = run(&federation().url, args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    ran.stdout
}

#[test]
fn the_table_is_as_reviewed() {
    insta::assert_snapshot!("data", shown(&["data"]));
    insta::assert_snapshot!("data_wide", shown(&["data", "-o", "wide"]));
    let json: Value = serde_json::from_str(&shown(&["data", "-o", "json"])).unwrap();
    assert_eq!(json["items"][1]["spec"]["size"], "2Ti");
}

const GOOD: &str = "apiVersion: tidewater.dev/v1\nkind: DataLocation\nmetadata: {name: imagenet}\nspec:\n  size: 2048Gi\n  \
                    clusters: [eu-1]\n  regions: [us-east]\n";

#[test]
fn what_is_applied_is_sent_and_what_was_printed_can_be_applied_again() {
    let fake = federation();
    let printed = shown(&["data", "-o", "yaml"]);
    let ran = run_with_input(&fake.url, &["data", "apply", "-f", "-"], GOOD.as_bytes());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "data/imagenet applied\n"), "{ran:?}");
    let sent = &fake.requests()[0];
    assert_eq!((sent.method.as_str(), sent.path.as_str()), ("PUT", "/apis/tidewater.dev/v1/datalocations/imagenet"));
    let body: Value = serde_json::from_str(&sent.body).unwrap();
    assert_eq!(body["spec"], json!({"size": "2Ti", "clusters": ["eu-1"], "regions": ["us-east"]}));
    assert!(printed.contains("usedBy: 12"), "{printed}");
}

#[test]
fn faults_are_told_with_line_and_field_and_nothing_is_sent() {
    let faults = [
        (
            "size: 2048Gi",
            "size: 0Gi",
            "standard input:5:3: spec.size: it is 0: write how large the data is, such as 2Ti",
        ),
        (
            "size: 2048Gi",
            "size: 2TB",
            "\"2TB\" is no amount of data: write a number and its unit, such as 800Gi or 2Ti",
        ),
        ("  size: 2048Gi\n", "", "spec.size: it is missing: write a number and its unit"),
        ("regions:", "region:", "spec.region: unknown field: did you mean regions?"),
        ("[eu-1]", "[EU]", "cluster \"EU\" is not a name"),
        ("  clusters: [eu-1]\n  regions: [us-east]\n", "", "it says nowhere where a copy is"),
        ("name: imagenet", "name: imagenet, namespace: a", "metadata.namespace: data locations are in no namespace"),
        ("kind: DataLocation", "kind: Data", "kind: it is \"Data\": write DataLocation"),
    ];
    for (from, to, expected) in faults {
        let fake = federation();
        let ran = run_with_input(&fake.url, &["data", "apply", "-f", "-"], GOOD.replacen(from, to, 1).as_bytes());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{to}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{to}: {}", ran.stderr);
        assert!(fake.requests().is_empty(), "{to}");
    }
}

#[test]
fn one_that_is_not_there_does_not_keep_the_others_from_going() {
    let ran = run(&federation().url, &["data", "delete", "corpus", "imagenet"]);
    assert_eq!(ran.stdout, "data/imagenet deleted\n");
    assert!(ran.stderr.contains("there is no data location corpus"), "{ran:?}");
    assert_ne!(ran.code, 0);
}

#[test]
fn other_data_can_be_imagined() {
    let fake = federation();
    let ran = run_with_input(&fake.url, &["whatif", "--data", "-", "--delete-data", "corpus"], GOOD.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    let asked: Value = serde_json::from_str(&fake.requests()[0].body).unwrap();
    assert_eq!(
        asked["edits"],
        json!([
            {"kind": "setData", "name": "imagenet", "spec": {"size": "2Ti", "clusters": ["eu-1"], "regions": ["us-east"]}},
            {"kind": "deleteData", "name": "corpus"}
        ])
    );
}

//! Bad input: one clear line for each problem, with its place; exit code 2; and nothing is ever sent.

use std::path::Path;

use super::fake::{Fake, refuse};
use super::{Ran, finish, run, run_with_input, tidewater};

const GOOD: &str = "\
apiVersion: tidewater.dev/v1
kind: Workload
metadata: {name: good}
spec:
  batch:
    command: [echo, hi]
    groups:
    - {count: 2, cpu: 1, memory: 1Gi}
";

/// Submits a file called `m.yaml`, and returns the lines on stderr after making sure that nothing was sent.
fn problems(content: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("m.yaml"), content).unwrap();
    refused(&["submit", "-f", "m.yaml"], dir.path())
}

fn refused(args: &[&str], dir: &Path) -> String {
    let fake = Fake::start(|_| refuse(500, "", "nothing may be sent"));
    let ran = finish(tidewater(Some(&fake.url), args).current_dir(dir));
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert_eq!(fake.requests().len(), 0);
    ran.stderr
}

fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    problems(GOOD.replace(from, to).as_bytes())
}

#[test]
fn nodes_are_a_clusters_and_are_not_watched() {
    let here = Path::new(".");
    assert!(refused(&["get", "nodes"], here).contains("say whose nodes"));
    assert!(refused(&["get", "nodes", "a", "b"], here).contains("get nodes CLUSTER"));
    assert!(refused(&["get", "nodes", "A_B"], here).contains("A_B"));
    assert!(refused(&["get", "nodes", "a", "-w"], here).contains("--watch"));
}

#[test]
fn an_unknown_field_names_the_nearest() {
    assert_eq!(
        with("  batch:", "  prioritty: 3\n  batch:"),
        "error: m.yaml:5:3: spec.prioritty: unknown field: did you mean priority? (known here: pool, priority, preemptible, ray, spark, batch, manifest, placement, retries, env, workingDir, dependsOn, expectedDuration, idleTimeout, ttlAfterFinished, onClusterLoss, failoverAfter, secrets, tokens)\n"
    );
    assert_eq!(
        with("cpu: 1", "cpus: 1"),
        "error: m.yaml:8:18: spec.batch.groups[0].cpus: unknown field: did you mean cpu? (known here: name, count, min, max, cpu, memory, gpus, gpu)\n"
    );
}

#[test]
fn a_colon_without_a_blank_and_a_field_without_a_value_say_what_to_write() {
    assert_eq!(
        with("cpu: 1", "cpu:1"),
        "error: m.yaml:8:18: spec.batch.groups[0][\"cpu:1\"]: unknown field: write a blank after the colon of cpu\n"
    );
    assert_eq!(
        with("cpu: 1", "cpu: "),
        "error: m.yaml:8:18: spec.batch.groups[0].cpu: it has no value: write cores, such as 4, 0.5 or 500m\n"
    );
}

#[test]
fn a_missing_field_says_what_to_write() {
    assert_eq!(
        with(" cpu: 1,", ""),
        "error: m.yaml:8:18: spec.batch.groups[0].cpu: it is missing: write cores, such as 4, 0.5 or 500m\n"
    );
    assert_eq!(
        with("    command: [echo, hi]\n", ""),
        "error: m.yaml:6:5: spec.batch.command: it is missing: write the program and its arguments, as a list\n"
    );
    assert_eq!(with("name: good", ""), "error: m.yaml:3:11: metadata.name: it is missing: write a-z, 0-9 and '-'\n");
}

#[test]
fn an_amount_says_what_to_write() {
    assert_eq!(
        with("1Gi", "1G"),
        "error: m.yaml:8:34: spec.batch.groups[0].memory: \"1G\" is no amount of memory: write a number and its unit, such as 512Mi, 16Gi or 1Ti\n"
    );
    assert_eq!(
        with("cpu: 1", "cpu: lots"),
        "error: m.yaml:8:23: spec.batch.groups[0].cpu: \"lots\" is no amount of cpu: write cores such as 4, 0.5 or 500m\n"
    );
    assert_eq!(
        with("count: 2", "count: -2"),
        "error: m.yaml:8:15: spec.batch.groups[0].count: expected a whole number, 0 or more\n"
    );
}

#[test]
fn an_unknown_model_is_found_in_its_list_and_the_nearest_is_named() {
    assert_eq!(
        with("cpu: 1", "cpu: 1, gpus: 1, gpu: [A100, H1000]"),
        "error: m.yaml:8:47: spec.batch.groups[0].gpu[1]: unknown GPU model \"H1000\": did you mean H100?\n"
    );
}

#[test]
fn a_value_of_the_wrong_shape_says_which_is_right() {
    assert_eq!(with("[echo, hi]", "echo hi"), "error: m.yaml:6:14: spec.batch.command: expected a list\n");
    assert_eq!(
        with("{name: good}", "good"),
        "error: m.yaml:3:11: metadata: expected a mapping (fields, each with a value)\n"
    );
    assert!(with("name: good", "name: Good_One").starts_with(
        "error: m.yaml:3:18: metadata.name: workload \"Good_One\" is not a name: it has a character that is not allowed"
    ));
}

#[test]
fn everything_wrong_with_a_specification_is_told_at_once() {
    let text = GOOD.replace("count: 2, cpu: 1", "count: 0, cpu: 0").replace("[echo, hi]", "[]");
    assert_eq!(
        problems(text.as_bytes()),
        "error: m.yaml:6:5: spec.batch.command: it is empty: write the program and its arguments\n\
         error: m.yaml:8:8: spec.batch.groups[0].count: it is 0: a group has at least one member\n\
         error: m.yaml:8:18: spec.batch.groups[0].cpu: it is 0: ask for at least 1m\n"
    );
    assert_eq!(
        with("  batch:", "  ray: {entrypoint: x, head: {cpu: 1, memory: 1Gi}}\n  batch:"),
        "error: m.yaml:4:1: spec: only one of ray, spark, batch and manifest may be set, not ray and batch\n"
    );
}

#[test]
fn another_kind_is_refused_before_its_fields_are_looked_at() {
    let text = GOOD.replace("kind: Workload", "kind: Deployment").replace("tidewater.dev/v1", "apps/v1");
    assert_eq!(
        problems(text.as_bytes()),
        "error: m.yaml:1:1: apiVersion: it is \"apps/v1\": write tidewater.dev/v1\n\
         error: m.yaml:2:1: kind: it is \"Deployment\": write Workload\n"
    );
    assert_eq!(with("kind: Workload\n", ""), "error: m.yaml:1:1: kind: it is missing: write kind: Workload\n");
    assert_eq!(
        problems(b"- 1\n"),
        "error: m.yaml:1:1: expected a Workload: a mapping with apiVersion: tidewater.dev/v1, kind: Workload, metadata and spec\n"
    );
}

#[test]
fn what_is_not_yaml_says_where_it_stops_being_it() {
    assert_eq!(
        with("{name: good}", "{name: good}\nkind: Workload"),
        "error: m.yaml:4:1: kind: it is written twice: keep one of them\n"
    );
    assert_eq!(with("    command", "\tcommand"), "error: m.yaml:6:2: it is indented with a tab: YAML needs spaces\n");
    assert_eq!(with("[echo, hi]", "*nope"), "error: m.yaml:6:14: this is not YAML: alias references unknown anchor\n");
    assert!(with("[echo, hi]", "[echo, hi").starts_with("error: m.yaml:7:11: this is not YAML: "));
}

#[test]
fn a_small_file_that_unfolds_into_a_huge_one_is_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..9 {
        let last = i - 1;
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{last}"); 10].join(",")));
    }
    let said = problems((GOOD.to_owned() + &bomb).as_bytes());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: m.yaml:"), "{said}");
}

#[test]
fn files_that_are_no_manifests_get_one_line_each() {
    assert_eq!(problems(b""), "error: m.yaml: it is empty: expected at least one object\n");
    assert_eq!(problems(b"# nothing\n---\n"), "error: m.yaml: it is empty: expected at least one object\n");
    assert_eq!(problems(b"ok: 1\na\xff\xfeb\n"), "error: m.yaml:2: it is not UTF-8 text: save the file as UTF-8\n");
    let huge = vec![b'#'; 1024 * 1024 + 1];
    assert_eq!(problems(&huge), "error: m.yaml: it is larger than 1 MiB, the most that a manifest may have\n");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    assert_eq!(
        refused(&["submit", "-f", "d", "-f", "gone.yaml"], dir.path()),
        "error: d: it is a directory: name its files, each with -f\nerror: gone.yaml: no such file\n"
    );
}

#[test]
fn of_several_documents_each_bad_one_is_told_and_none_is_sent() {
    let second = GOOD.replace("name: good", "name: second").replace("1Gi", "1G");
    let third = GOOD.replace("name: good", "name: third").replace("cpu: 1", "cpu: x");
    assert_eq!(
        problems(format!("{GOOD}---\n{second}---\n{third}").as_bytes()),
        "error: m.yaml:17:34: spec.batch.groups[0].memory: \"1G\" is no amount of memory: write a number and its unit, such as 512Mi, 16Gi or 1Ti\n\
         error: m.yaml:26:23: spec.batch.groups[0].cpu: \"x\" is no amount of cpu: write cores such as 4, 0.5 or 500m\n"
    );
    assert_eq!(
        problems(format!("{GOOD}---\n{GOOD}").as_bytes()),
        "error: m.yaml:10: metadata.name: good was already used at m.yaml:1\n"
    );
}

#[test]
fn the_command_line_is_held_to_the_same_rules() {
    let here = Path::new(".");
    let said = |args: &[&str]| refused(args, here);
    assert!(
        said(&["submit", "--name", "a", "--cpu", "4x", "--", "true"]).contains("write cores such as 4, 0.5 or 500m")
    );
    let model = said(&["submit", "--name", "a", "--gpus", "1", "--gpu", "H1000", "--", "true"]);
    assert!(model.contains("did you mean H100?"), "{model}");
    assert!(said(&["submit", "--name", "A", "--", "true"]).contains("is not a name"));
    assert_eq!(
        said(&["submit", "--name", "a"]),
        "error: there is no command: write it after `--`, such as `-- python train.py`\n"
    );
    assert_eq!(
        said(&["submit", "--name", "a", "--gpus", "1.5", "--", "true"]),
        "error: spec.batch.groups[0].gpus: 1.5 is no whole number of GPUs, and a share is a part of one: ask for less than 1\n"
    );
    assert!(said(&["submit"]).starts_with("error: nothing to submit: "));
    assert!(said(&["submit", "-f", "x", "--name", "a", "--", "true"]).contains("cannot be used with"));
    assert!(said(&["capacity", "--gang", "0"]).contains("0 is not in"));
    assert!(said(&["get", "-A", "one"]).contains("leave --all-namespaces out"));
    assert!(said(&["get", "Not_A_Name"]).contains("is not a name"));
}

#[test]
fn a_namespace_on_the_command_line_must_not_contradict_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("m.yaml"), GOOD.replace("name: good", "name: good, namespace: vision")).unwrap();
    assert_eq!(
        refused(&["submit", "-f", "m.yaml", "-n", "audio"], dir.path()),
        "error: m.yaml:3:24: metadata.namespace: it says vision, but --namespace says audio: leave one of them out\n"
    );
}

#[test]
fn problems_on_standard_input_say_so() {
    let fake = Fake::start(|_| refuse(500, "", "nothing may be sent"));
    let Ran { code, stderr, .. } =
        run_with_input(&fake.url, &["submit", "-f", "-"], b"kind: Pod\napiVersion: tidewater.dev/v1\n");
    assert_eq!((code, stderr.as_str()), (2, "error: standard input:1:1: kind: it is \"Pod\": write Workload\n"));
}

#[test]
fn a_bad_address_is_told_apart_from_a_silent_one() {
    let https = run("https://127.0.0.1:1", &["get"]);
    assert_eq!(https.code, 2);
    assert!(https.stderr.contains("https is not supported in this version"), "{https:?}");
    let none = finish(&mut tidewater(None, &["get"]));
    assert_eq!(none.code, 4);
    assert_eq!(
        none.stderr,
        "error: no server is known (/nonexistent/tidewater/dev/kubeconfig does not exist): start one with `tidewater dev`, or name one with --server URL or TIDEWATER_SERVER\n"
    );
}

//! Golden texts of what each framework comes to, and the rules that no golden text shows.

use protocol::control::{LaunchOrder, NodeShare};
use protocol::ids::{AttemptId, AttemptNumber, GroupName, NodeName, Uid, WorkloadKey};
use protocol::sku::Sku;
use protocol::workload::WorkloadSpec;
use serde_json::{Value, json};

use super::*;
use crate::runtime::kubernetes::settings::{Pin, PullPolicy};

/// An order for these groups: for each the nodes with how many members.
fn order(name: &str, spec: Value, places: &[(&str, &[(&str, u32)])]) -> LaunchOrder {
    let spec: WorkloadSpec = serde_json::from_value(spec).unwrap();
    let gang = spec.gang();
    let placement = places.iter().map(|(group, nodes)| {
        let need = gang.iter().find(|need| need.name.as_str() == *group).unwrap();
        GroupPlacement {
            group: GroupName::new(group).unwrap(),
            each: need.each,
            sku: (need.each.gpu_milli > 0).then(|| Sku::parse("H100").unwrap()),
            nodes: nodes
                .iter()
                .map(|(node, members)| NodeShare { node: NodeName::new(node).unwrap(), members: *members })
                .collect(),
        }
    });
    LaunchOrder {
        attempt: AttemptId { workload: Uid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), number: AttemptNumber(2) },
        key: WorkloadKey { namespace: "vision".parse().unwrap(), name: name.parse().unwrap() },
        placement: placement.collect(),
        spec,
    }
}

fn settings() -> KubernetesSettings {
    KubernetesSettings::new("eu-1".parse().unwrap())
}

fn text(manifests: &Manifests) -> String {
    let objects: Vec<&Value> = manifests.objects.iter().map(|manifest| &manifest.object).collect();
    format!("{:#}\nsamples: {:?}", json!(objects), manifests.samples.iter().map(|m| &m.name).collect::<Vec<_>>())
}

fn batch(groups: Value, env: Value) -> Value {
    json!({"batch": {"image": "registry/train:1", "command": ["python", "t.py", "--cost=$5"], "groups": groups}, "env": env})
}

#[test]
fn batch_of_two_groups() {
    let groups = json!([
        {"name": "train", "count": 3, "cpu": "8", "memory": "64Gi", "gpus": 8, "gpu": ["H100"]},
        {"name": "eval", "count": 1, "cpu": "500m", "memory": "1Gi"},
    ]);
    let mut spec = batch(groups, json!({"PRICE": "$(RANK) $HOME", "RANK": "7"}));
    spec["pool"] = json!("research");
    spec["placement"] = json!({"spread": "nodes"});
    let order = order("llama.ft", spec, &[("train", &[("n1", 1), ("n2", 2)]), ("eval", &[("n1", 1)])]);
    insta::assert_snapshot!(text(&Manifests::of(&order, &settings()).unwrap()));
}

#[test]
fn ray_with_two_groups_of_workers() {
    let spec = json!({"ray": {
        "image": "registry/ray:2.52.1", "entrypoint": "python train.py && echo \"$DONE\"",
        "head": {"cpu": "2", "memory": "8Gi"},
        "workers": [
            {"name": "train", "count": 2, "cpu": "8", "memory": "64Gi", "gpus": 4, "gpu": ["H100"]},
            {"name": "data", "count": 1, "cpu": "1500m", "memory": "4Gi"},
        ],
    }});
    let order = order("tune", spec, &[("head", &[("n1", 1)]), ("train", &[("n1", 2)]), ("data", &[("n2", 1)])]);
    let settings = KubernetesSettings { pull_policy: Some(PullPolicy::Never), ..settings() };
    insta::assert_snapshot!(text(&Manifests::of(&order, &settings).unwrap()));
}

#[test]
fn spark_with_two_executors() {
    let spec = json!({"spark": {
        "image": "registry/spark:4", "main": "local:///opt/app/pi.py", "arguments": ["$1", "10"],
        "conf": {"spark.sql.shuffle.partitions": "4"},
        "driver": {"cpu": "1", "memory": "2Gi"},
        "executors": {"name": "executors", "count": 2, "cpu": "2", "memory": "16Gi", "gpus": 1, "gpu": ["H100"]},
    }});
    let order = order("pi", spec, &[("driver", &[("n1", 1)]), ("executors", &[("n1", 1), ("n2", 1)])]);
    let settings = KubernetesSettings { pin: Pin::Required, ..settings() };
    insta::assert_snapshot!(text(&Manifests::of(&order, &settings).unwrap()));
}

fn one_worker(worker: Value) -> LaunchOrder {
    order("w", batch(json!([worker]), json!({})), &[("workers", &[("n1", 1)])])
}

#[test]
fn a_share_of_a_gpu_needs_a_shared_resource() {
    let order = one_worker(json!({"cpu": "1", "memory": "1Gi", "gpus": 0.25}));
    let refused = Manifests::of(&order, &settings()).unwrap_err().to_string();
    assert!(refused.contains("workers asks for 0.25 of a GPU") && refused.contains("settings"), "{refused}");
    let shared = KubernetesSettings { shared_gpu_resource: Some("nvidia.com/gpu.shared".into()), ..settings() };
    let pod = &Manifests::of(&order, &shared).unwrap().samples[0].object["spec"]["containers"][0];
    assert_eq!(pod["resources"]["limits"]["nvidia.com/gpu.shared"], "1");
    assert!(pod["env"].as_array().unwrap().contains(&json!({"name": "TIDEWATER_GPU_SHARE", "value": "0.25"})));
}

#[test]
fn an_image_must_be_named() {
    let mut order = one_worker(json!({"cpu": "1", "memory": "1Gi"}));
    order.spec.batch.as_mut().unwrap().image = None;
    let refused = Manifests::of(&order, &settings()).unwrap_err().to_string();
    assert!(refused.starts_with("spec.batch.image is not set"), "{refused}");
}

/// Every name is a DNS label that begins with a letter, within its kind's limit, and another attempt's is another.
#[test]
fn names_are_short_valid_and_their_attempts_own() {
    for (workload, limit) in [("a", 57), ("9-lives", 47), ("a.b.c", 63), (&"x".repeat(63), 40), ("a-------b", 20)] {
        let mut order = one_worker(json!({"cpu": "1", "memory": "1Gi"}));
        order.key.name = workload.parse().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for number in [1, 2, 99_999] {
            for part in ["", "workers", &"g".repeat(63)] {
                order.attempt.number = AttemptNumber(number);
                let name = names::name(&order, part, limit);
                assert!(name.len() <= limit, "{name}");
                assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
                assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'), "{name}");
                assert!(seen.insert(name.clone()), "{name} twice");
                assert_eq!(name, names::name(&order, part, limit), "another time, another name");
            }
        }
    }
}

/// Kubernetes' own types take what is made for it, every field.
#[test]
fn jobs_are_jobs_and_pods_are_pods() {
    let order = one_worker(json!({"cpu": "1", "memory": "1Gi", "gpus": 1}));
    let made = Manifests::of(&order, &settings()).unwrap();
    for manifest in made.objects.iter().chain(&made.samples) {
        let read_back = match manifest.kind {
            Kind::Job => serde_json::to_value(read::<k8s_openapi::api::batch::v1::Job>(manifest)),
            Kind::Service => serde_json::to_value(read::<k8s_openapi::api::core::v1::Service>(manifest)),
            Kind::Pod => serde_json::to_value(read::<k8s_openapi::api::core::v1::Pod>(manifest)),
            other => panic!("no {other} is expected"),
        };
        assert_eq!(read_back.unwrap(), manifest.object, "a field that its kind does not have");
    }
}

fn read<T: serde::de::DeserializeOwned>(manifest: &Manifest) -> T {
    serde_json::from_value(manifest.object.clone()).unwrap()
}

//! Pods of a namespace that enforces the profile `restricted` (Kubernetes' Pod Security Standards) keep to it, whatever made them.

use serde_json::{Value, json};

use super::*;

/// What a pod lacks of the profile, of what can be left out of a pod.
fn lacks(pod: &Value) -> Vec<String> {
    let mut found = vec![];
    if pod["securityContext"]["seccompProfile"]["type"] != "RuntimeDefault" {
        found.push("seccompProfile".to_owned());
    }
    let all = ["initContainers", "containers"].map(|kind| pod[kind].as_array().cloned().unwrap_or_default()).concat();
    for container in all {
        let (name, context) = (&container["name"], &container["securityContext"]);
        let mut demand = |what: &str, holds: bool| {
            if !holds {
                found.push(format!("{name}: {what}"));
            }
        };
        demand("allowPrivilegeEscalation", context["allowPrivilegeEscalation"] == false);
        demand("capabilities", context["capabilities"]["drop"] == json!(["ALL"]));
        let non_root = [&context["runAsNonRoot"], &pod["securityContext"]["runAsNonRoot"]];
        demand("runAsNonRoot", non_root.into_iter().find(|said| !said.is_null()).is_some_and(|said| *said == true));
    }
    found
}

/// Every pod that comes of an order: those that are made or tried, and those of templates within objects.
fn pods(made: &Manifests) -> Vec<Value> {
    fn within(value: &Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(map) => {
                if map.get("containers").is_some_and(Value::is_array) {
                    found.push(value.clone());
                }
                map.values().for_each(|value| within(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| within(value, found)),
            // The template of executors that no operator makes.
            Value::String(text) if text.starts_with("{\"apiVersion\"") => {
                within(&serde_json::from_str(text).unwrap(), found);
            }
            _ => {}
        }
    }
    let mut found = vec![];
    made.objects.iter().chain(&made.samples).for_each(|manifest| within(&manifest.object, &mut found));
    found
}

/// Guarded, for a guard is one more container.
fn laid_out(mut order: LaunchOrder, spark_by: SparkBy, security: PodSecurity) -> Vec<Value> {
    order.spec.on_cluster_loss = OnClusterLoss::Failover;
    let address = "10.96.0.9:7710".parse().unwrap();
    let guard = Guard { image: "registry/tidewater:1".into(), address, key: "00".repeat(32) };
    let made = Manifests::of(&order, &settings(), spark_by, &GangDevices::new(), Some(&guard), security).unwrap();
    pods(&made)
}

fn as_it_is() -> LaunchOrder {
    let takes = json!({"cpu": "1", "memory": "1Gi"});
    let container =
        |name: &str| json!({"name": name, "image": "i", "command": ["run"], "resources": {"requests": takes}});
    let pod = json!({"initContainers": [container("first")], "containers": [container("main")]});
    let object = json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}});
    order("mine", json!({"manifest": object}), &[("workers", &[("n1", 1)])])
}

#[test]
fn every_pod_of_a_restricted_namespace_keeps_to_its_profile() {
    let groups = json!([{"name": "w", "count": 2, "cpu": "1", "memory": "1Gi"}]);
    let a_batch = || order("one", batch(groups.clone(), json!({})), &[("w", &[("n1", 2)])]);
    let orders = [
        (a_batch(), SparkBy::Operator),
        (ray(), SparkBy::Operator),
        (spark(), SparkBy::Operator),
        (spark(), SparkBy::Agent),
        (as_it_is(), SparkBy::Operator),
    ];
    for (order, by) in orders {
        let restricted = laid_out(order.clone(), by, PodSecurity::Restricted);
        assert!(restricted.len() >= 2, "{restricted:?}");
        for pod in &restricted {
            assert_eq!(lacks(pod), Vec::<String>::new(), "{:?} {by:?}: {pod:#}", order.spec.framework());
        }
        let usual = laid_out(order, by, PodSecurity::Usual);
        assert!(usual.iter().any(|pod| !lacks(pod).is_empty()), "elsewhere images decide");
    }
}

#[test]
fn what_an_object_says_of_its_security_stays() {
    let mut order = as_it_is();
    let mut object = order.spec.manifest.as_ref().unwrap().object();
    object["spec"]["template"]["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsNonRoot": false});
    order.spec.manifest = Some(protocol::workload::NativeManifest::new(&object));
    let made = laid_out(order, SparkBy::Operator, PodSecurity::Restricted);
    let context = &made[0]["securityContext"];
    assert_eq!((&context["runAsUser"], &context["runAsNonRoot"]), (&json!(1000), &json!(false)));
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
}

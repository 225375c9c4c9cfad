//! Golden texts of what each framework comes to, and the rules that no golden text shows.

mod security;

use protocol::control::{LaunchOrder, NodeShare};
use protocol::ids::{AttemptId, AttemptNumber, GroupName, NodeName, Uid, WorkloadKey};
use protocol::sku::Sku;
use protocol::workload::{OnClusterLoss, WorkloadSpec};
use serde_json::{Value, json};

use super::*;
use crate::runtime::kubernetes::offers::{GroupClaim, GroupDevices};
use crate::runtime::kubernetes::settings::{Pin, PullPolicy};

/// An order for these groups: for each the nodes with how many members.
pub(super) fn order(name: &str, spec: Value, places: &[(&str, &[(&str, u32)])]) -> LaunchOrder {
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

pub(super) fn settings() -> KubernetesSettings {
    KubernetesSettings::new("eu-1".parse().unwrap())
}

pub(super) fn of(order: &LaunchOrder, settings: &KubernetesSettings) -> Result<Manifests, ManifestError> {
    Manifests::of(order, settings, SparkBy::Operator, &GangDevices::new(), None, PodSecurity::Usual)
}

pub(super) fn text(manifests: &Manifests) -> String {
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
    insta::assert_snapshot!(text(&of(&order, &settings()).unwrap()));
}

#[test]
fn ray_with_two_groups_of_workers() {
    let order = ray();
    let settings = KubernetesSettings { pull_policy: Some(PullPolicy::Never), ..settings() };
    insta::assert_snapshot!(text(&of(&order, &settings).unwrap()));
}

fn spark() -> LaunchOrder {
    let spec = json!({"spark": {
        "image": "registry/spark:4", "main": "local:///opt/app/pi.py", "arguments": ["$1", "10"],
        "conf": {"spark.sql.shuffle.partitions": "4"},
        "driver": {"cpu": "1", "memory": "2Gi"},
        "executors": {"name": "executors", "count": 2, "cpu": "2", "memory": "16Gi", "gpus": 1, "gpu": ["H100"]},
    }});
    order("pi", spec, &[("driver", &[("n1", 1)]), ("executors", &[("n1", 1), ("n2", 1)])])
}

#[test]
fn spark_with_two_executors() {
    let (order, settings) = (spark(), KubernetesSettings { pin: Pin::Required, ..settings() });
    insta::assert_snapshot!(text(&of(&order, &settings).unwrap()));
}

/// Properties and template as the driver reads them.
#[test]
fn spark_without_its_operator() {
    let settings = KubernetesSettings { pin: Pin::Required, pull_policy: Some(PullPolicy::Never), ..settings() };
    let mut made =
        Manifests::of(&spark(), &settings, SparkBy::Agent, &GangDevices::new(), None, PodSecurity::Usual).unwrap();
    let data = made.objects[0].object["data"].as_object_mut().unwrap();
    let (properties, template) = (data.remove("spark.properties").unwrap(), data.remove("executor.yaml").unwrap());
    let template: Value = serde_json::from_str(template.as_str().unwrap()).unwrap();
    let mut sample = made.samples[0].object.clone();
    assert_eq!(sample["metadata"]["name"], "pi-2-6edfa6dbae-exec-1", "as Spark will call its first executor");
    for field in ["name", "namespace"] {
        sample["metadata"].as_object_mut().unwrap().remove(field);
    }
    assert_eq!(template, sample, "what is tried is what the driver will make");
    let properties = properties.as_str().unwrap().to_owned();
    insta::assert_snapshot!(format!("{}\n--- spark.properties\n{properties}", text(&made)));
}

/// What ends itself when it is cut off.
pub(super) fn guarded(mut order: LaunchOrder, spark_by: SparkBy) -> Result<Manifests, ManifestError> {
    order.spec.on_cluster_loss = OnClusterLoss::Failover;
    let address = "10.96.0.9:7710".parse().unwrap();
    let guard = Guard { image: "registry/tidewater:1".into(), address, key: "00".repeat(32) };
    Manifests::of(&order, &settings(), spark_by, &GangDevices::new(), Some(&guard), PodSecurity::Usual)
}

/// The only container's command, of each pod that is made or tried.
fn commands(made: &Manifests) -> Vec<Value> {
    made.samples.iter().map(|sample| sample.object["spec"]["containers"][0]["command"].clone()).collect()
}

#[test]
fn a_guard_comes_before_the_command_of_a_batch_job() {
    let groups = json!([{"name": "w", "count": 1, "cpu": "1", "memory": "1Gi"}]);
    let made = guarded(order("one", batch(groups, json!({})), &[("w", &[("n1", 1)])]), SparkBy::Operator).unwrap();
    let template = &made.objects[0].object["spec"]["template"];
    insta::assert_snapshot!(format!("{:#}", template["spec"]));
}

#[test]
fn a_guard_comes_before_what_ray_and_spark_start() {
    let run = |words: &[&str]| json!([&["/tidewater/guard", "run", "--"], words].concat());
    let made = guarded(ray(), SparkBy::Operator).unwrap();
    assert_eq!(made.objects[1].object["metadata"]["annotations"]["ray.io/overwrite-container-cmd"], "true");
    // Each `$` is doubled, so that it is the shell's.
    let start = run(&["/bin/bash", "-c", "ulimit -n 65536; $$KUBERAY_GEN_RAY_START_CMD"]);
    assert_eq!(commands(&made), vec![start; 3]);
    for by in [SparkBy::Operator, SparkBy::Agent] {
        let made = guarded(spark(), by).unwrap();
        for command in commands(&made) {
            assert_eq!(command, run(&["/opt/entrypoint.sh"]));
        }
        if let Some(driver) = made.driver() {
            let container = &driver.object["spec"]["containers"][0];
            assert_eq!(container["command"], run(&["/opt/entrypoint.sh"]));
            assert_eq!(container["args"][0], "driver");
        }
    }
}

#[test]
fn what_no_guard_can_start_or_where_there_is_none_is_refused() {
    let groups = json!([{"name": "w", "count": 1, "cpu": "1", "memory": "1Gi"}]);
    let mut unknown = order("one", batch(groups, json!({})), &[("w", &[("n1", 1)])]);
    unknown.spec.batch.as_mut().unwrap().command.clear();
    let refused = guarded(unknown.clone(), SparkBy::Operator).unwrap_err().to_string();
    assert!(refused.contains("spec.batch.command is not set"), "{refused}");
    unknown.spec.on_cluster_loss = OnClusterLoss::Failover;
    let refused = of(&unknown, &settings()).unwrap_err().to_string();
    assert!(refused.contains("--listen-guards"), "{refused}");
}

#[test]
fn a_jar_goes_to_executors_too_and_its_class_may_be_left_to_it() {
    let mut order = spark();
    let spec = order.spec.spark.as_mut().unwrap();
    spec.main = "local:///opt/pi.jar".to_owned();
    spec.conf.insert("spark.jars".to_owned(), "local:///opt/lib.jar".to_owned());
    spec.conf.insert("spark.executor.instances".to_owned(), "900".to_owned());
    let made =
        Manifests::of(&order, &settings(), SparkBy::Agent, &GangDevices::new(), None, PodSecurity::Usual).unwrap();
    let properties = made.objects[0].object["data"]["spark.properties"].as_str().unwrap();
    assert!(properties.contains("\nspark.jars=local:///opt/lib.jar,local:///opt/pi.jar\n"), "{properties}");
    assert!(properties.contains("\nspark.executor.instances=2\n"), "what was placed, no more: {properties}");
    let container = &made.driver().unwrap().object["spec"]["containers"][0];
    let arguments = json!([
        "driver",
        "--properties-file",
        "/etc/tidewater/spark/spark.properties",
        "local:///opt/pi.jar",
        "$$1",
        "10"
    ]);
    assert_eq!(container["args"], arguments);
}

#[test]
fn a_property_that_nothing_would_honour_is_refused_where_there_is_no_operator() {
    let mut order = spark();
    let conf = &mut order.spec.spark.as_mut().unwrap().conf;
    conf.insert("spark.kubernetes.driver.volumes.emptyDir.x.mount.path".to_owned(), "/x".to_owned());
    assert!(of(&order, &settings()).is_ok());
    let refused = Manifests::of(&order, &settings(), SparkBy::Agent, &GangDevices::new(), None, PodSecurity::Usual)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("volumes.emptyDir.x") && refused.contains("no Spark operator"), "{refused}");
}

fn ray() -> LaunchOrder {
    let spec = json!({"ray": {
        "image": "registry/ray:2.52.1", "entrypoint": "python train.py && echo \"$DONE\"",
        "head": {"cpu": "2", "memory": "8Gi"},
        "workers": [
            {"name": "train", "count": 2, "cpu": "8", "memory": "64Gi", "gpus": 4, "gpu": ["H100"]},
            {"name": "data", "count": 1, "cpu": "1500m", "memory": "4Gi"},
        ],
    }});
    order("tune", spec, &[("head", &[("n1", 1)]), ("train", &[("n1", 2)]), ("data", &[("n2", 1)])])
}

/// The pods of every group, and the submitter.
fn pods(made: &Manifests) -> Vec<Value> {
    fn walk(value: &Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(map) if map.contains_key("containers") => found.push(value.clone()),
            Value::Object(map) => map.values().for_each(|inner| walk(inner, found)),
            Value::Array(list) => list.iter().for_each(|inner| walk(inner, found)),
            _ => {}
        }
    }
    let mut found = vec![];
    made.objects.iter().chain(&made.samples).for_each(|manifest| walk(&manifest.object, &mut found));
    found
}

#[test]
fn every_member_gets_its_secrets_and_no_value_is_known() {
    let each = json!({"cpu": "1", "memory": "1Gi"});
    for (mut order, by, members) in [
        (one_worker(each), SparkBy::Operator, 2),
        (ray(), SparkBy::Operator, 6),
        (spark(), SparkBy::Operator, 4),
        (spark(), SparkBy::Agent, 2),
    ] {
        let secrets = json!([
            {"name": "hf-token", "mountPath": "/var/run/secrets/hf"},
            {"name": "db", "env": "DB_PASSWORD", "key": "password"},
        ]);
        order.spec.secrets = serde_json::from_value(secrets).unwrap();
        let made = Manifests::of(&order, &settings(), by, &GangDevices::new(), None, PodSecurity::Usual).unwrap();
        let is_member = |pod: &Value| pod["containers"][0]["name"] != "ray-job-submitter";
        let pods: Vec<Value> = pods(&made).into_iter().filter(is_member).collect();
        assert_eq!(pods.len(), members, "{by:?}");
        for pod in pods {
            let volume = json!({"name": "secret-0", "secret": {"secretName": "hf-token"}});
            assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod:#}");
            let mount = json!({"name": "secret-0", "mountPath": "/var/run/secrets/hf", "readOnly": true});
            assert!(pod["containers"][0]["volumeMounts"].as_array().unwrap().contains(&mount), "{pod:#}");
            let key = json!({"secretKeyRef": {"name": "db", "key": "password"}});
            let variable = json!({"name": "DB_PASSWORD", "valueFrom": key});
            assert!(pod["containers"][0]["env"].as_array().unwrap().contains(&variable), "{pod:#}");
        }
    }
}

#[test]
fn pods_have_the_priority_class_that_is_set_for_what_may_be_preempted_or_not() {
    let set = |usual: Option<&str>, firm: Option<&str>| KubernetesSettings {
        priority_class: usual.map(str::to_owned),
        firm_priority_class: firm.map(str::to_owned),
        ..settings()
    };
    let class_of = |preemptible: bool, settings: &KubernetesSettings| {
        let mut order = ray();
        order.spec.preemptible = preemptible.into();
        let classes: Vec<Value> =
            pods(&of(&order, settings).unwrap()).iter().map(|pod| pod["priorityClassName"].clone()).collect();
        assert!(classes.iter().all(|class| *class == classes[0]), "{classes:?}");
        assert_eq!(classes.len(), 7, "head, workers and submitter, and samples of the first three");
        classes[0].as_str().map(str::to_owned)
    };
    let both = set(Some("tidewater"), Some("tidewater-firm"));
    assert_eq!(class_of(true, &both).as_deref(), Some("tidewater"));
    assert_eq!(class_of(false, &both).as_deref(), Some("tidewater-firm"));
    assert_eq!(class_of(false, &set(Some("tidewater"), None)).as_deref(), Some("tidewater"));
    assert_eq!(class_of(true, &set(None, Some("tidewater-firm"))), None);
}

fn one_worker(worker: Value) -> LaunchOrder {
    order("w", batch(json!([worker]), json!({})), &[("workers", &[("n1", 1)])])
}

/// The pod of one worker that was placed on this model, whose devices have this name.
fn pod_with(each: Value, model: &str, devices: Option<(&str, Option<u16>)>) -> Value {
    let mut order = one_worker(each);
    order.placement[0].sku = Some(Sku::parse(model).unwrap());
    let named = devices.map(|(resource, parts)| {
        (GroupName::new("workers").unwrap(), GroupDevices { resource: resource.to_owned(), parts, claim: None })
    });
    let devices: GangDevices = named.into_iter().collect();
    let made = Manifests::of(&order, &settings(), SparkBy::Operator, &devices, None, PodSecurity::Usual).unwrap();
    made.samples[0].object["spec"].clone()
}

/// What a pod asks for, and the labels that its node must have.
fn asks(pod: &Value) -> (Value, Vec<(String, Value)>) {
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let expressions = terms[0]["matchExpressions"].as_array().unwrap().iter();
    let labels = expressions.map(|e| (e["key"].as_str().unwrap().to_owned(), e["values"].clone()));
    let mut limits = pod["containers"][0]["resources"]["limits"].clone();
    limits.as_object_mut().unwrap().retain(|resource, _| resource.contains('/'));
    (limits, labels.collect())
}

#[test]
fn a_share_is_a_unit_of_what_its_node_gives_out_in_parts_and_goes_nowhere_else() {
    let share = || json!({"cpu": "1", "memory": "1Gi", "gpus": 0.2});
    let pod = pod_with(share(), "L4", Some(("nvidia.com/gpu", Some(4))));
    let (limits, labels) = asks(&pod);
    assert_eq!(limits, json!({"nvidia.com/gpu": "1"}));
    let replicas = ("nvidia.com/gpu.replicas".to_owned(), json!(["4"]));
    let product = |values| ("nvidia.com/gpu.product".to_owned(), values);
    assert_eq!(labels, [replicas.clone(), product(json!(["NVIDIA-L4-SHARED", "L4-SHARED"]))]);
    assert!(
        pod["containers"][0]["env"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "TIDEWATER_GPU_SHARE", "value": "0.2"}))
    );
    let (limits, labels) = asks(&pod_with(share(), "L4", Some(("nvidia.com/gpu.shared", Some(4)))));
    assert_eq!(limits, json!({"nvidia.com/gpu.shared": "1"}));
    assert_eq!(labels, [replicas, product(json!(["NVIDIA-L4", "L4"]))], "the device plugin renames one of the two");
    // Whole ones never go to what is shared.
    let (limits, labels) = asks(&pod_with(json!({"cpu": "1", "memory": "1Gi", "gpus": 2}), "L4", None));
    assert_eq!((limits, labels), (json!({"nvidia.com/gpu": "2"}), vec![product(json!(["NVIDIA-L4", "L4"]))]));
    let refused = of(&one_worker(share()), &settings()).unwrap_err().to_string();
    assert!(refused.contains("workers asks for 0.2 of a GPU"), "{refused}");
}

#[test]
fn slices_are_asked_for_by_the_resource_and_the_label_of_their_nodes() {
    let two = || json!({"cpu": "1", "memory": "1Gi", "gpus": 2});
    let slices = json!(["NVIDIA-A30-MIG-1g.6gb", "A30-MIG-1g.6gb"]);
    let mixed = asks(&pod_with(two(), "A30-MIG-1g.6gb", Some(("nvidia.com/mig-1g.6gb", None))));
    assert_eq!(mixed.0, json!({"nvidia.com/mig-1g.6gb": "2"}));
    assert_eq!(mixed.1, [("nvidia.com/mig-1g.6gb.product".to_owned(), slices.clone())]);
    let single = asks(&pod_with(two(), "A30-MIG-1g.6gb", Some(("nvidia.com/gpu", None))));
    assert_eq!(single, (json!({"nvidia.com/gpu": "2"}), vec![("nvidia.com/gpu.product".to_owned(), slices)]));
}

#[test]
fn ray_is_told_of_what_its_operator_does_not_count() {
    let order = ray();
    let slices = GroupDevices { resource: "nvidia.com/mig-1g.10gb".to_owned(), parts: None, claim: None };
    let devices = GangDevices::from([(GroupName::new("train").unwrap(), slices)]);
    let made = Manifests::of(&order, &settings(), SparkBy::Operator, &devices, None, PodSecurity::Usual).unwrap();
    let groups = &made.objects[1].object["spec"]["rayClusterSpec"]["workerGroupSpecs"];
    assert_eq!(groups[0]["rayStartParams"], json!({"num-cpus": "8", "num-gpus": "4"}));
    assert_eq!(groups[1]["rayStartParams"], json!({"num-cpus": "2"}));
}

/// The devices of a group that claims give out.
fn claimed(group: &str) -> GangDevices {
    let products = vec!["H100".to_owned(), "NVIDIA H100 80GB HBM3".to_owned()];
    let claim = Some(GroupClaim { products, profile: None });
    let devices = GroupDevices { resource: "gpu.nvidia.com".to_owned(), parts: None, claim };
    GangDevices::from([(GroupName::new(group).unwrap(), devices)])
}

#[test]
fn batch_whose_devices_claims_give_out() {
    let groups = json!([
        {"name": "train", "count": 2, "cpu": "8", "memory": "64Gi", "gpus": 4, "gpu": ["H100"]},
        {"name": "eval", "count": 1, "cpu": "500m", "memory": "1Gi"},
    ]);
    let order = order("net", batch(groups, json!({})), &[("train", &[("n1", 1), ("n2", 1)]), ("eval", &[("n1", 1)])]);
    let made =
        Manifests::of(&order, &settings(), SparkBy::Operator, &claimed("train"), None, PodSecurity::Usual).unwrap();
    insta::assert_snapshot!(text(&made));
    // To the very nodes where that is asked for.
    let pinned = KubernetesSettings { pin: Pin::Required, ..settings() };
    let made = Manifests::of(&order, &pinned, SparkBy::Operator, &claimed("train"), None, PodSecurity::Usual).unwrap();
    let (limits, labels) = asks(&made.samples[0].object["spec"]);
    assert_eq!((limits, labels), (json!({}), vec![("kubernetes.io/hostname".to_owned(), json!(["n1", "n2"]))]));
    let ray =
        Manifests::of(&ray(), &settings(), SparkBy::Operator, &claimed("train"), None, PodSecurity::Usual).unwrap();
    let job = ray.objects.iter().find(|m| m.kind == Kind::RayJob).unwrap();
    let group = &job.object["spec"]["rayClusterSpec"]["workerGroupSpecs"][0];
    assert_eq!(group["rayStartParams"]["num-gpus"], "4", "Ray does not count what is claimed");
    assert_eq!(group["template"]["spec"]["resourceClaims"][0]["resourceClaimTemplateName"], ray.objects[0].name);
}

#[test]
fn a_claim_of_slices_is_for_their_profile_and_one_of_a_share_is_refused() {
    let mut devices = claimed("workers");
    let of = devices.values_mut().next().unwrap();
    of.resource = "mig.nvidia.com".to_owned();
    of.claim.as_mut().unwrap().profile = Some("1g.10gb+me".to_owned());
    let two = one_worker(json!({"cpu": "1", "memory": "1Gi", "gpus": 2}));
    let made = Manifests::of(&two, &settings(), SparkBy::Operator, &devices, None, PodSecurity::Usual).unwrap();
    let request = &made.objects[0].object["spec"]["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!((&request["deviceClassName"], &request["count"]), (&json!("mig.nvidia.com"), &json!(2)));
    assert_eq!(
        request["selectors"][0]["cel"]["expression"],
        "device.driver == \"gpu.nvidia.com\" && device.attributes[\"gpu.nvidia.com\"].type == \"mig\" && \
         device.attributes[\"gpu.nvidia.com\"].productName in [\"H100\",\"NVIDIA H100 80GB HBM3\"] && \
         device.attributes[\"gpu.nvidia.com\"].profile == \"1g.10gb+me\""
    );
    let share = one_worker(json!({"cpu": "1", "memory": "1Gi", "gpus": 0.5}));
    let refused = Manifests::of(&share, &settings(), SparkBy::Operator, &claimed("workers"), None, PodSecurity::Usual)
        .unwrap_err();
    assert!(refused.to_string().contains("give out whole GPUs only"), "{refused}");
}

#[test]
fn an_image_must_be_named() {
    let mut order = one_worker(json!({"cpu": "1", "memory": "1Gi"}));
    order.spec.batch.as_mut().unwrap().image = None;
    let refused = of(&order, &settings()).unwrap_err().to_string();
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

/// One member with a token for two audiences, beside a Secret.
fn with_tokens() -> LaunchOrder {
    let groups = json!([{"name": "w", "count": 1, "cpu": "1", "memory": "1Gi"}]);
    let mut spec = batch(groups, json!({"TIDEWATER_TOKEN_FILE": "/made/up"}));
    spec["secrets"] = json!([{"name": "hf", "mountPath": "/run/hf"}]);
    spec["tokens"] = json!([
        {"audience": "sts.amazonaws.com", "mountPath": "/var/run/secrets/aws"},
        {"audience": "vault", "mountPath": "/run/vault/", "expiration": "10m"},
    ]);
    order("proves", spec, &[("w", &[("n1", 1)])])
}

#[test]
fn a_token_is_a_secret_of_its_own_and_a_read_only_file_in_each_pod() {
    let made = of(&with_tokens(), &settings()).unwrap();
    let secrets: Vec<&Value> = made.tokens.iter().map(|manifest| &manifest.object).collect();
    let spec = &made.objects[0].object["spec"]["template"]["spec"];
    let main = &spec["containers"][0];
    let told = main["env"].as_array().unwrap().iter().filter(|v| v["name"].as_str().unwrap().contains("TOKEN"));
    let told: Vec<&Value> = told.collect();
    insta::assert_snapshot!(format!(
        "{:#}\nvolumes: {:#}\nmounts: {:#}\nvariables: {:#}",
        json!(secrets),
        spec["volumes"],
        main["volumeMounts"],
        json!(told)
    ));
}

#[test]
fn every_framework_gives_its_members_their_tokens_and_nobody_else() {
    for mut order in [ray(), spark()] {
        order.spec.tokens = with_tokens().spec.tokens;
        for spark_by in [SparkBy::Operator, SparkBy::Agent] {
            let made =
                Manifests::of(&order, &settings(), spark_by, &GangDevices::new(), None, PodSecurity::Usual).unwrap();
            assert_eq!(made.tokens.len(), 2);
            let pods = made.samples.iter().chain(made.driver()).map(|pod| pod.object["spec"].to_string());
            let pods: Vec<String> = pods.collect();
            assert!(!pods.is_empty() && pods.iter().all(|pod| pod.contains(&made.tokens[1].name)), "{pods:#?}");
            // What submits a Ray job is no member.
            let submitter =
                made.objects.iter().map(|m| &m.object["spec"]["submitterPodTemplate"]).find(|t| t.is_object());
            assert!(!submitter.is_some_and(|template| template.to_string().contains("token")));
        }
    }
}

/// Kubernetes' own types take what is made for it, every field.
#[test]
fn jobs_are_jobs_and_pods_are_pods() {
    let order = one_worker(json!({"cpu": "1", "memory": "1Gi", "gpus": 1}));
    let made = of(&order, &settings()).unwrap();
    let spark =
        Manifests::of(&spark(), &settings(), SparkBy::Agent, &GangDevices::new(), None, PodSecurity::Usual).unwrap();
    let claimed =
        Manifests::of(&order, &settings(), SparkBy::Operator, &claimed("workers"), None, PodSecurity::Usual).unwrap();
    assert_eq!(claimed.objects[0].kind, Kind::ResourceClaimTemplate);
    let proofs = of(&with_tokens(), &settings()).unwrap();
    let all = [
        [made.objects, made.samples, spark.objects, spark.samples].concat(),
        [claimed.objects, claimed.samples, proofs.tokens, proofs.samples].concat(),
    ]
    .concat();
    for manifest in &all {
        let read_back = match manifest.kind {
            Kind::Job => serde_json::to_value(read::<k8s_openapi::api::batch::v1::Job>(manifest)),
            Kind::Service => serde_json::to_value(read::<k8s_openapi::api::core::v1::Service>(manifest)),
            Kind::Pod => serde_json::to_value(read::<k8s_openapi::api::core::v1::Pod>(manifest)),
            Kind::ConfigMap => serde_json::to_value(read::<k8s_openapi::api::core::v1::ConfigMap>(manifest)),
            Kind::ResourceClaimTemplate => {
                serde_json::to_value(read::<k8s_openapi::api::resource::v1::ResourceClaimTemplate>(manifest))
            }
            Kind::Secret => serde_json::to_value(read::<k8s_openapi::api::core::v1::Secret>(manifest)),
            other => panic!("no {other} is expected"),
        };
        assert_eq!(read_back.unwrap(), manifest.object, "a field that its kind does not have");
    }
}

fn read<T: serde::de::DeserializeOwned>(manifest: &Manifest) -> T {
    serde_json::from_value(manifest.object.clone()).unwrap()
}

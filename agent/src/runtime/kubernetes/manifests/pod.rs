//! What the pods of every framework share: where they go, what they take, what they are told, and what they may not do.

use protocol::control::GroupPlacement;
use protocol::resources::{Gpus, Resources};
use protocol::workload::{Preemptible, SecretUse, Spread};
use serde_json::{Map, Value, json};

use super::names::{ATTEMPT, GROUP};
use super::{Kind, Layout, Manifest, ManifestError, PodSecurity};
use crate::guard::plan::{MARK, MEMBER};
use crate::kube::{GPU, own_name, shared_product};
use crate::runtime::kubernetes::offers::GroupDevices;
use crate::runtime::kubernetes::settings::Pin;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// A container's own part of a pod.
pub(super) struct Container<'a> {
    pub name: &'a str,
    pub image: &'a str,
    /// The program and its arguments; empty: the image's own.
    pub command: Vec<String>,
    /// What a guard starts where there is no command.
    pub starts: Starts<'a>,
    /// Variables beyond those that all members have; they win.
    pub env: Vec<Value>,
}

/// What a container without a command of its own runs, for its guard.
#[derive(Debug, Clone, Copy)]
pub(super) enum Starts<'a> {
    /// This.
    This(&'a [&'a str]),
    /// That is not known; the field that would say it.
    Unknown(&'static str),
}

impl<'a> Container<'a> {
    /// One that runs the image's own program, which is this, as this member.
    pub(super) fn of_image(name: &'a str, image: &'a str, own_name: &str, starts: &'a [&'a str]) -> Self {
        Self { name, image, command: vec![], starts: Starts::This(starts), env: vec![member(own_name)] }
    }
}

/// Kubernetes puts variables in where a text says `$(NAME)`; with each `$` doubled it leaves a text as it is.
pub(super) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// A variable with this very text.
pub(super) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": literal(value)})
}

/// A variable whose `$(NAME)`s Kubernetes fills in.
pub(super) fn filled(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// A variable that is a field of the pod.
pub(super) fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// A member's name within its attempt: as the process runtime has it.
pub(super) fn member(name: &str) -> Value {
    filled(MEMBER, name)
}

/// A volume of a pod, as Kubernetes writes what is in it, and where its container has it.
pub(super) struct Volume<'a> {
    pub name: &'a str,
    pub of: Value,
    pub path: &'a str,
    pub access: Access,
}

/// What a container may do with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Cores and memory as Kubernetes writes them.
pub(super) fn amounts(of: &Resources) -> Map<String, Value> {
    let mut amounts = Map::new();
    if of.cpu_milli > 0 {
        amounts.insert("cpu".to_owned(), json!(format!("{}m", of.cpu_milli)));
    }
    if of.memory_mib > 0 {
        amounts.insert("memory".to_owned(), json!(format!("{}Mi", of.memory_mib)));
    }
    amounts
}

/// A list to write into; what is there and is none is replaced.
pub(super) fn list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it was made one"),
    }
}

/// Appends to a list that may not be there yet.
pub(super) fn push(to: &mut Value, entries: impl IntoIterator<Item = Value>) {
    list(to).extend(entries);
}

impl Volume<'_> {
    /// Gives it to the first container of a pod.
    pub(super) fn mount(self, pod: &mut Value) {
        push(&mut pod["spec"]["volumes"], [self.in_pod()]);
        push(&mut pod["spec"]["containers"][0]["volumeMounts"], [self.mounted()]);
    }

    /// As the pod has it.
    pub(super) fn in_pod(&self) -> Value {
        let mut volume = self.of.clone();
        volume["name"] = json!(self.name);
        volume
    }

    /// As a container has it.
    pub(super) fn mounted(&self) -> Value {
        let mut mount = json!({"name": self.name, "mountPath": self.path});
        if self.access == Access::Read {
            mount["readOnly"] = json!(true);
        }
        mount
    }
}

impl Layout<'_> {
    /// What each pod of a group takes, as requests and limits alike.
    pub(super) fn resources(&self, placement: &GroupPlacement) -> Result<Value, ManifestError> {
        let gpu_milli = placement.each.gpu_milli;
        let mut amounts = amounts(&placement.each);
        let group = placement.group.to_string();
        let asked = Gpus(gpu_milli).to_string();
        let devices = self.devices.get(&placement.group);
        let resource = devices.map_or(GPU, |devices| &devices.resource);
        let claims = self.container_claims(placement);
        match (gpu_milli, devices.and_then(|devices| devices.parts)) {
            (0, _) => {}
            (whole, None) if whole % 1000 == 0 && claims.is_some() => {}
            (whole, None) if whole % 1000 == 0 => {
                amounts.insert(resource.to_owned(), json!((whole / 1000).to_string()));
            }
            (1..1000, Some(_)) => {
                amounts.insert(resource.to_owned(), json!("1"));
            }
            (1..1000, None) => return Err(ManifestError::Share { group, asked }),
            _ => return Err(ManifestError::Broken { group, asked }),
        }
        let mut resources = json!({"requests": amounts, "limits": amounts});
        if let Some(claims) = claims {
            resources["claims"] = claims;
        }
        Ok(resources)
    }

    /// The variables of every member of a group. What is Tidewater's own wins over the workload's.
    pub(super) fn environment(&self, placement: &GroupPlacement, more: Vec<Value>) -> Vec<Value> {
        let pool = self.order.spec.pool.as_ref().map_or("default", |pool| pool.as_str());
        let mut own = vec![
            variable(MARK, &self.order.attempt.to_string()),
            variable("TIDEWATER_WORKLOAD", &self.order.key.to_string()),
            variable("TIDEWATER_CLUSTER", self.settings.cluster.as_str()),
            variable("TIDEWATER_POOL", pool),
            variable("TIDEWATER_GROUP", placement.group.as_str()),
            field("TIDEWATER_NODE", "spec.nodeName"),
            // Logs are followed while the program runs.
            variable("PYTHONUNBUFFERED", "1"),
        ];
        let Resources { gpu_milli, .. } = placement.each;
        if gpu_milli == 0 {
            // Images that are built for GPUs ask for all of the node's: a member without GPUs must see none.
            own.push(variable("NVIDIA_VISIBLE_DEVICES", "void"));
        } else if gpu_milli < 1000 {
            own.push(variable("TIDEWATER_GPU_SHARE", &Gpus(gpu_milli).to_string()));
        }
        own.extend(self.token_variables());
        own.extend(more);
        let is_own = |name: &str| own.iter().any(|variable| variable["name"] == name);
        let spec = &self.order.spec;
        let users = spec.env.iter().filter(|(name, _)| !is_own(name)).map(|(n, v)| variable(n, v));
        let secret = |use_: &SecretUse| Some((use_.env.clone()?, use_.name.clone(), use_.key.clone()?));
        let secrets = spec.secrets.iter().filter_map(secret).filter(|(name, ..)| !is_own(name)).map(
            |(name, secret, key)| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}),
        );
        // A variable can be filled in only from those before it.
        users.chain(secrets).collect::<Vec<_>>().into_iter().chain(own).collect()
    }

    /// Which nodes a group's pods may go to, and which they should.
    pub(super) fn affinity(&self, placement: &GroupPlacement) -> Value {
        let nodes: Vec<&str> = placement.nodes.iter().map(|share| share.node.as_str()).collect();
        let chosen = json!({"key": HOSTNAME, "operator": "In", "values": nodes});
        let mut required = vec![];
        // Where claims give the devices out it is their selector that keeps to the model.
        let by_label = placement.each.gpu_milli > 0 && self.claim(placement).is_none();
        if let Some(sku) = placement.sku.as_ref().filter(|_| by_label) {
            // Shared devices, and those that are cut into slices, are labelled otherwise than whole ones of the model.
            let devices = self.devices.get(&placement.group);
            let label = |what: &str| format!("{}.{what}", own_name(devices.map_or(GPU, |devices| &devices.resource)));
            let mut products = sku.product_labels();
            if let Some(GroupDevices { resource, parts: Some(parts), .. }) = devices {
                products = products.iter().map(|product| shared_product(product, resource)).collect();
                required.push(json!({"key": label("replicas"), "operator": "In", "values": [parts.to_string()]}));
            }
            required.push(json!({"key": label("product"), "operator": "In", "values": products}));
        }
        let mut node = json!({});
        match self.settings.pin {
            Pin::Required => required.push(chosen),
            Pin::Preferred => {
                node["preferredDuringSchedulingIgnoredDuringExecution"] =
                    json!([{"weight": 100, "preference": {"matchExpressions": [chosen]}}]);
            }
        }
        if !required.is_empty() {
            node["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!({"nodeSelectorTerms": [{"matchExpressions": required}]});
        }
        let mut affinity = json!({"nodeAffinity": node});
        if self.order.spec.placement.spread == Spread::Nodes {
            let alike = json!({ATTEMPT: self.order.attempt.to_string(), GROUP: placement.group});
            affinity["podAntiAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": alike}},
            ]});
        }
        affinity
    }

    /// What keeps ordinary pods from nodes with GPUs does not keep these.
    pub(super) fn tolerations(&self) -> Value {
        json!([{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}])
    }

    /// What no container may do. The rest is its image's to say, unless the namespace demands more.
    pub(super) fn of_container(&self) -> Value {
        match self.security {
            PodSecurity::Usual => json!({"allowPrivilegeEscalation": false}),
            PodSecurity::Restricted => json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        }
    }

    /// The same of a pod as a whole.
    pub(super) fn of_pod(&self) -> Value {
        let mut context = json!({"seccompProfile": {"type": "RuntimeDefault"}});
        if self.security == PodSecurity::Restricted {
            context["runAsNonRoot"] = json!(true);
        }
        context
    }

    /// A pod template of a group with one container.
    pub(super) fn template(
        &self,
        placement: &GroupPlacement,
        container: Container<'_>,
    ) -> Result<Value, ManifestError> {
        let mut main = json!({
            "name": container.name,
            "image": container.image,
            "env": self.environment(placement, container.env),
            "resources": self.resources(placement)?,
            "securityContext": self.of_container(),
        });
        if !container.command.is_empty() {
            main["command"] = container.command.iter().map(|word| literal(word)).collect();
        }
        self.pull(&mut main);
        let mut template = json!({
            "metadata": self.pod_metadata(placement.group.as_str()),
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "securityContext": self.of_pod(),
                "affinity": self.affinity(placement),
                "tolerations": self.tolerations(),
                "containers": [main],
            },
        });
        if let Some(claims) = self.pod_claims(placement) {
            template["spec"]["resourceClaims"] = claims;
        }
        self.prioritise(&mut template);
        self.guard(&mut template, placement, container.starts)?;
        self.mount_secrets(&mut template);
        self.mount_tokens(&mut template);
        Ok(template)
    }

    /// Gives the first container the secrets that are to be files.
    pub(super) fn mount_secrets(&self, template: &mut Value) {
        let files =
            self.order.spec.secrets.iter().filter_map(|secret| Some((&secret.name, secret.mount_path.as_ref()?)));
        for (index, (secret, path)) in files.enumerate() {
            let (name, of) = (format!("secret-{index}"), json!({"secret": {"secretName": secret}}));
            Volume { name: &name, of, path, access: Access::Read }.mount(template);
        }
    }

    /// Says when the image of what is described here is fetched, where that is set.
    pub(super) fn pull(&self, of_image: &mut Value) {
        if let Some(policy) = self.settings.pull_policy {
            of_image["imagePullPolicy"] = json!(policy.as_str());
        }
    }

    /// Gives a pod the priority among the cluster's own pods that is set for such workloads; the cluster's default where none is set.
    pub(super) fn prioritise(&self, template: &mut Value) {
        let settings = self.settings;
        let class = match self.order.spec.preemptible {
            Preemptible::Yes => settings.priority_class.as_ref(),
            Preemptible::No => settings.firm_priority_class.as_ref().or(settings.priority_class.as_ref()),
        };
        if let Some(class) = class {
            template["spec"]["priorityClassName"] = json!(class);
        }
    }

    /// The metadata of a group's pods.
    pub(super) fn pod_metadata(&self, group: &str) -> Value {
        let mut metadata = json!({"labels": self.labels_of(group)});
        if !self.settings.pod_annotations.is_empty() {
            let annotations = self.settings.pod_annotations.iter();
            metadata["annotations"] = annotations.map(|(name, value)| (name.clone(), json!(value))).collect();
        }
        metadata
    }

    /// A pod as a controller will make it from a template.
    pub(super) fn sample(&self, name: &str, template: &Value) -> Manifest {
        let mut object = json!({"apiVersion": "v1", "kind": "Pod"});
        object["metadata"] = template["metadata"].clone();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!(self.namespace());
        object["spec"] = template["spec"].clone();
        Manifest { kind: Kind::Pod, name: name.to_owned(), object }
    }
}

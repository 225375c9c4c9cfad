//! What is put into a pod template that somebody else wrote.

use protocol::control::GroupPlacement;
use protocol::kubernetes::{GPU, SLICE};
use serde_json::{Value, json};

use super::super::pod::{Starts, list, member, push};
use super::super::{Layout, ManifestError, PodSecurity};
use super::{map, put};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

impl Layout<'_> {
    /// Makes a template one of a group's pods. What a container of it runs that has no command: `starts` of the first, which is the
    /// framework's own; of others it is not known.
    pub(super) fn dress(
        &self,
        template: &mut Value,
        placement: &GroupPlacement,
        own_name: &str,
        starts: Starts<'_>,
        more: Vec<Value>,
    ) -> Result<(), ManifestError> {
        self.devices_by_name(template, placement);
        self.tell(template, placement, own_name, more);
        map(&mut template["spec"]).insert("restartPolicy".to_owned(), json!("Never"));
        self.send(template, placement);
        let pods = self.pod_metadata(placement.group.as_str());
        put(&mut template["metadata"]["labels"], pods["labels"].clone());
        put(&mut template["metadata"]["annotations"], pods["annotations"].clone());
        self.secure(template);
        if template["spec"]["priorityClassName"].is_null() {
            self.prioritise(template);
        }
        self.mount_secrets(template);
        self.mount_tokens(template);
        self.guard(template, placement, starts)
    }

    /// Every container is told what it is part of. What the object itself says gives way to Tidewater's words and to the workload's.
    fn tell(&self, template: &mut Value, placement: &GroupPlacement, own_name: &str, more: Vec<Value>) {
        let own = more.into_iter().chain([member(own_name)]).collect();
        let ours = self.environment(placement, own);
        for kind in ["initContainers", "containers"] {
            let containers = template["spec"][kind].as_array_mut();
            for container in containers.into_iter().flatten() {
                let env = list(&mut container["env"]);
                env.retain(|variable| ours.iter().all(|own| own["name"] != variable["name"]));
                // A variable can be filled in only from those before it, and the object's may refer to these.
                env.splice(..0, ours.iter().cloned());
                if container["imagePullPolicy"].is_null() {
                    self.pull(container);
                }
            }
        }
    }

    /// Where the namespace demands it, what the object does not say itself is as for any pod there.
    fn secure(&self, template: &mut Value) {
        if self.security == PodSecurity::Usual {
            return;
        }
        let fill = |into: &mut Value, more: Value| {
            let more = more.as_object().cloned().unwrap_or_default();
            let into = map(into);
            more.into_iter().for_each(|(name, value)| {
                into.entry(name).or_insert(value);
            });
        };
        fill(&mut template["spec"]["securityContext"], self.of_pod());
        for kind in ["initContainers", "containers"] {
            for container in template["spec"][kind].as_array_mut().into_iter().flatten() {
                fill(&mut container["securityContext"], self.of_container());
            }
        }
    }

    /// Devices are asked for under the name that their nodes have for them, or claimed where claims give them out.
    fn devices_by_name(&self, template: &mut Value, placement: &GroupPlacement) {
        let Some(devices) = self.devices.get(&placement.group) else { return };
        let claims = self.container_claims(placement);
        if let Some(claims) = self.pod_claims(placement) {
            template["spec"]["resourceClaims"] = claims;
        }
        for kind in ["initContainers", "containers"] {
            for container in template["spec"][kind].as_array_mut().into_iter().flatten() {
                let mut asks = false;
                for part in ["requests", "limits"] {
                    let Some(amounts) = container["resources"][part].as_object_mut() else { continue };
                    let asked: Vec<String> =
                        amounts.keys().filter(|name| *name == GPU || name.starts_with(SLICE)).cloned().collect();
                    for name in asked {
                        asks = true;
                        if let Some(units) = amounts.remove(&name).filter(|_| claims.is_none()) {
                            amounts.insert(devices.resource.clone(), units);
                        }
                    }
                }
                // The pod has one claim, for all its devices: each container that asked for some may use them.
                if let Some(claims) = claims.as_ref().filter(|_| asks) {
                    container["resources"]["claims"] = claims.clone();
                }
            }
        }
    }

    /// To the nodes of the decision, and to no other than the object itself allows.
    fn send(&self, template: &mut Value, placement: &GroupPlacement) {
        let decided = self.affinity(placement);
        let spec = &mut template["spec"];
        let tolerations = list(&mut spec["tolerations"]);
        for toleration in self.tolerations().as_array().into_iter().flatten() {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        let affinity = map(&mut spec["affinity"]);
        let node = affinity.entry("nodeAffinity").or_insert_with(|| json!({}));
        let ours = &decided["nodeAffinity"];
        if let Some(preferred) = ours[PREFERRED].as_array() {
            push(&mut node[PREFERRED], preferred.iter().cloned());
        }
        if let Some(expressions) = ours[REQUIRED]["nodeSelectorTerms"][0]["matchExpressions"].as_array() {
            let terms = list(&mut node[REQUIRED]["nodeSelectorTerms"]);
            if terms.is_empty() {
                terms.push(json!({}));
            }
            // A node that one term allows is allowed, so that each gets what all must hold to.
            for term in terms {
                push(&mut term["matchExpressions"], expressions.iter().cloned());
            }
        }
        if let Some(apart) = decided["podAntiAffinity"][REQUIRED].as_array() {
            let pods = affinity.entry("podAntiAffinity").or_insert_with(|| json!({}));
            push(&mut pods[REQUIRED], apart.iter().cloned());
        }
    }
}

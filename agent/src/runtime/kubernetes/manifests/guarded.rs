//! What is added to a pod of an attempt that ends itself when it is cut off: a guard that starts the container's command.
//!
//! An init container copies it into a volume of the pod, whatever the images have.

use pod_guard::pod::{ADDRESS, AFTER_MS, KEY};
use protocol::control::GroupPlacement;
use serde_json::{Value, json};

use super::pod::{Access, Starts, Volume, amounts, literal, push, variable};
use super::{Guard, Layout, ManifestError};

/// The container that copies the guard.
pub(in crate::runtime::kubernetes) const GUARD_CONTAINER: &str = "tidewater-guard";
/// Where the guard is in its image, and in the pods.
const IN_IMAGE: &str = "/usr/bin/tidewater-pod-guard";
const FOLDER: &str = "/tidewater";
const GUARD: &str = "/tidewater/guard";
const VOLUME: &str = GUARD_CONTAINER;
/// As whom it is copied: the volume is everybody's to write, the file everybody's to run.
const NOBODY: u32 = 65_532;
/// Where a command is missing of a container that stands beside the framework's own.
const ANY: &str = "the command of a container in spec.manifest";

/// How many of a pod's containers are started by a guard.
pub(super) fn guards_of(pod: &Value) -> u32 {
    let containers = ["initContainers", "containers"].map(|kind| pod["spec"][kind].as_array());
    let commands = containers.into_iter().flatten().flatten().map(|container| &container["command"][0]);
    commands.filter(|program| *program == GUARD).count() as u32
}

impl Layout<'_> {
    /// Puts the guard before the command of each container, where the attempt ends itself when it is cut off.
    pub(super) fn guard(
        &self,
        template: &mut Value,
        placement: &GroupPlacement,
        starts: Starts<'_>,
    ) -> Result<(), ManifestError> {
        let Some(after) = self.order.spec.fence() else { return Ok(()) };
        let Guard { image, address, key } = self.guard.ok_or(ManifestError::NoGuard)?;
        let volume = Volume { name: VOLUME, of: json!({"emptyDir": {}}), path: FOLDER, access: Access::Read };
        let env =
            [variable(ADDRESS, &address.to_string()), variable(KEY, key), variable(AFTER_MS, &after.0.to_string())];
        for kind in ["initContainers", "containers"] {
            for (place, container) in template["spec"][kind].as_array_mut().into_iter().flatten().enumerate() {
                // Only of the first is known what an image of the framework starts by itself.
                let starts = if kind == "containers" && place == 0 { starts } else { Starts::Unknown(ANY) };
                let command: Vec<Value> = match (container["command"].as_array(), starts) {
                    (Some(command), _) => command.clone(),
                    (None, Starts::This(words)) => words.iter().map(|word| json!(literal(word))).collect(),
                    (None, Starts::Unknown(field)) => return Err(ManifestError::NoCommand { field }),
                };
                let guarded = ["run", "--"].map(|word| json!(word)).into_iter().chain(command);
                container["command"] = [json!(GUARD)].into_iter().chain(guarded).collect();
                push(&mut container["env"], env.clone());
                push(&mut container["volumeMounts"], [volume.mounted()]);
            }
        }
        push(&mut template["spec"]["volumes"], [volume.in_pod()]);
        // It is done before the other begins, so that this adds nothing to what the pod takes.
        let takes = amounts(&placement.each);
        let mut copies = json!({
            "name": VOLUME,
            "image": image,
            "command": [IN_IMAGE, "install", GUARD],
            "resources": {"requests": takes, "limits": takes},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "runAsNonRoot": true,
                "runAsUser": NOBODY,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": VOLUME, "mountPath": FOLDER}],
        });
        self.pull(&mut copies);
        let others = template["spec"]["initContainers"].take();
        push(&mut template["spec"]["initContainers"], [copies]);
        push(&mut template["spec"]["initContainers"], others.as_array().cloned().unwrap_or_default());
        Ok(())
    }
}

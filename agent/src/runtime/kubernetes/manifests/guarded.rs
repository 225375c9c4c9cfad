//! What is added to a pod of an attempt that ends itself when it is cut off: a guard that starts the container's command.
//!
//! An init container copies it into a volume of the pod, whatever the images have.

use pod_guard::pod::{ADDRESS, AFTER_MS, KEY};
use serde_json::{Value, json};

use super::pod::{Access, Starts, Volume, literal, variable};
use super::{Guard, Layout, ManifestError};

/// The container that copies the guard.
pub(in crate::runtime::kubernetes) const GUARD_CONTAINER: &str = "tidewater-guard";
/// Where the guard is in its image, and in the pods.
const IN_IMAGE: &str = "/usr/bin/tidewater-pod-guard";
const FOLDER: &str = "/tidewater";
const GUARD: &str = "/tidewater/guard";
const VOLUME: &str = GUARD_CONTAINER;

impl Layout<'_> {
    /// Puts the guard before the one container's command, where the attempt ends itself when it is cut off.
    pub(super) fn guard(&self, template: &mut Value, starts: Starts<'_>) -> Result<(), ManifestError> {
        let Some(after) = self.order.spec.fence() else { return Ok(()) };
        let Guard { image, address, key } = self.guard.ok_or(ManifestError::NoGuard)?;
        let main = &mut template["spec"]["containers"][0];
        let command: Vec<Value> = match (main["command"].as_array(), starts) {
            (Some(command), _) => command.clone(),
            (None, Starts::This(words)) => words.iter().map(|word| json!(literal(word))).collect(),
            (None, Starts::Unknown(field)) => return Err(ManifestError::NoCommand { field }),
        };
        let guarded = ["run", "--"].map(|word| json!(word)).into_iter().chain(command);
        main["command"] = [json!(GUARD)].into_iter().chain(guarded).collect();
        if let Some(env) = main["env"].as_array_mut() {
            env.push(variable(ADDRESS, &address.to_string()));
            env.push(variable(KEY, key));
            env.push(variable(AFTER_MS, &after.0.to_string()));
        }
        Volume { name: VOLUME, of: json!({"emptyDir": {}}), path: FOLDER, access: Access::Read }.mount(template);
        // It is done before the other begins, so that this adds nothing to what the pod takes.
        let mut takes = template["spec"]["containers"][0]["resources"].clone();
        for part in ["requests", "limits"] {
            if let Some(amounts) = takes[part].as_object_mut() {
                amounts.retain(|name, _| matches!(&**name, "cpu" | "memory"));
            }
        }
        let mut copies = json!({
            "name": VOLUME,
            "image": image,
            "command": [IN_IMAGE, "install", GUARD],
            "resources": takes,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": VOLUME, "mountPath": FOLDER}],
        });
        self.pull(&mut copies);
        template["spec"]["initContainers"] = json!([copies]);
        Ok(())
    }
}

//! GPUs for a real node that has none: NVIDIA's own device plugin gives them to its kubelet, and the node role reads them, both over the
//! stand-in for the driver's library.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};
use testbed::{Binaries, ControlPlane, Tool};

use super::api::text;
use super::deploy::Kubectl;
use super::program::Program;
use super::world::{MARK, PATIENCE, World, wait_for};

/// What the library has to be called to be found, and where a pod finds it.
const LIBRARY: &str = "libnvidia-ml.so.1";
const IN_POD: &str = "/nvml";

/// So many of them.
pub struct Gpus {
    folder: PathBuf,
    count: usize,
}

impl Gpus {
    /// A library in a folder of the test's own, whose driver has these GPUs.
    pub fn make(world: &World, count: usize) -> anyhow::Result<Self> {
        let gpus = Self { folder: world.path("nvml"), count };
        std::fs::create_dir(&gpus.folder)?;
        let library = tests::fake_nvml::library().context("libfake_nvml.so was not built with these tests")?;
        std::fs::copy(library, gpus.folder.join(LIBRARY))?;
        gpus.used(&[])?;
        Ok(gpus)
    }

    /// From now on these are in use.
    pub fn used(&self, which: &[usize]) -> anyhow::Result<()> {
        let gpu =
            |at: usize| json!({"uuid": uuid(at), "memory_used": if which.contains(&at) { 8u64 << 30 } else { 0 }});
        let state = json!({"devices": (0..self.count).map(gpu).collect::<Vec<_>>()});
        // Where the library looks by itself.
        let (state_file, part) = (self.folder.join("state.json"), self.folder.join("state.part"));
        std::fs::write(&part, state.to_string())?;
        Ok(std::fs::rename(part, state_file)?)
    }

    /// The one that a container's log names, as the plugin told the container.
    pub fn named_in(&self, log: &str) -> anyhow::Result<usize> {
        (0..self.count).find(|at| log.contains(&uuid(*at))).with_context(|| format!("no GPU is named in {log:?}"))
    }

    /// Has NVIDIA's plugin offer them to the node's kubelet; returns once Kubernetes gives them out.
    pub fn offer(
        &self,
        world: &World,
        binaries: &Binaries,
        plane: &ControlPlane,
        kubectl: &Kubectl<'_>,
        node: &str,
    ) -> anyhow::Result<Program> {
        let plugin = binaries.path(Tool::DevicePlugin).context("the device plugin was not asked for")?;
        let mut command: Command = plane.command_in_node(plugin).context("there is no real node")?;
        command.args(["--device-discovery-strategy=nvml", "--fail-on-init-error=true"]);
        command.env("LD_LIBRARY_PATH", &self.folder).env("DP_DISABLE_HEALTHCHECKS", "all").env(MARK, world.mark());
        let plugin = Program::start("device-plugin", command, &world.path(""))?;
        wait_for("GPUs that are given out", PATIENCE, || {
            let node = kubectl.get(&["node", node])?;
            let given_out = text(&node["status"]["allocatable"]["nvidia.com/gpu"]);
            Ok((given_out == self.count.to_string()).then_some(()))
        })
        .with_context(|| plugin.err())?;
        Ok(plugin)
    }

    /// What NVIDIA's container runtime does for a pod: the library is there. As a patch of what makes the pod's container of this name.
    pub fn in_pods_of(&self, container: &str) -> Value {
        let found = json!([{"name": "LD_LIBRARY_PATH", "value": IN_POD}]);
        let mounts = json!([{"name": "nvml", "mountPath": IN_POD, "readOnly": true}]);
        json!({"spec": {"template": {"spec": {
            "containers": [{"name": container, "env": found, "volumeMounts": mounts}],
            "volumes": [{"name": "nvml", "hostPath": {"path": self.folder, "type": "Directory"}}],
        }}}})
    }
}

fn uuid(at: usize) -> String {
    format!("GPU-00000000-0000-0000-0000-00000000000{at}")
}

/// A pod with one GPU, made past Tidewater, that says which it got.
pub fn foreign_pod(name: &str, image: &str) -> Value {
    let command = "echo \"has $NVIDIA_VISIBLE_DEVICES\"; sleep 600";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "c", "image": image, "imagePullPolicy": "Never", "command": ["sh", "-c", command],
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        }]},
    })
}

/// The states of a node's devices, as the coordinators have them.
pub fn states(node: &Value) -> Vec<String> {
    let devices = node["devices"].as_array().into_iter().flatten();
    devices.filter_map(|device| device["state"].as_str()).map(str::to_owned).collect()
}

/// Waits until the coordinators see a node's devices so, as its node role reads them.
pub fn until_states(
    what: &str,
    expected: &[&str],
    mut look: impl FnMut() -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let mut last = Value::Null;
    wait_for(what, PATIENCE, || {
        last = look()?;
        Ok((states(&last) == expected && last["source"] == "measured").then_some(()))
    })
    .with_context(|| last.to_string())
}

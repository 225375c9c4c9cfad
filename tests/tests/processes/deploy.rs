//! `deploy/` on a cluster of the test bed, as people install it: by kubectl, file for file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testbed::{Binaries, ControlPlane, Tool};

use super::world::{MARK, World};

/// The namespace of all that is installed.
pub const NAMESPACE: &str = "tidewater";
/// The agent's service account, as the API server names it.
pub const AGENT: &str = "system:serviceaccount:tidewater:agent";

/// The folder `deploy` of this repository.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// kubectl with the rights of one kubeconfig.
pub struct Kubectl<'w> {
    world: &'w World,
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl<'w> Kubectl<'w> {
    /// With the rights of a control plane's administrator.
    pub fn of(world: &'w World, binaries: &Binaries, plane: &ControlPlane) -> anyhow::Result<Self> {
        let program = binaries.path(Tool::Kubectl).context("kubectl was not asked for")?.to_owned();
        Ok(Self { world, program, kubeconfig: plane.kubeconfig() })
    }

    /// One that is still to be told what to do.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command.env(MARK, self.world.mark()).env("KUBECACHEDIR", self.world.path("kubectl"));
        command
    }

    /// Runs it to its end; returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_with(arguments, "")
    }

    /// The same with these objects on its standard input (`-f -`).
    pub fn give(&self, arguments: &[&str], objects: &[Value]) -> anyhow::Result<String> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.run_with(arguments, &list.to_string())
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().context("kubectl")?;
        // One that wants none of it has closed its end, and says what it wants below.
        let _ = running.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = running.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Objects as JSON.
    pub fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(&[&["get", "--output", "json"], arguments].concat())?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Installs a folder of `deploy` as it is; a field that the API server does not know is an error.
    pub fn install(&self, part: &str) -> anyhow::Result<()> {
        let folder = folder().join(part).display().to_string();
        self.run(&["apply", "--server-side", "--validate=strict", "--kustomize", &folder]).map(drop)
    }

    /// A kubeconfig with the rights of a service account and no others, for two hours.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.run(&["create", "token", account, "--namespace", namespace, "--duration", "2h"])?;
        let text = self.run(&["config", "view", "--raw", "--minify", "--output", "json"])?;
        let mut config: Value = serde_json::from_str(&text)?;
        config["users"][0]["user"] = json!({"token": token.trim()});
        let written = self.world.write(&format!("kubeconfig-{namespace}-{account}"), &config.to_string())?;
        Ok(written.into())
    }
}

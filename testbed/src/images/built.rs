//! Programs of this repository that go into images. Starts `cargo` and `rustc`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::program::PackError;

/// The guard of attempts in pods.
const GUARD: &str = "tidewater-pod-guard";

/// Builds the guard of attempts in pods with a profile of cargo's, beside what else is in this target folder (none: cargo's usual one);
/// returns where it is. It is linked with nothing, for it is copied into images of all kinds.
pub fn guard(repository: &Path, target: Option<&Path>, profile: &str) -> Result<PathBuf, PackError> {
    // Named, so that the flags below are for the program alone and not for what runs while it is built.
    let host = host().map_err(|cause| not_built(GUARD, cause.to_string()))?;
    program(repository, "pod-guard", GUARD, profile, |cargo| {
        cargo.args(["--quiet", "--target", &host]).env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
        if let Some(target) = target {
            cargo.arg("--target-dir").arg(target);
        }
    })
}

/// Builds a program of a package with a profile of cargo's; returns where cargo put it. `more` adds to what cargo is told.
pub fn program(
    repository: &Path,
    package: &str,
    name: &str,
    profile: &str,
    more: impl FnOnce(&mut Command),
) -> Result<PathBuf, PackError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", package, "--bin", name, "--profile", profile]);
    command.args(["--message-format", "json-render-diagnostics"]);
    more(&mut command);
    let output = command.current_dir(repository).stderr(Stdio::inherit()).output();
    let output = output.map_err(|cause| not_built(name, cause.to_string()))?;
    match executable(&String::from_utf8_lossy(&output.stdout), name) {
        Some(program) if output.status.success() => Ok(program),
        _ => Err(not_built(
            name,
            "it was not built; a C library's static half is in Debian's package libc6-dev".to_owned(),
        )),
    }
}

fn not_built(name: &str, said: String) -> PackError {
    PackError::Tool { tool: "cargo", program: name.into(), said }
}

/// Where this program is, in cargo's words: a JSON object a line.
fn executable(said: &str, name: &str) -> Option<PathBuf> {
    let lines = said.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = lines.filter(|line| line["target"]["name"] == name);
    programs.find_map(|line| line["executable"].as_str().map(PathBuf::from))
}

/// What this machine's programs are built for, such as `x86_64-unknown-linux-gnu`.
fn host() -> std::io::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| std::io::Error::other("rustc does not say what this machine is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_the_program_is() {
        let said = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"agent"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"tidewater"},"executable":"/t/debug/tidewater"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(said, "tidewater"), Some(PathBuf::from("/t/debug/tidewater")));
        assert_eq!(executable(said, "agent"), None);
        assert_eq!(executable("", "tidewater"), None);
    }
}

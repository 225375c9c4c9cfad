//! The programs that are measured, built in this benchmark's own profile into this benchmark's own folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The product's one binary.
pub fn tidewater() -> Result<PathBuf> {
    build()?;
    built("tidewater")
}

/// The stand-in for NVIDIA's library.
pub fn fake_nvml() -> Result<PathBuf> {
    build()?;
    built("libfake_nvml.so")
}

fn own_folder() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    Ok(exe.parent().context("an executable is in a folder")?.to_path_buf())
}

fn build() -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // All in one selection, so that features, and with them the builds of all that is below, stay the same.
    cargo.args(["build", "--quiet", "-p", "bench", "-p", "cli", "-p", "fake-nvml"]);
    let folder = own_folder()?;
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    // Only its JSON line belongs on standard output.
    cargo.stdout(std::process::Stdio::null());
    let status = cargo.status().context("cannot start cargo, which builds what is measured")?;
    if !status.success() {
        bail!("{cargo:?} failed: {status}");
    }
    Ok(())
}

fn built(name: &str) -> Result<PathBuf> {
    let path = own_folder()?.join(name);
    if !path.exists() {
        bail!("{} is not there after it was built", path.display());
    }
    Ok(path)
}

//! `cargo xtask images`: the product's container image. All roles are one program, so that it is one image.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use testbed::images::built;
use testbed::images::program::{Packed, ProgramImage, pack};

/// What the manifests in `deploy/` call it.
pub const REFERENCE: &str = concat!("localhost/tidewater:", env!("CARGO_PKG_VERSION"));

/// What is made, and where.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The cargo profile of the program in it; `dev` is built faster, for tests.
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// What pods will call it: REGISTRY/NAME:TAG.
    #[arg(long, value_name = "REFERENCE", default_value = REFERENCE)]
    reference: String,
    /// Where the archive goes; left out: `images` beside the program.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// The repository's folder.
pub fn repository() -> anyhow::Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")
}

/// Does it.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let repository = repository()?;
    let program = built::program(repository, "cli", "tidewater", &arguments.profile, |_| ())?;
    let guard = built::guard(repository, None, &arguments.profile)?;
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => program.with_file_name("images"),
    };
    let began = Instant::now();
    let licence = repository.join("LICENSE");
    let image =
        ProgramImage { reference: &arguments.reference, program: &program, beside: &[&guard], licence: &licence };
    let Packed { archive, bytes, digest } = pack(&image, &folder)?;
    eprintln!("packed in {:.1} s", began.elapsed().as_secs_f64());
    println!("{}", archive.display());
    println!("image {}, {:.1} MiB, digest {digest}", arguments.reference, bytes as f64 / f64::from(1 << 20));
    println!("into containerd, on each node: ctr --namespace k8s.io images import {}", archive.display());
    println!("into Docker, to push it from there: docker load --input {}", archive.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_manifests_name_the_image_that_is_made() {
        let mut found = 0;
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).expect("text");
                let names = |line: &str| {
                    let names = line.strip_prefix("image: ").or_else(|| line.strip_prefix("- --guard-image="))?;
                    Some(names.to_owned())
                };
                for named in text.lines().filter_map(|line| names(line.trim())) {
                    assert_eq!(named, REFERENCE, "{}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found >= 4, "each role's manifest names it, and the agent that of its guards: {found}");
    }
}

//! The files of `examples/`, carried in the program, so that the demo runs from any folder.

use std::path::{Path, PathBuf};

use anyhow::Context;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../examples/", $name)))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "hold.py",
    "pools.yaml",
    "lent-hold.yaml",
    "claim-gang.yaml",
    "ray-train.yaml",
    "ray_train.py",
    "spark-sum.yaml",
    "spark_sum.py",
    "batch-allreduce.yaml",
    "batch_allreduce.py",
];

/// Where the manifests lie.
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// One manifest's path.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// Writes the examples into a folder.
pub fn unpack(dir: &Path) -> anyhow::Result<Manifests> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for (name, text) in FILES {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(Manifests { dir: dir.to_owned() })
}

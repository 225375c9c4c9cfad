//! Where `dev` keeps its things, and that only one process does so at a time.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// `tidewater/dev` in the user's data folder.
pub fn default_data_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("tidewater/dev"))
}

/// Held while this process owns the folder.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder and takes its lock.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        let shown = dir.display();
        std::fs::create_dir_all(dir)
            .with_context(|| format!("{shown} cannot be made; choose another with --data-dir"))?;
        let path = dir.join("lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("{shown} cannot be written; choose another with --data-dir"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut pid);
            bail!(
                "{shown} is in use by process {}: stop that one, or choose another folder with --data-dir",
                pid.trim()
            );
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// Writes a kubeconfig that leads to `server`, whole or not at all.
pub fn write_kubeconfig(dir: &Path, server: &str) -> anyhow::Result<PathBuf> {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: tidewater-dev\nclusters:\n- name: tidewater-dev\n  cluster:\n    \
         server: {server}\ncontexts:\n- name: tidewater-dev\n  context:\n    cluster: tidewater-dev\n    user: dev\nusers:\n\
         - name: dev\n  user: {{}}\n"
    );
    let path = dir.join("kubeconfig");
    let half = dir.join("kubeconfig.half");
    std::fs::write(&half, text)
        .and_then(|()| std::fs::rename(&half, &path))
        .with_context(|| path.display().to_string())?;
    Ok(path)
}

//! The custom resources that an operator serves, as its Go module has them: taken from the module once, into the folder
//! of its program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{BuildError, Module, Tool, unusable, write_module};

/// Where both operators' modules have them.
const FOLDER: &str = "config/crd/bases";

/// The definitions that belong to this program, as JSON; none for most.
pub(super) fn provide(cache: &Path, tool: Tool) -> Result<Vec<Value>, BuildError> {
    if !matches!(tool, Tool::KubeRay | Tool::SparkOperator) {
        return Ok(vec![]);
    }
    let folder = cache.join(tool.module().key());
    let crds = folder.join("crds");
    if !crds.exists() {
        copy(tool, &folder, &crds)?;
    }
    let mut files = fs::read_dir(&crds).and_then(|all| all.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>());
    let files = files.as_mut().map_err(|cause| BuildError::Cache {
        place: crds.clone(),
        cause: io::Error::new(cause.kind(), cause.to_string()),
    })?;
    files.sort();
    files.iter().map(|file| parse(file)).collect()
}

fn parse(file: &Path) -> Result<Value, BuildError> {
    let text = fs::read_to_string(file).map_err(unusable(file))?;
    serde_saphyr::from_str(&text).map_err(|error| unusable(file)(io::Error::other(error.to_string())))
}

/// From Go's module cache, where `go` puts the module first if it is not there.
fn copy(tool: Tool, folder: &Path, crds: &Path) -> Result<(), BuildError> {
    let module: &Module = tool.module();
    write_module(folder, module)?;
    let (path, version) = module.root();
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json"]).arg(format!("{path}@{version}"));
    go.current_dir(folder.join("module")).env("GO111MODULE", "on").env("GOWORK", "off").stdin(Stdio::null());
    let output = go.output().map_err(unusable(folder))?;
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let Some(place) = told["Dir"].as_str().filter(|_| output.status.success()) else {
        let end = format!("{}{}", told["Error"].as_str().unwrap_or_default(), String::from_utf8_lossy(&output.stderr));
        return Err(BuildError::Network { program: tool.name(), end });
    };
    let half = folder.join(format!("crds.{}.half", std::process::id()));
    fs::create_dir_all(&half).map_err(unusable(&half))?;
    let from = PathBuf::from(place).join(FOLDER);
    for entry in fs::read_dir(&from).map_err(unusable(&from))? {
        let entry = entry.map_err(unusable(&from))?;
        let to = half.join(entry.file_name());
        // The module cache's files are read-only; copies of their text are not.
        fs::read(entry.path()).and_then(|text| fs::write(&to, text)).map_err(unusable(&to))?;
    }
    match fs::rename(&half, crds) {
        // Another process was faster: its files are the same.
        Err(_) if crds.exists() => fs::remove_dir_all(&half).map_err(unusable(&half)),
        renamed => renamed.map_err(unusable(crds)),
    }
}

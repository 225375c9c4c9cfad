//! Where cargo put the stand-in for `libnvidia-ml.so`, which the crate of this name in `tests/fake-nvml` makes.

use std::path::PathBuf;

/// The library: beside the test that asks, or one folder up. None where it was not built.
pub fn library() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let mut folders = exe.ancestors().skip(1).take(2).map(|folder| folder.join("libfake_nvml.so"));
    folders.find(|path| path.exists())
}

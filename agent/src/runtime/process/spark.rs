//! Spark.
use super::prepare::Layout;
use super::python::{Progress, PythonEnv};
use crate::guard::plan::Plan;
use std::path::{Path, PathBuf};
pub(super) async fn install(cache: &Path, progress: Progress) -> Result<PathBuf, String> {
    PythonEnv::spark().ready(cache, progress).await.map_err(|e| e.to_string())
}
pub(super) fn plan(_: &Layout<'_>, _: &Path) -> Result<Plan, String> {
    Err("no".into())
}

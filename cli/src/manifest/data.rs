//! Manifests of data locations, checked like those of workloads: all files are read whole, or nothing happens. Called by
//! `data apply` and `whatif`.

use protocol::data::{DATA_KIND, DataObject};

use super::Problem;
use super::locate::Tree;
use super::source::Document;
use super::{explain, kind, source};
use crate::exit::Failure;

/// Reads every data location of every file (`-` is standard input); the problems of all of them together otherwise.
pub fn read(files: &[String]) -> Result<Vec<DataObject>, Failure> {
    super::read_each(files, data)
}

fn data(document: &Document<'_>) -> Result<DataObject, Vec<Problem>> {
    let tree = Tree::of(document.text).map_err(|e| vec![explain::yaml(&e, None, document)])?;
    kind(&tree, document, &[DATA_KIND])?;
    let mut data: DataObject = serde_saphyr::from_str_with_options(document.text, source::options())
        .map_err(|e| vec![explain::yaml(&e, Some(&tree), document)])?;
    let at = |field: &str| tree.find(field).map(|(line, column)| (line + document.first_line, column));
    let found = data.spec.problems().into_iter();
    let mut problems: Vec<Problem> =
        found.map(|p| Problem { at: at(&p.field), field: p.field, what: p.problem }).collect();
    if data.metadata.namespace.is_some() {
        let field = "metadata.namespace";
        let what = "data locations are in no namespace: leave it out".into();
        problems.push(Problem { at: at(field), field: field.into(), what });
    }
    // What only the server writes goes, so that what `data -o yaml` printed can be applied again. The version stays: who changes
    // what they read does not overwrite what they have not seen.
    (data.metadata.creation_timestamp, data.metadata.deletion_timestamp, data.status) = (None, None, None);
    problems.sort_by_key(|problem| problem.at);
    if problems.is_empty() { Ok(data) } else { Err(problems) }
}

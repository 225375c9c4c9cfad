//! Manifests: files of workloads as people write them. Everything that can be known to be wrong is found here, with
//! file, line and field, before anything is sent: all files are read whole, or nothing happens.
//! Called by `submit`; touches only the files that it is given.

pub mod data;
mod explain;
mod locate;
pub mod pools;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use protocol::api::{API_VERSION, WorkloadObject};
use protocol::ids::Namespace;
use protocol::workload::{SpecError, is_native, workload_of};

use crate::client::default_namespace;
use crate::exit::Failure;
use locate::Tree;
pub use source::settle;
use source::{Document, Source};

/// Reads every workload of every file (`-` is standard input); the problems of all of them together otherwise.
/// `namespace` is the one that was asked for on the command line.
pub fn read(files: &[String], namespace: Option<&Namespace>) -> Result<Vec<WorkloadObject>, Failure> {
    let (mut workloads, mut problems) = (vec![], vec![]);
    let mut places: BTreeMap<(Namespace, String), String> = BTreeMap::new();
    for file in files {
        let source = match Source::read(file) {
            Ok(source) => source,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for document in source.documents() {
            match workload(&document, namespace, &source.directory) {
                Ok((workload, line)) => {
                    let place = format!("{}:{line}", source.name);
                    let key = (named(&workload), workload.metadata.name.to_string());
                    if let Some(first) = places.insert(key, place.clone()) {
                        let name = &workload.metadata.name;
                        problems.push(format!("{place}: metadata.name: {name} was already used at {first}"));
                    }
                    workloads.push(workload);
                }
                Err(found) => problems.extend(found.into_iter().map(|p| p.in_file(&source.name))),
            }
        }
    }
    if problems.is_empty() { Ok(workloads) } else { Err(Failure::Input(problems)) }
}

/// Reads every object of every file; the problems of all of them together otherwise.
fn read_each<T>(files: &[String], read: impl Fn(&Document<'_>) -> Result<T, Vec<Problem>>) -> Result<Vec<T>, Failure> {
    let (mut objects, mut problems) = (vec![], vec![]);
    for file in files {
        match Source::read(file) {
            Ok(source) => {
                for document in source.documents() {
                    match read(&document) {
                        Ok(object) => objects.push(object),
                        Err(found) => problems.extend(found.into_iter().map(|p| p.in_file(&source.name))),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(objects) } else { Err(Failure::Input(problems)) }
}

fn named(workload: &WorkloadObject) -> Namespace {
    workload.metadata.namespace.clone().unwrap_or_else(default_namespace)
}

/// One problem, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    /// Line and column, from 1; none where there is no such place.
    at: Option<(u64, u64)>,
    /// The field's path; empty for the document itself.
    field: String,
    /// What is wrong, and what would be right.
    what: String,
}

impl Problem {
    fn in_file(self, file: &str) -> String {
        let place = self.at.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
        let field = if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) };
        format!("{file}{place}: {field}{}", self.what)
    }
}

/// A document as a workload that is ready to be sent, and the line on which it begins.
fn workload(
    document: &Document<'_>,
    namespace: Option<&Namespace>,
    directory: &Path,
) -> Result<(WorkloadObject, u64), Vec<Problem>> {
    let tree = Tree::of(document.text).map_err(|e| vec![explain::yaml(&e, None, document)])?;
    let at = |field: &str| tree.find(field).map(|(line, column)| (line + document.first_line, column));
    let told = |p: SpecError| Problem { at: at(&p.field), field: p.field, what: p.problem };
    let unread = |e: serde_saphyr::Error| vec![explain::yaml(&e, Some(&tree), document)];
    let mut workload: WorkloadObject = match tree.scalar("kind").is_some_and(is_native) {
        true => {
            let object = serde_saphyr::from_str_with_options(document.text, source::kubernetes_options());
            let read = workload_of(&object.map_err(unread)?);
            read.map_err(|problems| problems.into_iter().map(told).collect::<Vec<_>>())?
        }
        false => {
            kind(&tree, document, &["Workload"])?;
            serde_saphyr::from_str_with_options(document.text, source::options()).map_err(unread)?
        }
    };
    let mut problems: Vec<Problem> = workload.spec.problems().into_iter().map(told).collect();
    if let Some(wanted) = namespace
        && let Some(written) = workload.metadata.namespace.replace(wanted.clone())
        && written != *wanted
    {
        let what = format!("it says {written}, but --namespace says {wanted}: leave one of them out");
        problems.push(Problem { at: at("metadata.namespace"), field: "metadata.namespace".into(), what });
    }
    workload.metadata.namespace.get_or_insert_with(default_namespace);
    forget_server(&mut workload);
    if let Err(what) = source::settle(&mut workload.spec.working_dir, directory) {
        problems.push(Problem { at: at("spec.workingDir"), field: "spec.workingDir".into(), what });
    }
    let line = tree.start().0 + document.first_line;
    problems.sort_by_key(|problem| problem.at);
    if problems.is_empty() { Ok((workload, line)) } else { Err(problems) }
}

/// Drops what only the server writes, so that what `get -o yaml` printed can be handed in again: as a new submission. A
/// uid in a manifest that was never the server's is its writer's own, and stays.
fn forget_server(workload: &mut WorkloadObject) {
    workload.status = None;
    let metadata = &mut workload.metadata;
    if metadata.resource_version.take().is_some() | metadata.creation_timestamp.take().is_some() {
        metadata.uid = None;
    }
    metadata.deletion_timestamp = None;
}

/// Whether it is of one of these kinds at all: told before its fields are looked at, since those of another kind make no sense.
fn kind(tree: &Tree, document: &Document<'_>, kinds: &[&str]) -> Result<(), Vec<Problem>> {
    let kinds_or = kinds.join(" or ");
    let start = |tree: &Tree| Some((tree.start().0 + document.first_line, tree.start().1));
    if !tree.is_map() {
        let what = format!(
            "expected a {kinds_or}: a mapping with apiVersion: {API_VERSION}, kind: {kinds_or}, metadata and spec"
        );
        return Err(vec![Problem { at: start(tree), field: String::new(), what }]);
    }
    let mut problems = vec![];
    for (field, wanted) in [("apiVersion", &[API_VERSION][..]), ("kind", kinds)] {
        let expected = wanted.join(" or ");
        match tree.scalar(field) {
            Some(text) if wanted.contains(&text) => {}
            Some(text) => {
                let at = tree.find(field).map(|(line, column)| (line + document.first_line, column));
                problems.push(Problem { at, field: field.into(), what: format!("it is {text:?}: write {expected}") });
            }
            None => {
                let what = format!("it is missing: write {field}: {expected}");
                problems.push(Problem { at: start(tree), field: field.into(), what });
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "apiVersion: tidewater.dev/v1\nkind: Workload\nmetadata: {name: good}\nspec:\n  env: {A: b}\n  batch:\n    \
                        command: [echo, 'hi']\n    groups:\n    - {count: 2, cpu: 1, memory: 1Gi, gpus: 1, gpu: [H100]}\n";

    fn check(text: &str) -> Result<WorkloadObject, Vec<String>> {
        let document = Document { text, first_line: 0 };
        let read = workload(&document, None, Path::new("/here")).map(|(workload, _)| workload);
        read.map_err(|problems| problems.into_iter().map(|p| p.in_file("m")).collect())
    }

    #[test]
    fn whatever_one_slip_makes_of_a_manifest_is_read_or_told_in_single_lines_with_their_place() {
        let mut told = 0;
        for i in 0..GOOD.len() {
            for slip in ["", "\t", ":", "- ", "{", "]", "'", "&a ", "*a", "!!x ", "\n", "\u{0}", "9", "ß"] {
                let text = format!("{}{slip}{}", &GOOD[..i], &GOOD[i + 1..]);
                let Err(problems) = check(&text) else { continue };
                assert!(!problems.is_empty(), "{text}");
                for problem in problems {
                    told += 1;
                    assert!(!problem.contains('\n'), "{problem:?} for {text}");
                    assert!(problem.starts_with("m:"), "{problem:?} for {text}");
                }
            }
        }
        assert!(told > 1_000, "the slips hardly hurt: {told}");
    }

    #[test]
    fn a_manifest_cut_anywhere_is_no_workload_or_a_whole_one() {
        for i in 0..GOOD.len() {
            if let Ok(workload) = check(&GOOD[..i]) {
                assert!(workload.spec.problems().is_empty());
            }
        }
    }

    #[test]
    fn what_the_server_wrote_is_dropped_and_what_the_writer_wrote_stays() {
        let uid = "0190a0b0-0000-7000-8000-000000000001";
        let own = check(&GOOD.replace("name: good", &format!("name: good, uid: {uid}"))).unwrap();
        assert_eq!(own.metadata.uid.unwrap().to_string(), uid);
        let printed =
            check(&GOOD.replace("name: good", &format!("name: good, uid: {uid}, resourceVersion: '7'"))).unwrap();
        assert_eq!((printed.metadata.uid, printed.metadata.resource_version), (None, None));
    }
}

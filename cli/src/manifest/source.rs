//! Where manifests come from: files and standard input, read whole within a limit, cut into documents.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_saphyr::Options;

/// The largest manifest, in bytes: as large as what the server takes.
const MAX_BYTES: u64 = 1024 * 1024;

/// One file's text.
pub struct Source {
    /// What messages call it.
    pub name: String,
    /// The folder from which relative paths in it are meant.
    pub directory: PathBuf,
    text: String,
}

/// One document of a file.
pub struct Document<'a> {
    /// Its text.
    pub text: &'a str,
    /// How many lines of the file come before it.
    pub first_line: u64,
}

/// How documents are parsed: duplicate keys are errors, and a document of a few bytes may not unfold into a huge one.
pub fn options() -> Options {
    let mut options = Options::default();
    options.with_snippet = false;
    options.alias_limits.max_total_replayed_events = 100_000;
    options
}

/// The same for objects of Kubernetes, whose tools read YAML 1.1: `defaultMode: 0644` is an octal number.
pub fn kubernetes_options() -> Options {
    let mut options = options();
    options.legacy_octal_numbers = true;
    options
}

impl Source {
    /// Reads a file, or standard input for `-`; the problem in one line otherwise.
    pub fn read(file: &str) -> Result<Self, String> {
        let here = || std::env::current_dir().map_err(|e| format!("can't tell the current folder: {e}"));
        if file == "-" {
            return Self::take("standard input", here()?, std::io::stdin().lock());
        }
        let path = Path::new(file);
        let cant = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => format!("{file}: no such file"),
            std::io::ErrorKind::PermissionDenied => format!("{file}: this user may not read it"),
            _ => format!("{file}: can't read it: {e}"),
        };
        let opened = std::fs::File::open(path).map_err(cant)?;
        if opened.metadata().map_err(cant)?.is_dir() {
            return Err(format!("{file}: it is a directory: name its files, each with -f"));
        }
        let directory = here()?.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
        Self::take(file, directory, opened)
    }

    fn take(name: &str, directory: PathBuf, from: impl Read) -> Result<Self, String> {
        let mut bytes = Vec::new();
        from.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("{name}: can't read it: {e}"))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("{name}: it is larger than 1 MiB, the most that a manifest may have"));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|b| **b == b'\n').count();
            format!("{name}:{line}: it is not UTF-8 text: save the file as UTF-8")
        })?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let source = Self { name: name.into(), directory, text };
        if source.documents().is_empty() {
            return Err(format!("{name}: it is empty: expected at least one object"));
        }
        Ok(source)
    }

    /// The documents that are not empty. A line that begins with `---` starts a document wherever it stands: YAML
    /// allows it nowhere else, not even within a block of text. So one broken document does not hide the next.
    pub fn documents(&self) -> Vec<Document<'_>> {
        let (mut documents, mut start, mut first_line) = (vec![], 0, 0);
        let (mut offset, mut line_number) = (0, 0);
        for line in self.text.split_inclusive('\n') {
            if is_marker(line) && offset > start {
                documents.push(Document { text: &self.text[start..offset], first_line });
                (start, first_line) = (offset, line_number);
            }
            offset += line.len();
            line_number += 1;
        }
        documents.push(Document { text: &self.text[start..], first_line });
        documents.retain(|document| !document.text.lines().all(is_blank));
        documents
    }
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.trim().is_empty() || rest.starts_with([' ', '\t']))
}

fn is_blank(line: &str) -> bool {
    let line = line.strip_prefix("---").unwrap_or(line).trim();
    line.is_empty() || line.starts_with('#') || line == "..."
}

/// Makes a working directory absolute: a relative one is meant from `directory`, an absent one is `directory`. The
/// server could not tell from where a relative one was meant.
pub fn settle(working_dir: &mut Option<String>, directory: &Path) -> Result<(), String> {
    let joined = directory.join(working_dir.as_deref().unwrap_or("."));
    let absolute: PathBuf = joined.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect();
    let text = absolute.to_str().ok_or_else(|| format!("{} is no UTF-8 text", absolute.display()))?;
    *working_dir = Some(text.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cut(text: &str) -> Vec<(String, u64)> {
        let source = Source { name: "m".into(), directory: PathBuf::new(), text: text.into() };
        source.documents().iter().map(|d| (d.text.to_owned(), d.first_line)).collect()
    }

    #[test]
    fn documents_are_cut_at_markers_and_empty_ones_are_dropped() {
        assert_eq!(cut("a: 1\n---\nb: 2\n"), [("a: 1\n".into(), 0), ("---\nb: 2\n".into(), 1)]);
        assert_eq!(cut("---\n# nothing\n---\n\n--- {a: 1}\n"), [("--- {a: 1}\n".into(), 4)]);
        assert_eq!(cut("a: |\n  ---\n  x\nb: ---x\n").len(), 1);
        assert!(cut("\n# only a comment\n...\n").is_empty());
    }

    #[test]
    fn a_working_directory_becomes_absolute() {
        let settled = |given: Option<&str>| {
            let mut dir = given.map(str::to_owned);
            settle(&mut dir, Path::new("/home/me/job")).unwrap();
            dir.unwrap()
        };
        assert_eq!(settled(None), "/home/me/job");
        assert_eq!(settled(Some("./src")), "/home/me/job/src");
        assert_eq!(settled(Some("../other")), "/home/me/job/../other");
        assert_eq!(settled(Some("/data")), "/data");
    }
}

//! Comma-separated text with a header, read whole; fields have no quotes.

use std::path::{Path, PathBuf};

/// What is wrong with a trace, and where.
#[derive(Debug, thiserror::Error)]
pub enum BadTrace {
    /// It can't be read.
    #[error("cannot read {}: {why}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{}:{line}{}: {found}; expected {expected}", .file.display(), .column.as_ref().map(|c| format!(": column {c}")).unwrap_or_default())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, where one is wrong.
        column: Option<String>,
        /// What is there.
        found: String,
        /// What would be right.
        expected: String,
    },
}

/// A file's lines under its header.
#[derive(Debug)]
pub struct Table {
    file: PathBuf,
    header: Vec<String>,
    rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self, BadTrace> {
        let bytes = std::fs::read(file).map_err(|why| BadTrace::Unreadable { file: file.into(), why })?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let (found, expected) = ("bytes that are no text".into(), "UTF-8".into());
            BadTrace::Wrong { file: file.into(), line, column: None, found, expected }
        })?;
        Self::parse(file, &text)
    }

    /// Reads text as if it stood in a file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, BadTrace> {
        let mut lines = text.trim_start_matches('\u{feff}').lines().zip(1..).map(|(text, line)| (line, text.trim()));
        let fields = |text: &str| text.split(',').map(|f| f.trim().to_owned()).collect::<Vec<_>>();
        let header = lines.next().map(|(_, text)| fields(text)).unwrap_or_default();
        let mut table = Self { file: file.into(), header, rows: vec![] };
        for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
            let row = fields(text);
            if row.len() != table.header.len() {
                let expected = format!("{}, as in the header: {}", table.header.len(), table.header.join(","));
                return Err(table.wrong(line, None, format!("{} fields", row.len()), &expected));
            }
            table.rows.push((line, row));
        }
        Ok(table)
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|h| h == name)
    }

    /// The rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, fields)| Row { table: self, line: *line, fields })
    }

    /// The header is not what it should be.
    pub fn bad_header(&self, expected: &str) -> BadTrace {
        let found = match self.header.join(",") {
            empty if empty.is_empty() => "the file is empty".into(),
            header => format!("the header is {header:?}"),
        };
        self.wrong(1, None, found, expected)
    }

    fn wrong(&self, line: usize, column: Option<&str>, found: String, expected: &str) -> BadTrace {
        let (column, expected) = (column.map(str::to_owned), expected.into());
        BadTrace::Wrong { file: self.file.clone(), line, column, found, expected }
    }
}

/// One row.
pub(super) struct Row<'a> {
    table: &'a Table,
    line: usize,
    fields: &'a [String],
}

impl Row<'_> {
    /// The text in a column; empty where there is no such column.
    pub(super) fn text(&self, column: &str) -> &str {
        self.table.column(column).and_then(|at| self.fields.get(at)).map_or("", String::as_str)
    }

    /// The whole number in a column, from `least` to `most`.
    pub(super) fn number(&self, column: &str, least: u64, most: u64, of: &str) -> Result<u64, BadTrace> {
        let text = self.text(column);
        let number = text.parse::<u64>().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| self.bad(column, &format!("{of}: a whole number from {least} to {most}")))
    }

    /// A column holds something wrong.
    pub(super) fn bad(&self, column: &str, expected: &str) -> BadTrace {
        let found = format!("{:?}", self.text(column));
        self.table.wrong(self.line, Some(column), found, expected)
    }
}

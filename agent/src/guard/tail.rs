//! The end of a log, short enough for a failure's message.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The most lines and bytes of a log that go into a message.
const LINES: usize = 12;
const BYTES: u64 = 2048;

/// The last lines of a file; empty where there are none or it cannot be read.
pub fn last_lines(path: &Path) -> String {
    read_end(path).unwrap_or_default()
}

fn read_end(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    // Cut in the middle of a line, unless that line is all there is.
    if start > 0 && lines.len() > 1 {
        lines.remove(0);
    }
    Ok(lines[lines.len().saturating_sub(LINES)..].join("\n").trim_end().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_kept_and_no_half_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let end = last_lines(&path);
        assert_eq!(end.lines().next(), Some("line 9988"));
        assert_eq!(end.lines().last(), Some("line 9999"));
    }

    #[test]
    fn one_endless_line_is_cut_and_an_absent_log_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(last_lines(&path).len(), 2048);
        assert_eq!(last_lines(&dir.path().join("none")), "");
    }
}

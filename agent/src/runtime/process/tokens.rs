//! Where the tokens of an attempt lie: `tokens/N/token` in its own folder, for its owner alone, N being the token's place in the specification
//! from 1. The path that the specification names is a container's; here a variable says where the file is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use protocol::control::LaunchOrder;
use protocol::token::TokenText;
use protocol::workload::{TOKEN_FILE, token_variable};

use super::private_dir;
use crate::guard::record::Record;
use crate::runtime::tokens::Shelf;

const FOLDER: &str = "tokens";

/// The files of one attempt's tokens.
pub(super) struct TokenFiles(PathBuf);

impl TokenFiles {
    /// Those of the attempt with this record.
    pub(super) fn of(record: &Record) -> Self {
        Self(record.path(FOLDER))
    }

    /// Makes the folders of so many.
    pub(super) fn make(&self, count: usize) -> io::Result<()> {
        (0..count).try_for_each(|index| private_dir(&self.folder(index)))
    }

    /// Removes all of them; those that are not there are no error.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn folder(&self, index: usize) -> PathBuf {
        self.0.join((index + 1).to_string())
    }

    /// The variables that say where the tokens of an order are. Its processes may stand elsewhere than this agent.
    pub(super) fn variables(&self, order: &LaunchOrder) -> impl Iterator<Item = (String, String)> {
        (0..order.spec.tokens.len()).map(|index| {
            let file = self.folder(index).join(TOKEN_FILE);
            let file = std::path::absolute(&file).unwrap_or(file);
            (token_variable(index), file.display().to_string())
        })
    }
}

impl Shelf for TokenFiles {
    /// Written at once, on the thread that calls: one that was left half way could come back behind its removal. Not synced, for what reads it
    /// does not outlive the machine's end either.
    async fn put(&self, index: usize, text: &TokenText) -> Result<(), String> {
        let folder = self.folder(index);
        let (file, half) = (folder.join(TOKEN_FILE), folder.join(".token.new"));
        let write = || {
            let mut out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&half)?;
            out.write_all(text.reveal().as_bytes())?;
            fs::rename(&half, &file)
        };
        write().map_err(|error: io::Error| format!("its file {} can't be written: {error}", file.display()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_token_is_its_owners_alone_and_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let files = TokenFiles::of(&Record::at(dir.path()));
        files.make(2).unwrap();
        files.put(1, &TokenText::new("one that is long")).await.unwrap();
        let file = dir.path().join("tokens/2/token");
        let mut held = fs::File::open(&file).unwrap();
        files.put(1, &TokenText::new("two")).await.unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((fs::read_to_string(&file).unwrap(), mode(&file)), ("two".to_owned(), 0o600));
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        // Whoever has the old one open reads that to its end.
        let mut old = String::new();
        io::Read::read_to_string(&mut held, &mut old).unwrap();
        assert_eq!(old, "one that is long");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left aside");
        files.remove().unwrap();
        files.remove().unwrap();
        assert!(!dir.path().join(FOLDER).exists());
        // Nor does a late one bring anything back.
        let late = files.put(1, &TokenText::new("late")).await.unwrap_err();
        assert!(late.contains("tokens/2/token can't be written") && !late.contains("late"), "{late}");
        assert!(!dir.path().join(FOLDER).exists());
    }
}

//! Where a replica's private keys lie: `workload-keys/` in its data folder, a file a key, for its owner alone. They are copied nowhere.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::key::SigningKey;

const FOLDER: &str = "workload-keys";
/// How a key's file is called behind its name.
const ENDING: &str = "p8";

/// Why a replica has no key to sign workload tokens with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("{}: {cause}; it keeps the keys of workload tokens: check its owner and mode", .file.display())]
    File {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file is no key.
    #[error("{}: it is no private key; delete it, and another is made", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
    },
    /// No key could be made.
    #[error("no key for workload tokens: the system gives no random numbers")]
    NoRandomness,
}

/// The folder.
pub(super) struct KeyFolder(PathBuf);

impl KeyFolder {
    /// The folder in this data folder, which is there; it is made where it is missing.
    pub(super) fn open(data_dir: &Path) -> Result<Self, KeyError> {
        let folder = data_dir.join(FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|cause| KeyError::File { file: folder.clone(), cause })?;
        Ok(Self(folder))
    }

    /// All keys in it.
    pub(super) fn read(&self) -> Result<Vec<SigningKey>, KeyError> {
        let failed = |file: &Path| {
            let file = file.to_owned();
            move |cause| KeyError::File { file, cause }
        };
        let mut keys = vec![];
        for entry in fs::read_dir(&self.0).map_err(failed(&self.0))? {
            let file = entry.map_err(failed(&self.0))?.path();
            if file.extension().is_some_and(|ending| ending == ENDING) {
                let document = fs::read(&file).map_err(failed(&file))?;
                keys.push(SigningKey::read(&document).ok_or(KeyError::Damaged { file })?);
            }
        }
        Ok(keys)
    }

    /// Makes one more; it is whole on disk before it is used.
    pub(super) fn make(&self) -> Result<SigningKey, KeyError> {
        let (key, document) = SigningKey::generate().ok_or(KeyError::NoRandomness)?;
        let file = self.file(key.kid());
        let half = file.with_extension("half");
        let write = || {
            let mut out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&half)?;
            out.write_all(&document)?;
            out.sync_all()?;
            fs::rename(&half, &file)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|cause| KeyError::File { file: file.clone(), cause })?;
        Ok(key)
    }

    /// Deletes one that signs no more.
    pub(super) fn remove(&self, kid: &str) -> Result<(), KeyError> {
        let file = self.file(kid);
        match fs::remove_file(&file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(KeyError::File { file, cause }),
            _ => Ok(()),
        }
    }

    fn file(&self, kid: &str) -> PathBuf {
        self.0.join(kid).with_extension(ENDING)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_their_owners_alone_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = KeyFolder::open(dir.path()).unwrap();
        let (one, two) = (folder.make().unwrap(), folder.make().unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&folder.file(one.kid()))), (0o700, 0o600));
        let names = || {
            let mut names: Vec<String> =
                KeyFolder::open(dir.path()).unwrap().read().unwrap().iter().map(|k| k.kid().to_owned()).collect();
            names.sort();
            names
        };
        let mut both = vec![one.kid().to_owned(), two.kid().to_owned()];
        both.sort();
        assert_eq!(names(), both);
        folder.remove(one.kid()).unwrap();
        folder.remove(one.kid()).unwrap();
        assert_eq!(names(), [two.kid()]);
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = KeyFolder::open(dir.path()).unwrap();
        fs::write(folder.file("x"), b"no key").unwrap();
        let said = folder.read().unwrap_err().to_string();
        assert!(said.contains("workload-keys/x.p8: it is no private key; delete it"), "{said}");
    }
}

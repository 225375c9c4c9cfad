//! Where this user's files go (XDG Base Directory Specification).

use std::path::PathBuf;

/// `$VARIABLE/tidewater/LEAF`, else `~/FALLBACK/tidewater/LEAF`.
pub(crate) fn folder_of_user(variable: &str, fallback: &str, leaf: &str) -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set(variable)
        .or_else(|| set("HOME").map(|home| home.join(fallback)))
        .unwrap_or_else(std::env::temp_dir)
        .join("tidewater")
        .join(leaf)
}

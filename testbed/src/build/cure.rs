//! What Go said, turned into what a person can do about it.

use std::path::Path;
use std::process::Command;

use super::{BuildError, Tool};
use crate::process::tail;

/// What Go writes where modules cannot be fetched.
const UNREACHABLE: [&str; 8] = [
    "dial tcp",
    "no such host",
    "i/o timeout",
    "TLS handshake timeout",
    "connection refused",
    "connection reset",
    "module lookup disabled by GOPROXY=off",
    "proxyconnect",
];

/// The error for a build whose log is at `log`.
pub(super) fn explain(tool: Tool, cache: &Path, log: &Path) -> BuildError {
    let found = || {
        let said = Command::new("go").args(["env", "GOVERSION"]).output();
        said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
    };
    classify(tool, cache, log, tail(log), found)
}

fn classify(tool: Tool, cache: &Path, log: &Path, end: String, found: impl Fn() -> String) -> BuildError {
    let program = tool.name();
    if end.contains("no space left on device") || end.contains("disk quota exceeded") {
        BuildError::Disk { program, cache: cache.to_owned() }
    } else if end.contains("requires go >=") {
        BuildError::OldGo { program, version: tool.module().oldest_go(), found: found() }
    } else if UNREACHABLE.iter().any(|sign| end.contains(sign)) {
        BuildError::Network { program, end }
    } else {
        BuildError::Failed { program, log: log.to_owned(), end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(end: &str) -> BuildError {
        classify(Tool::Kwok, Path::new("/c"), Path::new("/c/kwok.log"), end.to_owned(), || "go1.19.8".to_owned())
    }

    #[test]
    fn an_old_go_is_told_with_the_version_that_will_do() {
        let error = of("go: go.mod requires go >= 1.26.0 (running go 1.19.8; GOTOOLCHAIN=local)");
        assert!(error.is_lack());
        let text = error.to_string();
        assert!(text.contains("Go 1.26") && text.contains("go1.19.8") && text.contains("GOTOOLCHAIN=auto"), "{text}");
    }

    #[test]
    fn no_network_is_a_lack_and_a_full_disk_is_not() {
        let network = of("sigs.k8s.io/kwok@v0.8.0: Get \"x\": dial tcp: lookup x: no such host");
        assert!(matches!(network, BuildError::Network { .. }) && network.is_lack());
        let disk = of("compile: writing output: write $WORK/b001/_pkg_.a: no space left on device");
        assert!(matches!(disk, BuildError::Disk { .. }) && !disk.is_lack());
    }

    #[test]
    fn anything_else_shows_its_log() {
        let error = of("x.go:1: undefined: y");
        assert!(!error.is_lack());
        assert!(error.to_string().contains("/c/kwok.log") && error.to_string().contains("undefined: y"));
    }
}

//! Which frameworks this machine can run, and what the others lack. Looks at programs; installs nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use protocol::workload::Framework;
use tokio::process::Command;

use super::python;
use crate::runtime::FrameworkCheck;

/// The oldest Java that Spark 4 runs on.
const OLDEST_JAVA: u32 = 17;

/// Every framework with what it lacks.
pub(super) async fn check() -> Vec<FrameworkCheck> {
    let python = python::find_python().await.err().map(|e| e.to_string());
    let java = java_program(std::env::var_os("JAVA_HOME"));
    let java = java_version(&java).await.err();
    vec![
        FrameworkCheck { framework: Framework::Ray, missing: python.clone(), takes_manifests: false },
        FrameworkCheck { framework: Framework::Spark, missing: python.or(java), takes_manifests: false },
        FrameworkCheck { framework: Framework::Batch, missing: None, takes_manifests: false },
    ]
}

/// Spark's own choice: `JAVA_HOME`, else what `PATH` has.
pub(super) fn java_program(java_home: Option<OsString>) -> PathBuf {
    java_home.map_or_else(|| PathBuf::from("java"), |home| PathBuf::from(home).join("bin/java"))
}

/// The feature version of a Java, 17 or later; the error says what to install.
pub(super) async fn java_version(java: &std::path::Path) -> Result<u32, String> {
    let cure = format!(
        "Spark needs Java {OLDEST_JAVA} or later: on Debian and Ubuntu, apt install openjdk-17-jre-headless, or set JAVA_HOME"
    );
    let shown = java.display();
    let out = Command::new(java).arg("-version").stdin(Stdio::null()).kill_on_drop(true).output().await;
    let out = out.map_err(|e| format!("{shown} cannot be run: {e}; {cure}"))?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    match feature_version(&text) {
        Some(version) if version >= OLDEST_JAVA => Ok(version),
        Some(version) => Err(format!("{shown} is Java {version}, which is too old; {cure}")),
        None => Err(format!("{shown} -version says {:?}; {cure}", text.lines().next().unwrap_or_default())),
    }
}

/// `17` of `openjdk version "17.0.15" …`, `8` of `java version "1.8.0_402"`.
fn feature_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    let mut numbers = quoted.split(['.', '-', '+', '_']).map(|n| n.parse().ok());
    match numbers.next()?? {
        1 => numbers.next()?,
        feature => Some(feature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_old_and_new_are_read() {
        assert_eq!(feature_version("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(feature_version("java version \"1.8.0_402\""), Some(8));
        assert_eq!(feature_version("openjdk version \"25-ea\" 2025-09-16"), Some(25));
        assert_eq!(feature_version("command not found"), None);
    }

    #[tokio::test]
    async fn an_absent_java_says_what_to_install() {
        let error = java_version(std::path::Path::new("/nonexistent/java")).await.expect_err("there is none");
        assert!(error.contains("openjdk-17-jre-headless"), "{error}");
    }
}

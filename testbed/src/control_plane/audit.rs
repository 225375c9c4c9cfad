//! The API server's audit policy, and what stands in its log.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::credentials::KWOK_USER;
use super::settings::Audit;

/// The policy, as the API server reads it. The first rule that fits a request decides.
pub(super) fn policy(audit: Audit) -> String {
    let rules = match audit {
        Audit::Everything => json!([{"level": "Metadata"}]),
        Audit::Changes => json!([
            {"level": "None", "resources": [
                {"group": "", "resources": ["events"]},
                {"group": "events.k8s.io", "resources": ["events"]},
                {"group": "coordination.k8s.io", "resources": ["leases"]},
            ]},
            {"level": "None", "users": [KWOK_USER], "verbs": ["patch", "update"]},
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "None"},
        ]),
    };
    let stages = json!(["RequestReceived", "ResponseStarted"]);
    format!("{:#}\n", json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": stages, "rules": rules}))
}

/// A request that the API server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// `create`, `delete`, `patch`, …
    pub verb: String,
    /// Who asked.
    pub user: String,
    /// `batch`, `ray.io`, …; empty for the core group.
    pub group: String,
    /// `pods`, `jobs`, …; a subresource stands behind a slash.
    pub resource: String,
    /// Empty for what has none.
    pub namespace: String,
    /// Empty for what has none.
    pub name: String,
    /// The answer, as HTTP has it.
    pub code: u64,
    /// Whether it was refused for want of the right to it.
    pub forbidden: bool,
    /// Whether it was only tried: nothing was changed.
    pub dry_run: bool,
}

/// All that the log has so far. A last line that is still being written is left out.
pub(super) fn read(log: &Path) -> io::Result<Vec<Audited>> {
    let text = fs::read_to_string(log)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter_map(|line| entry(&line)).collect())
}

fn entry(line: &Value) -> Option<Audited> {
    let text = |at: &str| line.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subresource = text("/objectRef/subresource");
    let mut resource = text("/objectRef/resource");
    if !subresource.is_empty() {
        resource = format!("{resource}/{subresource}");
    }
    Some(Audited {
        verb: line.get("verb")?.as_str()?.to_owned(),
        user: text("/user/username"),
        group: text("/objectRef/apiGroup"),
        resource,
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code: line.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0),
        forbidden: line.pointer("/annotations").is_some_and(|all| all["authorization.k8s.io/decision"] == "forbid"),
        dry_run: text("/requestURI").contains("dryRun="),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_read_and_a_half_one_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = dir.path().join("audit.log");
        let line = r#"{"verb":"create","user":{"username":"admin"},"responseStatus":{"code":201},
            "objectRef":{"resource":"pods","subresource":"binding","namespace":"a","name":"b"}}"#;
        let tried =
            r#"{"verb":"create","requestURI":"/api/v1/pods?dryRun=All&fieldManager=x","objectRef":{"apiGroup":"batch"},
            "annotations":{"authorization.k8s.io/decision":"forbid"}}"#
                .replace('\n', "");
        fs::write(&log, format!("{}\n{tried}\n{{\"verb\":\"del", line.replace('\n', ""))).expect("written");
        let found = read(&log).expect("read");
        let seen: Vec<_> = found.iter().map(|one| (one.dry_run, one.forbidden, one.group.as_str())).collect();
        assert_eq!(seen, [(false, false, ""), (true, true, "batch")]);
        assert_eq!((found[0].resource.as_str(), found[0].code, found[0].user.as_str()), ("pods/binding", 201, "admin"));
    }
}

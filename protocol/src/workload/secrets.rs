//! Secrets by reference: a workload names them, and whoever runs it in a cluster mounts that cluster's own. No value is ever read by
//! Tidewater, sent, or stored.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::WorkloadSpec;

/// The most secrets that a workload may use.
pub const MAX_SECRETS: usize = 64;
/// The longest name or key of a secret, in characters: Kubernetes' own limit.
const MAX_NAME: usize = 253;

/// One use of a Secret of the workload's namespace in the cluster where it runs: as files, or as a variable; for all members alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretUse {
    /// The Secret's name.
    pub name: String,
    /// The folder in which each of its keys is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// The variable that has the value of `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The key, where `env` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl WorkloadSpec {
    pub(super) fn check_secrets(&self, bad: &mut impl FnMut(String, String)) {
        let all = &self.secrets;
        if all.len() > MAX_SECRETS {
            bad("spec.secrets".into(), format!("{} secrets; at most {MAX_SECRETS} are allowed", all.len()));
        }
        for (i, secret) in all.iter().enumerate() {
            let at = |field: &str| format!("spec.secrets[{i}].{field}");
            if !is_name(&secret.name) {
                let rule = "a Secret's name has a-z, 0-9, '-' and '.', and begins and ends with a letter or digit";
                bad(at("name"), format!("{:?}: {rule}", shown(&secret.name)));
            }
            match (&secret.mount_path, &secret.env) {
                (Some(_), Some(_)) => {
                    bad(at("env"), "mountPath is set too: use one entry for files and one for the variable".into());
                }
                (None, None) => {
                    bad(at("mountPath"), "it is missing: write a folder for its files, or env and key".into())
                }
                (Some(path), None) => {
                    if let Some(problem) = path_problem(path) {
                        bad(at("mountPath"), format!("{:?} {problem}", shown(path)));
                    } else if all[..i].iter().any(|other| other.mount_path.as_ref() == Some(path)) {
                        bad(at("mountPath"), format!("{path} is used twice: each needs a folder of its own"));
                    }
                    if secret.key.is_some() {
                        bad(at("key"), "it goes with env: in a folder each key is a file".into());
                    }
                }
                (None, Some(variable)) => self.check_variable(i, variable, secret.key.as_deref(), bad),
            }
        }
    }

    fn check_variable(&self, i: usize, variable: &str, key: Option<&str>, bad: &mut impl FnMut(String, String)) {
        let field = format!("spec.secrets[{i}].env");
        let first = variable.chars().next();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if first.is_none_or(|c| c.is_ascii_digit()) || !variable.chars().all(plain) || variable.len() > MAX_NAME {
            bad(field.clone(), format!("{:?}: a variable has letters, digits and '_'", shown(variable)));
        } else if variable.starts_with("TIDEWATER_") {
            bad(field.clone(), format!("{variable}: these names are Tidewater's own"));
        } else if self.env.contains_key(variable) {
            bad(field.clone(), format!("{variable} is in spec.env too: leave one of them out"));
        } else if self.secrets[..i].iter().any(|other| other.env.as_deref() == Some(variable)) {
            bad(field.clone(), format!("{variable} is used twice: once is enough"));
        }
        let at = format!("spec.secrets[{i}].key");
        match key {
            None => bad(at, "it is missing: name the key whose value the variable has".into()),
            Some(key) if !is_key(key) => {
                bad(at, format!("{:?}: a Secret's key has letters, digits, '-', '_' and '.'", shown(key)));
            }
            Some(_) => {}
        }
    }
}

/// Enough of what was written to know it again.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    text.len() <= MAX_NAME && text.bytes().all(inner) && text.split('.').all(label)
}

fn is_key(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(plain) && !matches!(text, "." | "..")
}

pub(super) fn path_problem(path: &str) -> Option<&'static str> {
    match path {
        _ if !path.starts_with('/') => Some("does not begin with '/': write a whole path"),
        _ if path.trim_end_matches('/').is_empty() => Some("is the root: write a folder in it"),
        _ if path.len() > 4096 => Some("is too long"),
        _ if path.contains([':', '\0']) => Some("has a ':' or a NUL, which a folder of a container may not have"),
        _ if path.split('/').any(|part| part == "..") => Some("has a '..': write where it is"),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Fields with problems.
    fn problems(secrets: Value) -> Vec<String> {
        let group = json!({"count": 1, "cpu": "1", "memory": "1Gi"});
        let batch = json!({"command": ["c"], "groups": [group]});
        let spec: WorkloadSpec =
            serde_json::from_value(json!({"batch": batch, "env": {"LEVEL": "1"}, "secrets": secrets})).unwrap();
        spec.problems().into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn files_and_variables_of_secrets_are_taken() {
        let files = json!({"name": "hf-token", "mountPath": "/var/run/secrets/hf"});
        let variable = json!({"name": "hf.token", "env": "HF_TOKEN", "key": "token"});
        assert_eq!(problems(json!([files, variable])), Vec::<String>::new());
    }

    #[test]
    fn what_no_cluster_could_carry_out_is_refused_with_its_field() {
        let one = |secret: Value| problems(json!([secret]));
        assert_eq!(one(json!({"name": "a"})), ["spec.secrets[0].mountPath"]);
        assert_eq!(one(json!({"name": "a", "mountPath": "/a", "env": "A", "key": "k"})), ["spec.secrets[0].env"]);
        assert_eq!(one(json!({"name": "a", "mountPath": "/a", "key": "k"})), ["spec.secrets[0].key"]);
        assert_eq!(one(json!({"name": "a", "env": "A"})), ["spec.secrets[0].key"]);
        for name in ["", "A", "-a", "a-", "a..b", "a/b", &"a".repeat(254)] {
            assert_eq!(one(json!({"name": name, "mountPath": "/a"})), ["spec.secrets[0].name"], "{name}");
        }
        for path in ["", "a", "/", "//", "/a/../b", "/a:b"] {
            assert_eq!(one(json!({"name": "a", "mountPath": path})), ["spec.secrets[0].mountPath"], "{path}");
        }
        for variable in ["", "1A", "A-B", "TIDEWATER_POOL", "LEVEL"] {
            assert_eq!(one(json!({"name": "a", "env": variable, "key": "k"})), ["spec.secrets[0].env"], "{variable}");
        }
        for key in ["", "..", "a/b"] {
            assert_eq!(one(json!({"name": "a", "env": "A", "key": key})), ["spec.secrets[0].key"], "{key}");
        }
        let twice = json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/a"}]);
        assert_eq!(problems(twice), ["spec.secrets[1].mountPath"]);
        let many: Vec<Value> = (0..65).map(|i| json!({"name": "a", "mountPath": format!("/{i}")})).collect();
        assert_eq!(problems(json!(many)), ["spec.secrets"]);
    }
}

//! Workload tokens: short-lived proofs of which workload an attempt belongs to, for others that trust the coordinators' keys (object
//! stores, vaults). A workload names whom each is for; the text of one never stands in a specification, the log or a record.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::WorkloadSpec;
use super::secrets::{path_problem, shown};
use crate::resources::Span;

/// The most tokens that a workload may have.
pub const MAX_TOKENS: usize = 16;
/// The shortest life of a token: it is refreshed at four fifths of it, and a kubelet takes up to two minutes to pass a new one on.
pub const MIN_TOKEN_LIFE: Span = Span(600_000);
/// The longest.
pub const MAX_TOKEN_LIFE: Span = Span(24 * 3_600_000);
/// That where none is given.
pub const TOKEN_LIFE: Span = Span(3_600_000);
/// The longest audience, in bytes.
const MAX_AUDIENCE: usize = 256;
/// The token's file in the folder where it is mounted.
pub const TOKEN_FILE: &str = "token";

/// One token that all members of a workload have as a file, refreshed before it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenUse {
    /// Whom it is for, as that one expects it in the claim `aud`.
    pub audience: String,
    /// The folder in which the file `token` is. Where workloads run as processes it is elsewhere: `TIDEWATER_TOKEN_FILE` says where.
    pub mount_path: String,
    /// How long one is valid; left out: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Span>,
}

impl TokenUse {
    /// How long one is valid.
    pub fn life(&self) -> Span {
        self.expiration.unwrap_or(TOKEN_LIFE)
    }
}

/// The variable with the place of the file of a workload's token, by the token's place in the specification: `TIDEWATER_TOKEN_FILE` for the
/// first, `TIDEWATER_TOKEN_FILE_2` for the second.
pub fn token_variable(index: usize) -> String {
    match index {
        0 => "TIDEWATER_TOKEN_FILE".to_owned(),
        later => format!("TIDEWATER_TOKEN_FILE_{}", later + 1),
    }
}

impl WorkloadSpec {
    pub(super) fn check_tokens(&self, bad: &mut impl FnMut(String, String)) {
        let all = &self.tokens;
        if all.len() > MAX_TOKENS {
            bad("spec.tokens".into(), format!("{} tokens; at most {MAX_TOKENS} are allowed", all.len()));
        }
        for (i, token) in all.iter().enumerate() {
            let at = |field: &str| format!("spec.tokens[{i}].{field}");
            let audience = &token.audience;
            if let Some(problem) = audience_problem(audience) {
                bad(at("audience"), format!("{:?} {problem}", shown(audience)));
            } else if all[..i].iter().any(|other| other.audience == *audience) {
                bad(at("audience"), format!("{audience} is named twice: one token is enough"));
            }
            let path = &token.mount_path;
            let secrets = self.secrets.iter().filter_map(|secret| secret.mount_path.as_ref());
            let mut others = secrets.chain(all[..i].iter().map(|other| &other.mount_path));
            if let Some(problem) = path_problem(path) {
                bad(at("mountPath"), format!("{:?} {problem}", shown(path)));
            } else if let Some(other) = others.find(|other| overlap(path, other)) {
                let (path, other) = (shown(path), shown(other));
                bad(at("mountPath"), format!("{path} and {other} are used both: each needs a folder of its own"));
            }
            match token.expiration {
                Some(short) if short < MIN_TOKEN_LIFE => {
                    bad(at("expiration"), format!("{short} is too short: at least {MIN_TOKEN_LIFE}"));
                }
                Some(long) if long > MAX_TOKEN_LIFE => {
                    bad(at("expiration"), format!("{long} is too long: at most {MAX_TOKEN_LIFE}"));
                }
                _ => {}
            }
        }
    }
}

fn audience_problem(text: &str) -> Option<&'static str> {
    match text {
        "" => Some("is empty: name whom the token is for, such as sts.amazonaws.com"),
        _ if text.len() > MAX_AUDIENCE => Some("is too long: at most 256 bytes are allowed"),
        _ if !text.bytes().all(|c| c.is_ascii_graphic()) => {
            Some("has a blank or another character that is not plain: write it as whoever reads the token does")
        }
        _ => None,
    }
}

/// Whether two folders are one, or one is in the other: what is mounted read-only has no room for another.
fn overlap(one: &str, other: &str) -> bool {
    fn parts(path: &str) -> impl Iterator<Item = &str> {
        path.split('/').filter(|part| !matches!(*part, "" | "."))
    }
    parts(one).zip(parts(other)).all(|(a, b)| a == b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Fields with problems.
    fn problems(tokens: Value) -> Vec<String> {
        let group = json!({"count": 1, "cpu": "1", "memory": "1Gi"});
        let batch = json!({"command": ["c"], "groups": [group]});
        let secrets = json!([{"name": "hf", "mountPath": "/run/hf"}]);
        let spec: WorkloadSpec =
            serde_json::from_value(json!({"batch": batch, "secrets": secrets, "tokens": tokens})).unwrap();
        spec.problems().into_iter().map(|problem| problem.to_string()).collect()
    }

    fn token(audience: &str, path: &str) -> Value {
        json!({"audience": audience, "mountPath": path})
    }

    #[test]
    fn tokens_for_several_audiences_are_taken() {
        let mut day = token("https://vault.example:8200/v1?a=b", "/var/run/secrets/vault/");
        day["expiration"] = json!("24h");
        assert_eq!(problems(json!([token("sts.amazonaws.com", "/var/run/secrets/aws"), day])), Vec::<String>::new());
    }

    #[test]
    fn what_could_not_be_carried_out_is_refused_with_its_field() {
        let one = |token: Value| problems(json!([token]));
        assert_eq!(
            one(token("", "/a")),
            ["spec.tokens[0].audience: \"\" is empty: name whom the token is for, such as sts.amazonaws.com"]
        );
        for audience in ["a b", "ä", "a\n", &"a".repeat(257)] {
            assert!(one(token(audience, "/a"))[0].starts_with("spec.tokens[0].audience: "), "{audience}");
        }
        for path in ["", "a", "/", "//", "/a/../b", "/a:b"] {
            assert!(one(token("a", path))[0].starts_with("spec.tokens[0].mountPath: "), "{path}");
        }
        let lives = |life: &str| one(json!({"audience": "a", "mountPath": "/a", "expiration": life}));
        assert_eq!(lives("9m"), ["spec.tokens[0].expiration: 9m is too short: at least 10m"]);
        assert_eq!(lives("25h"), ["spec.tokens[0].expiration: 1day 1h is too long: at most 1day"]);
        assert!(lives("10m").is_empty() && lives("24h").is_empty());
        let many: Vec<Value> = (0..17).map(|i| token(&format!("a{i}"), &format!("/{i}"))).collect();
        assert_eq!(problems(json!(many)), ["spec.tokens: 17 tokens; at most 16 are allowed"]);
    }

    #[test]
    fn audiences_and_folders_are_each_ones_own() {
        let twice = problems(json!([token("a", "/a"), token("a", "/b")]));
        assert_eq!(twice, ["spec.tokens[1].audience: a is named twice: one token is enough"]);
        for path in ["/run/hf", "/run/hf/", "/run//hf", "/run/./hf", "/run/hf/tokens", "/run"] {
            let clash = problems(json!([token("a", path)]));
            let said = format!("spec.tokens[0].mountPath: {path} and /run/hf are used both");
            assert!(clash.len() == 1 && clash[0].starts_with(&said), "{clash:?}");
        }
        assert!(problems(json!([token("a", "/run/hf2"), token("b", "/run/hf3")])).is_empty());
        assert_eq!(problems(json!([token("a", "/a"), token("b", "/a/")])).len(), 1);
    }

    #[test]
    fn the_variable_of_the_first_has_no_number() {
        assert_eq!(
            [0, 1, 15].map(token_variable),
            ["TIDEWATER_TOKEN_FILE", "TIDEWATER_TOKEN_FILE_2", "TIDEWATER_TOKEN_FILE_16"]
        );
    }
}

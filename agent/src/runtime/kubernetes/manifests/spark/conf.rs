//! Spark properties of an application that no operator submits: which of them shape the driver's pod, which can't be honoured, and the
//! file in which the driver finds the rest.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::ManifestError;
use super::super::pod::variable;

/// What `spark-submit` would put into the driver's pod, and nothing here does. For each, what to say instead.
const REFUSED: [(&str, &str); 9] = [
    ("spark.kubernetes.driver.volumes.", "mount secrets with spec.secrets"),
    ("spark.kubernetes.driver.secrets.", "use spec.secrets"),
    ("spark.kubernetes.driver.secretKeyRef.", "use spec.secrets"),
    ("spark.kubernetes.driver.podTemplate", "the pod's template is Tidewater's"),
    ("spark.kubernetes.driver.pod.featureSteps", "the pod is Tidewater's"),
    ("spark.kubernetes.driver.service.", "the service is Tidewater's"),
    ("spark.kubernetes.driver.scheduler.name", "leave the scheduler to the cluster"),
    ("spark.kubernetes.scheduler.name", "leave the scheduler to the cluster"),
    ("spark.driver.resource.", "a driver has no GPUs; executors have"),
];

const DRIVER_ENV: &str = "spark.kubernetes.driverEnv.";
const LABEL: &str = "spark.kubernetes.driver.label.";
const ANNOTATION: &str = "spark.kubernetes.driver.annotation.";
/// For the driver and for executors alike, and for the driver alone.
const NODE_SELECTORS: [&str; 2] = ["spark.kubernetes.node.selector.", "spark.kubernetes.driver.node.selector."];
const PULL_SECRETS: &str = "spark.kubernetes.container.image.pullSecrets";

/// Refuses what would be ignored.
pub(super) fn check(conf: &BTreeMap<String, String>) -> Result<(), ManifestError> {
    for key in conf.keys() {
        if let Some((_, instead)) = REFUSED.iter().find(|(start, _)| key.starts_with(start)) {
            return Err(ManifestError::Conf { key: key.clone(), instead });
        }
    }
    Ok(())
}

/// Puts into the driver's pod what `spark-submit` would, but for what is there already.
pub(super) fn shape(conf: &BTreeMap<String, String>, pod: &mut Value) {
    let under = |start: &'static str| conf.iter().filter_map(move |(k, v)| Some((k.strip_prefix(start)?, v.as_str())));
    for (start, field) in [(LABEL, "labels"), (ANNOTATION, "annotations")] {
        for (name, value) in under(start).filter(|(name, _)| !name.is_empty()) {
            let there = &mut pod["metadata"][field][name];
            if there.is_null() {
                *there = json!(value);
            }
        }
    }
    for (name, value) in NODE_SELECTORS.into_iter().flat_map(under).filter(|(name, _)| !name.is_empty()) {
        pod["spec"]["nodeSelector"][name] = json!(value);
    }
    let secrets = conf.get(PULL_SECRETS).into_iter().flat_map(|names| names.split(',')).map(str::trim);
    let secrets: Vec<Value> = secrets.filter(|name| !name.is_empty()).map(|name| json!({"name": name})).collect();
    if !secrets.is_empty() {
        pod["spec"]["imagePullSecrets"] = json!(secrets);
    }
    let Some(env) = pod["spec"]["containers"][0]["env"].as_array_mut() else { return };
    let given = under(DRIVER_ENV).filter(|(name, _)| !name.is_empty() && env.iter().all(|own| own["name"] != *name));
    let given: Vec<Value> = given.map(|(name, value)| variable(name, value)).collect();
    drop(env.splice(..0, given));
}

/// A file of Java properties, as Spark reads it: UTF-8, one a line.
pub(super) fn file<'a>(properties: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    properties.map(|(key, value)| format!("{}={}\n", escaped(key, true), escaped(value, false))).collect()
}

/// White space begins no value, and ends a key, as do `=` and `:`; `#` and `!` begin a comment.
fn escaped(text: &str, key: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (place, c) in text.chars().enumerate() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0c' => out.push_str("\\f"),
            '\\' => out.push_str("\\\\"),
            ' ' if key || place == 0 => out.push_str("\\ "),
            '=' | ':' | '#' | '!' if key => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn conf(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_property_is_read_back_as_it_was_said() {
        let text = file([("a.b", "x=y: z\\n"), ("k #=", " two\nlines"), ("u", "ü$(X)")].into_iter());
        assert_eq!(text, "a.b=x=y: z\\\\n\nk\\ \\#\\==\\ two\\nlines\nu=ü$(X)\n");
    }

    #[test]
    fn what_shapes_the_drivers_pod_shapes_it_and_what_is_ours_stays() {
        let mut pod = json!({
            "metadata": {"labels": {"tidewater.dev/attempt": "ours"}},
            "spec": {"containers": [{"env": [{"name": "OURS", "value": "1"}]}]},
        });
        let conf = conf(&[
            ("spark.kubernetes.driver.label.tidewater.dev/attempt", "theirs"),
            ("spark.kubernetes.driver.label.team", "vision"),
            ("spark.kubernetes.driver.annotation.note", "n"),
            ("spark.kubernetes.node.selector.zone", "a"),
            ("spark.kubernetes.driver.node.selector.zone", "b"),
            ("spark.kubernetes.container.image.pullSecrets", "one, two"),
            ("spark.kubernetes.driverEnv.OURS", "2"),
            ("spark.kubernetes.driverEnv.MORE", "$(OURS)"),
        ]);
        check(&conf).unwrap();
        shape(&conf, &mut pod);
        assert_eq!(pod["metadata"]["labels"], json!({"tidewater.dev/attempt": "ours", "team": "vision"}));
        assert_eq!(pod["metadata"]["annotations"], json!({"note": "n"}));
        assert_eq!(pod["spec"]["nodeSelector"], json!({"zone": "b"}));
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "one"}, {"name": "two"}]));
        let env = json!([{"name": "MORE", "value": "$$(OURS)"}, {"name": "OURS", "value": "1"}]);
        assert_eq!(pod["spec"]["containers"][0]["env"], env);
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let refused = check(&conf(&[("spark.kubernetes.driver.secrets.token", "/etc/token")])).unwrap_err().to_string();
        assert!(
            refused.contains("spark.kubernetes.driver.secrets.token") && refused.contains("spec.secrets"),
            "{refused}"
        );
    }
}

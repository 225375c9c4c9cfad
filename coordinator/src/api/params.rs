//! Query parameters, read one by one so that each error names its parameter and what would be right.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;

use super::errors::ApiError;
use crate::handle::Consistency;

/// A request's query parameters. Unknown ones are ignored, as Kubernetes does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// The parameter's text; none where it is left out or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|t| !t.is_empty())
    }

    /// A switch: `true`, `1` or the bare name turn it on; `false` and `0` leave it off.
    pub fn switch(&self, name: &str) -> Result<bool, ApiError> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => {
                Err(ApiError::Malformed(format!("parameter {name}={other:?} is no switch: write true or false")))
            }
        }
    }

    /// A parameter of any type that can be read from text.
    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name)
            .map(|text| text.parse().map_err(|e| ApiError::Malformed(format!("parameter {name}={text:?}: {e}"))))
            .transpose()
    }

    /// How recent a read must be: linearizable unless `consistency=stale`.
    pub fn consistency(&self) -> Result<Consistency, ApiError> {
        match self.text("consistency") {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("stale") => Ok(Consistency::Stale),
            Some(other) => Err(ApiError::Malformed(format!(
                "parameter consistency={other:?} is unknown: write linearizable (the default) or stale"
            ))),
        }
    }

    /// The name that `fieldSelector=metadata.name=NAME` selects. No other selector is supported.
    pub fn selected_name(&self) -> Result<Option<&str>, ApiError> {
        if let Some(labels) = self.text("labelSelector") {
            return Err(ApiError::Malformed(format!(
                "parameter labelSelector={labels:?}: workloads have no labels in this version"
            )));
        }
        let Some(selector) = self.text("fieldSelector") else { return Ok(None) };
        match selector.split_once('=') {
            Some(("metadata.name", name)) => Ok(Some(name.trim_start_matches('='))),
            _ => Err(ApiError::Malformed(format!(
                "parameter fieldSelector={selector:?} is not supported: only metadata.name=NAME is"
            ))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn switches_read_as_kubernetes_writes_them() {
        let p = params(&[("watch", "true"), ("follow", ""), ("x", "0"), ("y", "yes")]);
        assert_eq!(p.switch("watch"), Ok(true));
        assert_eq!(p.switch("follow"), Ok(true));
        assert_eq!(p.switch("x"), Ok(false));
        assert_eq!(p.switch("absent"), Ok(false));
        assert!(p.switch("y").unwrap_err().to_string().contains("parameter y"));
    }

    #[test]
    fn a_bad_number_names_its_parameter() {
        let e = params(&[("gang", "many")]).parsed::<u32>("gang").unwrap_err();
        assert!(e.to_string().contains("gang=\"many\""), "{e}");
    }

    #[test]
    fn only_the_name_can_be_selected() {
        assert_eq!(params(&[("fieldSelector", "metadata.name=a")]).selected_name(), Ok(Some("a")));
        assert_eq!(params(&[("fieldSelector", "metadata.name==a")]).selected_name(), Ok(Some("a")));
        assert!(params(&[("fieldSelector", "status.phase=Running")]).selected_name().is_err());
        assert!(params(&[("labelSelector", "a=b")]).selected_name().is_err());
    }
}

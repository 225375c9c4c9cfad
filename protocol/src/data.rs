//! Data locations, as people write them and as the log keeps them: a set of data that workloads read, how large it is, and where
//! copies of it are. Nothing here moves data: whoever copies it says so.

use std::collections::BTreeSet;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::api::Metadata;
use crate::ids::{ClusterName, Region};
use crate::resources::DataSize;
use crate::workload::SpecError;

/// The kind of [`DataObject`].
pub const DATA_KIND: &str = "DataLocation";
/// The most clusters, and the most regions, where copies of one may be.
pub const MAX_COPIES: usize = 1_000;
/// How many workloads a status names.
pub const NAMED_USERS: usize = 10;

/// Data, and where copies of it are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataSpec {
    /// How large one copy is.
    pub size: DataSize,
    /// Clusters that have a copy.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clusters: BTreeSet<ClusterName>,
    /// Regions with a copy that every cluster there can read as its own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub regions: BTreeSet<Region>,
}

impl DataSpec {
    /// Everything that is wrong with it, each with its field.
    pub fn problems(&self) -> Vec<SpecError> {
        let mut found = Vec::new();
        let mut bad = |field: &str, problem: String| found.push(SpecError { field: field.into(), problem });
        if self.size == DataSize(0) {
            bad("spec.size", "it is 0: write how large the data is, such as 2Ti".into());
        }
        for (field, copies) in [("spec.clusters", self.clusters.len()), ("spec.regions", self.regions.len())] {
            if copies > MAX_COPIES {
                bad(field, format!("{copies} places; at most {MAX_COPIES} are allowed"));
            }
        }
        if self.clusters.is_empty() && self.regions.is_empty() {
            bad("spec", "it says nowhere where a copy is: name clusters, regions or both".into());
        }
        found
    }

    /// Whether a cluster of a region has a copy, of its own or its region's.
    pub fn is_in(&self, cluster: &ClusterName, region: &Region) -> bool {
        self.clusters.contains(cluster) || self.regions.contains(region)
    }
}

/// A data location as people write it and as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataObject {
    /// `tidewater.dev/v1`.
    pub api_version: String,
    /// `DataLocation`.
    pub kind: String,
    /// Its name and so on.
    pub metadata: Metadata,
    /// Where the data is.
    pub spec: DataSpec,
    /// How it is; ignored when a person sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<DataStatus>,
}

/// Who uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataStatus {
    /// How many workloads that have not ended name it.
    pub used_by: u64,
    /// The first of them, by name; at most [`NAMED_USERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<DataSpec, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_copy_is_in_a_cluster_or_in_its_region() {
        let data = spec(r#"{"size": "2Ti", "clusters": ["eu-1"], "regions": ["us-east"]}"#).unwrap();
        let is_in = |cluster: &str, region: &str| data.is_in(&cluster.parse().unwrap(), &region.parse().unwrap());
        assert!(is_in("eu-1", "eu-west") && is_in("us-7", "us-east"));
        assert!(!is_in("eu-2", "eu-west"));
        assert_eq!((data.size.0, data.size.to_string()), (2 * 1024 * 1024, "2Ti".to_owned()));
        assert_eq!(data.problems(), []);
    }

    #[test]
    fn faults_name_their_field() {
        let fields = |text: &str| -> Vec<String> {
            spec(text).unwrap().problems().into_iter().map(|problem| problem.field).collect()
        };
        assert_eq!(fields(r#"{"size": "0Gi"}"#), ["spec.size", "spec"]);
        let many: Vec<String> = (0..=MAX_COPIES).map(|i| format!("\"c-{i}\"")).collect();
        assert_eq!(fields(&format!("{{\"size\": \"1Gi\", \"clusters\": [{}]}}", many.join(","))), ["spec.clusters"]);
        assert!(spec(r#"{"clusters": ["eu-1"]}"#).is_err(), "the size is always said");
        assert!(spec(r#"{"size": "2TB", "clusters": ["eu-1"]}"#).unwrap_err().to_string().contains("800Gi or 2Ti"));
        assert!(spec(r#"{"size": "99999999999Pi", "clusters": ["eu-1"]}"#).is_err(), "too much to count");
    }
}

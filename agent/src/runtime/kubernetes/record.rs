//! The record of an attempt: a config map in the agent's own namespace, named after the attempt alone.
//!
//! It is made before anything of the attempt, by whoever is to make the rest, and deleted last. So an attempt that has one is never
//! begun again: that it was stopped before it began, and how it ended while nobody could be told, stand in it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::{AttemptId, ClusterName, CommandNumber};
use serde::{Deserialize, Serialize};

use super::calls::{CallError, Calls};
use super::manifests::{CLUSTER, MANAGED_BY, MANAGER, SparkBy};
use super::offers::GangDevices;
use crate::cluster::{Assignment, KnownAttempt, KnownLaunch, MemberAssignment};
use crate::runtime::Devices;
use crate::runtime::members::members;

/// The label of a record, with the attempt. Not the label of the attempt's own objects: the record outlives them.
const RECORD: &str = "tidewater.dev/record";
/// Where the record stands in its config map.
const KEY: &str = "record";

/// What is kept of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// The attempt.
    pub attempt: AttemptId,
    /// Which life of a runtime made it: that one alone makes the attempt's objects.
    pub creator: String,
    /// What was ordered; none where the attempt was stopped before it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<LaunchOrder>,
    /// The number of the command that ordered it.
    #[serde(default)]
    pub number: CommandNumber,
    /// The devices that the agent's books give its members: whichever agent comes next, they are not given to others.
    #[serde(default)]
    pub devices: Devices,
    /// Who submits it, where it is a Spark application: what the cluster has may be otherwise later.
    #[serde(default)]
    pub spark_by: SparkBy,
    /// What its guards prove themselves with, where it ends itself once it is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_key: Option<String>,
    /// What devices are called where its groups are, where that is not as usual: nodes may name them otherwise later.
    #[serde(default, skip_serializing_if = "GangDevices::is_empty")]
    pub gang_devices: GangDevices,
    /// How it ended. What is left of it is to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl Record {
    /// Of an attempt that is to be begun.
    pub(super) fn of(launch: &Launch, begun: &Begun, creator: &str) -> Self {
        let Launch { number, order, devices } = launch;
        let Begun { spark_by, gang_devices, guard_key } = begun.clone();
        let (attempt, creator, order) = (order.attempt, creator.to_owned(), Some(order.clone()));
        Self {
            attempt,
            creator,
            order,
            number: *number,
            devices: devices.clone(),
            spark_by,
            guard_key,
            gang_devices,
            outcome: None,
        }
    }

    /// What the cluster was like when it was begun, and what was chosen then.
    pub(super) fn as_begun(&self) -> Begun {
        let (gang_devices, guard_key) = (self.gang_devices.clone(), self.guard_key.clone());
        Begun { spark_by: self.spark_by, gang_devices, guard_key }
    }

    /// Of one that ended and was never begun.
    fn without_order(attempt: AttemptId, creator: &str, outcome: &Outcome) -> Self {
        let (creator, outcome) = (creator.to_owned(), Some(outcome.clone()));
        let (number, devices) = (CommandNumber(0), Devices::default());
        let Begun { spark_by, gang_devices, guard_key } = Begun::default();
        Self { attempt, creator, order: None, number, devices, spark_by, guard_key, gang_devices, outcome }
    }

    /// How it was launched, for the agent's books.
    pub(super) fn known(&self) -> KnownAttempt {
        let launch = self.order.as_ref().map(|order| {
            let members = members(order, &self.devices).into_iter().map(|m| MemberAssignment {
                group: m.group,
                rank: m.index,
                node: m.node,
                devices: m.devices.iter().filter_map(|index| u16::try_from(*index).ok()).collect(),
            });
            let assignment = Assignment { members: members.collect() };
            KnownLaunch { number: self.number, order: order.clone(), assignment }
        });
        KnownAttempt { attempt: self.attempt, launch }
    }
}

/// What shapes an attempt's objects besides its order, as it is when the attempt begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Begun {
    /// Who submits Spark applications.
    pub spark_by: SparkBy,
    /// What devices are called where that is not as usual.
    pub gang_devices: GangDevices,
    /// What its guards prove themselves with, where it has any.
    pub guard_key: Option<String>,
}

/// An attempt as it was ordered.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// The command.
    pub number: CommandNumber,
    /// The order.
    pub order: LaunchOrder,
    /// The devices that the agent's books give its members.
    pub devices: Devices,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    /// The state, which is told once everything is gone.
    pub state: AttemptState,
    /// Whether something of it may still come: a create went without an answer.
    pub late: bool,
}

/// A record as it is on the server.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub record: Record,
    /// The version that it had, so that nothing later is overwritten.
    version: Option<String>,
}

/// The records of one cluster's attempts.
#[derive(Clone)]
pub(super) struct Records {
    calls: Calls,
    api: Api<ConfigMap>,
    cluster: ClusterName,
}

impl Records {
    pub(super) fn new(calls: Calls, namespace: &str, cluster: ClusterName) -> Self {
        let api = Api::namespaced(calls.client(), namespace);
        Self { calls, api, cluster }
    }

    fn name(attempt: AttemptId) -> String {
        format!("attempt-{attempt}")
    }

    fn config_map(&self, record: &Record, version: Option<String>) -> ConfigMap {
        let labels = [
            (MANAGED_BY, MANAGER.to_owned()),
            (CLUSTER, self.cluster.to_string()),
            (RECORD, record.attempt.to_string()),
        ];
        let mut map = ConfigMap::default();
        map.metadata.name = Some(Self::name(record.attempt));
        map.metadata.labels = Some(labels.map(|(name, value)| (name.to_owned(), value)).into());
        map.metadata.resource_version = version;
        let text = serde_json::to_string(record).unwrap_or_default();
        map.data = Some(BTreeMap::from([(KEY.to_owned(), text)]));
        map
    }

    fn kept(map: ConfigMap) -> Option<Kept> {
        let text = map.data.as_ref()?.get(KEY)?;
        match serde_json::from_str(text) {
            Ok(record) => Some(Kept { record, version: map.metadata.resource_version }),
            Err(error) => {
                let name = map.metadata.name.unwrap_or_default();
                tracing::error!(name, %error, "an attempt's record cannot be read; it is left alone");
                None
            }
        }
    }

    /// Makes a record; refused where there is one.
    pub(super) async fn create(&self, record: &Record) -> Result<(), CallError> {
        let map = self.config_map(record, None);
        self.calls.post(self.calls.turn().await, &self.api, &PostParams::default(), &map).await.map(drop)
    }

    /// The record of an attempt.
    pub(super) async fn read(&self, attempt: AttemptId) -> Result<Option<Kept>, CallError> {
        Ok(self.calls.ask(self.api.get_opt(&Self::name(attempt))).await?.and_then(Self::kept))
    }

    /// Writes how an attempt ended, unless that is written already: the outcome that stands then. An attempt without a record gets one.
    pub(super) async fn conclude(
        &self,
        attempt: AttemptId,
        creator: &str,
        outcome: &Outcome,
    ) -> Result<Outcome, CallError> {
        let Some(Kept { mut record, version }) = self.read(attempt).await? else {
            let record = Record::without_order(attempt, creator, outcome);
            return self.create(&record).await.map(|()| outcome.clone());
        };
        if let Some(outcome) = record.outcome {
            return Ok(outcome);
        }
        record.outcome = Some(outcome.clone());
        let map = self.config_map(&record, version);
        self.calls.ask(self.api.replace(&Self::name(attempt), &PostParams::default(), &map)).await?;
        Ok(outcome.clone())
    }

    /// All records.
    pub(super) async fn list(&self) -> Result<Vec<Record>, CallError> {
        let labels = format!("{MANAGED_BY}={MANAGER},{CLUSTER}={},{RECORD}", self.cluster);
        let (maps, _) = self.calls.pages(&self.api, &labels).await?;
        Ok(maps.into_iter().filter_map(Self::kept).map(|kept| kept.record).collect())
    }

    /// Deletes the record of an attempt.
    pub(super) async fn delete(&self, attempt: AttemptId) -> Result<(), CallError> {
        match self.calls.ask(self.api.delete(&Self::name(attempt), &DeleteParams::default())).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

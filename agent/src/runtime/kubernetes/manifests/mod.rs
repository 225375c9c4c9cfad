//! From a launch order to the objects that carry it out. Pure: the same order gives the same objects, byte for byte, so that an agent
//! that was restarted knows what it would have made.

mod batch;
mod claims;
mod guarded;
mod names;
mod native;
mod pod;
mod ray;
mod spark;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use protocol::control::{GroupPlacement, LaunchOrder};
use protocol::ids::GroupName;
use protocol::workload::{Framework, SpecError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kinds::Kind;
use super::offers::GangDevices;
use super::settings::KubernetesSettings;

pub(super) use guarded::GUARD_CONTAINER;
pub(super) use names::workload_of;
pub use names::{CLUSTER, GROUP, MANAGED_BY, MANAGER, ROLE, attempt_of, of_attempt, of_cluster};
pub(super) use spark::DRIVER_CONTAINER;
pub(super) use tokens::{KEY as TOKEN_KEY, token_secret};

/// Who submits a Spark application.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SparkBy {
    /// The Spark operator, from a `SparkApplication`.
    #[default]
    Operator,
    /// The agent, which makes the driver's pod itself.
    Agent,
}

/// What a namespace demands of its pods (Kubernetes' Pod Security Standards).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodSecurity {
    /// Nothing that an image could not do: containers run as their images say.
    #[default]
    Usual,
    /// The profile `restricted`: nobody is root, and nobody has a capability.
    Restricted,
}

/// What the guards of an attempt that ends itself when it is cut off are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// An image that has the guard.
    pub image: String,
    /// Where the agent listens for guards.
    pub address: SocketAddr,
    /// What they prove themselves with.
    pub key: String,
}

/// Why an order cannot be laid out: the specification's fault, whichever cluster it goes to.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not exactly one framework.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Containers need an image.
    #[error("{field} is not set: a Kubernetes cluster runs containers, so the workload must name its image there")]
    NoImage {
        /// The field.
        field: &'static str,
    },
    /// No room for a group was decided.
    #[error("the placement has no group {0}; this is an error of the coordinator")]
    NoPlacement(String),
    /// Nobody would end it when it is cut off.
    #[error(
        "spec.onClusterLoss is failover, and this cluster's agent has no guards; set --guard-image, --guard-address and --listen-guards there"
    )]
    NoGuard,
    /// What the guard is to start is not known.
    #[error(
        "spec.onClusterLoss is failover, and {field} is not set: a guard in the container starts its command, and does not know the image's own; name it"
    )]
    NoCommand {
        /// The field.
        field: &'static str,
    },
    /// KubeRay makes one command of the container's and its own.
    #[error(
        "spec.onClusterLoss is failover, and the first container of {group} has a command of its own, which KubeRay weaves with Ray's; a guard can't start both: leave command and args out"
    )]
    WovenCommand {
        /// The group.
        group: String,
    },
    /// Nobody reads the object.
    #[error(
        "the cluster does not know SparkApplication any more; install the Spark operator, or write it as spec.spark"
    )]
    NoOperator,
    /// Shares of GPUs.
    #[error(
        "group {group} asks for {asked} of a GPU, and its nodes give out whole GPUs only; this is an error of the coordinator"
    )]
    Share {
        /// The group.
        group: String,
        /// How much.
        asked: String,
    },
    /// A Spark property that only `spark-submit` could honour.
    #[error(
        "spec.spark.conf: {key} shapes the driver's pod, which this cluster's agent makes itself, for it has no Spark operator; {instead}"
    )]
    Conf {
        /// The property.
        key: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// One and a half GPUs.
    #[error("group {group} asks for {asked} GPUs; more than one GPU goes to a member in whole devices only")]
    Broken {
        /// The group.
        group: String,
        /// How many.
        asked: String,
    },
}

/// One object to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it.
    pub object: Value,
}

/// All that an order comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests {
    /// The framework.
    pub framework: Framework,
    /// The namespace of all of it.
    pub namespace: String,
    /// The Secrets of its tokens, with nothing in them: they are made first, each with its token.
    pub tokens: Vec<Manifest>,
    /// What is made then, in this order.
    pub objects: Vec<Manifest>,
    /// Pods as controllers will make them, one of each sort: they are tried without being made.
    pub samples: Vec<Manifest>,
    /// How many pods there must be for all to be up, by their group.
    pub members: BTreeMap<GroupName, u32>,
    /// How many guards each pod of a group has.
    pub guards: BTreeMap<GroupName, u32>,
    /// The service account of Spark's driver, where that is not the cluster's usual one.
    pub driver_account: Option<String>,
}

impl Manifests {
    /// What an order comes to on this cluster, where Spark applications are submitted so, devices have these names, what is to end
    /// itself has these guards, and the namespace demands this of pods.
    pub fn of(
        order: &LaunchOrder,
        settings: &KubernetesSettings,
        spark_by: SparkBy,
        devices: &GangDevices,
        guard: Option<&Guard>,
        security: PodSecurity,
    ) -> Result<Self, ManifestError> {
        let layout = Layout { order, settings, spark_by, devices, guard, security };
        if let Some(manifest) = &order.spec.manifest {
            return native::manifests(&layout, manifest);
        }
        match order.spec.framework()? {
            Framework::Batch => batch::manifests(&layout),
            Framework::Ray => ray::manifests(&layout),
            Framework::Spark => spark::manifests(&layout),
        }
    }

    /// Those objects whose state tells how the attempt goes: a pod among them is Spark's driver.
    pub fn owners(&self) -> impl Iterator<Item = &Manifest> {
        self.objects.iter().filter(|m| m.kind == Kind::Pod || Kind::OWNERS.contains(&m.kind))
    }

    /// The pod of a Spark driver that no operator makes.
    pub fn driver(&self) -> Option<&Manifest> {
        self.objects.iter().find(|m| m.kind == Kind::Pod)
    }
}

/// An order on a cluster.
struct Layout<'a> {
    order: &'a LaunchOrder,
    settings: &'a KubernetesSettings,
    spark_by: SparkBy,
    devices: &'a GangDevices,
    guard: Option<&'a Guard>,
    security: PodSecurity,
}

impl Layout<'_> {
    fn namespace(&self) -> &str {
        self.order.key.namespace.as_str()
    }

    fn placement(&self, group: &str) -> Result<&GroupPlacement, ManifestError> {
        let found = self.order.placement.iter().find(|placement| placement.group.as_str() == group);
        found.ok_or_else(|| ManifestError::NoPlacement(group.to_owned()))
    }

    fn finish(&self, framework: Framework, objects: Vec<Manifest>, samples: Vec<Manifest>) -> Manifests {
        let objects = self.claim_templates().chain(objects).collect();
        let members =
            self.order.placement.iter().map(|placement| (placement.group.clone(), placement.members())).collect();
        let group = |pod: &Manifest| GroupName::new(pod.object["metadata"]["labels"][GROUP].as_str()?).ok();
        let guards = samples.iter().filter_map(|pod| Some((group(pod)?, guarded::guards_of(&pod.object)))).collect();
        let driver_account = native::driver_account(&self.order.spec);
        let (namespace, tokens) = (self.namespace().to_owned(), self.token_secrets());
        Manifests { framework, namespace, tokens, objects, samples, members, guards, driver_account }
    }
}

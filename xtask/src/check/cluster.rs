//! A Kubernetes cluster as the check sees it: what is there, the check's two namespaces, and what is left in them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::{GroupVersionKind, NamespaceResourceScope};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::programs::Programs;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// What Tidewater makes carries this.
const OURS: &str = "app.kubernetes.io/managed-by=tidewater";
/// What operators make pods of, where the cluster knows it.
const OF_OPERATORS: [(&str, &str, &str); 3] = [
    ("ray.io", "v1", "RayJob"),
    ("ray.io", "v1", "RayCluster"),
    ("sparkoperator.k8s.io", "v1beta2", "SparkApplication"),
];

/// One of the clusters.
pub struct Cluster {
    /// What the check's federation calls it.
    pub name: String,
    /// The way to it.
    pub kubeconfig: PathBuf,
    /// Its server's version and its nodes, for people.
    pub seen: String,
    /// What is tried on it.
    pub programs: Programs,
    client: Client,
}

impl Cluster {
    /// Sees whether it can be reached and what is there.
    pub async fn look(name: &str, kubeconfig: &Path, programs: Programs) -> anyhow::Result<Self> {
        let client = testbed::connect(kubeconfig).await?;
        let place = || format!("{}: its API server", kubeconfig.display());
        let version = client.apiserver_version().await.with_context(place)?.git_version;
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.with_context(place)?.items;
        let seen = format!("Kubernetes {version}, nodes: {}", nodes.len());
        // The agent is started in another folder.
        Ok(Self { name: name.to_owned(), kubeconfig: kubeconfig.canonicalize()?, seen, programs, client })
    }

    /// The agent's own namespace.
    pub fn of_agent(&self) -> String {
        format!("tidewater-{}", self.name)
    }

    /// The workloads' namespace.
    pub fn of_workloads(&self) -> String {
        format!("tidewater-{}-work", self.name)
    }

    /// Makes both namespaces.
    pub async fn make_namespaces(&self) -> anyhow::Result<()> {
        for name in [self.of_agent(), self.of_workloads()] {
            let made = testbed::make_namespace(&self.client, &name).await;
            made.with_context(|| format!("{}: the namespace {name} can't be made", self.name))?;
        }
        if self.programs.spark.is_some() {
            let may = testbed::drivers_may_make_executors(&self.client, &self.of_workloads()).await;
            may.with_context(|| format!("{}: Spark's drivers can't be given leave to make executors", self.name))?;
        }
        Ok(())
    }

    /// Waits until no object of an attempt is there, and no record of one.
    pub async fn until_nothing_is_left(&self, within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let left = self.left().await?;
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > within {
                bail!("{}: this is left of workloads that are gone: {}", self.name, left.join(", "));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn left(&self) -> anyhow::Result<Vec<String>> {
        let mut left = vec![];
        for namespace in [self.of_workloads(), self.of_agent()] {
            left.extend(self.objects::<Job>(&namespace).await?);
            left.extend(self.objects::<Pod>(&namespace).await?);
            left.extend(self.objects::<Service>(&namespace).await?);
            left.extend(self.objects::<ConfigMap>(&namespace).await?);
            left.extend(self.objects::<Secret>(&namespace).await?);
        }
        for (group, version, kind) in OF_OPERATORS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let all = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.of_workloads(), &resource);
            match all.list(&ListParams::default()).await {
                Ok(objects) => {
                    let names = objects.items.iter().filter_map(|object| object.metadata.name.as_deref());
                    left.extend(names.map(|name| format!("{kind} {name}")));
                }
                // The cluster does not know the kind.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).with_context(|| format!("{}: what is left is not seen", self.name)),
            }
        }
        Ok(left)
    }

    async fn objects<K>(&self, namespace: &str) -> anyhow::Result<Vec<String>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let (all, ours) = (Api::<K>::namespaced(self.client.clone(), namespace), ListParams::default().labels(OURS));
        let objects = all.list(&ours).await.with_context(|| format!("{}: what is left is not seen", self.name))?;
        let named = |object: &K| format!("{} {}", K::kind(&()), object.meta().name.as_deref().unwrap_or_default());
        Ok(objects.items.iter().map(named).collect())
    }

    /// Deletes both namespaces with all that is in them, and waits until they are gone.
    pub async fn clear(&self, within: Duration) -> anyhow::Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let names = [self.of_workloads(), self.of_agent()];
        let began = Instant::now();
        for name in &names {
            // The agent may have made its own again as it ended; what is not there is gone already.
            match namespaces.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                done => drop(done.with_context(|| format!("{}: the namespace {name} stays", self.name))?),
            }
        }
        for name in &names {
            while namespaces.get_opt(name).await?.is_some() {
                if began.elapsed() > within {
                    bail!("{}: the namespace {name} was deleted and is still there", self.name);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

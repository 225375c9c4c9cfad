//! What the check's workloads run, cluster by cluster.

use std::path::PathBuf;

use anyhow::ensure;
use serde_json::{Value, json};
use testbed::bed::{Bed, Cluster};
use testbed::{Component, Image};

/// What pods run, where nothing else is said.
const BATCH: &str = "busybox:1.37";
/// Where images of Spark have an example of its own.
const PI: &str = "local:///opt/spark/examples/src/main/python/pi.py";
/// What that prints.
const PI_SAYS: &str = "Pi is roughly 3.1";

/// Images that are named.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// What the workloads' pods run: it needs `sh`, and the clusters' nodes must be able to pull it [default: busybox:1.37, and in the
    /// bed's clusters the image of their real node].
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// An image of Ray: each cluster also gets a Ray workload of a head and two workers, for which it needs the KubeRay operator
    /// [default: none, and in the bed's clusters with that operator their own].
    #[arg(long, value_name = "IMAGE")]
    ray_image: Option<String>,
    /// An image of Spark: each cluster also gets a Spark workload of a driver and two executors, with the Spark operator or without
    /// [default: none, and in the bed's clusters with that operator their own].
    #[arg(long, value_name = "IMAGE")]
    spark_image: Option<String>,
    /// What that workload runs, where the image has it elsewhere [default: Spark's own example, whose answer is looked at].
    #[arg(long, value_name = "URI", requires = "spark_image")]
    spark_main: Option<String>,
}

/// What a cluster's workloads run.
pub struct Programs {
    pub batch: String,
    /// Ray's image; none: it is not tried.
    pub ray: Option<String>,
    /// None: it is not tried.
    pub spark: Option<Spark>,
}

/// A Spark application.
pub struct Spark {
    image: String,
    main: String,
    arguments: &'static [&'static str],
    /// What its log has to have.
    pub says: Option<&'static str>,
}

impl Spark {
    /// A driver and two executors.
    pub fn framework(&self) -> Value {
        json!({"spark": {
            "image": self.image,
            "main": self.main,
            "arguments": self.arguments,
            "driver": {"cpu": "700m", "memory": "1Gi"},
            "executors": {"name": "executors", "count": 2, "cpu": "400m", "memory": "1Gi"},
        }})
    }
}

impl Named {
    /// Of clusters that people named.
    pub fn of_given(&self) -> Programs {
        let pi = |image: &String| Spark {
            image: image.clone(),
            main: self.spark_main.clone().unwrap_or_else(|| PI.to_owned()),
            arguments: &[],
            says: self.spark_main.is_none().then_some(PI_SAYS),
        };
        Programs {
            batch: self.image.clone().unwrap_or_else(|| BATCH.to_owned()),
            ray: self.ray_image.clone(),
            spark: self.spark_image.as_ref().map(pi),
        }
    }

    /// Of one of the bed's clusters: what is there is tried.
    fn of_bed(&self, cluster: &Cluster) -> Programs {
        let has = |component| cluster.processes.iter().any(|(process, _)| *process == component);
        let given = self.of_given();
        let squares = || Spark {
            image: Image::Spark.reference(),
            main: "local:///opt/tidewater/squares.py".to_owned(),
            arguments: &["1000", "2"],
            says: Some("SUM 332833500 EXECUTORS 2"),
        };
        Programs {
            batch: self.image.clone().unwrap_or_else(|| Image::Batch.reference()),
            ray: given.ray.or_else(|| has(Component::KubeRay).then(|| Image::Ray.reference())),
            spark: given.spark.or_else(|| has(Component::SparkOperator).then(squares)),
        }
    }

    /// The bed's clusters, by their kubeconfigs, and what is tried on them.
    pub fn bed(&self, bed: &Bed) -> anyhow::Result<Vec<(PathBuf, Programs)>> {
        let clusters = bed.clusters()?;
        ensure!(
            !clusters.is_empty(),
            "there are no clusters in {}: name some with --kubeconfig FILE, or start some with `cargo xtask kubernetes up`",
            bed.folder().display()
        );
        Ok(clusters.iter().map(|cluster| (cluster.kubeconfig(), self.of_bed(cluster))).collect())
    }
}

//! Spark: a `SparkApplication` where the cluster has the Spark operator, else what `spark-submit` in cluster mode would post itself.
//!
//! What pods are told and where they go stands in pod templates, which Spark itself reads, so that neither way needs a webhook. The
//! driver's pod has a name of its own, so that an application that is submitted a second time is refused by the API server.

mod application;
mod conf;
mod driver;

use protocol::control::GroupPlacement;
use protocol::workload::{Framework, SparkSpec};
use serde_json::{Value, json};

use super::names::name;
use super::pod::{Container, literal};
use super::{Layout, ManifestError, Manifests, SparkBy};

pub(in crate::runtime::kubernetes) use driver::DRIVER_CONTAINER;

/// Spark appends to an application's name what it makes of it: `-driver-svc` and the like.
pub(super) const APPLICATION_NAME: usize = 40;
/// The container of an executor, as Spark calls it.
pub(super) const EXECUTOR_CONTAINER: &str = "spark-kubernetes-executor";
/// What Spark's images start, with what the container is to be as arguments.
pub(super) const STARTS: [&str; 1] = ["/opt/entrypoint.sh"];
/// What a JVM needs beside its heap: Spark's own rule, a tenth and at least this.
const LEAST_OVERHEAD_MIB: u64 = 384;

/// An application on a cluster, whoever submits it.
struct Application<'a> {
    layout: &'a Layout<'a>,
    spec: &'a SparkSpec,
    image: &'a str,
    name: String,
    driver: &'a GroupPlacement,
    executors: &'a GroupPlacement,
}

pub(super) fn manifests(layout: &Layout<'_>) -> Result<Manifests, ManifestError> {
    let order = layout.order;
    let spec = order.spec.spark.as_ref().ok_or_else(|| ManifestError::NoPlacement("spark".into()))?;
    let application = Application {
        layout,
        spec,
        image: spec.image.as_deref().ok_or(ManifestError::NoImage { field: "spec.spark.image" })?,
        name: name(order, "", APPLICATION_NAME),
        driver: layout.placement("driver")?,
        executors: layout.placement(spec.executors.name.as_str())?,
    };
    let executor = application.executor_template()?;
    let mut samples = vec![layout.sample(&format!("{}-exec-1", application.name), &executor)];
    let objects = match layout.spark_by {
        SparkBy::Operator => {
            let driver = application.driver_template(vec![])?;
            samples.insert(0, layout.sample(&application.driver_pod(), &driver));
            vec![application::object(&application, driver, executor)]
        }
        SparkBy::Agent => driver::objects(&application, &executor)?,
    };
    Ok(layout.finish(Framework::Spark, objects, samples))
}

impl Application<'_> {
    fn driver_pod(&self) -> String {
        format!("{}-driver", self.name)
    }

    /// The driver's pod, with these variables beside those of every member.
    fn driver_template(&self, env: Vec<Value>) -> Result<Value, ManifestError> {
        let mut container = Container::of_image(DRIVER_CONTAINER, self.image, "driver", &STARTS);
        container.env.extend(env);
        let mut template = self.layout.template(self.driver, container)?;
        // It makes its executors by the API.
        template["spec"]["automountServiceAccountToken"] = json!(true);
        template["spec"]["serviceAccountName"] = json!(self.layout.settings.spark_service_account);
        Ok(template)
    }

    fn executor_template(&self) -> Result<Value, ManifestError> {
        let group = self.executors.group.as_str();
        self.layout.template(self.executors, Container::of_image(EXECUTOR_CONTAINER, self.image, group, &STARTS))
    }

    /// They end as arguments of the driver's container.
    fn arguments(&self) -> impl Iterator<Item = Value> {
        self.spec.arguments.iter().map(|argument| json!(literal(argument)))
    }
}

/// What an application is written in, by its main file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    R,
    Java,
}

impl Language {
    fn of(main: &str) -> Self {
        match main.rsplit('.').next() {
            Some("py") => Language::Python,
            Some("R" | "r") => Language::R,
            _ => Language::Java,
        }
    }
}

/// What a driver or executor takes, as Spark asks for it: heap and the rest make up its memory.
struct Takes {
    /// Cores that it counts tasks by.
    cores: u64,
    /// What its pod asks for, and no more.
    cpu: String,
    /// As `14746m`, in MiB.
    heap: String,
    overhead: String,
}

impl Takes {
    fn of(placement: &GroupPlacement) -> Self {
        let each = placement.each;
        let overhead = (each.memory_mib / 10).max(LEAST_OVERHEAD_MIB).min(each.memory_mib);
        Self {
            cores: each.cpu_milli.div_ceil(1000).max(1),
            cpu: format!("{}m", each.cpu_milli),
            heap: format!("{}m", each.memory_mib - overhead),
            overhead: format!("{overhead}m"),
        }
    }
}

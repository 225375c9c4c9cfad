//! `cargo xtask kubernetes`: the test bed by hand.

use std::path::PathBuf;

use anyhow::bail;
use testbed::bed::{Bed, Cluster, Plan, RealNode};
use testbed::{Binaries, Component, Image, Images, Settings, Tool};

/// Real Kubernetes clusters on this machine.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Starts clusters that run until `down`, and prints where their kubeconfigs are.
    Up {
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50))]
        clusters: u32,
        /// How many nodes of 8 fake GPUs each of them has; their kubelets are played by kwok.
        #[arg(long, default_value_t = 0)]
        fake_nodes: u32,
        /// A real kubelet with containers in the first of them. Pods there can run the image `localhost/tidewater-batch:1`
        /// (busybox), with `imagePullPolicy: Never`.
        #[arg(long)]
        real_node: bool,
        /// The KubeRay operator beside it, and Ray's image, `localhost/tidewater-ray:2.52.1`.
        #[arg(long, requires = "real_node")]
        ray: bool,
        /// The Spark operator beside it, and Spark's image, `localhost/tidewater-spark:4.0.1`.
        #[arg(long, requires = "real_node")]
        spark: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Ends exactly what `up` started, and deletes the clusters' folders.
    Down {
        /// Keeps the folders: data, logs, audit logs.
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Says which clusters are there and which of their processes run.
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Tries Tidewater on clusters: runs small workloads on each through a coordinator and an agent here, and sees that nothing of them is
    /// left. On yours by `--kubeconfig FILE`, else on those of `up`. It makes two namespaces in each and deletes them again.
    Check(crate::check::Arguments),
    /// Builds programs into the cache, those of `up` unless some are named, and prints where they are.
    Build {
        /// `kubectl`, `etcd`, …
        names: Vec<String>,
    },
    /// Makes the container images of the real node into the cache, all unless some are named, and prints what pods call them.
    Images {
        /// `batch`, `ray`, `spark`
        names: Vec<String>,
    },
}

/// Where the bed's state is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The folder of the clusters' folders.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Place {
    /// The bed there.
    pub fn bed(self) -> Bed {
        Bed::new(self.folder.unwrap_or_else(Bed::default_folder))
    }
}

/// Does it.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up { clusters, fake_nodes, real_node, ray, spark, place } => {
            let real_node = real_node.then(|| node_with(ray, spark));
            up(&place.bed(), &Plan { clusters, fake_nodes, real_node })
        }
        Command::Down { keep, place } => down(&place.bed(), keep),
        Command::Status { place } => status(&place.bed()),
        Command::Check(arguments) => crate::check::run(arguments),
        Command::Build { names } => build(&names),
        Command::Images { names } => images(&names),
    }
}

fn node_with(ray: bool, spark: bool) -> RealNode {
    let mut node = RealNode { say: Some(say), ..RealNode::default() };
    for (wanted, image, operator) in
        [(ray, Image::Ray, Component::KubeRay), (spark, Image::Spark, Component::SparkOperator)]
    {
        if wanted {
            node.images.push(image);
            node.operators.push(operator);
        }
    }
    node
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn up(bed: &Bed, plan: &Plan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clusters = runtime.block_on(async {
        tokio::select! {
            clusters = bed.up(plan, &say) => Ok(clusters?),
            // Dropping the start ends what it has started.
            signal = tokio::signal::ctrl_c() => match signal {
                Ok(()) => bail!("interrupted; nothing is left running"),
                Err(cause) => bail!("Ctrl-C cannot be awaited: {cause}"),
            },
        }
    })?;
    for cluster in &clusters {
        println!("{}: export KUBECONFIG={}", cluster.name, cluster.kubeconfig().display());
    }
    say(
        "`cargo xtask kubernetes build kubectl` prints a kubectl of this version; `cargo xtask kubernetes down` ends all",
    );
    Ok(())
}

fn down(bed: &Bed, keep: bool) -> anyhow::Result<()> {
    let ended = bed.down(keep)?;
    let kept = if keep { format!("; the clusters' folders are in {}", bed.folder().display()) } else { String::new() };
    say(&format!("processes that were ended: {ended}{kept}"));
    Ok(())
}

fn status(bed: &Bed) -> anyhow::Result<()> {
    let clusters = bed.clusters()?;
    if clusters.is_empty() {
        println!("no clusters in {}", bed.folder().display());
    }
    for cluster in &clusters {
        println!("{}: KUBECONFIG={}", cluster.name, cluster.kubeconfig().display());
        processes(cluster);
    }
    Ok(())
}

fn processes(cluster: &Cluster) {
    for (component, record) in &cluster.processes {
        let state = if record.lives() { "runs" } else { "has ended" };
        println!("  {:<24} pid {:<8} {state}", component.name(), record.pid);
    }
}

fn build(names: &[String]) -> anyhow::Result<()> {
    let named = |name: &String| match Tool::ALL.into_iter().find(|tool| tool.name() == name) {
        Some(tool) => Ok(tool),
        None => bail!("{name}: no such program; there are {}", Tool::ALL.map(Tool::name).join(", ")),
    };
    let mut tools = names.iter().map(named).collect::<anyhow::Result<Vec<_>>>()?;
    if tools.is_empty() {
        tools = Settings::with_fake_nodes("").tools();
    }
    let binaries = Binaries::provide(&tools, &say)?;
    for path in tools.iter().filter_map(|tool| binaries.path(*tool)) {
        println!("{}", path.display());
    }
    Ok(())
}

fn images(names: &[String]) -> anyhow::Result<()> {
    let named = |name: &String| match Image::ALL.into_iter().find(|image| image.name() == name) {
        Some(image) => Ok(image),
        None => bail!("{name}: no such image; there are {}", Image::ALL.map(Image::name).join(", ")),
    };
    let mut images = names.iter().map(named).collect::<anyhow::Result<Vec<_>>>()?;
    if images.is_empty() {
        images = Image::ALL.to_vec();
    }
    Images::provide(&images, &say)?;
    for image in images {
        println!("{}", image.reference());
    }
    Ok(())
}

//! `fleet.toml`: the clusters of a declared fleet, their regions, nodes and prices.

use std::collections::BTreeMap;
use std::path::Path;

use agent::cluster::DeclaredNode;
use anyhow::{Context, bail};
use protocol::control::{ClusterInfo, Price};
use protocol::ids::{ClusterName, NodeName, Region};
use protocol::resources::{Cpu, Memory};
use protocol::sku::Sku;
use protocol::workload::Framework;
use serde::Deserialize;

/// What `dev` declares where no file is given: three clusters in two regions.
const BUILT_IN: &str = include_str!("fleet.toml");

/// All clusters.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fleet {
    /// The clusters.
    #[serde(rename = "cluster")]
    pub clusters: Vec<Cluster>,
}

/// One cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Its region.
    pub region: Region,
    /// What it can run; left out: everything.
    #[serde(default = "all_frameworks")]
    pub frameworks: Vec<Framework>,
    /// Price of a GPU-hour by model.
    #[serde(default)]
    pub prices: BTreeMap<String, f64>,
    /// Its nodes, like ones together; left out where Kubernetes knows them.
    #[serde(default)]
    pub nodes: Vec<Nodes>,
}

/// Nodes that are alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Nodes {
    /// They are called NAME-1, NAME-2 and so on.
    pub name: String,
    /// How many.
    pub count: u32,
    /// The GPU model.
    #[serde(default)]
    pub sku: Option<String>,
    /// GPUs of each.
    #[serde(default)]
    pub gpus: u16,
    /// Cores of each.
    pub cpu: Cpu,
    /// Memory of each.
    pub memory: Memory,
}

fn all_frameworks() -> Vec<Framework> {
    vec![Framework::Ray, Framework::Spark, Framework::Batch]
}

impl Fleet {
    /// Reads a fleet file, or the built-in fleet.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let (shown, text) = match file {
            None => ("the built-in fleet".to_owned(), BUILT_IN.to_owned()),
            Some(path) => {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
                (shown, text)
            }
        };
        let fleet: Fleet = toml::from_str(&text).with_context(|| shown.clone())?;
        fleet.check().with_context(|| shown)?;
        Ok(fleet)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.clusters.is_empty() {
            bail!("it has no [[cluster]]: a fleet has at least one");
        }
        for (i, cluster) in self.clusters.iter().enumerate() {
            if self.clusters[..i].iter().any(|c| c.name == cluster.name) {
                bail!("cluster {} stands there twice", cluster.name);
            }
            cluster.declared().with_context(|| format!("cluster {}", cluster.name))?;
            cluster.info().with_context(|| format!("cluster {}", cluster.name))?;
        }
        Ok(())
    }
}

impl Cluster {
    /// What its agent says of it.
    pub fn info(&self) -> anyhow::Result<ClusterInfo> {
        let mut prices = Vec::new();
        for (sku, price) in &self.prices {
            if !price.is_finite() || *price < 0.0 || *price > 1e9 {
                bail!("the price of {sku} is {price}: write a price for a GPU-hour, such as 2.50");
            }
            prices.push(Price { sku: Sku::parse(sku)?, milli_per_gpu_hour: (price * 1000.0).round() as u64 });
        }
        Ok(ClusterInfo {
            name: self.name.clone(),
            region: self.region.clone(),
            frameworks: self.frameworks.clone(),
            fences: true,
            secrets: true,
            manifests: vec![],
            prices,
        })
    }

    /// Its nodes, one by one.
    pub fn declared(&self) -> anyhow::Result<Vec<DeclaredNode>> {
        let mut nodes = Vec::new();
        for group in &self.nodes {
            if group.count == 0 || group.count > 100_000 {
                bail!("nodes {:?}: count is {}; write 1 to 100000", group.name, group.count);
            }
            if (group.gpus == 0) != group.sku.is_none() {
                bail!("nodes {:?}: sku and gpus go together: set both, or neither", group.name);
            }
            let sku = group.sku.as_deref().map(Sku::parse).transpose()?;
            for i in 1..=group.count {
                let node = DeclaredNode {
                    name: NodeName::new(format!("{}-{i}", group.name))?,
                    sku: sku.clone(),
                    devices: group.gpus,
                    cpu_milli: group.cpu.0,
                    memory_mib: group.memory.0,
                };
                if nodes.iter().any(|n: &DeclaredNode| n.name == node.name) {
                    bail!("node {} stands there twice: give each group of nodes a name of its own", node.name);
                }
                nodes.push(node);
            }
        }
        Ok(nodes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_fleet_has_three_clusters_in_two_regions() {
        let fleet = Fleet::load(None).unwrap();
        let regions: std::collections::BTreeSet<_> = fleet.clusters.iter().map(|c| &c.region).collect();
        assert_eq!((fleet.clusters.len(), regions.len()), (3, 2));
    }

    #[test]
    fn a_fault_names_its_place_and_the_cure() {
        let bad = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            format!("{:#}", Fleet::load(Some(file.path())).unwrap_err())
        };
        let cluster = "[[cluster]]\nname = \"a\"\nregion = \"r\"\n";
        let unknown = bad(&format!(
            "{cluster}nodes = [{{ name = \"n\", count = 1, sku = \"H10O\", gpus = 8, cpu = 1, memory = \"1Gi\" }}]"
        ));
        assert!(unknown.contains("did you mean H100?"), "{unknown}");
        let twice = bad(&format!("{cluster}nodes = []\n{cluster}nodes = []"));
        assert!(twice.contains("stands there twice"), "{twice}");
        let half =
            bad(&format!("{cluster}nodes = [{{ name = \"n\", count = 1, gpus = 8, cpu = 1, memory = \"1Gi\" }}]"));
        assert!(half.contains("sku and gpus go together"), "{half}");
        let typo = bad(&format!("{cluster}nodez = []"));
        assert!(typo.contains("nodez"), "{typo}");
    }
}

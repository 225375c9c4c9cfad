//! The models of one cluster's nodes: what there is of each, and how it is given out.

use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::{NodeState, Sharing};
use protocol::pool::{Amounts, Resource};
use protocol::resources::Resources;
use protocol::sku::Sku;

use super::holes::{Holes, SkuId};
use crate::capacity::NodeCapacity;

/// One model of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) sku: Sku,
    /// The ways in which nodes give out their devices.
    pub(crate) sharing: BTreeSet<Sharing>,
    /// Thousandths of a GPU on nodes that take members.
    pub(crate) gpu_milli: u64,
    /// The largest node that takes members.
    pub(crate) largest: Option<Resources>,
}

/// The models of one cluster, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Models(Vec<Model>);

impl Models {
    /// Of these nodes.
    pub(crate) fn of(nodes: &[NodeCapacity]) -> Self {
        let mut models: BTreeMap<&Sku, Model> = BTreeMap::new();
        for node in nodes {
            let Some(sku) = &node.sku else { continue };
            let model = models.entry(sku).or_insert_with(|| Model {
                sku: sku.clone(),
                sharing: BTreeSet::new(),
                gpu_milli: 0,
                largest: None,
            });
            if node.total.gpu_milli > 0 {
                model.sharing.insert(node.sharing);
            }
            if node.state == NodeState::Ready {
                model.gpu_milli = model.gpu_milli.saturating_add(node.total.gpu_milli);
                let largest = model.largest.get_or_insert_default();
                *largest = larger(*largest, node.total);
            }
        }
        Self(models.into_values().collect())
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Model> {
        self.0.iter()
    }

    /// Their names.
    pub(crate) fn skus(&self) -> impl Iterator<Item = &Sku> {
        self.0.iter().map(|model| &model.sku)
    }

    /// The model at a place.
    pub(crate) fn at(&self, place: u16) -> Option<&Model> {
        self.0.get(usize::from(place))
    }

    /// A model's place.
    pub(crate) fn place(&self, sku: Option<&Sku>) -> SkuId {
        let sku = sku?;
        let place = self.0.binary_search_by(|model| model.sku.cmp(sku)).ok()?;
        u16::try_from(place).ok()
    }

    /// What is free in holes of these models, in all.
    pub(crate) fn free_in(&self, holes: &Holes) -> Amounts {
        let (mut cpu, mut memory, mut gpu) = (0u64, 0u64, 0u64);
        let mut by_model = vec![0u64; self.0.len()];
        for (class, nodes) in holes.classes() {
            let free = class.free().all.times(nodes);
            cpu = cpu.saturating_add(free.cpu_milli);
            memory = memory.saturating_add(free.memory_mib);
            gpu = gpu.saturating_add(free.gpu_milli);
            if let Some(of) = class.sku.and_then(|sku| by_model.get_mut(usize::from(sku))) {
                *of = of.saturating_add(free.gpu_milli);
            }
        }
        let mut free = Amounts::default();
        free.add(Resource::Cpu, cpu);
        free.add(Resource::Memory, memory);
        free.add(Resource::Gpu, gpu);
        let each = self.skus().zip(by_model);
        each.for_each(|(sku, milli)| free.add(Resource::Model(sku.clone()), milli));
        free
    }
}

/// The larger of two nodes: by GPUs, then by cpu. Of equals the first.
pub(crate) fn larger(first: Resources, second: Resources) -> Resources {
    let size = |node: &Resources| (node.gpu_milli, node.cpu_milli);
    if size(&second) > size(&first) { second } else { first }
}

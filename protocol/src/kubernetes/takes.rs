//! Amounts of what pods share, and their sum as Kubernetes' scheduler makes it (its `PodRequests`).

use crate::resources::Resources;

/// What a pod takes of its node, or what a node has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takes {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Units by resource, sorted, of what device plugins offer of GPUs; none is 0.
    pub gpus: Vec<(Box<str>, u64)>,
}

impl Takes {
    /// Units of a resource.
    pub fn units(&self, resource: &str) -> u64 {
        self.gpus.iter().find(|(name, _)| **name == *resource).map_or(0, |(_, units)| *units)
    }

    /// The same where nothing but this resource counts of GPUs, 1000 thousandths for each unit.
    pub fn of(&self, resource: &str) -> Resources {
        let gpu_milli = self.units(resource).saturating_mul(1000);
        Resources { cpu_milli: self.cpu_milli, memory_mib: self.memory_mib, gpu_milli }
    }

    /// Each resource of both, by `how`.
    fn with(&mut self, other: &Takes, how: impl Fn(u64, u64) -> u64) {
        self.cpu_milli = how(self.cpu_milli, other.cpu_milli);
        self.memory_mib = how(self.memory_mib, other.memory_mib);
        for (resource, units) in &mut self.gpus {
            *units = how(*units, other.units(resource));
        }
        for (resource, units) in &other.gpus {
            if let Err(at) = self.gpus.binary_search_by(|(name, _)| name.cmp(resource)) {
                self.gpus.insert(at, (resource.clone(), how(0, *units)));
            }
        }
        self.gpus.retain(|(_, units)| *units > 0);
    }

    /// And what another takes.
    pub fn add(&mut self, other: &Takes) {
        self.with(other, u64::saturating_add);
    }

    /// Without what another takes.
    pub fn take_out(&mut self, other: &Takes) {
        self.with(other, u64::saturating_sub);
    }

    /// The larger of each resource.
    pub fn most(mut self, other: &Takes) -> Takes {
        self.with(other, u64::max);
        self
    }

    /// Both.
    pub fn plus(mut self, other: &Takes) -> Takes {
        self.add(other);
        self
    }

    /// What containers take of a node that run together, after others began one after the other; of those, sidecars stay.
    pub fn together(
        running: impl IntoIterator<Item = Takes>,
        starting: impl IntoIterator<Item = (Takes, bool)>,
    ) -> Takes {
        let all = running.into_iter().fold(Takes::default(), |all, own| all.plus(&own));
        // An init container runs beside the sidecars that were started before it, and before everything else.
        let (mut sidecars, mut most) = (Takes::default(), Takes::default());
        for (own, stays) in starting {
            let beside = own.plus(&sidecars);
            most = most.most(&beside);
            if stays {
                sidecars = beside;
            }
        }
        all.plus(&sidecars).most(&most)
    }
}

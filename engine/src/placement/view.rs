//! The mix as it looks at one model: which of its members a node of that model would hold, and how much GPU they could not use.

use std::collections::BTreeMap;

use protocol::sku::Sku;

use super::devices::{DEVICE, Rest};
use super::mix::Mix;

/// Weights of the mix are parts of 2^20.
pub(super) const PARTS: u32 = 20;
/// For nodes with no more whole devices than this the shapes that these are enough for are looked up.
const MOST_DEVICES: u64 = 16;
/// The most fields of a [`Table`]: 256 KiB a model.
const MOST_FIELDS: usize = 1 << 15;

/// The mix as it looks at one model.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Parts of the mix that can't use the model at all, or need no GPU.
    outside: u64,
    /// Parts of the mix that can.
    inside: u64,
    /// By growing GPUs.
    shapes: Vec<Shape>,
    table: Option<Table>,
    /// How much of the model's room is claimed by members that can't go everywhere, in millionths.
    claimed: u64,
}

/// Members of the mix that ask for the same GPUs.
#[derive(Debug, Clone)]
struct Shape {
    gpu_milli: u64,
    /// Cpu, memory and parts of the mix, by growing cpu.
    members: Vec<(u64, u64, u64)>,
    /// The parts of the members up to each.
    up_to: Vec<u64>,
    /// The most memory that one of them needs.
    most_memory: u64,
}

/// What nodes hold of the mix, ready to be looked up where their memory is enough for all that their cpu and devices are enough for: a look
/// at one place is most of what a decision costs. None where the mix is too varied for it; then, and where memory is short, the shapes are gone
/// through one by one.
#[derive(Debug, Clone)]
struct Table {
    /// The cpu that members need, growing.
    cpus: Vec<u64>,
    /// By how many of `cpus` a node has, a row: at place `s`, of the first `s` shapes, the parts of the mix whose cpu is there, and the most memory
    /// that one of these needs.
    rows: Vec<(u64, u64)>,
    /// By thousandths of a device, how many shapes ask for no more.
    up_to_share: Vec<u32>,
    /// By whole devices, how many shapes ask for no more.
    up_to_devices: Vec<u32>,
    /// How many shapes ask for shares.
    shares: usize,
}

impl View {
    pub(super) fn of(mix: &Mix, sku: &Sku, claimed: u64) -> Self {
        let all = u128::from(mix.members().max(1));
        let mut view = Self { claimed, ..Self::default() };
        let mut shapes: BTreeMap<u64, Vec<(u64, u64, u64)>> = BTreeMap::new();
        for (ask, members) in mix.asks() {
            let parts = u64::try_from((u128::from(members) << PARTS) / all).unwrap_or(u64::MAX).max(1);
            let any = ask.skus.is_empty() && !sku.is_slice();
            let accepts = any || ask.skus.binary_search(sku).is_ok();
            if ask.each.gpu_milli == 0 || !accepts {
                view.outside += parts;
                continue;
            }
            view.inside += parts;
            let member = (ask.each.cpu_milli, ask.each.memory_mib, parts);
            shapes.entry(ask.each.gpu_milli).or_default().push(member);
        }
        view.shapes = shapes.into_iter().map(|(gpu_milli, members)| Shape::of(gpu_milli, members)).collect();
        view.table = Table::of(&view.shapes);
        view
    }

    /// All parts of the mix: about 2^[`PARTS`], and more where the mix has many rare members.
    pub(super) fn parts(&self) -> u64 {
        self.outside + self.inside
    }

    pub(super) fn claimed(&self) -> u64 {
        self.claimed
    }

    /// The GPU left on a node that a member of the mix can't use, the mean over the mix: all of it, where the member does not
    /// fit; else that of devices with less left than one of its shares. `devices` are those of which nothing is given out.
    pub(super) fn fragments(&self, free: &Rest<'_>, devices: u64) -> i64 {
        let left = free.all.gpu_milli;
        if left == 0 {
            return 0;
        }
        let used = self.table.as_ref().and_then(|table| table.used(&self.shapes, free, devices));
        let used = used.unwrap_or_else(|| self.shapes.iter().map(|shape| shape.used(free, devices)).sum());
        let lost = (u128::from(self.outside) + u128::from(self.inside)) * u128::from(left) - used;
        i64::try_from((lost * 1000) >> PARTS).unwrap_or(i64::MAX)
    }
}

impl Shape {
    fn of(gpu_milli: u64, mut members: Vec<(u64, u64, u64)>) -> Self {
        members.sort_unstable();
        let mut parts = 0;
        let up_to = members
            .iter()
            .map(|m| {
                parts += m.2;
                parts
            })
            .collect();
        let most_memory = members.iter().map(|m| m.1).max().unwrap_or(0);
        Self { gpu_milli, members, up_to, most_memory }
    }

    /// The GPU on a node that these members can use, times their parts of the mix.
    fn used(&self, free: &Rest<'_>, devices: u64) -> u128 {
        let (left, needs) = (free.all.gpu_milli, self.gpu_milli);
        let most = if devices > 0 { DEVICE } else { free.shares.last().map_or(0, |s| u64::from(*s)) };
        let holds = free.sharing.takes(needs).is_some()
            && if needs < DEVICE { needs <= most } else { needs.div_ceil(DEVICE) <= devices };
        if !holds {
            return 0;
        }
        let small = match needs < DEVICE {
            true => free.shares.iter().map(|s| u64::from(*s)).take_while(|s| *s < needs).sum(),
            false => left - devices * DEVICE,
        };
        u128::from(self.fitting(free)) * u128::from(left - small)
    }

    /// Parts of the mix with these GPUs whose cpu and memory are there.
    fn fitting(&self, free: &Rest<'_>) -> u64 {
        let with_cpu = self.members.partition_point(|m| m.0 <= free.all.cpu_milli);
        if free.all.memory_mib >= self.most_memory {
            return with_cpu.checked_sub(1).map_or(0, |last| self.up_to[last]);
        }
        self.members[..with_cpu].iter().filter(|m| m.1 <= free.all.memory_mib).map(|m| m.2).sum()
    }
}

impl Table {
    fn of(shapes: &[Shape]) -> Option<Self> {
        let mut cpus: Vec<u64> = shapes.iter().flat_map(|shape| shape.members.iter().map(|m| m.0)).collect();
        cpus.sort_unstable();
        cpus.dedup();
        if (cpus.len() + 1).saturating_mul(shapes.len() + 1) > MOST_FIELDS {
            return None;
        }
        let mut rows = vec![(0, 0); shapes.len() + 1];
        for cpu in &cpus {
            let (mut parts, mut most_memory) = (0, 0);
            rows.push((0, 0));
            for shape in shapes {
                let with_cpu = shape.members.partition_point(|m| m.0 <= *cpu);
                parts += with_cpu.checked_sub(1).map_or(0, |last| shape.up_to[last]);
                most_memory = shape.members[..with_cpu].iter().map(|m| m.1).fold(most_memory, u64::max);
                rows.push((parts, most_memory));
            }
        }
        let up_to = |milli: u64| shapes.partition_point(|shape| shape.gpu_milli <= milli);
        let looked_up = |milli: u64| u32::try_from(up_to(milli)).unwrap_or(u32::MAX);
        let up_to_share = (0..=DEVICE).map(looked_up).collect();
        let up_to_devices = (0..=MOST_DEVICES).map(|devices| looked_up(devices * DEVICE)).collect();
        Some(Self { cpus, rows, up_to_share, up_to_devices, shares: up_to(DEVICE - 1) })
    }

    /// The sum of [`Shape::used`] over all shapes; none where memory may be too little for some that would fit else.
    fn used(&self, shapes: &[Shape], free: &Rest<'_>, devices: u64) -> Option<u128> {
        let width = shapes.len() + 1;
        let first = self.cpus.partition_point(|cpu| *cpu <= free.all.cpu_milli) * width;
        let row = &self.rows[first..first + width];
        let gpu = |from: usize, to: usize, each: u64| u128::from(row[to].0 - row[from].0) * u128::from(each);
        let up_to = |milli: u64| self.up_to_share[milli.min(DEVICE) as usize] as usize;
        // The first shapes that the largest device holds a share of, and those that whole devices are enough for.
        let most = if devices > 0 { DEVICE - 1 } else { free.shares.last().map_or(0, |share| u64::from(*share)) };
        let shared = up_to(most.min(u64::from(free.sharing.part_milli()))).min(self.shares);
        // Where devices are given out in parts, a part may be all of one, and never more.
        let whole = match devices {
            0 => self.shares,
            _ if free.sharing.takes(DEVICE).is_none() => self.shares,
            1 => up_to(DEVICE),
            _ if free.sharing.takes(2 * DEVICE).is_none() => up_to(DEVICE),
            more if more <= MOST_DEVICES => self.up_to_devices[more as usize] as usize,
            more => shapes.partition_point(|shape| shape.gpu_milli <= more.saturating_mul(DEVICE)),
        };
        let reached = if whole > self.shares { whole } else { shared };
        if row[reached].1 > free.all.memory_mib {
            return None;
        }
        let mut used = gpu(self.shares, whole, devices * DEVICE);
        let (mut from, mut large) = (0, free.all.gpu_milli);
        for share in free.shares.iter().map(|share| u64::from(*share)) {
            let next = up_to(share).min(shared);
            used += gpu(from, next, large);
            (from, large) = (next, large - share);
        }
        used += gpu(from, shared, large);
        Some(used)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use protocol::capacity::Sharing;
    use protocol::ids::GroupName;
    use protocol::resources::Resources;
    use protocol::workload::{GroupNeed, Spread};

    use super::super::devices::Free;
    use super::*;

    fn need() -> impl Strategy<Value = GroupNeed> {
        let milli =
            prop_oneof![1 => Just(0u64), 4 => 1..1000u64, 3 => (1..9u64).prop_map(|g| g * 1000), 1 => 1001..3000u64];
        (milli, 0..20u64, 0..20u64, 1..40u32).prop_map(|(gpu_milli, cpu_milli, memory_mib, count)| GroupNeed {
            name: GroupName::new("a").unwrap(),
            count,
            each: Resources { cpu_milli, memory_mib, gpu_milli },
            skus: vec![],
            spread: Spread::None,
        })
    }

    fn free() -> impl Strategy<Value = Free> {
        let sharing = prop_oneof![Just(Sharing::Any), Just(Sharing::Whole), (1..8u16).prop_map(Sharing::Parts)];
        let shares = prop::collection::vec(1..1000u16, 0..10);
        (0..22u64, 0..22u64, 0..9u64, shares, sharing).prop_map(
            |(cpu_milli, memory_mib, devices, mut shares, sharing)| {
                shares.sort_unstable();
                let gpu_milli = devices * DEVICE + shares.iter().map(|s| u64::from(*s)).sum::<u64>();
                let all = Resources { cpu_milli, memory_mib, gpu_milli };
                Free { all, shares: shares.into(), sharing }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_table_says_what_the_shapes_say(needs in prop::collection::vec(need(), 1..12), free in free()) {
            let mut mix = Mix::default();
            mix.see(&needs);
            let view = View::of(&mix, &Sku::parse("T4").unwrap(), 0);
            let table = view.table.as_ref().unwrap();
            let one_by_one = |free: &Free| view.shapes.iter().map(|shape| shape.used(&free.rest(), free.devices())).sum::<u128>();
            if let Some(used) = table.used(&view.shapes, &free.rest(), free.devices()) {
                prop_assert_eq!(used, one_by_one(&free));
            }
            let free = Free { all: Resources { memory_mib: 20, ..free.all }, ..free };
            prop_assert_eq!(table.used(&view.shapes, &free.rest(), free.devices()), Some(one_by_one(&free)));
        }
    }
}

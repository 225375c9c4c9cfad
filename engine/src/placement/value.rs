//! What placing a member on a node wastes. Everything is in millionths of a GPU, from the mix of what is asked for:
//!
//! - *pieces*: what the node's devices were worth to the mix and are not any more, beyond the member's own price
//!   ([`super::cutting`]). It makes shares that complement each other meet, and small ones fill what large ones leave.
//! - *starved*: GPUs that the node's free cpu will not be enough for, at the mix's mean cpu a GPU. It sends members that need much
//!   cpu to nodes that have much of it for each GPU.
//! - *fragments*: GPU that members of the mix could not use, the mean over the mix ("Beware of Fragmentation", USENIX ATC '23). It
//!   keeps whole nodes for those that need whole nodes. Counted for a sixteenth: it is the broad guess, the first two are exact.
//! - *claimed*: GPU of a model for which there are members that can't go elsewhere. Counted for a 256th: it decides between places that
//!   waste about the same. More of it opens rare models to those who need them, and closes whole nodes of the common ones to gangs.
//!
//! The weights are round numbers between which quality hardly differs; bench/results/quality.json has what they make.

mod least;

use std::collections::BTreeMap;

use protocol::resources::Resources;
use protocol::sku::Sku;

use super::cutting::{WHOLE, Worth, worth};
use super::devices::{DEVICE, Free};
use super::mix::Mix;
use super::view::{PARTS, View};

/// How many times less a fragment counts than a piece.
const FRAGMENT_SHARE: i64 = 16;
/// How many times less a claim counts than a piece.
const CLAIM_SHARE: i64 = 256;
/// What is wasted by a placing, in millionths of a GPU, by kind. Less is better; what a placing mends is below 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Waste {
    pub(crate) pieces: i64,
    pub(crate) starved: i64,
    pub(crate) fragments: i64,
    pub(crate) claimed: i64,
}

/// What is amiss with a node as it is. Only differences of it mean something.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amiss(Waste);

impl Waste {
    /// The kinds by their weights.
    pub(crate) fn sum(&self) -> i64 {
        self.pieces + self.starved + self.fragments / FRAGMENT_SHARE + self.claimed / CLAIM_SHARE
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            pieces: self.pieces.saturating_add(other.pieces),
            starved: self.starved.saturating_add(other.starved),
            fragments: self.fragments.saturating_add(other.fragments),
            claimed: self.claimed.saturating_add(other.claimed),
        }
    }

    fn less(&self, other: &Self) -> Self {
        Self {
            pieces: self.pieces - other.pieces,
            starved: self.starved - other.starved,
            fragments: self.fragments - other.fragments,
            claimed: self.claimed - other.claimed,
        }
    }
}

/// The mix, made ready for judging many places.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    worth: Worth,
    /// Millionths of a GPU that a thousandth of a core serves, times 2^20.
    served: u64,
    /// The fleet's models, sorted, and how the mix looks at each.
    models: Vec<Sku>,
    views: Vec<View>,
}

impl Value {
    /// Of this mix for a fleet with these models, each with its GPUs in thousandths.
    pub(crate) fn new(mix: &Mix, fleet: &BTreeMap<Sku, u64>) -> Self {
        let (mut cpu, mut gpu) = (0u128, 0u128);
        let mut pieces: BTreeMap<u16, u64> = BTreeMap::new();
        for (ask, members) in mix.asks().filter(|(ask, _)| ask.each.gpu_milli > 0) {
            cpu = cpu.saturating_add(u128::from(ask.each.cpu_milli).saturating_mul(members.into()));
            gpu = gpu.saturating_add(u128::from(ask.each.gpu_milli).saturating_mul(members.into()));
            let (size, each) = piece(ask.each.gpu_milli);
            let known = pieces.entry(size).or_default();
            *known = known.saturating_add(members.saturating_mul(each));
        }
        let served = gpu.saturating_mul(1000 << PARTS).checked_div(cpu).and_then(|s| u64::try_from(s).ok());
        let served = served.unwrap_or(u64::MAX);
        let claims = claims(mix, fleet, gpu);
        let view = |sku: &Sku| View::of(mix, sku, claims.get(sku).copied().unwrap_or(0));
        Self {
            worth: worth(&pieces.into_iter().collect::<Vec<_>>()),
            served,
            models: fleet.keys().cloned().collect(),
            views: fleet.keys().map(view).collect(),
        }
    }

    /// How the mix looks at a model.
    pub(crate) fn view(&self, sku: &Sku) -> Option<&View> {
        self.views.get(self.models.binary_search(sku).ok()?)
    }

    /// The same, by the model's place among the fleet's.
    pub(crate) fn view_at(&self, model: usize) -> Option<&View> {
        self.views.get(model)
    }

    /// What placing members on a node wastes.
    pub(crate) fn waste(&self, view: &View, before: &Free, each: &Resources, members: u64) -> Waste {
        self.waste_from(view, (before, &self.amiss(view, before)), each, members)
    }

    /// The same, where what is amiss with the node as it is was found before.
    pub(crate) fn waste_from(
        &self,
        view: &View,
        (before, amiss): (&Free, &Amiss),
        each: &Resources,
        members: u64,
    ) -> Waste {
        let takes = before.sharing.takes(each.gpu_milli).unwrap_or(each.gpu_milli);
        let own = self.price(takes).saturating_mul(members as i64);
        let mut waste = self.amiss(view, &before.after(each, members)).0.less(&amiss.0);
        waste.pieces -= own;
        waste
    }

    /// What is amiss with a node as it is. Only differences of it mean something.
    pub(crate) fn amiss(&self, view: &View, free: &Free) -> Amiss {
        let left = free.all.gpu_milli;
        let devices = free.devices();
        let worth = devices as i64 * i64::from(WHOLE) + free.shares.iter().map(|s| self.left(*s)).sum::<i64>();
        Amiss(Waste {
            pieces: -worth,
            starved: self.starved(left, free.all.cpu_milli),
            fragments: view.fragments(&free.rest(), devices),
            claimed: claimed(view, left),
        })
    }

    #[inline]
    fn starved(&self, gpu_milli: u64, cpu_milli: u64) -> i64 {
        let served = (u128::from(cpu_milli) * u128::from(self.served)) >> PARTS;
        gpu_milli.saturating_mul(1000).saturating_sub(u64::try_from(served).unwrap_or(u64::MAX)) as i64
    }

    /// What a member pays for what it takes of a device, or for whole ones.
    #[inline]
    fn price(&self, gpu_milli: u64) -> i64 {
        match gpu_milli {
            share if share < DEVICE => self.left(share as u16),
            whole => whole.div_ceil(DEVICE) as i64 * i64::from(WHOLE),
        }
    }

    #[inline]
    fn left(&self, milli: u16) -> i64 {
        i64::from(self.worth[usize::from(milli).min(DEVICE as usize)])
    }
}

/// What is claimed of so much GPU of a model: the less of it is left, the more is amiss.
#[inline]
fn claimed(view: &View, gpu_milli: u64) -> i64 {
    let micro = gpu_milli.saturating_mul(1000);
    // Nearly always within 64 bits, where dividing costs a tenth.
    let claimed = match micro.checked_mul(view.claimed()) {
        Some(parts) => (parts / 1_000_000) as i64,
        None => (u128::from(micro) * u128::from(view.claimed()) / 1_000_000) as i64,
    };
    -claimed
}

/// A member's pieces of a device: a share is one, whole devices are as many.
fn piece(gpu_milli: u64) -> (u16, u64) {
    match u16::try_from(gpu_milli) {
        Ok(share) if u64::from(share) < DEVICE => (share, 1),
        _ => (DEVICE as u16, gpu_milli.div_ceil(DEVICE)),
    }
}

/// How much of each model's room would be claimed, in millionths, by members that accept some models only, if all of the fleet
/// were asked for: each spreads what it asks for over the models that it accepts.
fn claims(mix: &Mix, fleet: &BTreeMap<Sku, u64>, asked: u128) -> BTreeMap<Sku, u64> {
    let all: u128 = fleet.values().map(|g| u128::from(*g)).sum();
    let mut claimed: BTreeMap<&Sku, u128> = BTreeMap::new();
    for (ask, members) in mix.asks().filter(|(ask, _)| ask.each.gpu_milli > 0 && !ask.skus.is_empty()) {
        let there: u128 = ask.skus.iter().filter_map(|s| fleet.get(s)).map(|g| u128::from(*g)).sum();
        if there == 0 || there >= all {
            continue;
        }
        // Of all that is asked for, in millionths; then of these models' room, if all of the fleet were asked for.
        let part =
            u128::from(ask.each.gpu_milli).saturating_mul(members.into()).saturating_mul(1_000_000) / asked.max(1);
        let wants = part.saturating_mul(all) / there;
        for (sku, _) in ask.skus.iter().filter_map(|s| fleet.get_key_value(s)) {
            let known = claimed.entry(sku).or_default();
            *known = known.saturating_add(wants);
        }
    }
    claimed.into_iter().map(|(sku, c)| (sku.clone(), u64::try_from(c).unwrap_or(u64::MAX).min(1_000_000))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::ids::GroupName;
    use protocol::workload::{GroupNeed, Spread};

    use super::*;

    fn sku(name: &str) -> Sku {
        Sku::parse(name).unwrap()
    }

    fn need(count: u32, cpu_milli: u64, gpu_milli: u64, skus: &[&str]) -> GroupNeed {
        GroupNeed {
            name: GroupName::new("a").unwrap(),
            count,
            each: Resources { cpu_milli, memory_mib: 1, gpu_milli },
            skus: skus.iter().map(|s| sku(s)).collect(),
            spread: Spread::None,
        }
    }

    fn free(cpu_milli: u64, devices: u64, shares: &[u16]) -> Free {
        let gpu_milli = devices * DEVICE + shares.iter().map(|s| u64::from(*s)).sum::<u64>();
        let all = Resources { cpu_milli, memory_mib: 1000, gpu_milli };
        Free { all, shares: shares.into(), sharing: Default::default() }
    }

    fn value(mix: &[GroupNeed]) -> Value {
        let mut all = Mix::default();
        all.see(mix);
        Value::new(&all, &[(sku("T4"), 100_000), (sku("L4"), 100_000)].into())
    }

    fn wasted(value: &Value, model: &str, free: &Free, member: &GroupNeed) -> i64 {
        value.waste(value.view(&sku(model)).unwrap(), free, &member.each, 1).sum()
    }

    #[test]
    fn shares_that_complete_a_device_waste_less_than_ones_that_open_another() {
        let (half, most) = (need(50, 1000, 500, &[]), need(50, 1000, 700, &[]));
        let value = value(&[half.clone(), most, need(100, 1000, 1000, &[])]);
        let (beside, opens) = (free(9000, 0, &[500]), free(9000, 1, &[]));
        assert!(wasted(&value, "T4", &beside, &half) < wasted(&value, "T4", &opens, &half));
        let breaks = free(9000, 0, &[700]);
        assert!(wasted(&value, "T4", &beside, &half) < wasted(&value, "T4", &breaks, &half), "700 is asked for");
    }

    #[test]
    fn members_that_need_much_cpu_waste_less_where_there_is_much_for_each_gpu() {
        let (heavy, light) = (need(50, 20_000, 1000, &[]), need(50, 4000, 1000, &[]));
        let value = value(&[heavy.clone(), light.clone()]);
        let (poor, rich) = (free(48_000, 4, &[]), free(96_000, 4, &[]));
        assert!(wasted(&value, "T4", &rich, &heavy) < wasted(&value, "T4", &poor, &heavy));
        assert!(wasted(&value, "T4", &poor, &light) < wasted(&value, "T4", &rich, &light));
    }

    #[test]
    fn small_members_waste_less_on_a_broken_node_while_whole_nodes_are_asked_for() {
        let small = need(50, 1000, 1000, &[]);
        let value = value(&[small.clone(), need(50, 8000, 8000, &[])]);
        assert!(wasted(&value, "T4", &free(5000, 5, &[]), &small) < wasted(&value, "T4", &free(8000, 8, &[]), &small));
    }

    #[test]
    fn who_can_go_anywhere_goes_to_the_model_that_others_do_not_claim() {
        let anywhere = need(80, 1000, 1000, &[]);
        let value = value(&[anywhere.clone(), need(20, 1000, 1000, &["T4"])]);
        let node = free(4000, 4, &[]);
        assert!(wasted(&value, "L4", &node, &anywhere) < wasted(&value, "T4", &node, &anywhere));
    }

    #[test]
    fn the_largest_amounts_there_are_overflow_nothing() {
        let largest = need(u32::MAX, u64::MAX, u64::MAX - 1000, &["L4"]);
        let mut mix = Mix::default();
        (0..3).for_each(|_| mix.see(&[largest.clone(), need(u32::MAX, u64::MAX, 500, &[])]));
        let value = Value::new(&mix, &[(sku("T4"), u64::MAX), (sku("L4"), u64::MAX)].into());
        let all = Resources { cpu_milli: u64::MAX, memory_mib: u64::MAX, gpu_milli: 1_024_000 };
        let free = Free::whole(all, Default::default());
        value.waste(value.view(&sku("T4")).unwrap(), &free, &need(1, 1, 500, &[]).each, 1);
    }
}

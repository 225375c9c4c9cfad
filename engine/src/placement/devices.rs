//! What is free on one node, device by device: a share of a GPU sits on one device, whole devices are exclusive.
//!
//! Which device a share gets is a rule, not a choice: the fullest one that still holds it. So a binding need not name devices:
//! whoever counts it - this plan, the next one, the agent - comes to the same devices. Where devices are given out in equal parts, a share
//! is one part, however small it is.

use protocol::capacity::Sharing;
use protocol::resources::Resources;
use smallvec::SmallVec;

/// Thousandths of one device.
pub(crate) const DEVICE: u64 = 1000;

/// What is left on devices that are partly given out, in thousandths. Nodes of eight such devices need no memory beside it.
pub(crate) type Shares = SmallVec<[u16; 8]>;

/// What is free on one node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Free {
    /// All of it; `gpu_milli` is that of free devices and of what is left on shared ones.
    pub(crate) all: Resources,
    /// What is left on each device that is partly given out, growing; none is 0.
    pub(crate) shares: Shares,
    /// How its devices are given out.
    pub(crate) sharing: Sharing,
}

/// What is free on one node, with shares that are somebody else's: they need not be copied to be looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest<'f> {
    pub(crate) all: Resources,
    pub(crate) shares: &'f [u16],
    pub(crate) sharing: Sharing,
}

impl Clone for Free {
    /// As a derived one, but its shares are copied as memory, not one by one: judging a place starts with a copy.
    fn clone(&self) -> Self {
        Self { all: self.all, shares: Shares::from_slice(&self.shares), sharing: self.sharing }
    }
}

impl Free {
    /// Of no device a part is given out.
    pub(crate) fn whole(all: Resources, sharing: Sharing) -> Self {
        Self { all, shares: Shares::new(), sharing }
    }

    /// To be looked at.
    #[inline]
    pub(crate) fn rest(&self) -> Rest<'_> {
        Rest { all: self.all, shares: &self.shares, sharing: self.sharing }
    }

    /// What a member of this size takes here; none where no devices are given out so.
    #[inline]
    fn taken_by(&self, each: &Resources) -> Option<Resources> {
        Some(Resources { gpu_milli: self.sharing.takes(each.gpu_milli)?, ..*each })
    }

    /// Devices of which nothing is given out.
    #[inline]
    pub(crate) fn devices(&self) -> u64 {
        let shared: u64 = self.shares.iter().map(|s| u64::from(*s)).sum();
        self.all.gpu_milli.saturating_sub(shared) / DEVICE
    }

    /// How many members of this size there is room for.
    pub(crate) fn members(&self, each: &Resources) -> u64 {
        let Some(each) = self.taken_by(each).filter(|each| each.fits_in(&self.all)) else { return 0 };
        let ratio = |have: u64, need: u64| have.checked_div(need).unwrap_or(u64::MAX);
        let others = ratio(self.all.cpu_milli, each.cpu_milli).min(ratio(self.all.memory_mib, each.memory_mib));
        others.min(match each.gpu_milli {
            0 => u64::MAX,
            share if share < DEVICE => {
                let shared: u64 = self.shares.iter().map(|s| u64::from(*s) / share).sum();
                shared + self.devices() * self.sharing.on_a_device(share)
            }
            whole => self.devices() / whole.div_ceil(DEVICE),
        })
    }

    /// Whether there is room for one member of this size.
    #[inline]
    pub(crate) fn holds(&self, each: &Resources) -> bool {
        let Some(each) = self.taken_by(each).filter(|each| each.fits_in(&self.all)) else { return false };
        match each.gpu_milli {
            0 => true,
            share if share < DEVICE => {
                self.shares.last().is_some_and(|left| u64::from(*left) >= share) || self.devices() > 0
            }
            whole => self.devices() >= whole.div_ceil(DEVICE),
        }
    }

    /// Takes the room of one member. The caller has seen that it fits.
    pub(crate) fn take(&mut self, each: &Resources) {
        debug_assert!(self.members(each) > 0, "more is taken than is free");
        let each = &self.taken_by(each).unwrap_or(*each);
        let gpus = if each.gpu_milli > DEVICE { each.gpus() * DEVICE } else { each.gpu_milli };
        self.all = self.all.saturating_sub(&Resources { gpu_milli: gpus, ..*each });
        let Some(share) = u16::try_from(each.gpu_milli).ok().filter(|s| *s > 0 && u64::from(*s) < DEVICE) else {
            return;
        };
        let tightest = self.shares.partition_point(|left| *left < share);
        let left = match tightest < self.shares.len() {
            true => self.shares.remove(tightest) - share,
            false => {
                let left = self.sharing.left_after_first(share);
                // Parts need not add up to all of a device.
                let spoilt = DEVICE.saturating_sub(u64::from(share) + u64::from(left));
                self.all.gpu_milli = self.all.gpu_milli.saturating_sub(spoilt);
                left
            }
        };
        if left > 0 {
            let place = self.shares.partition_point(|other| *other < left);
            self.shares.insert(place, left);
        }
    }

    /// Makes the room of members free again. On which device a share sat is not known, so that no device is called free that
    /// may not be: shares give back cpu and memory alone.
    pub(crate) fn give(&mut self, each: &Resources, members: u64) {
        let gpus = if each.gpu_milli < DEVICE { 0 } else { each.gpus() * DEVICE };
        self.all += Resources { gpu_milli: gpus, ..*each }.times(members);
    }

    /// As it would be after taking the room of several members.
    pub(crate) fn after(&self, each: &Resources, members: u64) -> Self {
        let mut after = self.clone();
        after.take_all(each, members);
        after
    }

    /// Takes the room of several members. The caller has seen that they fit.
    pub(crate) fn take_all(&mut self, each: &Resources, members: u64) {
        if (1..DEVICE).contains(&each.gpu_milli) {
            (0..members).for_each(|_| self.take(each));
        } else if members > 0 {
            let gpus = each.gpus() * DEVICE;
            self.all = self.all.saturating_sub(&Resources { gpu_milli: gpus, ..*each }.times(members));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(gpu_milli: u64, shares: &[u16]) -> Free {
        let all = Resources { cpu_milli: 64_000, memory_mib: 64_000, gpu_milli };
        Free { all, shares: shares.into(), sharing: Sharing::Any }
    }

    fn share(gpu_milli: u64) -> Resources {
        Resources { cpu_milli: 1, memory_mib: 1, gpu_milli }
    }

    #[test]
    fn a_share_goes_to_the_fullest_device_that_holds_it_and_opens_a_new_one_last() {
        let mut node = free(2 * 1000 + 300 + 600, &[300, 600]);
        node.take(&share(300));
        assert_eq!((node.shares.as_slice(), node.devices()), (&[600][..], 2));
        node.take(&share(500));
        assert_eq!((node.shares.as_slice(), node.devices()), (&[100][..], 2));
        node.take(&share(500));
        assert_eq!((node.shares.as_slice(), node.devices()), (&[100, 500][..], 1));
        assert_eq!(node.all.gpu_milli, 1600);
    }

    #[test]
    fn a_member_takes_a_part_where_devices_are_given_out_in_parts_and_whole_ones_are_not() {
        let mut node = Free { sharing: Sharing::Parts(3), ..free(2000, &[]) };
        assert_eq!([1, 333, 334, 1000].map(|milli| node.members(&share(milli))), [6, 6, 0, 0]);
        node.take(&share(100));
        assert_eq!((node.shares.as_slice(), node.devices(), node.all.gpu_milli), (&[666][..], 1, 1666));
        assert_eq!(node.members(&share(10)), 5, "a part, however little is asked for");
        node.take_all(&share(333), 3);
        assert_eq!((node.shares.as_slice(), node.devices(), node.all.gpu_milli), (&[666][..], 0, 666));
        node.take_all(&share(200), 2);
        assert_eq!((node.shares.as_slice(), node.all.gpu_milli), (&[][..], 0));
        let node = Free { sharing: Sharing::Whole, ..free(2000, &[]) };
        assert_eq!([0, 1, 999, 1000, 2000].map(|milli| node.members(&share(milli))), [64_000, 0, 0, 2, 1]);
    }

    #[test]
    fn a_node_holds_a_member_where_it_has_room_for_one_or_more() {
        for sharing in [Sharing::Any, Sharing::Whole, Sharing::Parts(3)] {
            for (gpu_milli, shares) in [(0, &[][..]), (333, &[333]), (1000, &[400, 600]), (1000, &[]), (2300, &[300])] {
                let node = Free { sharing, ..free(gpu_milli, shares) };
                for milli in [0, 1, 300, 333, 334, 600, 999, 1000, 1500, 2000, 3000] {
                    let cores = Resources { cpu_milli: 64_001, ..share(milli) };
                    assert_eq!(node.holds(&share(milli)), node.members(&share(milli)) > 0, "{milli} of {node:?}");
                    assert!(!node.holds(&cores), "{milli} of {node:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_on_two_devices_never_adds_up_to_one_member() {
        let node = free(1000, &[400, 600]);
        assert_eq!(node.members(&share(1000)), 0);
        assert_eq!(node.members(&share(700)), 0);
        assert_eq!(node.members(&share(200)), 5);
        assert_eq!(free(3000, &[]).members(&share(2000)), 1);
        assert_eq!(free(3000, &[]).members(&share(400)), 6);
    }
}

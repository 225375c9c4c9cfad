//! The addresses between a control plane and its real node: a /23 of private addresses that nothing on this machine uses.
//! Its first half is the link (host .1, node .2), its second half is the node's pods.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::NodeError;

/// Where a free range is looked for: 10.64.0.0/11. Services (10.96.0.0/16) and kwok's pods (10.128.0.0/9) lie beyond.
const FIRST: u32 = u32::from_be_bytes([10, 64, 0, 0]);
/// How many ranges of 512 addresses it has.
const RANGES: u32 = 4096;
/// Where a folder has its range.
const FILE: &str = "node-range";
/// The mask of a /23.
const MASK: u32 = 0xffff_fe00;

/// A link's range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    base: u32,
}

impl Link {
    /// The range that a folder has from before, else `wanted`, else a free one. It is written down in the folder: the
    /// control plane's certificate names its address.
    pub(crate) fn choose(folder: &Path, wanted: Option<Ipv4Addr>) -> Result<Self, NodeError> {
        if let Some(link) = Self::read(folder) {
            return Ok(link);
        }
        let file = folder.join(FILE);
        let unusable = |cause| NodeError::Folder { place: file.clone(), cause };
        let link = match wanted {
            Some(address) => Self::at(address),
            None => free(&fs::read_to_string("/proc/net/route").map_err(unusable)?, uuid::Uuid::new_v4().as_u128()),
        };
        let link = link.ok_or(NodeError::NoRange)?;
        fs::write(&file, format!("{}\n", Ipv4Addr::from(link.base))).map_err(unusable)?;
        Ok(link)
    }

    /// The range that the control plane in this folder has; `None` without a real node.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        Self::at(fs::read_to_string(folder.join(FILE)).ok()?.trim().parse().ok()?)
    }

    /// The range that begins here; `None` where no /23 does.
    fn at(address: Ipv4Addr) -> Option<Self> {
        let base = u32::from(address);
        (base & !MASK == 0).then_some(Self { base })
    }

    /// The host's end: here the API server and the name server listen.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// The node's end: the node's InternalIP.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2)
    }

    /// The addresses of the node's pods.
    pub fn pods(self) -> String {
        format!("{}/24", Ipv4Addr::from(self.base + 256))
    }

    /// The host's interface. The same range makes the same name, so that two links never share one.
    pub fn interface(self) -> String {
        format!("tw{:06x}", self.base >> 8)
    }
}

/// A range that no route of this machine touches, looked for from a place that `seed` chooses.
fn free(routes: &str, seed: u128) -> Option<Link> {
    let taken: Vec<(u32, u32)> = routes.lines().skip(1).filter_map(route).filter(|(_, mask)| *mask != 0).collect();
    let begin = (seed % u128::from(RANGES)) as u32;
    let candidates = (0..RANGES).map(|step| FIRST + ((begin + step) % RANGES) * 512);
    let is_free = |base: &u32| taken.iter().all(|(to, mask)| (base ^ to) & mask & MASK != 0);
    candidates.into_iter().find(is_free).map(|base| Link { base })
}

/// Destination and mask of a line of `/proc/net/route`, which has both in the machine's byte order.
fn route(line: &str) -> Option<(u32, u32)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::from_be);
    Some((number(1)?, number(7)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[([u8; 4], [u8; 4])]) -> String {
        let hex = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let lines =
            routes.iter().map(|(to, mask)| format!("eth0\t{}\t0\t1\t0\t0\t0\t{}\t0\t0\t0\n", hex(*to), hex(*mask)));
        format!("Iface\tDestination\t…\n{}", lines.collect::<String>())
    }

    #[test]
    fn a_range_that_a_route_touches_is_not_taken() {
        let all =
            table(&[([0, 0, 0, 0], [0, 0, 0, 0]), ([10, 64, 2, 0], [255, 255, 255, 0]), ([10, 64, 5, 7], [255; 4])]);
        let found: Vec<Ipv4Addr> = (0..4).map(|seed| free(&all, seed).expect("most are free").host()).collect();
        let address = |third| Ipv4Addr::new(10, 64, third, 1);
        assert_eq!(found, [address(0), address(6), address(6), address(6)]);
        assert_eq!(free(&table(&[([10, 0, 0, 0], [255, 0, 0, 0])]), 0), None, "all of 10/8 is somebody's");
    }

    #[test]
    fn a_folder_keeps_its_range() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Link::choose(dir.path(), None).expect("chosen");
        assert_eq!(Link::choose(dir.path(), Some(Ipv4Addr::new(10, 1, 2, 0))).expect("found"), first);
        let other = tempfile::tempdir().expect("a folder");
        let wanted = Link::choose(other.path(), Some(Ipv4Addr::new(10, 1, 2, 0))).expect("taken");
        assert_eq!((wanted.node(), wanted.pods().as_str()), (Ipv4Addr::new(10, 1, 2, 2), "10.1.3.0/24"));
        assert!(wanted.interface().len() <= 15, "the kernel takes no longer name");
        let odd = tempfile::tempdir().expect("a folder");
        assert!(Link::choose(odd.path(), Some(Ipv4Addr::new(10, 1, 3, 0))).is_err(), "no /23 begins there");
    }
}

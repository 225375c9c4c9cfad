//! A cluster's capacity as it crosses the wire: columns, a row a node, first whole (`Snapshot`), then only what changed
//! (`Delta`). A change costs little more than its value:
//! rows that changed side by side share one distance.
//!
//! A frame says which of the coordinator's commands it already includes (`watermark`), so that a binding is counted
//! either by the coordinator or by the frame, never by both and never by neither.

use std::fmt;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::ids::{CommandNumber, NodeName};
use crate::sku::Sku;

/// An activity byte that means unknown; 0 to 100 are percent.
pub const ACTIVITY_UNKNOWN: u8 = 255;
/// A memory figure that means unknown.
pub const MEMORY_UNKNOWN: u32 = u32::MAX;
/// The most nodes of one cluster.
pub const MAX_NODES: usize = 250_000;

/// Where a node's devices come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Read from the GPUs.
    Measured,
    /// Written down in `fleet.toml`; activity is that of what was placed there, not of a device.
    Declared,
    /// Counted by Kubernetes, of the model that the node's label says; nothing is read of them.
    Label,
}

/// Whether a node takes members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It takes members.
    Ready,
    /// A person or its cluster took it out: it is cordoned, not ready, or tainted.
    Cordoned,
    /// Its readings are older than the bound: shown, never placed on.
    Stale,
}

/// What a device is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// It can be given out.
    Free,
    /// An attempt holds it, or parts of it are given out and others are not.
    Held,
    /// Something that no attempt accounts for holds memory on it.
    Ghost,
    /// A fault took it out.
    Sick,
    /// Kubernetes gave it to a pod that is of no attempt here, or does not offer it.
    Foreign,
}

/// How a node gives out its devices.
///
/// A part is never taken to be larger than it is: of three a device, each is 333 thousandths, so that a share of 0.333 fits one and 0.334
/// fits none. A member that asks for less than a part takes all of it, and a pod of others takes one for each unit that it asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Whole, or in shares of any size: processes share what they see.
    #[default]
    Any,
    /// Whole only: Kubernetes counts devices.
    Whole,
    /// Each in so many equal parts, and never whole: time-slicing and MPS, as NVIDIA's device plugin has them (`replicas`).
    Parts(u16),
}

impl Sharing {
    /// The most parts of a device: as many as it has thousandths.
    pub const MAX_PARTS: u16 = 1000;

    /// Thousandths of a device that a member takes which asks for so many; none where nothing of that size is given out.
    #[inline]
    pub fn takes(self, gpu_milli: u64) -> Option<u64> {
        match self {
            Sharing::Any => Some(gpu_milli),
            Sharing::Whole => (gpu_milli == 0 || gpu_milli >= 1000).then_some(gpu_milli),
            Sharing::Parts(_) if gpu_milli == 0 => Some(0),
            Sharing::Parts(_) => Some(u64::from(self.part_milli())).filter(|part| gpu_milli <= *part),
        }
    }

    /// The largest share of a device that is given out, in thousandths; 0 where none is.
    #[inline]
    pub fn part_milli(self) -> u16 {
        match self {
            Sharing::Any => 999,
            Sharing::Whole => 0,
            Sharing::Parts(parts) => 1000 / parts.clamp(1, Self::MAX_PARTS),
        }
    }

    /// What is left of a device, in thousandths, once its first share of this size is given out.
    pub fn left_after_first(self, share: u16) -> u16 {
        match self {
            Sharing::Parts(parts) => self.part_milli() * parts.clamp(1, Self::MAX_PARTS) - share.min(self.part_milli()),
            Sharing::Any | Sharing::Whole => 1000u16.saturating_sub(share),
        }
    }

    /// How many shares of this size, which is one that is taken, a device holds of which nothing is given out.
    pub fn on_a_device(self, share: u64) -> u64 {
        match self {
            Sharing::Parts(parts) => u64::from(parts.clamp(1, Self::MAX_PARTS)),
            Sharing::Any | Sharing::Whole => 1000u64.checked_div(share).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Sharing {
    /// In a word, for a column of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sharing::Any => f.pad("any"),
            Sharing::Whole => f.pad("none"),
            Sharing::Parts(parts) => f.pad(&format!("1/{parts}")),
        }
    }
}

/// Everything of a cluster's nodes. Node columns have a value a node; device columns have the devices of the first node,
/// then of the second, and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Columns {
    /// Names; every other node column is as long.
    pub name: Vec<NodeName>,
    /// Models that occur; `sku` points into it.
    pub skus: Vec<Sku>,
    /// The node's model: 0 for none, else 1 + its place in `skus`.
    pub sku: Vec<u16>,
    /// How many devices the node has.
    pub devices: Vec<u16>,
    /// Where they come from.
    pub source: Vec<Source>,
    /// How they are given out.
    pub sharing: Vec<Sharing>,
    /// Thousandths of a core that can be given out in all.
    pub cpu_milli: Vec<u64>,
    /// MiB of memory that can be given out in all.
    pub memory_mib: Vec<u64>,
    /// Whether the node takes members.
    pub state: Vec<NodeState>,
    /// Thousandths of a core not given out.
    pub free_cpu_milli: Vec<u64>,
    /// MiB not given out.
    pub free_memory_mib: Vec<u64>,
    /// By device: what it is doing.
    pub device_state: Vec<DeviceState>,
    /// By device: percent, or [`ACTIVITY_UNKNOWN`].
    pub activity: Vec<u8>,
    /// By device: MiB in use, or [`MEMORY_UNKNOWN`].
    pub memory_used_mib: Vec<u32>,
    /// By device: of one that shares hold a part of, the thousandths that more shares can have; 0 of any other.
    pub left_milli: Vec<u16>,
}

/// All of a cluster's capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Grows by one a frame of this session.
    pub sequence: u64,
    /// The highest command whose effect the columns include.
    pub watermark: CommandNumber,
    /// The capacity.
    pub columns: Columns,
}

/// Changed values of one column, in growing order of their rows.
///
/// On the wire a row of neighbours that all changed is one distance and one length: devices of one node change together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes<T> {
    /// For each change the number of unchanged rows since the one before it.
    pub gaps: Vec<u32>,
    /// For each change the new value.
    pub values: Vec<T>,
}

impl<T: Encode + 'static> Encode for Changes<T> {
    fn encode<E: Encoder>(&self, e: &mut E) -> Result<(), EncodeError> {
        // A run is a distance and how many more neighbours follow. Without gaps 0 that is at most a byte more a change.
        let mut runs: Vec<(u32, u32)> = Vec::with_capacity(self.gaps.len());
        for gap in &self.gaps {
            match runs.last_mut() {
                Some((_, more)) if *gap == 0 => *more += 1,
                _ => runs.push((*gap, 0)),
            }
        }
        self.values.encode(e)?;
        runs.encode(e)
    }
}

impl<C, T: Decode<C> + 'static> Decode<C> for Changes<T> {
    fn decode<D: Decoder<Context = C>>(d: &mut D) -> Result<Self, DecodeError> {
        let values = Vec::<T>::decode(d)?;
        let runs = Vec::<(u32, u32)>::decode(d)?;
        // Held to the values that are there, so that a hostile run takes no memory.
        let rows: u64 = runs.iter().map(|(_, more)| u64::from(*more) + 1).sum();
        if rows != values.len() as u64 {
            return Err(DecodeError::OtherString(format!("{rows} changed rows for {} values", values.len())));
        }
        let mut gaps = Vec::with_capacity(values.len());
        for (gap, more) in runs {
            gaps.push(gap);
            gaps.resize(gaps.len() + more as usize, 0);
        }
        Ok(Self { gaps, values })
    }
}

impl<'de, C, T: Decode<C> + 'static> BorrowDecode<'de, C> for Changes<T> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(d: &mut D) -> Result<Self, DecodeError> {
        Self::decode(d)
    }
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self { gaps: vec![], values: vec![] }
    }
}

impl<T> Changes<T> {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// What changed since the frame before. Nodes that come or go make a snapshot instead. An empty one is a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// One more than the frame's before; else a frame is missing and a snapshot is asked for.
    pub sequence: u64,
    /// The highest command whose effect is included.
    pub watermark: CommandNumber,
    /// By node.
    pub state: Changes<NodeState>,
    /// By node.
    pub free_cpu_milli: Changes<u64>,
    /// By node.
    pub free_memory_mib: Changes<u64>,
    /// By device.
    pub device_state: Changes<DeviceState>,
    /// By device.
    pub activity: Changes<u8>,
    /// By device: how far the figure moved, as the wrapping difference of the two u32, because a small step is short on
    /// the wire where the figure is not. From and to [`MEMORY_UNKNOWN`] is a difference like any other.
    pub memory_moved_mib: Changes<i32>,
    /// By device.
    pub left_milli: Changes<u16>,
}

/// One frame of a cluster's capacity stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub enum CapacityFrame {
    /// Everything: first, after a reconnect, and when asked for.
    Snapshot(Snapshot),
    /// What changed.
    Delta(Delta),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::{decode_body, encode_body};

    #[test]
    fn a_member_takes_a_whole_part_and_parts_are_never_more_than_the_device() {
        let thirds = Sharing::Parts(3);
        assert_eq!(
            [1, 333, 334, 1000, 8000].map(|asked| thirds.takes(asked)),
            [Some(333), Some(333), None, None, None]
        );
        assert_eq!(
            [0, 1, 999, 1000, 8000].map(|asked| Sharing::Whole.takes(asked)),
            [Some(0), None, None, Some(1000), Some(8000)]
        );
        assert_eq!([0, 1, 1000].map(|asked| Sharing::Any.takes(asked)), [Some(0), Some(1), Some(1000)]);
        for parts in 2..=1100 {
            let sharing = Sharing::Parts(parts);
            let part = sharing.part_milli();
            // One after the other until nothing is left: as many as there are parts.
            let (mut left, mut taken) = (sharing.left_after_first(part), 1);
            while left >= part {
                (left, taken) = (left - part, taken + 1);
            }
            assert_eq!((left, u64::from(taken)), (0, sharing.on_a_device(u64::from(part))), "{parts}");
            assert_eq!(taken, parts.min(1000));
        }
    }

    fn delta(gaps: Vec<u32>, values: Vec<u8>) -> CapacityFrame {
        CapacityFrame::Delta(Delta { activity: Changes { gaps, values }, ..Delta::default() })
    }

    #[test]
    fn neighbours_share_one_distance_and_come_back_as_they_were() {
        let apart = delta(vec![3, 0, 0, 0, 7, 0, 2], vec![1, 2, 3, 4, 5, 6, 255]);
        let body = encode_body(&apart).unwrap();
        assert_eq!(decode_body::<CapacityFrame>(&body).unwrap(), apart);
        let none = encode_body(&delta(vec![], vec![])).unwrap().len();
        let eight = encode_body(&delta(vec![5, 0, 0, 0, 0, 0, 0, 0], vec![9; 8])).unwrap().len();
        assert_eq!(eight - none, 8 + 2, "a value each, one distance, one length");
    }

    #[test]
    fn runs_that_do_not_match_their_values_are_refused_before_they_take_memory() {
        let config = bincode::config::standard();
        let bytes = bincode::encode_to_vec((vec![1u8, 2], vec![(0u32, u32::MAX)]), config).unwrap();
        let refused = bincode::decode_from_slice::<Changes<u8>, _>(&bytes, config).unwrap_err();
        assert!(refused.to_string().contains("4294967296 changed rows for 2 values"), "{refused}");
    }
}

//! How large each type may be on the wire. A type without a limit cannot be sent.

use bincode::Decode;

use crate::capacity::CapacityFrame;
use crate::control::{AgentMessage, CoordinatorMessage, Opening, PageAnswer};
use crate::node::{NodeFrame, NodeOrder, NodeToken};
use crate::token::{TokenAnswer, TokenRequest};
use crate::workload::WorkloadSpec;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A type that may cross the wire or enter the log, and how large it may be.
pub trait Limited: Sized {
    /// Its name, for errors.
    const NAME: &'static str;
    /// Most bytes of its body. The decoder allocates at most 16 times that (a varint of one byte becomes a u64; a name
    /// of two bytes a pointer and a length), whatever lengths a hostile body claims.
    const LIMIT: usize;

    /// Decodes with this type's limit; returns how many bytes were used.
    fn decode_limited(body: &[u8]) -> Result<(Self, usize), String>
    where
        Self: Decode<()>;
}

/// Gives types their limits: `limits! { Type: bytes, … }`.
#[macro_export]
macro_rules! limits {
    ($($type:ty: $limit:expr),* $(,)?) => {$(
        impl $crate::codec::Limited for $type {
            const NAME: &'static str = stringify!($type);
            const LIMIT: usize = $limit;
            fn decode_limited(body: &[u8]) -> Result<(Self, usize), String> {
                const MEMORY: usize = 16 * $limit;
                bincode::decode_from_slice(body, bincode::config::standard().with_limit::<MEMORY>())
                    .map_err(|e| e.to_string())
            }
        }
    )*};
}

limits! {
    WorkloadSpec: MIB,
    NodeFrame: MIB,
    NodeOrder: KIB,
    NodeToken: 16 * KIB,
    CapacityFrame: 64 * MIB,
    AgentMessage: 64 * MIB,
    CoordinatorMessage: 4 * MIB,
    Opening: KIB,
    PageAnswer: 4 * KIB,
    TokenRequest: KIB,
    TokenAnswer: 8 * KIB,
}

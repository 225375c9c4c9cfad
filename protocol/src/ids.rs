//! Identities. Each is a type of its own, so that one can never stand where another is meant.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not a name: {cause} (a name is 1 to {max} of a-z, 0-9 and '-'{dots}, and starts and ends with a letter or digit)", max = MAX_NAME, dots = if *.dots { " or '.'" } else { "" })]
pub struct BadName {
    /// What the name was for.
    pub kind: &'static str,
    /// The text that was given.
    pub text: String,
    /// What is wrong with it.
    pub cause: &'static str,
    /// Whether dots are allowed.
    pub dots: bool,
}

/// The longest name, as Kubernetes' DNS labels.
pub const MAX_NAME: usize = 63;

fn check_name(kind: &'static str, text: &str, dots: bool) -> Result<(), BadName> {
    let bad = |cause| Err(BadName { kind, text: text.chars().take(80).collect(), cause, dots });
    if text.is_empty() {
        return bad("it is empty");
    }
    if text.len() > MAX_NAME {
        return bad("it is too long");
    }
    let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.bytes().all(|c| letter(c) || c == b'-' || (dots && c == b'.')) {
        return bad("it has a character that is not allowed");
    }
    if !letter(text.as_bytes()[0]) || !letter(text.as_bytes()[text.len() - 1]) {
        return bad("it starts or ends with a '-' or '.'");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, dots: $dots:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks a text and makes it a name.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
                check_name($kind, text.as_ref(), $dots)?;
                Ok(Self(text.as_ref().into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }

        impl Encode for $name {
            fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
                self.as_str().encode(e)
            }
        }

        // Bytes from the wire are held to the same rule as text from a person.
        impl<C> Decode<C> for $name {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                d: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let text = String::decode(d)?;
                Self::new(&text).map_err(|e| bincode::error::DecodeError::OtherString(e.to_string()))
            }
        }
        bincode::impl_borrow_decode!($name);
    };
}

name!(
    /// A cluster of the federation, such as `eu-west-1`.
    ClusterName, "cluster", dots: false);
name!(
    /// A node within its cluster.
    NodeName, "node", dots: true);
name!(
    /// A geographic region, such as `eu-west`.
    Region, "region", dots: false);
name!(
    /// A tenant's space of workload names.
    Namespace, "namespace", dots: false);
name!(
    /// A workload's name within its namespace.
    WorkloadName, "workload", dots: true);
name!(
    /// A group of like members within a workload, such as `workers`.
    GroupName, "group", dots: false);
name!(
    /// A resource pool.
    PoolName, "pool", dots: true);
name!(
    /// A data location: a set of data that workloads read.
    DataName, "data location", dots: true);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A coordinator replica's Raft id. Never 0, never used again after its disk was wiped.
    ReplicaId(u64));
number!(
    /// A leader's reign: the Raft term in which it was elected. An agent refuses commands of an epoch below the highest it saw.
    Epoch(u64));
number!(
    /// A position in the Raft log; also a resource's version in the API.
    LogIndex(u64));
number!(
    /// Numbers the commands to one cluster, from 1, growing. The agent carries each out at most once.
    CommandNumber(u64));
number!(
    /// Which try of a workload, from 1, growing.
    AttemptNumber(u32));
number!(
    /// Milliseconds since 1970-01-01T00:00:00Z. For people and records; never for deadlines.
    UnixMs(u64));
number!(
    /// Milliseconds on one process's monotonic clock. For deadlines; means nothing to another process.
    MonotonicMs(u64));

impl MonotonicMs {
    /// Time passed since `earlier`, in ms; 0 where `earlier` is later.
    pub fn since(self, earlier: MonotonicMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment plus `ms`.
    pub fn plus(self, ms: u64) -> MonotonicMs {
        MonotonicMs(self.0.saturating_add(ms))
    }
}

/// A workload's unique id, made by whoever submits it: submitting the same id again is the same submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Uid(pub u128);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).fmt(f)
    }
}

impl FromStr for Uid {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Ok(Self(uuid::Uuid::parse_str(text)?.as_u128()))
    }
}

impl Serialize for Uid {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Tells one life of an agent's data directory from another: a wiped agent is a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
pub struct Incarnation(pub u128);

/// A workload's place in the API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
pub struct WorkloadKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name there.
    pub name: WorkloadName,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One try of one workload. At most one is live in the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
pub struct AttemptId {
    /// The workload.
    pub workload: Uid,
    /// Its try, from 1.
    pub number: AttemptNumber,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.workload, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, number) = text.rsplit_once('-').ok_or("an attempt is UID-NUMBER")?;
        Ok(Self {
            workload: uid.parse().map_err(|e| format!("{uid:?} is not a uid: {e}"))?,
            number: AttemptNumber(number.parse().map_err(|e| format!("{number:?} is not a number: {e}"))?),
        })
    }
}

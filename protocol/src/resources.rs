//! Amounts of cpu, memory and GPU: integers with their unit in the name, and the texts people write for them.

use std::cmp::Reverse;
use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize, de};

/// What a member of a group asks for, or what a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// MiB of memory.
    pub memory_mib: u64,
    /// Thousandths of a GPU; 1000 is one whole device.
    pub gpu_milli: u64,
}

impl Resources {
    /// Nothing.
    pub const ZERO: Resources = Resources { cpu_milli: 0, memory_mib: 0, gpu_milli: 0 };

    /// Whether `self` is at most `room` in every resource.
    pub fn fits_in(&self, room: &Resources) -> bool {
        self.cpu_milli <= room.cpu_milli && self.memory_mib <= room.memory_mib && self.gpu_milli <= room.gpu_milli
    }

    /// `self` less `other`, each resource no lower than 0.
    pub fn saturating_sub(&self, other: &Resources) -> Resources {
        Resources {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            gpu_milli: self.gpu_milli.saturating_sub(other.gpu_milli),
        }
    }

    /// `self`, `count` times.
    pub fn times(&self, count: u64) -> Resources {
        Resources {
            cpu_milli: self.cpu_milli.saturating_mul(count),
            memory_mib: self.memory_mib.saturating_mul(count),
            gpu_milli: self.gpu_milli.saturating_mul(count),
        }
    }

    /// Whole GPUs, rounded up.
    pub fn gpus(&self) -> u64 {
        self.gpu_milli.div_ceil(1000)
    }
}

/// The order in which the groups of a gang take their room, the hardest to place first: by it the planner and the agents come to the
/// same devices for shares.
pub fn packing_order(each: impl Iterator<Item = Resources>) -> Vec<usize> {
    let each: Vec<Resources> = each.collect();
    let mut order: Vec<usize> = (0..each.len()).collect();
    order.sort_by_key(|&g| {
        let each = each[g];
        (Reverse(each.gpu_milli), Reverse(each.memory_mib), Reverse(each.cpu_milli), g)
    });
    order
}

impl Add for Resources {
    type Output = Resources;
    fn add(self, other: Resources) -> Resources {
        Resources {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            gpu_milli: self.gpu_milli.saturating_add(other.gpu_milli),
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Resources) {
        *self = *self + other;
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cpu, {}", Cpu(self.cpu_milli), Memory(self.memory_mib))?;
        if self.gpu_milli > 0 { write!(f, ", {} gpu", Gpus(self.gpu_milli)) } else { Ok(()) }
    }
}

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no amount of {of}: write {expected}")]
pub struct BadAmount {
    /// What was measured.
    pub of: &'static str,
    /// The text that was given.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

/// Cores, in thousandths: `4`, `0.5` or `500m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Cpu(pub u64);

/// Memory in MiB: `16Gi`, `512Mi`, `1Ti`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Memory(pub u64);

/// Stored data in MiB: `800Gi`, `2Ti`. People write stores larger than memories, so that these have a type of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DataSize(pub u64);

/// GPUs, in thousandths of a device: `8`, or `0.5` for a share of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Gpus(pub u64);

/// Money in thousandths of the fleet's currency: `400`, or `0.5`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Money(pub u64);

/// A span of time in ms: `30s`, `5m`, `6h`, `2d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Span(pub u64);

/// Parses a decimal number into thousandths; more than three decimals are refused, not rounded.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 3 || (text.contains('.') && part.is_empty())
    {
        return None;
    }
    let part: u64 = if part.is_empty() { 0 } else { format!("{part:0<3}").parse().ok()? };
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

fn show_thousandths(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        return (milli / 1000).to_string();
    }
    format!("{}.{:03}", milli / 1000, milli % 1000).trim_end_matches('0').to_owned()
}

impl FromStr for Cpu {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let milli = match text.strip_suffix('m') {
            Some(milli) if milli.bytes().all(|c| c.is_ascii_digit()) => milli.parse().ok(),
            Some(_) => None,
            None => thousandths(text),
        };
        milli.map(Cpu).ok_or(BadAmount { of: "cpu", text: text.into(), expected: "cores such as 4, 0.5 or 500m" })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&show_thousandths(self.0))
    }
}

/// Units of [`Memory`] and [`DataSize`] in MiB.
const UNITS: [(&str, u64); 4] = [("Mi", 1), ("Gi", 1024), ("Ti", 1024 * 1024), ("Pi", 1024 * 1024 * 1024)];

/// An amount with one of these units, in MiB.
fn mib(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, mib)| {
        let milli = thousandths(text.strip_suffix(unit)?)?.checked_mul(*mib)?;
        // Rounded up: a request is never made smaller than it was written.
        Some(milli.div_ceil(1000))
    })
}

impl FromStr for DataSize {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        mib(text, &UNITS).map(DataSize).ok_or(BadAmount {
            of: "data",
            text: text.into(),
            expected: "a number and its unit, such as 800Gi or 2Ti",
        })
    }
}

impl fmt::Display for DataSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, mib) =
            UNITS.iter().rev().find(|(_, mib)| self.0 >= *mib && self.0.is_multiple_of(*mib)).unwrap_or(&UNITS[0]);
        f.pad(&format!("{}{unit}", self.0 / mib))
    }
}

impl FromStr for Memory {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        mib(text, &UNITS[..3]).map(Memory).ok_or(BadAmount {
            of: "memory",
            text: text.into(),
            expected: "a number and its unit, such as 512Mi, 16Gi or 1Ti",
        })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0 && self.0.is_multiple_of(1024) {
            return f.pad(&format!("{}Gi", self.0 / 1024));
        }
        f.pad(&format!("{}Mi", self.0))
    }
}

impl FromStr for Gpus {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        thousandths(text).map(Gpus).ok_or(BadAmount { of: "gpus", text: text.into(), expected: "devices, such as 8" })
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&show_thousandths(self.0))
    }
}

impl FromStr for Money {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        thousandths(text).map(Money).ok_or(BadAmount {
            of: "money",
            text: text.into(),
            expected: "a number with at most three decimals, such as 400 or 2.5",
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&show_thousandths(self.0))
    }
}

impl FromStr for Span {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        humantime::parse_duration(text).ok().and_then(|d| u64::try_from(d.as_millis()).ok()).map(Span).ok_or(
            BadAmount { of: "time", text: text.into(), expected: "a number and its unit, such as 30s, 5m or 6h" },
        )
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(std::time::Duration::from_millis(self.0)).fmt(f)
    }
}

macro_rules! amount_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        // The amount's own error says what to write.
                        f.write_str("an amount")
                    }
                    fn visit_str<E: de::Error>(self, v: &str) -> Result<$name, E> {
                        v.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, v: u64) -> Result<$name, E> {
                        self.visit_str(&v.to_string())
                    }
                    fn visit_i64<E: de::Error>(self, v: i64) -> Result<$name, E> {
                        self.visit_str(&v.to_string())
                    }
                    fn visit_f64<E: de::Error>(self, v: f64) -> Result<$name, E> {
                        self.visit_str(&v.to_string())
                    }
                }
                d.deserialize_any(Visitor)
            }
        }
    };
}
amount_serde!(Cpu);
amount_serde!(Memory);
amount_serde!(DataSize);
amount_serde!(Gpus);
amount_serde!(Money);
amount_serde!(Span);

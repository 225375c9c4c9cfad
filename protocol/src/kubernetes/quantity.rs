//! Kubernetes' amounts (`1500m`, `0.5`, `16Gi`, `2e3`), read exactly: integers and powers, never floats. What a request
//! is rounded to is never less than it, what a node has never more.

use std::str::FromStr;

use serde_json::Value;

/// Bytes of a MiB.
const MIB: u128 = 1 << 20;
/// More than this of anything is a mistake: a million million cores, MiB or GPUs. It also keeps every sum below 2^64.
const MOST: u128 = 1 << 40;
/// The longest text that is read.
const MAX_TEXT: usize = 64;

/// An amount: `digits` times 10 to the power of `tens`, times 2 to the power of `twos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    digits: u128,
    tens: i32,
    twos: u32,
}

/// Why a text is no amount that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// It is written in another way.
    #[error("{0:?} is no quantity: write a number such as 4, 500m or 16Gi")]
    Text(String),
    /// Below 0.
    #[error("{0:?} is negative")]
    Negative(String),
    /// More than anybody has.
    #[error("it is more than any machine has")]
    TooLarge,
}

/// Which way an amount between two whole units goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// For what is asked for.
    Up,
    /// For what there is.
    Down,
}

impl Quantity {
    /// As JSON has it: a text or a number. None: nothing is there.
    pub fn of_json(value: Option<&Value>) -> Result<Option<Self>, BadQuantity> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some),
            Some(Value::Number(number)) => number.to_string().parse().map(Some),
            Some(other) => Err(BadQuantity::Text(other.to_string().chars().take(40).collect())),
        }
    }

    /// Thousandths.
    pub fn milli(self, round: Round) -> Result<u64, BadQuantity> {
        self.in_units(1000, 1, round)
    }

    /// MiB, of an amount in bytes.
    pub fn mib(self, round: Round) -> Result<u64, BadQuantity> {
        self.in_units(1, MIB, round)
    }

    /// Whole ones.
    pub fn whole(self, round: Round) -> Result<u64, BadQuantity> {
        self.in_units(1, 1, round)
    }

    /// The amount times `multiplier` over `divisor`.
    fn in_units(self, multiplier: u128, divisor: u128, round: Round) -> Result<u64, BadQuantity> {
        if self.digits == 0 {
            return Ok(0);
        }
        let power = |tens: i32| 10u128.checked_pow(u32::try_from(tens.max(0)).unwrap_or(u32::MAX));
        let above = 1u128
            .checked_shl(self.twos)
            .and_then(|twos| self.digits.checked_mul(twos))
            .and_then(|n| n.checked_mul(multiplier))
            .and_then(|n| n.checked_mul(power(self.tens)?))
            .ok_or(BadQuantity::TooLarge)?;
        // A divisor beyond 128 bits leaves less than one unit.
        let below = power(self.tens.saturating_neg()).and_then(|n| n.checked_mul(divisor)).unwrap_or(u128::MAX);
        let units = match round {
            Round::Up => above.div_ceil(below),
            Round::Down => above / below,
        };
        if units > MOST { Err(BadQuantity::TooLarge) } else { u64::try_from(units).map_err(|_| BadQuantity::TooLarge) }
    }
}

/// Suffixes with their power of 2 and of 10.
const SUFFIXES: [(&str, u32, i32); 16] = [
    ("", 0, 0),
    ("Ki", 10, 0),
    ("Mi", 20, 0),
    ("Gi", 30, 0),
    ("Ti", 40, 0),
    ("Pi", 50, 0),
    ("Ei", 60, 0),
    ("n", 0, -9),
    ("u", 0, -6),
    ("m", 0, -3),
    ("k", 0, 3),
    ("M", 0, 6),
    ("G", 0, 9),
    ("T", 0, 12),
    ("P", 0, 15),
    ("E", 0, 18),
];

impl FromStr for Quantity {
    type Err = BadQuantity;
    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::Text(text.chars().take(MAX_TEXT).collect());
        if text.len() > MAX_TEXT || !text.is_ascii() {
            return Err(bad());
        }
        let (sign, rest) = match text.strip_prefix(['+', '-']) {
            Some(rest) => (&text[..1], rest),
            None => ("", text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.contains('.') || whole.is_empty() && part.is_empty() {
            return Err(bad());
        }
        let part = part.trim_end_matches('0');
        let digits = format!("{whole}{part}");
        let digits = digits.trim_start_matches('0');
        // More digits than 128 bits hold are no amount of anything.
        let digits = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| BadQuantity::TooLarge)? };
        let (twos, tens) = suffix_powers(suffix).ok_or_else(bad)?;
        if sign == "-" && digits != 0 {
            return Err(BadQuantity::Negative(text.to_owned()));
        }
        let places = i32::try_from(part.len()).map_err(|_| bad())?;
        Ok(Self { digits, tens: tens - places, twos })
    }
}

fn suffix_powers(suffix: &str) -> Option<(u32, i32)> {
    if let Some((_, twos, tens)) = SUFFIXES.iter().find(|(known, ..)| *known == suffix) {
        return Some((*twos, *tens));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let tens: i32 = exponent.parse().ok()?;
    (-99..=99).contains(&tens).then_some((0, tens))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_exact_and_round_to_the_safe_side() {
        let cpu = |text| (read(text).milli(Round::Up).unwrap(), read(text).milli(Round::Down).unwrap());
        assert_eq!(cpu("4"), (4000, 4000));
        assert_eq!(cpu("0.5"), (500, 500));
        assert_eq!(cpu(".5"), (500, 500));
        assert_eq!(cpu("1."), (1000, 1000));
        assert_eq!(cpu("1500m"), (1500, 1500));
        assert_eq!(cpu("1u"), (1, 0));
        assert_eq!(cpu("100000001n"), (101, 100));
        assert_eq!(cpu("0.1"), (100, 100), "no float's 0.1");
        assert_eq!(cpu("2e1"), (20_000, 20_000));
        assert_eq!(cpu("2E-3"), (2, 2));
        assert_eq!(cpu("1k"), (1_000_000, 1_000_000));
        assert_eq!(cpu("1e-40"), (1, 0));
        assert_eq!(cpu("-0"), (0, 0));
        let memory = |text| (read(text).mib(Round::Up).unwrap(), read(text).mib(Round::Down).unwrap());
        assert_eq!(memory("16Gi"), (16_384, 16_384));
        assert_eq!(memory("1.5Gi"), (1536, 1536));
        assert_eq!(memory("1"), (1, 0));
        assert_eq!(memory("1048577"), (2, 1));
        assert_eq!(memory("100M"), (96, 95));
        assert_eq!(memory("2113537068Ki"), (2_064_002, 2_064_001));
        assert_eq!(memory("128974848000m"), (123, 123), "Kubernetes allows thousandths of bytes");
        assert_eq!(memory("1E"), (953_674_316_407, 953_674_316_406));
        assert_eq!(read("8").whole(Round::Down).unwrap(), 8);
        assert_eq!(read("1500m").whole(Round::Up).unwrap(), 2);
    }

    #[test]
    fn nonsense_is_told_and_large_amounts_are_refused_before_they_overflow() {
        for text in ["", "Gi", ".", "1.2.3", "4 cores", "1gi", "1e", "1e100", "0x10", "1_000", "٤", "--1", "1Gi "] {
            assert!(matches!(text.parse::<Quantity>(), Err(BadQuantity::Text(_))), "{text:?}");
        }
        assert_eq!("-1".parse::<Quantity>(), Err(BadQuantity::Negative("-1".into())));
        assert_eq!("9".repeat(40).parse::<Quantity>(), Err(BadQuantity::TooLarge));
        assert!(matches!("9".repeat(65).parse::<Quantity>(), Err(BadQuantity::Text(_))));
        for text in ["1e30", "16Ei", "99999999999999999999Ei", "1e99"] {
            assert_eq!(read(text).milli(Round::Up), Err(BadQuantity::TooLarge), "{text}");
        }
    }
}

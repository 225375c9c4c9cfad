//! What is left of a device, worth how much to the mix? The cutting-stock problem's prices.
//!
//! Devices are the stock, shares the pieces. The linear relaxation (Gilmore and Gomory, 1961) finds how the mix's shares are cut
//! from the fewest devices, and with it a price for each size: what one more piece of it would cost in devices. A remainder is
//! worth the best pieces that fit into it. So 190 thousandths that nothing fits into are worth nothing, and half a device is worth
//! half a device where pairs of halves are asked for.
//!
//! Fixed-point integers. Prices need not be exact to be safe: they order places, and any prices give some order.

/// The most sizes that are told apart: those that take most room. Others get what the prices of these make of them.
pub(crate) const MOST_SIZES: usize = 32;
/// The worth of a whole device.
pub(crate) const WHOLE: u32 = 1_000_000;
/// The most rounds of the simplex method; dozens are usual.
const MOST_ROUNDS: usize = 500;
const DEVICE: usize = 1000;
/// One, in fixed point.
const ONE: i128 = 1 << 40;
/// Prices are good enough when no pattern is worth more than a device and this much.
const CLOSE: i128 = ONE >> 20;

/// The worth of `r` thousandths left on a device, for r from 0 to 1000, in millionths of a device.
pub(crate) type Worth = Vec<u32>;

/// Works out the worth of remainders from `(size, pieces asked for)`: sizes from 1 to 1000, each once.
pub(crate) fn worth(asked: &[(u16, u64)]) -> Worth {
    let mut asked: Vec<(usize, u64)> =
        asked.iter().filter(|(s, n)| (1..=1000).contains(s) && *n > 0).map(|(s, n)| (usize::from(*s), *n)).collect();
    asked.sort_by_key(|(size, pieces)| (std::cmp::Reverse(u128::from(*pieces) * *size as u128), *size));
    asked.truncate(MOST_SIZES);
    asked.sort_unstable();
    if asked.is_empty() {
        return (0..=1000).map(|r| r * (WHOLE / 1000)).collect();
    }
    let sizes: Vec<usize> = asked.iter().map(|(size, _)| *size).collect();
    let mut simplex = Simplex::new(&sizes, &asked.iter().map(|(_, pieces)| *pieces).collect::<Vec<_>>());
    let mut best = Fill::new(&sizes, &simplex.prices());
    for _ in 0..MOST_ROUNDS {
        if best.value[DEVICE] <= ONE + CLOSE || !simplex.enter(&best.pattern(&sizes)) {
            break;
        }
        best = Fill::new(&sizes, &simplex.prices());
    }
    let whole = best.value[DEVICE].max(1);
    let worth = |value: &i128| u32::try_from(value * i128::from(WHOLE) / whole).unwrap_or(WHOLE);
    best.value.iter().map(worth).collect()
}

/// The dearest filling of each remainder.
struct Fill {
    value: Vec<i128>,
    last: Vec<Option<usize>>,
}

impl Fill {
    fn new(sizes: &[usize], prices: &[i128]) -> Self {
        let mut fill = Self { value: vec![0; DEVICE + 1], last: vec![None; DEVICE + 1] };
        let step = sizes.iter().fold(DEVICE, |a, b| gcd(a, *b));
        for room in 1..=DEVICE {
            (fill.value[room], fill.last[room]) = (fill.value[room - 1], None);
            if !room.is_multiple_of(step) {
                continue;
            }
            for (i, size) in sizes.iter().enumerate().take_while(|(_, size)| **size <= room) {
                let value = fill.value[room - size] + prices[i];
                if value > fill.value[room] {
                    (fill.value[room], fill.last[room]) = (value, Some(i));
                }
            }
        }
        fill
    }

    /// How often each size is cut from a whole device.
    fn pattern(&self, sizes: &[usize]) -> Vec<i128> {
        let mut pattern = vec![0; sizes.len()];
        let mut room = DEVICE;
        while room > 0 {
            match self.last[room] {
                Some(i) => {
                    pattern[i] += 1;
                    room -= sizes[i];
                }
                None => room -= 1,
            }
        }
        pattern
    }
}

/// The revised simplex method over patterns, from one pattern for each size.
struct Simplex {
    /// Inverse of the matrix of the patterns in use.
    inverse: Vec<Vec<i128>>,
    /// How many devices are cut by each pattern in use.
    used: Vec<i128>,
}

impl Simplex {
    fn new(sizes: &[usize], asked: &[u64]) -> Self {
        let all: u128 = asked.iter().map(|a| u128::from(*a)).sum();
        let mut simplex = Self { inverse: vec![vec![0; sizes.len()]; sizes.len()], used: vec![] };
        for (i, (size, pieces)) in sizes.iter().zip(asked).enumerate() {
            let cut = (DEVICE / size) as i128;
            simplex.inverse[i][i] = ONE / cut;
            let part = (u128::from(*pieces) << 40) / all.max(1);
            simplex.used.push(part as i128 / cut);
        }
        simplex
    }

    fn prices(&self) -> Vec<i128> {
        (0..self.used.len()).map(|m| self.inverse.iter().map(|row| row[m]).sum::<i128>().max(0)).collect()
    }

    /// Brings a pattern in for the one that it makes superfluous first; false where there is none.
    fn enter(&mut self, pattern: &[i128]) -> bool {
        let rate: Vec<i128> =
            self.inverse.iter().map(|row| row.iter().zip(pattern).map(|(b, a)| b * a).sum()).collect();
        let leaves = (0..rate.len())
            .filter(|i| rate[*i] > CLOSE)
            .min_by(|i, j| (self.used[*i] * rate[*j]).cmp(&(self.used[*j] * rate[*i])).then(i.cmp(j)));
        let Some(leaves) = leaves else { return false };
        let amount = (self.used[leaves] * ONE) / rate[leaves];
        let pivot: Vec<i128> = self.inverse[leaves].iter().map(|b| b * ONE / rate[leaves]).collect();
        for i in (0..rate.len()).filter(|i| *i != leaves) {
            self.used[i] = (self.used[i] - amount * rate[i] / ONE).max(0);
            for (b, p) in self.inverse[i].iter_mut().zip(&pivot) {
                *b -= rate[i] * p / ONE;
            }
        }
        (self.used[leaves], self.inverse[leaves]) = (amount, pivot);
        true
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(worth: u32, expected: u32) -> bool {
        worth.abs_diff(expected) < 1_000
    }

    #[test]
    fn remainders_are_worth_what_fits_into_them() {
        let worth = worth(&[(1000, 100), (500, 40), (810, 20)]);
        assert!(near(worth[500], WHOLE / 2) && near(worth[810], WHOLE), "{} {}", worth[500], worth[810]);
        assert!(near(worth[190], 0) && near(worth[499], 0), "nothing fits into them");
        assert!(near(worth[999], WHOLE) && worth[1000] == WHOLE);
    }

    #[test]
    fn pieces_that_fit_beside_large_ones_are_cheap_while_there_are_enough_remainders() {
        let few = worth(&[(810, 100), (190, 10)]);
        assert!(near(few[190], 0), "{}", few[190]);
        let many = worth(&[(810, 10), (190, 1000)]);
        assert!(near(many[190], WHOLE / 5), "{}", many[190]);
    }

    #[test]
    fn worth_never_falls_with_room_and_is_never_above_a_device() {
        let mix: Vec<(u16, u64)> = (1..60).map(|i| ((i * 17) % 1000 + 1, u64::from(i) * 37 % 91 + 1)).collect();
        let worth = worth(&mix);
        assert!(worth.windows(2).all(|w| w[0] <= w[1]) && worth[1000] == WHOLE);
    }

    #[test]
    fn two_pieces_are_never_worth_more_apart_than_their_sum_of_room() {
        let worth = worth(&[(470, 735), (320, 320), (810, 1000), (1000, 4000), (160, 70), (370, 46)]);
        for a in 1..1000 {
            for b in 1..=(1000 - a) {
                assert!(worth[a] + worth[b] <= worth[a + b] + 1, "{a} and {b}");
            }
        }
    }
}

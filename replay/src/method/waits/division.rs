//! What each pool is entitled to of the fleet's GPUs, worked out by the design's four steps in the simplest way and shared with nobody:
//! the measure that every policy is held against. The fourth step, which lends what nobody asks for, is left out: a part beyond a pool's
//! demand can't be used, and would only raise the bar.

/// One pool's side of the division, in GPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Side {
    /// What it is promised where it asks for it.
    pub reservation: f64,
    /// Its part of what is left, relative to others.
    pub share: f64,
    /// What its jobs hold and wait for.
    pub demand: f64,
}

/// What each pool is entitled to of so many GPUs, all pools lending what they do not ask for.
pub fn divide(gpus: f64, sides: &[Side]) -> Vec<f64> {
    let mut parts: Vec<f64> = sides.iter().map(|s| s.demand.min(s.reservation)).collect();
    // What is left goes by share to those that ask for more, until nobody does or nothing is left.
    loop {
        let left = gpus - parts.iter().sum::<f64>();
        let hungry: Vec<usize> = (0..sides.len()).filter(|i| sides[*i].demand - parts[*i] > 1e-9).collect();
        let shares: f64 = hungry.iter().map(|i| sides[*i].share).sum();
        if left <= 1e-9 || shares <= 0.0 {
            return parts;
        }
        // As far as the first of them has enough.
        let step =
            hungry.iter().map(|i| (sides[*i].demand - parts[*i]) / sides[*i].share).fold(left / shares, f64::min);
        hungry.iter().for_each(|i| parts[*i] += step * sides[*i].share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_examples_of_the_design_come_out() {
        let sides = |demands: [f64; 3]| demands.map(|demand| Side { reservation: 20.0, share: 1.0, demand });
        let near = |parts: Vec<f64>, wanted: [f64; 3]| parts.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(divide(100.0, &sides([10.0, 80.0, 80.0])), [10.0, 45.0, 45.0]));
        assert!(near(divide(100.0, &sides([50.0, 80.0, 80.0])), [100.0 / 3.0, 100.0 / 3.0, 100.0 / 3.0]));
        assert!(near(divide(100.0, &sides([0.0, 0.0, 5.0])), [0.0, 0.0, 5.0]));
    }
}

//! Fewer faults that break the same thing: faults are left out, many at a time and then one by one, as long as the same
//! invariant breaks without them. (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002.)

use std::collections::BTreeSet;

use super::{Report, run_without};

/// Most runs that are spent on one seed.
const RUNS: usize = 200;

/// A failing seed with only the faults that it takes.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// Faults that are left out, by number.
    pub without: BTreeSet<usize>,
    /// What came of the seed without them.
    pub report: Report,
    /// Runs that it took.
    pub runs: usize,
}

impl Shrunk {
    /// The faults that are left, each with its time.
    pub fn left(&self) -> Vec<String> {
        let planned = self.report.planned.iter().enumerate().filter(|(number, _)| !self.without.contains(number));
        planned.map(|(_, (at_us, fault))| format!("{fault} at {:.1} s", *at_us as f64 / 1e6)).collect()
    }

    /// The numbers that are left out, as the command line takes them: `0-4,7`.
    pub fn without_text(&self) -> String {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for number in &self.without {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ => runs.push((*number, *number)),
            }
        }
        let text = |(from, to): &(usize, usize)| if from == to { from.to_string() } else { format!("{from}-{to}") };
        runs.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

/// Shrinks a seed that broke an invariant. On the thread that has the planted bug, if there is one.
pub fn shrink(failing: &Report) -> Option<Shrunk> {
    shrink_by(failing, |without| run_without(failing.seed, false, without))
}

fn shrink_by(failing: &Report, run: impl Fn(&BTreeSet<usize>) -> Report) -> Option<Shrunk> {
    let broken = failing.violation.as_ref()?.invariant;
    let mut best = Shrunk { without: BTreeSet::new(), report: failing.clone(), runs: 0 };
    // What came after the violation did not cause it.
    let end_us = failing.violation.as_ref()?.at_us;
    let late = failing.planned.iter().enumerate().filter(|(_, (at, _))| *at > end_us).map(|(number, _)| number);
    best.without.extend(late);
    let mut piece = failing.planned.len().div_ceil(2).max(1);
    loop {
        let left: Vec<usize> = (0..failing.planned.len()).filter(|n| !best.without.contains(n)).collect();
        let before = best.without.len();
        for some in left.chunks(piece) {
            if best.runs >= RUNS {
                return Some(best);
            }
            let without: BTreeSet<usize> = best.without.iter().chain(some).copied().collect();
            best.runs += 1;
            let report = run(&without);
            if report.violation.as_ref().is_some_and(|v| v.invariant == broken) {
                (best.without, best.report) = (without, report);
            }
        }
        let shrank = best.without.len() > before;
        match piece {
            1 if !shrank => return Some(best),
            1 => {}
            _ => piece = piece.div_ceil(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Violation;

    fn report(invariant: Option<&'static str>) -> Report {
        let violation =
            invariant.map(|invariant| Violation { invariant, what: String::new(), at_us: 90, story: vec![] });
        let planned = (0..20).map(|n| (n * 5, format!("Fault{n}"))).collect();
        Report { seed: 1, hash: 0, virtual_us: 0, faults: 0, events: 0, violation, planned }
    }

    #[test]
    fn only_the_faults_that_it_takes_are_left() {
        let needed = [3, 11];
        let run = |without: &BTreeSet<usize>| match needed.iter().any(|n| without.contains(n)) {
            // Another thing breaks: not the one that is looked for.
            true => report(Some("another")),
            false => report(Some("it")),
        };
        let shrunk = shrink_by(&report(Some("it")), run).expect("it has a violation");
        assert_eq!(shrunk.left(), ["Fault3 at 0.0 s", "Fault11 at 0.0 s"]);
        assert_eq!(shrunk.without_text(), "0-2,4-10,12-19");
        assert!(shrunk.runs < 60, "{}", shrunk.runs);
        assert!(shrink_by(&report(None), run).is_none());
    }
}

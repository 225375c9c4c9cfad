//! What came of runs to saturation: a table, the GPUs given out as they were asked for, and who was placed.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::plot::{Line, lines};
use crate::fleet::Pod;
use crate::method::saturation::Outcome;
use crate::policy::Name;

/// Pods that ask for the same GPUs: devices, and thousandths of each.
pub type Kind = (u16, u16);

/// How many pods of each kind were placed, and how many came.
pub fn by_kind(accepted: &BTreeMap<Pod, (u64, u64)>) -> BTreeMap<Kind, (u64, u64)> {
    let mut kinds: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
    for (pod, (placed, came)) in accepted {
        let kind = kinds.entry((pod.devices, pod.milli)).or_default();
        *kind = (kind.0 + placed, kind.1 + came);
    }
    kinds
}

/// A report's files, each with its name and content.
pub fn saturation(ran: &[(Name, Outcome)]) -> Vec<(&'static str, String)> {
    let points = |outcome: &Outcome| (1..).map(f64::from).zip(outcome.curve.iter().copied()).collect();
    let drawn: Vec<Line> =
        ran.iter().map(|(name, outcome)| Line { name: name.to_string(), points: points(outcome) }).collect();
    let plot = lines("GPUs given out", "asked for, % of the fleet's GPUs", "%", &drawn);
    let end: Vec<Line> = drawn
        .iter()
        .map(|l| Line { points: l.points.iter().filter(|p| p.0 >= 85.0).copied().collect(), ..l.clone() })
        .collect();
    let end = lines("GPUs given out, near saturation", "asked for, % of the fleet's GPUs", "%", &end);
    vec![("allocation.svg", plot), ("saturation.svg", end), ("report.md", table(ran))]
}

fn table(ran: &[(Name, Outcome)]) -> String {
    let mut text = String::from("# GPUs given out at saturation\n\n| policy | at 100% | at 130% |\n|---|---|---|\n");
    for (name, outcome) in ran {
        let _ = writeln!(text, "| {name} | {:.2}% | {:.2}% |", outcome.at_100, outcome.at_130);
    }
    text.push_str(
        "\n![GPUs given out](allocation.svg)\n\n![near saturation](saturation.svg)\n\n# Who was placed\n\n| asks for |",
    );
    let names: Vec<String> = ran.iter().map(|(name, _)| name.to_string()).collect();
    let _ = writeln!(text, " came | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let kinds: Vec<_> = ran.iter().map(|(_, outcome)| by_kind(&outcome.accepted)).collect();
    for (kind, (_, came)) in kinds.first().into_iter().flatten() {
        let part = |of: &BTreeMap<Kind, (u64, u64)>| {
            of.get(kind).map_or("-".into(), |(placed, came)| format!("{:.1}%", 100.0 * *placed as f64 / *came as f64))
        };
        let asks = match kind {
            (0, _) => "no GPU".into(),
            (1, milli) if *milli < 1000 => format!("{milli} thousandths of a GPU"),
            (devices, _) => format!("GPUs: {devices}"),
        };
        let _ = writeln!(text, "| {asks} | {came} | {} |", kinds.iter().map(part).collect::<Vec<_>>().join(" | "));
    }
    text
}

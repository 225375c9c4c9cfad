//! How well the planner packs: GPUs given out at saturation, by list and policy (`replay::method::saturation`), who is placed beside
//! FGD, what a split into clusters costs, and the same on generated fleets. Lists that are not on this machine are skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use indicatif::ProgressBar;
use replay::fleet::{NodeRow, Pod, Split};
use replay::generate::make;
use replay::method::saturation::{Clusters, Outcome, run as saturate};
use replay::policy::Name;
use replay::report::{Kind, Range, by_kind, ranges};
use replay::trace::{Table, nodes, pods};
use serde_json::{Map, Value, json};

use crate::result::{Figures, load_average, table};
use crate::workers::each;

/// The lists, each with the most that packing its shares onto whole devices could give out, cpu left aside, in percent.
const LISTS: [(&str, f64); 3] = [("default", 96.32), ("gpuspec10", 96.31), ("multigpu20", 96.82)];
/// Seeds of the first table, and others that nothing was looked at with before.
const SEEDS: std::ops::Range<u64> = 0..10;
const HELD_OUT: std::ops::Range<u64> = 1000..1005;
/// Kinds with fewer pods than this in all runs say little by themselves; they are counted together.
const FEW: u64 = 100;

struct Input {
    nodes: Vec<NodeRow>,
    pods: Vec<Pod>,
}

/// One run to do.
#[derive(Clone, Copy)]
struct Run {
    input: usize,
    clusters: Clusters,
    policy: Name,
    seed: u64,
}

/// Where the traces are: beside the project, or where `TIDEWATER_TRACES` says.
pub(crate) fn traces(folder: &str) -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces");
    std::env::var_os("TIDEWATER_TRACES").map_or_else(beside, PathBuf::from).join(folder)
}

fn read(list: &str) -> Result<Option<Input>> {
    let folder = traces("openb");
    let files = [folder.join("openb_node_list_gpu_node.csv"), folder.join(format!("openb_pod_list_{list}.csv"))];
    if files.iter().any(|f| !f.exists()) {
        eprintln!("skipped: the list {list} is not in {} (see TIDEWATER_TRACES)", folder.display());
        return Ok(None);
    }
    Ok(Some(Input { nodes: nodes(&Table::read(&files[0])?)?, pods: pods(&Table::read(&files[1])?)? }))
}

/// Does every run, on every core.
fn all(inputs: &[Input], runs: &[Run]) -> Result<Vec<Outcome>> {
    let bar = ProgressBar::new(runs.len() as u64);
    let done = each(runs.len(), |at| {
        let run = runs[at];
        let Input { nodes, pods } = &inputs[run.input];
        let outcome = saturate(nodes, pods, run.clusters, run.policy, run.seed, |_| {});
        bar.inc(1);
        Ok(outcome?)
    });
    bar.finish_and_clear();
    done
}

/// Lowest, mean, highest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    (values.iter().copied().fold(f64::INFINITY, f64::min), mean, values.iter().copied().fold(0.0, f64::max))
}

fn shown((low, mean, high): (f64, f64, f64)) -> Value {
    let round = |v: f64| (v * 100.0).round() / 100.0;
    json!({ "mean": round(mean), "low": round(low), "high": round(high) })
}

/// The part of pods placed, by kind, over all runs.
fn placed(outcomes: &[&Outcome]) -> BTreeMap<Kind, (u64, u64)> {
    let mut all: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
    for outcome in outcomes {
        for (kind, (placed, came)) in by_kind(&outcome.accepted) {
            let sum = all.entry(kind).or_default();
            *sum = (sum.0 + placed, sum.1 + came);
        }
    }
    all
}

/// How often each kind is placed by ours for each time that FGD places it; kinds that hardly come are one.
fn beside_fgd(ours: &[&Outcome], fgd: &[&Outcome]) -> (f64, Map<String, Value>) {
    let (ours, fgd) = (placed(ours), placed(fgd));
    let mut ratios = Map::new();
    let (mut lowest, mut few) = (f64::INFINITY, (0u64, 0u64));
    let mut note = |name: String, ours: u64, fgd: u64, came: u64| {
        let ratio = ours as f64 / fgd.max(1) as f64;
        lowest = lowest.min(ratio);
        let round = |v: f64| (v * 1000.0).round() / 1000.0;
        let part = |placed: u64| round(placed as f64 / came.max(1) as f64);
        ratios.insert(name, json!({ "came": came, "ours": part(ours), "fgd": part(fgd), "ratio": round(ratio) }));
    };
    let mut few_came = 0;
    for (kind, (placed, came)) in &ours {
        let theirs = fgd.get(kind).map_or(0, |f| f.0);
        if *came < FEW {
            few = (few.0 + placed, few.1 + theirs);
            few_came += came;
            continue;
        }
        note(format!("{}x{}", kind.0, kind.1), *placed, theirs, *came);
    }
    if few_came > 0 {
        note("others".into(), few.0, few.1, few_came);
    }
    (lowest, ratios)
}

/// Measures; with `save`, the plot goes beside the figures.
pub fn run(quick: bool, save: bool) -> Result<Figures> {
    let load_before = load_average();
    let mut rows = table(&["fleet", "policy", "at 100%", "at 130%", "range", "of the distance from FGD to the bound"]);
    let mut json = Map::new();
    let mut drawn: Vec<Range> = vec![];
    let seeds = if quick { 0..1 } else { SEEDS };
    let mut lists = Map::new();
    for (list, bound) in LISTS {
        let Some(input) = read(list)? else { continue };
        let inputs = [input];
        let one = |policy, seed| Run { input: 0, clusters: Clusters::ONE, policy, seed };
        let policies = if quick { &Name::ALL[..2] } else { &Name::ALL[..] };
        let mut runs: Vec<Run> = policies.iter().flat_map(|p| seeds.clone().map(|seed| one(*p, seed))).collect();
        let first = runs.len();
        if !quick {
            runs.extend(HELD_OUT.flat_map(|seed| [one(Name::Tidewater, seed), one(Name::Fgd, seed)]));
        }
        let outcomes = all(&inputs, &runs)?;
        let of = |policy: Name, range: std::ops::Range<usize>| -> Vec<&Outcome> {
            range.filter(|i| runs[*i].policy == policy).map(|i| &outcomes[i]).collect()
        };
        let at_130 = |o: &[&Outcome]| spread(&o.iter().map(|o| o.at_130).collect::<Vec<_>>());
        let at_100 = |o: &[&Outcome]| spread(&o.iter().map(|o| o.at_100).collect::<Vec<_>>());
        let fgd = at_130(&of(Name::Fgd, 0..first)).1;
        let closed = |mean: f64, fgd: f64| ((mean - fgd) / (bound - fgd) * 1000.0).round() / 1000.0;
        let mut by_policy = Map::new();
        for policy in policies {
            let ran = of(*policy, 0..first);
            let (all, once) = (at_130(&ran), at_100(&ran));
            let part = (*policy == Name::Tidewater).then(|| format!("{:.0}%", 100.0 * closed(all.1, fgd)));
            rows.add_row([
                list.into(),
                policy.to_string(),
                format!("{:.2}", once.1),
                format!("{:.2}", all.1),
                format!("{:.2} to {:.2}", all.0, all.2),
                part.unwrap_or_default(),
            ]);
            drawn.push(Range { name: list.into(), series: policy.to_string(), low_mean_high: all });
            by_policy.insert(policy.to_string(), json!({ "at_100": shown(once), "at_130": shown(all) }));
        }
        let (lowest, kinds) = beside_fgd(&of(Name::Tidewater, 0..first), &of(Name::Fgd, 0..first));
        let ours = at_130(&of(Name::Tidewater, 0..first)).1;
        let mut entry = json!({
            "bound": bound, "policies": by_policy, "closed": closed(ours, fgd),
            "lowest_ratio_to_fgd": (lowest * 1000.0).round() / 1000.0, "placed_by_kind": kinds,
        });
        if !quick {
            let (held, fgd) =
                (at_130(&of(Name::Tidewater, first..runs.len())), at_130(&of(Name::Fgd, first..runs.len())));
            entry["held_out_seeds"] =
                json!({ "tidewater": shown(held), "fgd": shown(fgd), "closed": closed(held.1, fgd.1) });
            entry["clusters"] = federation(&inputs)?;
        }
        lists.insert(list.into(), entry);
    }
    json.insert("lists".into(), Value::Object(lists));
    json.insert("generated".into(), generated(if quick { 2 } else { 12 }, &mut rows)?);
    json.insert("seeds".into(), json!(format!("{}..{}", seeds.start, seeds.end)));
    json.insert("load_average_before".into(), json!(load_before));
    if save && !drawn.is_empty() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/quality.svg");
        std::fs::write(file, ranges("GPUs given out at saturation, mean and range over seeds", "%", &drawn))?;
    }
    Ok(Figures { table: rows, json })
}

/// Ours on the same nodes in several clusters.
fn federation(inputs: &[Input]) -> Result<Value> {
    let mut found = Map::new();
    for (policy, counts) in
        [(Name::Tidewater, &[2, 4, 8][..]), (Name::MostFreeMemory, &[4][..]), (Name::FirstToAdmit, &[4][..])]
    {
        for (name, split) in [("random", Split::Random), ("model", Split::Model)] {
            for count in counts.iter().copied() {
                let clusters = Clusters { count, split };
                let runs: Vec<Run> = (0..2).map(|seed| Run { input: 0, clusters, policy, seed }).collect();
                let at: Vec<f64> = all(inputs, &runs)?.iter().map(|o| o.at_130).collect();
                found.insert(format!("{policy} {count} by {name}"), shown(spread(&at)));
            }
        }
    }
    Ok(Value::Object(found))
}

/// Ours and FGD on fleets and mixes that no trace has.
fn generated(count: u64, rows: &mut comfy_table::Table) -> Result<Value> {
    let inputs: Vec<Input> = (0..count)
        .map(|seed| {
            let made = make(300, seed);
            Input { nodes: made.nodes, pods: made.pods }
        })
        .collect();
    let policies = [Name::Tidewater, Name::Fgd, Name::BestFit];
    let run = |input: usize, policy| Run { input, clusters: Clusters::ONE, policy, seed: input as u64 };
    let runs: Vec<Run> = policies.iter().flat_map(|p| (0..inputs.len()).map(|i| run(i, *p))).collect();
    let outcomes = all(&inputs, &runs)?;
    let of = |policy: Name| -> Vec<f64> {
        runs.iter().zip(&outcomes).filter(|(r, _)| r.policy == policy).map(|(_, o)| o.at_130).collect()
    };
    let mut found = Map::new();
    for policy in policies {
        let all = spread(&of(policy));
        let range = format!("{:.2} to {:.2}", all.0, all.2);
        let fleet = format!("{count} generated");
        rows.add_row([fleet, policy.to_string(), String::new(), format!("{:.2}", all.1), range, String::new()]);
        found.insert(policy.to_string(), shown(all));
    }
    let gains: Vec<f64> = of(Name::Tidewater).iter().zip(of(Name::Fgd)).map(|(ours, fgd)| ours - fgd).collect();
    found.insert("ours_less_fgd".into(), shown(spread_signed(&gains)));
    found.insert("fleets".into(), json!(count));
    Ok(Value::Object(found))
}

fn spread_signed(values: &[f64]) -> (f64, f64, f64) {
    let (low, mean, _) = spread(values);
    (low, mean, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

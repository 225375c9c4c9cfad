//! What is free: a row a cluster and model, and whether a gang fits.

use protocol::api::{CapacityAnswer, CapacityRow, GangFit};
use protocol::capacity::Source;
use protocol::resources::{Cpu, Memory};

use super::table::{Table, Tone, cell, known, trouble};
use super::{Out, age, clusters};

/// The answer as a table, and the gang's fit in words.
pub fn text(answer: &CapacityAnswer, out: &Out) -> String {
    let mut columns =
        vec!["CLUSTER", "REGION", "GPU", "SHARES", "#NODES", "#GPUS", "#FREE", "#HELD", "#GHOSTS", "#SICK", "#OTHERS"];
    columns.extend(["#ACTIVITY", "SOURCE", "#AGE"]);
    if out.wide() {
        columns.extend(["#FREE CPU", "#FREE MEMORY", "#PRICE/GPU-H"]);
    }
    let mut table = Table::new(&columns);
    answer.rows.iter().for_each(|r| table.row(row(r, out.wide())));
    let mut text = if table.is_empty() { "No cluster has such capacity.\n".to_owned() } else { table.text(out) };
    text.push_str(&clusters::lines(answer.cordoned.iter().map(String::as_str)));
    if let Some(gang) = &answer.gang {
        text.push_str(&format!("\n{}", fit(gang)));
    }
    text
}

fn row(row: &CapacityRow, wide: bool) -> Vec<(String, Tone)> {
    let free = if row.gpus.free > 0 { Tone::Good } else { Tone::Faint };
    let mut cells = vec![
        cell(&row.cluster),
        cell(&row.region),
        known(row.sku.as_ref()),
        known(row.sku.as_ref().map(|_| row.sharing)),
        cell(row.nodes),
        cell(row.gpus.total),
        (row.gpus.free.to_string(), free),
        cell(row.gpus.held),
        trouble(row.gpus.ghosts),
        trouble(row.gpus.sick),
        cell(row.gpus.foreign),
        known(row.activity_percent.map(|percent| format!("{percent}%"))),
        cell(source(row.source)),
        cell(age::span_ms(row.age_ms)),
    ];
    if wide {
        cells.extend([
            cell(Cpu(row.free_cpu_milli)),
            cell(Memory(row.free_memory_mib)),
            known(row.price_milli.map(|milli| format!("{}.{:03}", milli / 1000, milli % 1000))),
        ]);
    }
    cells
}

/// Where figures come from.
pub fn source(source: Source) -> &'static str {
    match source {
        Source::Measured => "measured",
        Source::Declared => "declared",
        Source::Label => "label",
    }
}

fn fit(gang: &GangFit) -> String {
    let each = match gang.gpus_per_node {
        0 => String::new(),
        1 => " with 1 GPU each".to_owned(),
        n => format!(" with {n} GPUs each"),
    };
    let nodes = |n: u32| if n == 1 { "1 node".to_owned() } else { format!("{n} nodes") };
    let total: u64 = gang.fits.values().map(|n| u64::from(*n)).sum();
    let mut text = format!("Gangs of {}{each} that would start now: {total}\n", nodes(gang.nodes));
    for (cluster, fits) in gang.fits.iter().filter(|(_, fits)| **fits > 0) {
        text.push_str(&format!("  {cluster}: {fits}\n"));
    }
    text.push_str(&match gang.largest {
        0 => "No gang of such nodes would start now.\n".to_owned(),
        largest => format!("The largest that would start now: {}\n", nodes(largest)),
    });
    text
}

//! `tidewater forecast`: when a workload starts, as far as anyone can tell.

use engine::ahead::Forecast;
use protocol::ids::WorkloadName;

use super::key;
use crate::args::Global;
use crate::render::table::{Table, cell};
use crate::render::{Out, age, progress};
use crate::server::{PATIENCE_TO_READ, connect};

/// Which workload.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Running workloads are expected to end as their expectedDuration says, else after as long as others of \
their namespace, framework and size took. Nobody is assumed to submit anything meanwhile."
)]
pub struct Args {
    /// The workload
    name: WorkloadName,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_READ)?;
    let forecast = progress::patiently("looking ahead", client.forecast(&key(&args.name, global))).await?;
    out.object(&forecast, || text(args.name.as_str(), &forecast, out))
}

fn text(name: &str, forecast: &Forecast, out: &Out) -> String {
    let mut text = format!("{}: {}\n", out.heading(name), forecast.text);
    if forecast.after.is_empty() {
        return text;
    }
    let mut table = Table::new(&["ENDS", "WORKLOAD", "EXPECTED"]);
    for ended in &forecast.after {
        table.row(vec![cell(age::until(ended.at)), cell(&ended.workload), cell(&ended.basis)]);
    }
    text.push_str(&format!("\n{}\n{}", out.heading("After these, the latest first:"), table.indented(out)));
    let more = forecast.ends.saturating_sub(forecast.after.len() as u64);
    if more > 0 {
        text.push_str(&format!("  and {more} before them\n"));
    }
    text
}

//! How long jobs wait, policy by policy.

use replay::fleet::NodeRow;
use replay::method::waits::{Summary, Terms, Trace};
use replay::policy::Name;
use replay::report::{Ran, label};
use replay::trace::Job;

use super::{Args, bad, bar, write};
use crate::args::{Format, Global};
use crate::render::Out;
use crate::render::table::{Table, cell};

pub(super) fn run(
    args: &Args,
    global: &Global,
    out: &Out,
    policies: &[Name],
    nodes: Vec<NodeRow>,
    jobs: Vec<Job>,
) -> anyhow::Result<()> {
    let trace = Trace::new(nodes, jobs).map_err(bad)?.reserving(args.reserved);
    let mut ran: Vec<Ran> = vec![];
    for policy in policies.iter().copied() {
        let terms = terms(args, policy);
        let name = label(policy, terms);
        let bar = bar(&name, trace.jobs.len() as u64, " jobs ended");
        let outcome = trace.run(policy, terms, args.seed, |ended| bar.set_position(ended));
        bar.finish_and_clear();
        ran.push((name, outcome.map_err(bad)?));
    }
    if let Some(folder) = &args.report {
        write(folder, replay::report::waits(&trace, &ran), out)?;
    }
    if matches!(global.output, Format::Json) {
        return ran.iter().zip(policies).try_for_each(|((_, outcome), policy)| {
            let mut figures = replay::report::figures(*policy, terms(args, *policy), &Summary::of(&trace, outcome));
            figures["reserved_percent"] = args.reserved.into();
            out.print(&format!("{figures}\n"))
        });
    }
    out.print(&table(&trace, &ran).text(out))
}

/// Only the planner has terms.
fn terms(args: &Args, policy: Name) -> Terms {
    match policy {
        Name::Tidewater => Terms { declared: args.declared, order: args.pool_order.into() },
        _ => Terms::default(),
    }
}

fn table(trace: &Trace, ran: &[Ran]) -> Table {
    let mut table = Table::new(&[
        "POLICY",
        "#MEAN WAIT",
        "#MEDIAN",
        "#99%",
        "#SLOWDOWN",
        "#COMPLETION",
        "#USED",
        "#PREEMPTED",
        "#LOST GPU-H",
        "LEAST POOL",
    ]);
    for (name, outcome) in ran {
        let s = Summary::of(trace, outcome);
        let hours = |seconds: f64| cell(format!("{:.2}h", seconds / 3600.0));
        table.row(vec![
            cell(name),
            hours(s.mean_wait_s),
            hours(s.median_wait_s),
            hours(s.p99_wait_s),
            cell(format!("{:.2}", s.mean_slowdown)),
            hours(s.mean_completion_s),
            cell(format!("{:.1}%", s.used_percent)),
            cell(s.preemptions),
            cell(format!("{:.0}", s.lost_gpu_hours)),
            cell(s.least_pool.map_or("-".into(), |(pool, part)| format!("{pool} {part:.3}"))),
        ]);
    }
    table
}

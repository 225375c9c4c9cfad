//! Data locations as a table.

use protocol::data::DataObject;

use super::Out;
use super::table::{Table, Tone, cell, known};

/// How many places or users a row names, unless it is wide.
const NAMED: usize = 3;

/// Every data location.
pub fn table(all: &[DataObject], out: &Out) -> String {
    let mut table = Table::new(&["NAME", "#SIZE", "WHERE", "USED BY"]);
    for data in all {
        let regions = data.spec.regions.iter().map(|region| format!("region {region}"));
        let places: Vec<String> = data.spec.clusters.iter().map(ToString::to_string).chain(regions).collect();
        let status = data.status.clone().unwrap_or_default();
        let users: Vec<String> =
            status.users.iter().map(|user| user.trim_start_matches("default/").to_owned()).collect();
        table.row(vec![
            cell(&data.metadata.name),
            cell(data.spec.size),
            cell(few(&places, places.len(), out)),
            used(few(&users, usize::try_from(status.used_by).unwrap_or(usize::MAX), out)),
        ]);
    }
    if table.is_empty() {
        "No data locations: make one with `tidewater data apply -f FILE`.\n".into()
    } else {
        table.text(out)
    }
}

fn used(users: String) -> (String, Tone) {
    known(Some(users).filter(|users| !users.is_empty()))
}

/// The first few of `all`.
fn few(named: &[String], all: usize, out: &Out) -> String {
    let shown = if out.wide() { named.len() } else { named.len().min(NAMED) };
    let more = all.saturating_sub(shown);
    let more = (more > 0).then(|| format!("{more} more"));
    named.iter().take(shown).cloned().chain(more).collect::<Vec<_>>().join(", ")
}

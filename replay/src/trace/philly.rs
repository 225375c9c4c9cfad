//! Jobs with times, a pool each: `job,pool,arrival_s,gpus,duration_s` (derived from Microsoft's Philly trace).

use super::csv::{BadTrace, Table};

/// The columns.
pub(super) const COLUMNS: &[&str] = &["job", "pool", "arrival_s", "gpus", "duration_s"];
/// Ten thousand years, in seconds.
const MOST_SECONDS: f64 = 3.2e11;

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// When it comes, in ms from the start.
    pub arrival_ms: u64,
    /// How many GPUs it needs.
    pub gpus: u32,
    /// How long it runs, in ms.
    pub duration_ms: u64,
}

/// Reads jobs, sorted by arrival.
pub fn jobs(table: &Table) -> Result<Vec<Job>, BadTrace> {
    if COLUMNS.iter().any(|c| table.column(c).is_none()) {
        return Err(table.bad_header(&format!("the columns of jobs: {}", COLUMNS.join(","))));
    }
    let job = |row: super::csv::Row<'_>| {
        let time = |column: &str| {
            let seconds = row.text(column).parse::<f64>().ok().filter(|s| (0.0..=MOST_SECONDS).contains(s));
            seconds.map(|s| (s * 1000.0).round() as u64).ok_or_else(|| row.bad(column, "seconds, such as 90 or 90.5"))
        };
        if row.text("pool").is_empty() {
            return Err(row.bad("pool", "the pool's name"));
        }
        Ok(Job {
            name: row.text("job").to_owned(),
            pool: row.text("pool").to_owned(),
            arrival_ms: time("arrival_s")?,
            gpus: row.number("gpus", 1, 1_000_000, "GPUs")? as u32,
            duration_ms: time("duration_s")?,
        })
    };
    let mut jobs = table.rows().map(job).collect::<Result<Vec<_>, _>>()?;
    jobs.sort_by_key(|j| j.arrival_ms);
    Ok(jobs)
}

//! Traces as files: comma-separated, told apart by their header. One clear error names the file, the line, the column and what was
//! expected.

mod csv;
mod openb;
mod philly;

pub use csv::{BadTrace, Table};
pub use openb::{nodes, pods};
pub use philly::{Job, jobs};

/// What a file holds, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Nodes: `sn,cpu_milli,memory_mib,gpu,model`.
    Nodes,
    /// Pods: `name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec]`.
    Pods,
    /// Jobs with times: `job,pool,arrival_s,gpus,duration_s`.
    Jobs,
}

/// Tells what a table holds.
pub fn format(table: &Table) -> Result<Format, BadTrace> {
    let has = |columns: &[&str]| columns.iter().all(|c| table.column(c).is_some());
    if has(openb::NODE_COLUMNS) {
        return Ok(Format::Nodes);
    }
    if has(openb::POD_COLUMNS) {
        return Ok(Format::Pods);
    }
    if has(philly::COLUMNS) {
        return Ok(Format::Jobs);
    }
    let known = [openb::NODE_COLUMNS, openb::POD_COLUMNS, philly::COLUMNS].map(|c| c.join(","));
    Err(table
        .bad_header(&format!("the columns of nodes ({}), of pods ({}) or of jobs ({})", known[0], known[1], known[2])))
}

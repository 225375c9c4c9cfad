//! Replays: traces, and fleets that a generator makes, through the very planner and through baseline policies. Used by the CLI and
//! the benchmarks; nothing of the product's own decisions lives here.
//!
//! `trace` reads files, `generate` makes what needs no file, `fleet` keeps the books of every run, `method` says in what order pods
//! come and what is counted, `ours` asks the engine, `baselines` has the policies that it is compared with, `report` draws.

pub mod baselines;
pub mod chance;
pub mod fleet;
pub mod generate;
pub mod method;
pub mod ours;
pub mod policy;
pub mod report;
pub mod trace;

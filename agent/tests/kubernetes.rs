//! The agent on a real API server: its capacity table equals a count of all nodes and pods there, whatever happens.
//!
//! What this machine lacks (Go, the network where the programs are not built yet) is told, and the tests are listed as ignored.

mod kubernetes {
    pub mod capacity;
    pub mod recount;
    pub mod rig;
}

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use kubernetes::capacity;
use libtest_mimic::{Arguments, Completion, Trial};
use testbed::{Binaries, Settings};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each starts several processes.
    arguments.test_threads.get_or_insert(1);
    let provide = || Binaries::provide(&Settings::with_fake_nodes("").tools(), &|line| eprintln!("    {line}"));
    let binaries = if arguments.list { None } else { Some(provide()) };
    let lack = match &binaries {
        Some(Err(error)) if !error.is_lack() => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        Some(Err(error)) => Some(error.to_string()),
        _ => None,
    };
    let binaries = binaries.and_then(Result::ok).map(Arc::new);
    let trial = Trial::ignorable_test("the_table_equals_a_recount_from_the_api_server", move || {
        if let Some(lack) = lack {
            return Ok(Completion::ignored_with(lack));
        }
        let binaries = binaries.ok_or("no programs")?;
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let outcome = runtime.block_on(capacity::follows_the_api_server(&binaries));
        eprintln!("    it took {:.1} s", began.elapsed().as_secs_f64());
        outcome.map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

//! The agent on real API servers, controllers and schedulers; kwok plays the nodes' kubelets. Its capacity table equals a count of all
//! nodes and pods there, whatever happens; its runtime makes what it is to make once, and leaves nothing.
//!
//! What this machine lacks (Go, the network where the programs are not built yet) is told, and the tests are listed as ignored.

mod kubernetes {
    pub mod capacity;
    pub mod claims;
    pub mod devices;
    pub mod recount;
    pub mod rig;
    pub mod runtime;
    pub mod runtime_crashes;
    pub mod runtime_operators;
    pub mod runtime_storms;
    pub mod runtime_world;
    pub mod tokens;
}

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use kubernetes::{capacity, claims, devices, runtime, runtime_crashes, runtime_operators, runtime_storms, tokens};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use testbed::{Binaries, Settings};

type Test = fn(Arc<Binaries>) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

const TESTS: &[(&str, Test)] = &[
    ("capacity::the_table_equals_a_recount_from_the_api_server", |b| {
        Box::pin(async move { capacity::follows_the_api_server(&b).await })
    }),
    ("runtime::batch_jobs_run_end_and_leave_nothing", |b| Box::pin(runtime::batch(b))),
    ("devices::shares_and_slices_are_counted_and_asked_for_as_nodes_name_them", |b| {
        Box::pin(devices::shares_and_slices(b))
    }),
    ("claims::devices_that_claims_give_out_are_counted_claimed_and_freed", |b| Box::pin(claims::of_devices(b))),
    ("runtime::what_can_not_start_says_why", |b| Box::pin(runtime::refusals(b))),
    ("tokens::come_before_the_pods_stay_fresh_and_go_with_the_attempt", |b| Box::pin(tokens::tokens(b))),
    ("runtime_crashes::of_the_api_server_lose_and_double_nothing", |b| Box::pin(runtime_crashes::api_server(b))),
    (KILLED, |b| Box::pin(runtime_crashes::agent(b))),
    ("runtime_storms::of_refusals_lose_and_double_nothing", |b| Box::pin(runtime_storms::refusals(b))),
    (OPERATORS, |b| Box::pin(runtime_operators::kinds(b))),
];

/// These need the operators' modules beside the programs.
const OPERATORS: &str = "runtime_operators::definitions_take_what_is_made";
const KILLED: &str = "runtime_crashes::of_the_agent_at_each_request_double_nothing";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each test starts several processes: more of them at a time would only measure the machine.
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
    let trials = TESTS.iter().map(|(name, test)| {
        let (mut binaries, mut lack) = (binaries.clone(), lack.clone());
        let missing =
            binaries.as_deref().filter(|_| [OPERATORS, KILLED].contains(name)).map(Binaries::operators_resources);
        if let Some(Err(missing)) = missing.filter(|found| found.as_ref().is_err_and(|error| error.is_lack())) {
            (binaries, lack) = (None, Some(missing.to_string()));
        }
        Trial::ignorable_test(*name, move || run(name, binaries, lack, *test))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(name: &str, binaries: Option<Arc<Binaries>>, lack: Option<String>, test: Test) -> Result<Completion, Failed> {
    let Some(binaries) = binaries else { return Ok(Completion::ignored_with(lack.unwrap_or_default())) };
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(test(binaries));
    eprintln!("    {name}: {:.1} s", began.elapsed().as_secs_f64());
    outcome.map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into())
}

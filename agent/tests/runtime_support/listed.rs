//! Tests that need a framework: run one at a time where it can run, else listed as ignored with the reason.
#![allow(unused_macros, unused_imports)] // Not every test binary needs a framework.

use std::future::Future;
use std::pin::Pin;

use agent::runtime::Runtime;
use libtest_mimic::{Arguments, Trial};
use protocol::workload::Framework;

use super::Rig;

/// A test by name.
pub type Listed = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Names async functions as tests.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name), || Box::pin($name()))),*]
    };
}
pub(crate) use tests;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// Runs a test file's tests and ends the process.
pub fn run(framework: Framework, tests: Vec<Listed>) {
    let mut arguments = Arguments::from_args();
    // Each is some 25 processes.
    arguments.test_threads = Some(1);
    let dir = tempfile::tempdir().unwrap();
    let checks = block_on(async { Rig::new(dir.path()).runtime.frameworks().await });
    let missing = checks.into_iter().find(|check| check.framework == framework).unwrap().missing;
    let trials = tests.into_iter().map(|(name, test)| {
        let trial = Trial::test(name, move || {
            block_on(test());
            Ok(())
        });
        match &missing {
            Some(reason) => trial.with_kind(reason.clone()).with_ignored_flag(true),
            None => trial,
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

//! Real control planes: started, used by the real client, killed, and gone without a trace.
//!
//! What this machine lacks (Go, the network where the programs are not built yet) is told, and what needs it is listed as
//! ignored. `--kubeconfig FILE` (`cargo test -p testbed -- --kubeconfig FILE`) or `TIDEWATER_TEST_KUBECONFIG=FILE` runs what
//! can be asked of anybody's cluster on that one, in a namespace that is deleted afterwards, and ignores the rest.

mod kubernetes {
    pub mod crashes;
    pub mod fleets;
    pub mod frameworks;
    pub mod nodes;
    pub mod planes;
    pub mod world;
}

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use kubernetes::world::{self, World};
use kubernetes::{crashes, fleets, frameworks, nodes, planes};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use testbed::{Binaries, Component, Image, Images, NodeSettings, Settings, node};

type Test = for<'a> fn(&'a World) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// Where a test runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// Control planes of its own.
    Own,
    /// Those, or the cluster that a person gave.
    Any,
    /// None.
    Nothing,
    /// A control plane of its own with a real node: these images beside the batch image, these operators.
    Real(&'static [Image], &'static [Component]),
}

const TESTS: &[(&str, On, Test)] = &[
    ("fleets::fake_nodes_become_ready_and_play_jobs_to_their_end", On::Own, |w| Box::pin(fleets::jobs(w))),
    ("planes::run_side_by_side_and_know_nothing_of_each_other", On::Own, |w| Box::pin(planes::side_by_side(w))),
    ("planes::take_namespaces_and_pods", On::Any, |w| Box::pin(planes::namespaces_and_pods(w))),
    ("crashes::of_the_api_server_lose_nothing", On::Own, |w| Box::pin(crashes::api_server(w))),
    ("crashes::of_what_started_them_end_them_too", On::Nothing, |w| Box::pin(crashes::starter(w))),
    ("crashes::at_the_start_are_told_with_the_end_of_the_log", On::Own, |w| Box::pin(crashes::at_the_start(w))),
    ("nodes::run_pods_and_leave_nothing", On::Real(&[], &[]), |w| Box::pin(nodes::pods(w))),
    ("nodes::come_back_after_a_power_cut", On::Real(&[], &[]), |w| Box::pin(nodes::power_cut(w))),
    ("nodes::end_with_what_started_them", On::Real(&[], &[]), |w| Box::pin(nodes::starter(w))),
    ("frameworks::ray_jobs_succeed", RAY, |w| Box::pin(frameworks::ray(w))),
    ("frameworks::spark_applications_complete", SPARK, |w| Box::pin(frameworks::spark(w))),
];

const RAY: On = On::Real(&[Image::Ray], &[Component::KubeRay]);
const SPARK: On = On::Real(&[Image::Spark], &[Component::SparkOperator]);

fn main() -> ExitCode {
    if let Some(code) = crashes::hold().or_else(nodes::hold) {
        return code;
    }
    let (given, rest) = given_kubeconfig(std::env::args().collect());
    let mut arguments = Arguments::from_iter(rest);
    // Each test starts several processes: more of them at a time would only measure the machine.
    arguments.test_threads.get_or_insert(2);
    let trials = TESTS.iter().map(|(name, on, test)| {
        let mut world = World { binaries: None, given: given.clone(), node: None, operators: &[] };
        Trial::ignorable_test(*name, move || {
            let lack = provide(&mut world, *on)?;
            run(name, &world, lack, *test)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Gives a test what it needs; what the machine lacks for it is the answer.
fn provide(world: &mut World, on: On) -> Result<Option<String>, Failed> {
    let say = |line: &str| eprintln!("    {line}");
    match on {
        On::Nothing => return Ok(None),
        On::Any if world.given.is_some() => return Ok(None),
        _ if world.given.is_some() => return Ok(Some("it needs clusters of its own, and one was given".to_owned())),
        _ => {}
    }
    let mut settings = Settings::with_fake_nodes("");
    if let On::Real(images, operators) = on {
        if let Err(lack) = node::check_with(operators) {
            return Ok(Some(lack.to_string()));
        }
        let images = match Images::provide(images, &say) {
            Err(error) if error.is_lack() => return Ok(Some(error.to_string())),
            images => NodeSettings::new(images?),
        };
        settings = Settings::with_real_node("", images.clone()).and(operators);
        (world.node, world.operators) = (Some(images), operators);
    }
    match Binaries::provide(&settings.tools(), &say) {
        Err(error) if error.is_lack() => Ok(Some(error.to_string())),
        binaries => {
            world.binaries = Some(Arc::new(binaries?));
            Ok(None)
        }
    }
}

/// `--kubeconfig FILE` or the variable; and the other arguments.
fn given_kubeconfig(arguments: Vec<String>) -> (Option<PathBuf>, Vec<String>) {
    let mut given = std::env::var_os("TIDEWATER_TEST_KUBECONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    let (mut rest, mut arguments) = (vec![], arguments.into_iter());
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--kubeconfig") {
            Some("") => given = arguments.next().map(PathBuf::from),
            Some(value) if value.starts_with('=') => given = Some(PathBuf::from(&value[1..])),
            _ => rest.push(argument),
        }
    }
    (given, rest)
}

fn run(name: &str, world: &World, lack: Option<String>, test: Test) -> Result<Completion, Failed> {
    if let Some(lack) = lack {
        return Ok(Completion::ignored_with(lack));
    }
    let began = Instant::now();
    let outcome = world::run_alone(test(world));
    eprintln!("    {name}: {:.1} s", began.elapsed().as_secs_f64());
    outcome.map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into())
}

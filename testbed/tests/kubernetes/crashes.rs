//! What happens when something dies.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testbed::process::{Lifetime, Program, Record};
use testbed::{Component, ControlPlane, Settings, StartError, make_namespace};

use super::world::{World, has_namespace, no_process_in, until};

pub async fn api_server(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut plane = world.start(Settings::api_only(dir.path())).await?;
    let client = plane.client();
    make_namespace(&client, "kept").await?;
    plane.kill(Component::ApiServer);
    ensure!(has_namespace(&client, "kept").await.is_err(), "it answers though it was killed");
    let began = Instant::now();
    plane.start_again(Component::ApiServer).await?;
    eprintln!("    the API server is back after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(has_namespace(&client, "kept").await?, "the same client finds the same data");

    plane.stall(Component::ApiServer);
    let asked = tokio::time::timeout(Duration::from_secs(1), has_namespace(&client, "kept")).await;
    ensure!(asked.is_err(), "a stalled API server answers: {asked:?}");
    plane.resume(Component::ApiServer);
    ensure!(has_namespace(&client, "kept").await?);

    // Store and all, and then once more from the folder: other ports, same data.
    plane.kill(Component::ApiServer);
    plane.start_again(Component::Etcd).await?;
    plane.start_again(Component::ApiServer).await?;
    ensure!(has_namespace(&client, "kept").await?);
    plane.stop();
    no_process_in(dir.path())?;
    let plane = world.start(Settings::api_only(dir.path())).await?;
    ensure!(has_namespace(&plane.client(), "kept").await?, "a folder keeps what was in it");
    drop(plane);
    no_process_in(dir.path())
}

pub async fn at_the_start(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    // Credentials that were made before, one of them broken since.
    std::fs::write(dir.path().join("tokens.csv"), "no tokens\n")?;
    let error = world.start(Settings::api_only(dir.path())).await.err().context("it started")?;
    ensure!(error.to_string().contains("has no admin"), "{error:#}");

    let dir = tempfile::tempdir()?;
    world.start(Settings::api_only(dir.path())).await?.stop();
    std::fs::write(dir.path().join("server.key"), "no key\n")?;
    let binaries = world.binaries.as_ref().context("no programs")?;
    let error = ControlPlane::start(binaries, Settings::api_only(dir.path())).await.err().context("it started")?;
    ensure!(matches!(error, StartError::Ended { name: "kube-apiserver", .. }), "{error}");
    let text = error.to_string();
    ensure!(text.contains("kube-apiserver.log") && text.contains("server.key"), "{text}");
    no_process_in(dir.path())
}

/// The variable that makes this program a starter that is to be killed.
const HOLD: &str = "TIDEWATER_TESTBED_HOLD";

/// The starter: starts a process, says which, and waits to be killed.
pub fn hold() -> Option<ExitCode> {
    let folder = PathBuf::from(std::env::var_os(HOLD)?);
    let program = Program {
        name: "sleep",
        path: PathBuf::from("/bin/sleep"),
        arguments: vec!["600".into()],
        environment: vec![],
        folder,
        lifetime: Lifetime::Ours,
    };
    match program.start() {
        Ok(process) => {
            println!("{}", process.pid().unwrap_or(0));
            std::thread::sleep(Duration::from_secs(600));
            Some(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

pub async fn starter(_world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut starter = Command::new(std::env::current_exe()?);
    let mut starter = starter.env(HOLD, dir.path()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(starter.stdout.take().context("its output")?).read_line(&mut line)?;
    let held = Record::of(line.trim().parse()?).context("what it started runs")?;
    starter.kill()?;
    starter.wait()?;
    until("what it started is gone", async || Ok((!held.lives()).then_some(()))).await?;
    no_process_in(dir.path())
}

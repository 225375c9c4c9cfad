//! The pages that real Ray and Spark serve, through `tidewater dashboard`: what they say, who has none, and what is said while an agent is gone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::api::{batch, text};
use super::federation::{CLUSTERS, Federation, free_port};
use super::program::Program;
use super::world::{MARK, PATIENCE, World, wait_for};
use crate::Done;

/// An answer's code, and the rest of it.
type Answer = (u16, String);

/// One question over a connection of its own.
fn get(port: u16, path: &str, token: Option<&str>) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{token}connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.with_context(|| format!("{path}: no answer but {answer:?}"))?, answer))
}

/// Asks a workload's page for something as soon as it is up, and gives its answer.
pub fn visit(world: &World, servers: &str, name: &str, path: &str, within: Duration) -> anyhow::Result<String> {
    let mut said = String::new();
    let answer = wait_for(&format!("the page of {name}"), within, || {
        let mut shown = world.start("visit", &["--server", servers, "dashboard", name])?;
        let port = match port(&mut shown) {
            Ok(port) => port,
            // It ended without an address, and says why.
            Err(_) => {
                said = shown.err();
                ensure!(!said.contains("has ended ("), "it is over: {said}");
                std::thread::sleep(Duration::from_millis(500));
                return Ok(None);
            }
        };
        let answer = get(port, path, None);
        shown.terminate()?;
        match answer {
            Ok((200, answer)) => Ok(Some(answer)),
            other => {
                said = format!("{other:?}");
                Ok(None)
            }
        }
    });
    answer.with_context(|| said)
}

/// A workload of this test's own.
fn workload(world: &World, name: &str, mut spec: Value) -> Value {
    spec["env"] = json!({MARK: world.mark()});
    spec["workingDir"] = json!(world.path(""));
    json!({
        "apiVersion": "tidewater.dev/v1", "kind": "Workload",
        "metadata": {"name": name, "namespace": "default", "uid": uuid::Uuid::new_v4().to_string()},
        "spec": spec,
    })
}

/// The page of a Ray cluster, and of a Spark application, each for as long as it lives and no longer.
pub fn of_ray_and_spark(world: &World) -> anyhow::Result<Done> {
    let python = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    if !python.is_ok_and(|ran| ran.status.success()) {
        return Ok(Done::CannotRunHere("there is no python3 with venv: Ray and Spark need it".into()));
    }
    let mut federation = Federation::start(world)?;
    let servers = federation.api.places().join(",");
    let ask = |arguments: &[&str]| world.run(&[&["--server", &servers], arguments].concat());
    ask(&["dashboard", "nobody"])?.with_code(3)?.says("nobody")?;
    federation.api.submit(&batch("plain", &["sleep", "1"], 1, &[(MARK, world.mark().to_owned())]))?;
    ask(&["dashboard", "default/plain"])?.with_code(1)?.says("is of batch, which has no page of its own")?;

    ray(world, &mut federation)?;
    ask(&["dashboard", "rays"])?.with_code(1)?.says("has ended (Succeeded), and its page with it")?;
    match Command::new("java").arg("-version").output().is_ok_and(|ran| ran.status.success()) {
        true => spark(world, &federation)?,
        false => eprintln!("    without Spark: there is no Java"),
    }
    federation.stop()?;
    Ok(Done::Holds)
}

fn ray(world: &World, federation: &mut Federation<'_>) -> anyhow::Result<()> {
    let group = json!({"name": "w", "count": 1, "cpu": 1, "memory": "1Gi"});
    let spec = json!({"ray": {
        "entrypoint": "while [ ! -e ray-ends ]; do sleep 0.2; done",
        "head": {"cpu": 1, "memory": "1Gi"}, "workers": [group],
    }});
    federation.api.submit(&workload(world, "rays", spec))?;
    let running = federation.api.until("rays", &["Running"], PATIENCE)?;
    let place = CLUSTERS.iter().position(|name| *name == text(&running["status"]["cluster"])).context("its cluster")?;
    let servers = federation.api.places().join(",");
    let mut shown = world.start("dashboard", &["--server", &servers, "dashboard", "default/rays"])?;
    let port = port(&mut shown)?;
    shown.says("Ray's dashboard of default/rays, attempt 1", PATIENCE)?;
    shown.says("it asks for this token: ", PATIENCE)?;
    let token = shown.err().split("this token: ").nth(1).and_then(|rest| rest.lines().next().map(str::to_owned));
    let token = token.context("the token")?;
    let (code, answer) = get(port, "/api/version", Some(&token))?;
    ensure!(code == 200 && answer.contains("ray_version"), "{answer}");
    // It is Ray itself that asks.
    let (code, answer) = get(port, "/api/version", None)?;
    ensure!(code == 401 || code == 403, "{answer}");
    let (code, answer) = get(port, "/", None)?;
    ensure!(code == 200 && answer.contains("<html"), "{answer}");
    // As many as a browser opens, at once.
    let many: Vec<_> = (0..6)
        .map(|_| {
            let token = token.clone();
            std::thread::spawn(move || get(port, "/api/jobs/", Some(&token)).map(|(code, _)| code))
        })
        .collect();
    for one in many {
        ensure!(one.join().map_err(|_| anyhow::anyhow!("a visit panicked"))?? == 200, "a visit of many failed");
    }

    federation.kill_agent(place);
    let (code, answer) = get(port, "/", None)?;
    ensure!(code == 503 && answer.contains("workload default/rays"), "{answer}");
    federation.start_agent(place)?;
    wait_for("the page to be back", PATIENCE, || Ok((get(port, "/", None)?.0 == 200).then_some(())))?;
    // Another replica leads the way.
    federation.kill_coordinator(1);
    wait_for("the page by another replica", PATIENCE, || Ok((get(port, "/", None)?.0 == 200).then_some(())))?;
    federation.start_coordinator(1)?;

    world.write("ray-ends", "")?;
    let status = shown.until_ended(PATIENCE)?;
    ensure!(status.success(), "it ended with {status}: {}", shown.err());
    shown.says("default/rays has ended (Succeeded)", PATIENCE)
}

fn spark(world: &World, federation: &Federation<'_>) -> anyhow::Result<()> {
    let program = "import os, time\nfrom pyspark.sql import SparkSession\nsession = SparkSession.builder.getOrCreate()\n\
                   print(session.sparkContext.parallelize(range(10), 2).sum())\n\
                   while not os.path.exists('spark-ends'):\n    time.sleep(0.2)\n";
    let main = world.write("waits.py", program)?;
    let spec = json!({"spark": {
        "main": main, "driver": {"cpu": 1, "memory": "1Gi"},
        "executors": {"name": "e", "count": 1, "cpu": 1, "memory": "1Gi"},
    }});
    federation.api.submit(&workload(world, "sparks", spec))?;
    federation.api.until("sparks", &["Running"], PATIENCE)?;
    let wanted = free_port()?;
    let servers = federation.api.places().join(",");
    let arguments = ["--server", &servers, "dashboard", "sparks", "--port", &wanted.to_string()];
    let mut shown = world.start("dashboard", &arguments)?;
    ensure!(port(&mut shown)? == wanted, "it is at another port: {}", shown.out());
    shown.says("Spark's UI of default/sparks, attempt 1", PATIENCE)?;
    let (code, answer) = get(wanted, "/api/v1/applications", None)?;
    ensure!(code == 200 && answer.contains("\"default/sparks\""), "{answer}");
    // Ended by Ctrl-C, as it is meant to be.
    shown.signal(Signal::INT);
    let status = shown.until_ended(PATIENCE)?;
    ensure!(status.success(), "it ended with {status}: {}", shown.err());
    ensure!(TcpStream::connect(("127.0.0.1", wanted)).is_err(), "something still listens at its port");
    world.write("spark-ends", "")?;
    federation.api.until("sparks", &["Succeeded"], PATIENCE).map(drop)
}

/// Where it says that the page is.
fn port(shown: &mut Program) -> anyhow::Result<u16> {
    let rest = shown.line("http://127.0.0.1:")?;
    rest.trim_end_matches('/').parse().with_context(|| rest.clone())
}

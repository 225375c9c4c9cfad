//! Workload tokens from the coordinators to a program, verified by what knows only the standards and the keys that the coordinators serve.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::api::{batch, text};
use super::federation::Federation;
use super::world::{PATIENCE, World};
use crate::Done;

const ISSUER: &str = "https://tidewater.example/federation";
const AUDIENCE: &str = "sts.amazonaws.com";

/// Keeps a copy of its token beside the test, and says where the file was.
const PROGRAM: &str = "import os; f, copy = os.environ['TIDEWATER_TOKEN_FILE'], os.environ['COPY']; \
                       open(copy, 'w').write(open(f).read()); open(copy + '.place', 'w').write(f)";

fn workload(world: &World, name: &str) -> Value {
    let copy = world.path(&format!("{name}.token")).display().to_string();
    let mut workload = batch(name, &["python3", "-c", PROGRAM], 1, &[("COPY", copy)]);
    workload["spec"]["tokens"] =
        json!([{"audience": AUDIENCE, "mountPath": "/var/run/secrets/aws", "expiration": "10m"}]);
    workload
}

/// A batch job reads its token; the token holds by the keys that any replica serves, also after its leader is gone and in whatever order; one
/// that was tampered with does not. Without an issuer such a job is refused, and one that was taken before waits and says why.
pub fn hold_by_the_keys_that_are_served(world: &World) -> anyhow::Result<Done> {
    let mut federation = Federation::prepare(world, 3)?;
    federation.coordinator_arguments = ["--workload-issuer", ISSUER].map(str::to_owned).into();
    (1..=3).try_for_each(|id| federation.start_coordinator(id))?;
    federation.start_agent(0)?;
    federation.until_cluster("north", "Ready")?;

    let about = federation.api.get("/.well-known/openid-configuration")?;
    ensure!(about["issuer"] == ISSUER && about["jwks_uri"] == format!("{ISSUER}/openid/v1/jwks"), "{about}");
    let before = reads_its_token(world, &federation, "before")?;
    ensure!(before["sub"] == "tidewater:workload:default:before", "{before}");
    ensure!(before["exp"].as_u64() == before["iat"].as_u64().map(|at| at + 600), "{before}");
    let own = &before["tidewater.dev"];
    let attempt = federation.api.workload("before")?["metadata"]["uid"].as_str().map(|uid| format!("{uid}-1"));
    ensure!(own["attempt"].as_str() == attempt.as_deref() && own["cluster"] == "north", "{before}");
    ensure!(own["namespace"] == "default" && own["workload"] == "before" && own["pool"] == "default", "{before}");

    tampered(world)?;

    let leader = federation.api.leader()? as usize;
    federation.kill_coordinator(leader);
    federation.api.leader()?;
    let after = reads_its_token(world, &federation, "after")?;
    ensure!(after["jti"] != before["jti"], "{after}");
    // The first one still holds by what is served now.
    verify(world, &federation, "before")?;
    federation.start_coordinator(leader)?;

    told_without_their_text(world)?;
    waits_without_an_issuer(world, &mut federation)?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// Runs a workload to its end, and verifies the token that it read. Its own is gone by then.
fn reads_its_token(world: &World, federation: &Federation<'_>, name: &str) -> anyhow::Result<Value> {
    federation.api.submit(&workload(world, name))?;
    federation.api.until(name, &["Succeeded"], PATIENCE)?;
    let place = std::fs::read_to_string(world.path(&format!("{name}.token.place")))?;
    let file = Path::new(&place);
    ensure!(file.starts_with(federation.agent_dir(0)) && file.ends_with("tokens/1/token"), "it is elsewhere: {place}");
    ensure!(!file.exists(), "its token is left: {place}");
    verify(world, federation, name)
}

/// The claims of a token, by the keys that the coordinators serve now.
fn verify(world: &World, federation: &Federation<'_>, name: &str) -> anyhow::Result<Value> {
    let keys = federation.api.get("/openid/v1/jwks")?;
    ensure!(keys["keys"].as_array().is_some_and(|keys| keys.len() == 3), "one of each replica: {keys}");
    world.write("keys.json", &keys.to_string())?;
    let (claims, said) = verified(world, &world.path(&format!("{name}.token")))?;
    claims.with_context(|| said)
}

/// What a verifier prints, and what it says is wrong.
fn verified(world: &World, token: &Path) -> anyhow::Result<(Option<Value>, String)> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/processes/verify_token.py");
    let mut command = Command::new("python3");
    command.arg(program).arg(token).arg(world.path("keys.json")).args([ISSUER, AUDIENCE]);
    let ran = command.output().context("python3")?;
    Ok((serde_json::from_slice(&ran.stdout).ok(), String::from_utf8_lossy(&ran.stderr).into_owned()))
}

/// The verifier itself: what is not as it was signed does not hold.
fn tampered(world: &World) -> anyhow::Result<()> {
    let token = std::fs::read_to_string(world.path("before.token"))?;
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { anyhow::bail!("no token: {} bytes", token.len()) };
    let mut others = claims.to_owned();
    // Another letter in the middle is another byte of some claim.
    let at = others.len() / 2;
    others.replace_range(at..=at, if others.as_bytes()[at] == b'a' { "b" } else { "a" });
    let unsigned = format!("{header}.{claims}.{}", "A".repeat(signature.len()));
    for bad in [format!("{header}.{others}.{signature}"), unsigned] {
        world.write("bad.token", &bad)?;
        let (claims, said) = verified(world, &world.path("bad.token"))?;
        ensure!(claims.is_none(), "it holds though it was tampered with: {said}");
    }
    Ok(())
}

/// Each token is one line of a coordinator's log, and no log has any text of one.
fn told_without_their_text(world: &World) -> anyhow::Result<()> {
    let signature = |name: &str| -> anyhow::Result<String> {
        let token = std::fs::read_to_string(world.path(&format!("{name}.token")))?;
        Ok(token.rsplit('.').next().unwrap_or_default().to_owned())
    };
    let (before, after) = (signature("before")?, signature("after")?);
    let mut told = 0;
    for entry in std::fs::read_dir(world.path("."))? {
        let path = entry?.path();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if !matches!(ending, "out" | "err") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        ensure!(!text.contains(&before) && !text.contains(&after), "{} has a token", path.display());
        told += text.lines().filter(|line| line.contains("issued a workload token") && line.contains(AUDIENCE)).count();
    }
    ensure!(told == 2, "{told} tokens are told");
    Ok(())
}

fn waits_without_an_issuer(world: &World, federation: &mut Federation<'_>) -> anyhow::Result<()> {
    // Taken while there is an issuer, and held back until there is none.
    let mut later = workload(world, "later");
    later["spec"]["dependsOn"] = json!([{"workload": "gate"}]);
    federation.api.submit(&later)?;
    (1..=3).try_for_each(|id| federation.coordinator(id)?.terminate().map(drop))?;
    federation.coordinator_arguments = vec![];
    (1..=3).try_for_each(|id| federation.start_coordinator(id))?;
    let servers = federation.api.places().join(",");
    let file = world.write("refused.yaml", &workload(world, "refused").to_string())?;
    let refused = world.run(&["--server", &servers, "submit", "-f", &file])?;
    ensure!(refused.code != Some(0), "{}", refused.out);
    refused.says(
        "spec.tokens: this coordinator issues no workload tokens: start the coordinators with --workload-issuer URL",
    )?;
    federation.api.submit(&batch("gate", &["true"], 1, &[]))?;
    federation.api.until("gate", &["Succeeded"], PATIENCE)?;
    super::world::wait_for("the reason why it waits", PATIENCE, || {
        let waits = federation.api.workload("later")?;
        let said = text(&waits["status"]["message"]);
        // By its agent, where it was placed before the last of them had said that it issues none.
        let by_agent = said.contains("issues no workload tokens");
        Ok((by_agent || said.contains("no coordinator issues workload tokens (spec.tokens)")).then_some(()))
    })?;
    // What was signed before is still verified.
    verify(world, federation, "after")?;
    federation.coordinator_arguments = ["--workload-issuer", ISSUER].map(str::to_owned).into();
    (1..=3).try_for_each(|id| {
        federation.coordinator(id)?.terminate()?;
        federation.start_coordinator(id)
    })?;
    federation.api.until("later", &["Succeeded"], PATIENCE).map(drop)
}

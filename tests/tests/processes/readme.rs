//! What `deploy/README.md` says, run as it is written: from two kubeconfigs to a federation that runs jobs in both clusters, each on a kubelet
//! of its own. Played are the load balancers, the disks, and the image, which is made of this build.

use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::json;
use testbed::node::check;
use testbed::{Binaries, ControlPlane, Image, Images, NodeSettings, Settings, Tool};

use super::balancer;
use super::deploy::{Kubectl, folder};
use super::install::{forward, give_disks, hello, image, tell};
use super::planes::{programs, runtime};
use super::program::{Program, tidewater};
use super::world::{MARK, PATIENCE, World};
use crate::Done;

/// The chapter.
const CHAPTER: &str = "## From two kubeconfigs to a federation";
/// The clusters, each with its region.
const CLUSTERS: [(&str, &str); 2] = [("east", "eu"), ("west", "us")];
/// At most so many lines are to be typed.
const LINES: usize = 10;

/// The first block of this language in the chapter.
fn block(text: &str, language: &str) -> Option<String> {
    let (_, after) = text.split_once(CHAPTER)?;
    let (_, block) = after.split_once(&format!("```{language}\n"))?;
    Some(block.split_once("\n```")?.0.to_owned())
}

pub fn as_written(world: &World) -> anyhow::Result<Done> {
    check()?;
    let text = std::fs::read_to_string(folder().join("README.md"))?;
    let script = block(&text, "sh").context("the chapter has no commands")?;
    let fleet = block(&text, "toml").context("the chapter has no fleet.toml")?;
    ensure!(script.lines().count() <= LINES, "it is more than {LINES} lines");

    let images = Images::provide(&[Image::Batch], &|line| eprintln!("    {line}"))?;
    let settings = |name| Settings::with_real_node(world.path(name), NodeSettings::new(images.clone()));
    let binaries = programs(&[settings("none").tools(), vec![Tool::Kubectl]].concat())?;
    let image = image(world)?;
    let runtime = runtime()?;
    let mut planes = vec![];
    for (name, _) in CLUSTERS {
        let plane = runtime.block_on(ControlPlane::start(&binaries, settings(name)))?;
        plane.load_image(&image)?;
        planes.push(plane);
    }
    let kubectls =
        planes.iter().map(|plane| Kubectl::of(world, &binaries, plane)).collect::<anyhow::Result<Vec<_>>>()?;
    give_disks(world, &kubectls[0])?;
    let balancer = balancer::play(&runtime, &planes[0])?;

    let used = run(world, &binaries, &planes, (&script, &fleet)).and_then(|said| {
        let shown = said.lines().skip_while(|line| !line.starts_with("Forwarding from"));
        shown.for_each(|line| eprintln!("    | {line}"));
        used(world, &kubectls[0])
    });
    if used.is_err() {
        kubectls.iter().for_each(tell);
    }
    used?;
    drop(balancer);
    for plane in planes {
        plane.end()?;
    }
    Ok(Done::Holds)
}

/// In a folder that has what a person has at hand; what was printed.
fn run(world: &World, binaries: &Binaries, planes: &[ControlPlane], texts: (&str, &str)) -> anyhow::Result<String> {
    let (script, fleet) = texts;
    let (place, bin) = (world.path("person"), world.path("person-bin"));
    for folder in [&place, &bin] {
        std::fs::create_dir(folder)?;
    }
    for ((name, _), plane) in CLUSTERS.iter().zip(planes) {
        std::fs::copy(plane.kubeconfig(), place.join(name))?;
    }
    std::fs::write(place.join("fleet.toml"), fleet)?;
    symlink(folder().canonicalize()?, place.join("deploy"))?;
    symlink(tidewater(), bin.join("tidewater"))?;
    symlink(binaries.path(Tool::Kubectl).context("kubectl was not asked for")?, bin.join("kubectl"))?;
    // The image is there already.
    std::fs::write(bin.join("cargo"), "#!/bin/sh\n[ \"$*\" = \"xtask images\" ]\n")?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("cargo"), executable)?;
    let mut command = Command::new("bash");
    // The forwarding ends with the shell.
    let script = format!("trap 'kill $(jobs -p)' EXIT\n{script}\n");
    command.args(["-euo", "pipefail", "-c", &script]).current_dir(&place);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", bin.display())).env(MARK, world.mark());
    command.env("KUBECACHEDIR", world.path("kubectl"));
    Ok(Program::run(command, &world.path("tmp"))?.with_code(0)?.out)
}

/// A job in each cluster, through the same coordinators.
fn used(world: &World, kubectl: &Kubectl<'_>) -> anyhow::Result<()> {
    let (forwarding, api) = forward(world, kubectl)?;
    for (name, region) in CLUSTERS {
        let mut workload = hello(name);
        workload["spec"]["placement"] = json!({"regions": {"require": [region]}});
        api.submit(&workload)?;
    }
    for (name, _) in CLUSTERS {
        let workload = api.until(name, &["Succeeded"], PATIENCE)?;
        ensure!(workload["status"]["cluster"] == name, "it ran elsewhere: {workload}");
    }
    drop(forwarding);
    Ok(())
}

//! Ray attempts on the process runtime: the real Ray, from the shared cache. Needs Python 3.9 or later and PyPI (once).
#![allow(clippy::unwrap_used)]

mod runtime_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use agent::cluster::MemberAssignment;
use agent::guard::sweep;
use agent::runtime::Runtime;
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, CommandNumber};
use protocol::workload::Framework;
use runtime_support::{Rig, devices, order};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples")
}

fn ray(entrypoint: &str) -> LaunchOrder {
    order(
        serde_json::json!({
            "workingDir": examples(),
            "ray": {
                "entrypoint": entrypoint,
                "head": {"cpu": "1", "memory": "1Gi"},
                "workers": [
                    {"name": "train", "count": 2, "cpu": "2", "memory": "1Gi", "gpus": "8", "gpu": ["H100"]},
                ],
            },
        }),
        1,
    )
}

async fn set_up(rig: &Rig) {
    let began = Instant::now();
    rig.runtime.provision(Framework::Ray, Arc::new(|text| println!("{text}"))).await.unwrap();
    println!("provisioned after {:.1} s", began.elapsed().as_secs_f32());
}

/// By mark and by the attempt's folder in the runtime folder.
fn alive(attempt: AttemptId) -> Vec<i32> {
    let scratch = agent::runtime::process::default_runtime_dir().join(format!(
        "{:012x}-{}",
        attempt.workload.0 & 0xffff_ffff_ffff,
        attempt.number
    ));
    sweep::leftovers(&attempt.to_string(), &[scratch])
}

async fn a_job_trains_on_every_worker_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    set_up(&rig).await;
    let order = ray("python ray_train.py --workers 2 --gpus-per-worker 8");
    let began = Instant::now();
    rig.runtime.start(CommandNumber(1), &order, &devices(&order)).await.unwrap();
    rig.running().await;
    println!("running after {:.1} s", began.elapsed().as_secs_f32());
    println!("{} processes", alive(order.attempt).len());
    let state = rig.ended().await;
    println!("gone after {:.1} s", began.elapsed().as_secs_f32());
    let log = rig.log(order.attempt, None).await;
    println!("{log}");
    assert_eq!(state, AttemptState::Succeeded);
    assert!(log.contains("2 workers on 2 Ray nodes") && log.contains("ok: loss"), "{log}");
    assert!(log.contains("on train-0") && log.contains("on train-1"), "{log}");
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
}

async fn a_job_that_fails_says_why_and_a_killed_agent_finds_its_job_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    set_up(&rig).await;
    let runs = dir.path().join("runs");
    let order = ray(&format!(
        "echo run >> {}; echo out of tea >&2; while [ ! -e {}/end ]; do sleep 0.1; done; exit 3",
        runs.display(),
        dir.path().display()
    ));
    let (data, launch) = (dir.path().to_owned(), order.clone());
    drop(rig);
    // An agent of its own, of which nothing is left once the job runs.
    std::thread::spawn(move || {
        let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        threads.block_on(async {
            let mut rig = Rig::new(&data);
            rig.runtime.start(CommandNumber(1), &launch, &devices(&launch)).await.unwrap();
            rig.running().await;
            runtime_support::eventually("the job runs", || data.join("runs").exists()).await;
        });
        threads.shutdown_background();
    })
    .join()
    .unwrap();
    let mut rig = Rig::new(dir.path());
    assert_eq!(rig.runtime.recover().await.unwrap(), [(order.attempt, AttemptState::Running)]);
    std::fs::write(dir.path().join("end"), "").unwrap();
    let AttemptState::Failed { class, message, exit_code } = rig.ended().await else { panic!("not failed") };
    assert_eq!((class, exit_code), (FailureClass::User, Some(3)), "{message}");
    assert!(message.contains("out of tea"), "{message}");
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n", "it ran once");
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
}

/// A member as the cluster role gives it to the runtime.
fn member(group: &str, rank: u32, devices: &[u16]) -> MemberAssignment {
    let node = "node-0".parse().unwrap();
    MemberAssignment { group: group.parse().unwrap(), rank, node, devices: devices.to_vec() }
}

async fn a_job_sees_its_cluster_grow_and_shrink_and_nothing_of_a_member_that_went_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    set_up(&rig).await;
    let (seen, end) = (dir.path().join("seen"), dir.path().join("end"));
    let program = dir.path().join("look.py");
    let look = format!(
        "import os, ray, time\nray.init()\nwhile not os.path.exists({end:?}):\n    \
         gpus = sum(n['Resources'].get('GPU', 0) for n in ray.nodes() if n['Alive'])\n    \
         open({seen:?} + '.new', 'w').write(str(int(gpus)))\n    os.rename({seen:?} + '.new', {seen:?})\n    \
         time.sleep(0.2)\n"
    );
    std::fs::write(&program, look).unwrap();
    let order = order(
        serde_json::json!({"ray": {
            "entrypoint": format!("python {}", program.display()),
            "head": {"cpu": "1", "memory": "1Gi"},
            "workers": [{"name": "train", "min": 1, "max": 3, "cpu": "1", "memory": "1Gi", "gpus": "2"}],
        }}),
        8,
    );
    let gpus = || std::fs::read_to_string(&seen).unwrap_or_default();
    rig.runtime.start(CommandNumber(1), &order, &devices(&order)).await.unwrap();
    rig.running().await;
    runtime_support::eventually("the job sees one worker", || gpus() == "2").await;

    let (head, first, second) = (member("head", 0, &[]), member("train", 0, &[0, 1]), member("train", 1, &[2, 3]));
    let began = Instant::now();
    let both = [head.clone(), first.clone(), second.clone()];
    rig.runtime.resize(&order, &both, &[], 5_000).await.unwrap();
    runtime_support::eventually("the job sees two workers", || gpus() == "4").await;
    println!("grown after {:.1} s", began.elapsed().as_secs_f32());
    // Said again, as after a restart of the agent: nothing is started twice.
    rig.runtime.resize(&order, &both, &[], 5_000).await.unwrap();
    assert!(!sweep::of_member(&order.attempt.to_string(), "train-1").is_empty());

    let began = Instant::now();
    rig.runtime.resize(&order, &[head, first], &[second], 5_000).await.unwrap();
    let gone = loop {
        let event = rig.events.recv().await.unwrap();
        assert!(!event.state.is_final(), "{event:?}");
        if !event.gone.is_empty() {
            break event.gone;
        }
    };
    println!("shrunk after {:.1} s", began.elapsed().as_secs_f32());
    assert_eq!(gone, [("train".parse().unwrap(), 1)]);
    assert!(sweep::of_member(&order.attempt.to_string(), "train-1").is_empty());
    runtime_support::eventually("the job sees one worker again", || gpus() == "2").await;
    std::fs::write(&end, "").unwrap();
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
}

async fn a_guard_killed_under_ray_leaves_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    set_up(&rig).await;
    let order = ray("sleep 600");
    rig.runtime.start(CommandNumber(1), &order, &devices(&order)).await.unwrap();
    rig.running().await;
    let guard = runtime_support::guard_pid(dir.path(), order.attempt).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &guard.to_string()]).status().unwrap().success());
    let state = rig.ended().await;
    assert!(matches!(state, AttemptState::Failed { class: FailureClass::Infrastructure, .. }), "{state:?}");
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
}

fn main() {
    runtime_support::listed::run(
        Framework::Ray,
        runtime_support::listed::tests![
            a_job_trains_on_every_worker_and_leaves_no_process,
            a_job_that_fails_says_why_and_a_killed_agent_finds_its_job_again,
            a_job_sees_its_cluster_grow_and_shrink_and_nothing_of_a_member_that_went_is_left,
            a_guard_killed_under_ray_leaves_no_daemon,
        ],
    );
}

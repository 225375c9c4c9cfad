//! What becomes of attempts when their agent or their guard is killed: found again, run at most once, none left unowned.
#![allow(clippy::unwrap_used)]

mod runtime_support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use agent::guard::record::{Record, Stop, StopWhy};
use agent::guard::{REFUSED, durable, plan};
use agent::runtime::{Devices, Runtime};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::{CommandNumber, MonotonicMs};
use protocol::resources::Span;
use protocol::workload::OnClusterLoss;
use runtime_support::{Rig, alive, eventually, guard_pid, python};

/// Appends a line each time that it is run, then waits for a file named `end`.
const COUNTED: &str = "import os, time\nopen('runs', 'a').write('run\\n')\nprint('up')\n\
                       while not os.path.exists('end'): time.sleep(0.05)";

fn work(data_dir: &Path, order: &LaunchOrder) -> std::path::PathBuf {
    data_dir.join("attempts").join(order.attempt.to_string()).join("work")
}

fn runs(data_dir: &Path, order: &LaunchOrder) -> usize {
    std::fs::read_to_string(work(data_dir, order).join("runs")).map_or(0, |text| text.lines().count())
}

/// Starts an attempt under an agent of which nothing is left afterwards but the guard: its threads and tasks are gone.
fn start_and_lose_the_agent(data_dir: &Path, order: &LaunchOrder) {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(async {
        let mut rig = Rig::new(data_dir);
        rig.runtime.start(CommandNumber(1), order, &Devices::default()).await.unwrap();
        rig.running().await;
        eventually("it runs", || runs(data_dir, order) >= 1).await;
    });
    threads.shutdown_background();
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn an_agent_that_comes_back_finds_its_attempt_running_and_hears_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(1, COUNTED);
    start_and_lose_the_agent(dir.path(), &order);
    block_on(async {
        let mut rig = Rig::new(dir.path());
        assert_eq!(rig.runtime.recover().await.unwrap(), [(order.attempt, AttemptState::Running)]);
        // The coordinator may order the launch again: it is the same attempt.
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        std::fs::write(work(dir.path(), &order).join("end"), "").unwrap();
        assert_eq!(rig.ended().await, AttemptState::Succeeded);
        assert_eq!(runs(dir.path(), &order), 1);
        assert_eq!(rig.log(order.attempt, None).await, "up\n");
    });
}

#[test]
fn an_attempt_that_ended_while_no_agent_looked_keeps_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(1, COUNTED);
    start_and_lose_the_agent(dir.path(), &order);
    std::fs::write(work(dir.path(), &order).join("end"), "").unwrap();
    block_on(async {
        let record = Record::at(dir.path().join("attempts").join(order.attempt.to_string()));
        eventually("it ends", || record.outcome().unwrap().is_some_and(|o| o.gone)).await;
        let mut rig = Rig::new(dir.path());
        assert_eq!(rig.runtime.recover().await.unwrap(), [(order.attempt, AttemptState::Succeeded)]);
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        assert_eq!(rig.ended().await, AttemptState::Succeeded);
        assert_eq!(runs(dir.path(), &order), 1);
    });
}

#[test]
fn a_recovered_attempt_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(3, COUNTED);
    start_and_lose_the_agent(dir.path(), &order);
    block_on(async {
        let mut rig = Rig::new(dir.path());
        rig.runtime.recover().await.unwrap();
        rig.runtime.stop(order.attempt, 1_000).await.unwrap();
        assert_eq!(rig.ended().await, AttemptState::Stopped);
        assert_eq!(alive(order.attempt), Vec::<i32>::new());
    });
}

/// A daemon in its own session: not tied to the guard's life, so it is left behind when the guard is killed.
const DAEMON: &str = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(600)\n  \
                      os._exit(0)\nopen('runs', 'a').write('run\\n')\ntime.sleep(600)";

#[test]
fn a_guard_killed_under_a_living_agent_leaves_nothing_and_is_the_infrastructures_failure() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(1, DAEMON);
    block_on(async {
        let mut rig = Rig::new(dir.path());
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        rig.running().await;
        eventually("it runs", || runs(dir.path(), &order) == 1).await;
        kill(guard_pid(dir.path(), order.attempt).unwrap());
        let state = rig.ended().await;
        assert!(matches!(state, AttemptState::Failed { class: FailureClass::Infrastructure, .. }), "{state:?}");
        assert_eq!(alive(order.attempt), Vec::<i32>::new());
    });
}

#[test]
fn a_guard_killed_while_no_agent_looked_leaves_nothing_after_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(1, DAEMON);
    start_and_lose_the_agent(dir.path(), &order);
    kill(guard_pid(dir.path(), order.attempt).unwrap());
    block_on(async {
        eventually("only the daemon is left", || alive(order.attempt).len() == 1).await;
        let rig = Rig::new(dir.path());
        let found = rig.runtime.recover().await.unwrap();
        assert!(
            matches!(&found[..], [(_, AttemptState::Failed { class: FailureClass::Infrastructure, .. })]),
            "{found:?}"
        );
        assert_eq!(alive(order.attempt), Vec::<i32>::new());
    });
}

#[test]
fn an_order_that_never_reached_its_guard_is_final_and_a_late_guard_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(1, COUNTED);
    let record = Record::at(dir.path().join("attempts").join(order.attempt.to_string()));
    std::fs::create_dir_all(record.path("work")).unwrap();
    std::fs::create_dir_all(record.path("logs")).unwrap();
    let process = plan::Process {
        name: "workers-0".into(),
        argv: vec!["touch".into(), "ran".into()],
        env: std::env::vars().filter(|(name, _)| name == "PATH").collect(),
        cwd: record.path("work"),
        log: record.path("logs/workers-0.log"),
        role: plan::Role::Decides,
    };
    let late = plan::Plan {
        fence_ms: None,
        attempt: order.attempt.to_string(),
        processes: vec![process],
        ready: plan::Ready::Started,
        end_grace_ms: 100,
        verdict: None,
        scratch: vec![],
    };
    durable::write_json(&record.path("plan.json"), &late).unwrap();
    block_on(async {
        let rig = Rig::new(dir.path());
        let found = rig.runtime.recover().await.unwrap();
        assert!(
            matches!(&found[..], [(_, AttemptState::Failed { class: FailureClass::Infrastructure, .. })]),
            "{found:?}"
        );
    });
    let guard =
        |dir: &Path| Command::new(env!("CARGO_BIN_EXE_tidewater-guard")).arg(dir).status().unwrap().code().unwrap();
    assert_eq!(guard(record.dir()), REFUSED);
    assert!(!record.path("work/ran").exists());
    // The same plan in a fresh record does run, and only once.
    let fresh = Record::at(dir.path().join("fresh"));
    std::fs::create_dir(fresh.dir()).unwrap();
    std::fs::copy(record.path("plan.json"), fresh.path("plan.json")).unwrap();
    assert_eq!(guard(fresh.dir()), 0);
    assert!(record.path("work/ran").exists());
    assert_eq!(guard(fresh.dir()), REFUSED);
}

#[test]
fn a_stop_that_the_guard_finds_at_its_start_keeps_everything_from_running() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::at(dir.path());
    let none = plan::Plan {
        fence_ms: None,
        attempt: "x-1".into(),
        processes: vec![],
        ready: plan::Ready::Started,
        end_grace_ms: 0,
        verdict: None,
        scratch: vec![],
    };
    durable::write_json(&record.path("plan.json"), &none).unwrap();
    record.order_stop(Stop { grace_ms: 5, why: StopWhy::Order }).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_tidewater-guard")).arg(dir.path()).status().unwrap();
    assert_eq!(status.code(), Some(REFUSED));
    assert!(record.outcome().unwrap().unwrap().gone);
    assert!(record.started().unwrap().is_none());
}

#[test]
fn a_stop_of_an_attempt_that_never_came_keeps_it_from_ever_starting() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(1, COUNTED);
    block_on(async {
        let mut rig = Rig::new(dir.path());
        rig.runtime.stop(order.attempt, 0).await.unwrap();
        assert_eq!(rig.ended().await, AttemptState::Stopped);
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        assert_eq!(rig.ended().await, AttemptState::Stopped);
        let mut rig = Rig::new(dir.path());
        assert_eq!(rig.runtime.recover().await.unwrap(), [(order.attempt, AttemptState::Stopped)]);
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        assert_eq!(rig.ended().await, AttemptState::Stopped);
        assert_eq!(runs(dir.path(), &order), 0);
    });
}

#[test]
fn a_data_folder_deeper_than_a_sockets_address_works() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
    let order = python(2, "print('fine')");
    block_on(async {
        let mut rig = Rig::new(&deep);
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        assert_eq!(rig.ended().await, AttemptState::Succeeded);
    });
}

#[test]
fn a_shutdown_ends_everything_and_forgetting_keeps_the_logs() {
    let dir = tempfile::tempdir().unwrap();
    let order = python(2, COUNTED);
    block_on(async {
        let mut rig = Rig::new(dir.path());
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        rig.running().await;
        eventually("both run", || runs(dir.path(), &order) == 2).await;
        rig.runtime.shutdown(1_000).await.unwrap();
        assert_eq!(alive(order.attempt), Vec::<i32>::new());
        let state = rig.ended().await;
        let AttemptState::Failed { class: FailureClass::Infrastructure, message, .. } = &state else {
            panic!("{state:?}")
        };
        assert!(message.contains("shut down"), "{message}");
        rig.runtime.forget(order.attempt).await.unwrap();
        assert_eq!(rig.runtime.recover().await.unwrap(), []);
        assert_eq!(rig.log(order.attempt, Some("workers-1")).await, "up\n");
        // Even then it is not run again.
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        assert_eq!(rig.ended().await, state);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(runs(dir.path(), &order), 2);
    });
}

/// The same program, which goes on without word for no longer than that.
fn fenced(after_ms: u64) -> LaunchOrder {
    let mut order = python(1, COUNTED);
    order.spec.on_cluster_loss = OnClusterLoss::Failover;
    order.spec.failover_after = Some(Span(after_ms));
    order
}

fn soon(ms: u64) -> MonotonicMs {
    agent::clock::monotonic().plus(ms)
}

#[test]
fn what_is_to_end_itself_begins_once_it_is_let_and_ends_though_its_agent_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let order = fenced(4_000);
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(async {
        let mut rig = Rig::new(dir.path());
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        rig.until(|state| matches!(state, AttemptState::Starting { waiting_for } if waiting_for == "leave to begin"))
            .await;
        assert_eq!(runs(dir.path(), &order), 0);
        rig.runtime.let_go_on(order.attempt, soon(4_000));
        rig.running().await;
        // Let go on again it outlives the first time, and an earlier word shortens nothing.
        rig.runtime.let_go_on(order.attempt, soon(8_000));
        rig.runtime.let_go_on(order.attempt, soon(1));
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        assert!(!alive(order.attempt).is_empty(), "it ended though it was let go on");
    });
    threads.shutdown_background();
    block_on(async {
        eventually("it ends itself", || alive(order.attempt).is_empty()).await;
        let rig = Rig::new(dir.path());
        let found = rig.runtime.recover().await.unwrap();
        let [(_, AttemptState::Failed { class: FailureClass::Infrastructure, message, .. })] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(message.contains("nobody let it go on"), "{message}");
        assert_eq!(runs(dir.path(), &order), 1);
    });
}

#[test]
fn what_nobody_ever_lets_begin_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let order = fenced(1_500);
    block_on(async {
        let mut rig = Rig::new(dir.path());
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        rig.until(AttemptState::is_final).await;
        rig.runtime.let_go_on(order.attempt, soon(60_000));
    });
    assert_eq!(runs(dir.path(), &order), 0);
}

//! Batch attempts on the process runtime: real processes under the real guard.
#![allow(clippy::unwrap_used)]

mod runtime_support;

use agent::runtime::{Devices, Runtime};
use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::CommandNumber;
use runtime_support::{Rig, alive, devices, eventually, order, python};

fn failure(state: AttemptState) -> (FailureClass, String, Option<i32>) {
    match state {
        AttemptState::Failed { class, message, exit_code } => (class, message, exit_code),
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_succeeds_once_all_members_ended_well_and_each_knew_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let program = "import os; e = os.environ; print(*(e[n] for n in ('RANK','LOCAL_RANK','WORLD_SIZE','TIDEWATER_NODE',\
                   'TIDEWATER_GROUP','TIDEWATER_POOL','TIDEWATER_WORKLOAD','CUDA_VISIBLE_DEVICES','GREETING')))";
    let order = order(
        serde_json::json!({
            "env": {"GREETING": "hello", "RANK": "77"},
            "batch": {
                "command": ["python3", "-c", program],
                "groups": [{"name": "workers", "count": 6, "cpu": "1", "memory": "64Mi", "gpus": "2", "gpu": ["H100"]}],
            },
        }),
        4,
    );
    let attempt = order.attempt;
    rig.runtime.start(CommandNumber(1), &order, &devices(&order)).await.unwrap();
    rig.running().await;
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
    assert_eq!(alive(attempt), Vec::<i32>::new());
    let log = rig.log(attempt, None).await;
    let want = [
        "workers-0 | 0 0 6 node-0 workers default tests/w 0,1 hello",
        "workers-1 | 1 1 6 node-0 workers default tests/w 2,3 hello",
        "workers-2 | 2 2 6 node-0 workers default tests/w 4,5 hello",
        "workers-3 | 3 3 6 node-0 workers default tests/w 6,7 hello",
        "workers-4 | 4 0 6 node-1 workers default tests/w 0,1 hello",
        "workers-5 | 5 1 6 node-1 workers default tests/w 2,3 hello",
    ];
    assert_eq!(log.lines().collect::<Vec<_>>(), want);
    assert_eq!(rig.log(attempt, Some("workers-4")).await, "4 0 6 node-1 workers default tests/w 0,1 hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_share_of_a_gpu_sees_that_one_device_and_is_told_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let program = "import os; print(*(os.environ.get(n) for n in ('TIDEWATER_GROUP','CUDA_VISIBLE_DEVICES',\
                   'NVIDIA_VISIBLE_DEVICES','TIDEWATER_GPU_SHARE')))";
    let member = |name: &str, gpus: &str| serde_json::json!({"name": name, "cpu": "1", "memory": "64Mi", "gpus": gpus});
    let order = order(
        serde_json::json!({
            "env": {"TIDEWATER_GPU_SHARE": "made up"},
            "batch": {
                "command": ["python3", "-c", program],
                "groups": [member("quarter", "0.25"), member("half", "0.5"), member("whole", "2"), member("none", "0")],
            },
        }),
        4,
    );
    let given = [("quarter", vec![3]), ("half", vec![3]), ("whole", vec![0, 1])];
    let by_group = given.map(|(group, devices)| (group.parse().unwrap(), vec![devices])).into();
    rig.runtime.start(CommandNumber(1), &order, &Devices { by_group }).await.unwrap();
    rig.running().await;
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
    let log = rig.log(order.attempt, None).await;
    let mut lines: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(" | ")?.1)).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["half 3 3 0.5", "none  void None", "quarter 3 3 0.25", "whole 0,1 0,1 None"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_failure_ends_the_others_and_is_told_with_its_member_code_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let order = python(
        8,
        "import os, sys, time\nif os.environ['RANK'] == '5':\n  print('no such tensor'); sys.exit(7)\ntime.sleep(600)",
    );
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    let (class, message, code) = failure(rig.ended().await);
    assert_eq!((class, code), (FailureClass::User, Some(7)));
    assert!(message.contains("workers-5") && message.contains("exit code 7"), "{message}");
    assert!(message.contains("no such tensor"), "{message}");
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_command_or_folder_is_the_users_failure_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let groups = serde_json::json!([{"cpu": "1", "memory": "64Mi", "count": 2}]);
    let absent = order(serde_json::json!({"batch": {"command": ["no-such-program"], "groups": groups}}), 4);
    rig.runtime.start(CommandNumber(1), &absent, &Devices::default()).await.unwrap();
    let (class, message, _) = failure(rig.ended().await);
    assert_eq!(class, FailureClass::User);
    assert!(message.contains("command not found") && message.contains("no-such-program"), "{message}");
    let nowhere = order(
        serde_json::json!({"workingDir": "/no/such/folder", "batch": {"command": ["true"], "groups": groups}}),
        4,
    );
    rig.runtime.start(CommandNumber(1), &nowhere, &Devices::default()).await.unwrap();
    let (class, message, _) = failure(rig.ended().await);
    assert_eq!(class, FailureClass::User);
    assert!(message.contains("/no/such/folder") && message.contains("workingDir"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_killed_from_outside_is_the_infrastructures_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let order = python(2, "import os, time\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\ntime.sleep(600)");
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    let (class, message, code) = failure(rig.ended().await);
    assert_eq!((class, code), (FailureClass::Infrastructure, Some(137)));
    assert!(message.contains("SIGKILL") && message.contains("memory"), "{message}");
}

/// Ignores SIGTERM, and has a grandchild in a session of its own that does so too and keeps starting more.
const STUBBORN: &str = r#"
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open('daemon', 'w').write(str(os.getpid()))
        while True:
            if os.fork() == 0:
                time.sleep(0.5)
                os._exit(0)
            time.sleep(0.05)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]: pass
            except ChildProcessError: pass
    os._exit(0)
time.sleep(600)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_daemons_that_ignore_it_and_says_stopped_only_once_all_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let order = python(1, STUBBORN);
    let attempt = order.attempt;
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    rig.running().await;
    let daemon = dir.path().join("attempts").join(attempt.to_string()).join("work/daemon");
    eventually("the daemon runs", || daemon.exists()).await;
    assert!(alive(attempt).len() >= 2);
    rig.runtime.stop(attempt, 300).await.unwrap();
    assert_eq!(rig.ended().await, AttemptState::Stopped);
    assert_eq!(alive(attempt), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_also_ends_what_the_program_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let order = python(1, "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(600)\ntime.sleep(0.3)");
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_members_meet_at_the_master_port() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let order = python(
        64,
        r#"
import os, socket, time
rank, at = int(os.environ['RANK']), (os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']))
if rank == 0:
    server = socket.create_server(at, backlog=64)
    total = 0
    for _ in range(63):
        peer, _ = server.accept()
        total += int(peer.makefile().readline())
    assert total == sum(range(64)), total
    print('sum', total)
else:
    for _ in range(600):
        try:
            peer = socket.create_connection(at)
            break
        except ConnectionRefusedError: time.sleep(0.05)
    peer.sendall(f'{rank}\n'.encode())
"#,
    );
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
    assert_eq!(rig.log(order.attempt, Some("workers-0")).await, "sum 2016\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_until_its_attempt_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let order = python(1, "import time\nfor n in range(5):\n  print('line', n); time.sleep(0.2)");
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    rig.running().await;
    let mut stream = rig.runtime.logs(order.attempt, None, true).unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.next().await {
        pieces.push(piece.unwrap());
    }
    assert!(pieces.len() > 1, "it came while it grew, not at once");
    assert_eq!(pieces.concat(), b"line 0\nline 1\nline 2\nline 3\nline 4\n");
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
}

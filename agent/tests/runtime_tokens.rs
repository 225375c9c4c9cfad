//! Workload tokens on the process runtime: files beside real processes, from before their start to their end. The test is the coordinators.
#![allow(clippy::unwrap_used)]

mod runtime_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent::runtime::tokens::{Issued, TokenAsk, TokenSource};
use agent::runtime::{Devices, Runtime};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::CommandNumber;
use protocol::token::TokenText;
use runtime_support::{Rig, eventually, order};

/// Answers each question: the first so many with a refusal, the rest with a token that has its number and lives so long.
fn coordinators(refusals: u64, life: Duration) -> (TokenSource, Arc<AtomicU64>) {
    let ((source, mut asked), count) = (TokenSource::new(), Arc::new(AtomicU64::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Some(TokenAsk { request, answer }) = asked.recv().await {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let text = TokenText::new(format!("{} of {} #{number}", request.audience, request.attempt));
            let issued = if number > refusals { Ok(Issued { text, life }) } else { Err("no quorum".to_owned()) };
            let _ = answer.send(issued);
        }
    });
    (source, count)
}

fn rig(dir: &Path, source: TokenSource) -> Rig {
    let rig = Rig::new(dir);
    rig.runtime.take_tokens_from(source);
    rig
}

/// One member that runs this program and has a token for sts, and one for vault.
fn with_tokens(program: &str) -> LaunchOrder {
    order(
        serde_json::json!({
            "batch": {
                "command": ["python3", "-c", program],
                "groups": [{"name": "workers", "count": 1, "cpu": "1", "memory": "64Mi"}],
            },
            "env": {"TIDEWATER_TOKEN_FILE": "/made/up"},
            "tokens": [{"audience": "sts", "mountPath": "/run/aws"}, {"audience": "vault", "mountPath": "/run/vault"}],
        }),
        4,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_finds_its_tokens_as_it_starts_and_fresh_ones_later() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = coordinators(2, Duration::from_millis(1500));
    let mut rig = rig(dir.path(), source);
    let order = with_tokens(
        r#"
import os, stat, time
files = [os.environ['TIDEWATER_TOKEN_FILE'], os.environ['TIDEWATER_TOKEN_FILE_2']]
first = [open(f).read() for f in files]
print(oct(stat.S_IMODE(os.stat(files[0]).st_mode)), *first, sep='\n', flush=True)
while [open(f).read() for f in files][0] == first[0]: time.sleep(0.02)
print('fresh')
"#,
    );
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    let waits = |s: &AttemptState| matches!(s, AttemptState::Starting { waiting_for } if waiting_for == "a token for sts: no quorum");
    rig.until(waits).await;
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
    let (log, attempt) = (rig.log(order.attempt, Some("workers-0")).await, order.attempt);
    assert_eq!(log, format!("0o600\nsts of {attempt} #3\nvault of {attempt} #4\nfresh\n"));
    let folder = dir.path().join("attempts").join(attempt.to_string());
    assert!(folder.join("logs").is_dir() && !folder.join("tokens").exists(), "its tokens are left");
}

#[test]
fn an_agent_that_comes_back_refreshes_tokens_at_once_and_removes_them_at_the_end() {
    let threads = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let order = with_tokens("import time\nprint('up', flush=True)\ntime.sleep(600)");
    let file = dir.path().join("attempts").join(order.attempt.to_string()).join("tokens/1/token");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    let first = threads();
    first.block_on(async {
        let (source, _) = coordinators(0, Duration::from_secs(3600));
        let mut rig = rig(dir.path(), source);
        rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
        rig.running().await;
        assert_eq!(read(), format!("sts of {} #1", order.attempt));
    });
    // Nothing is left of that agent but the guard.
    first.shutdown_background();
    threads().block_on(async {
        let (source, count) = coordinators(7, Duration::from_secs(3600));
        let mut rig = rig(dir.path(), source);
        assert_eq!(rig.runtime.recover().await.unwrap(), [(order.attempt, AttemptState::Running)]);
        eventually("the old one stays while there is no new one", || count.load(Ordering::SeqCst) >= 4).await;
        assert_eq!(read(), format!("sts of {} #1", order.attempt));
        eventually("a fresh token", || read().starts_with("sts of") && !read().ends_with("#1")).await;
        rig.runtime.stop(order.attempt, 100).await.unwrap();
        assert_eq!(rig.ended().await, AttemptState::Stopped);
        assert!(!file.parent().unwrap().parent().unwrap().exists(), "its tokens are left");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_waits_for_its_tokens_can_be_stopped_and_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = coordinators(u64::MAX, Duration::from_secs(3600));
    let mut rig = rig(dir.path(), source);
    let order = with_tokens("print('never')");
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    rig.until(|s| matches!(s, AttemptState::Starting { waiting_for } if waiting_for.contains("no quorum"))).await;
    rig.runtime.stop(order.attempt, 100).await.unwrap();
    assert_eq!(rig.ended().await, AttemptState::Stopped);
    assert!(!dir.path().join("attempts").join(order.attempt.to_string()).join("tokens").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_nothing_is_asked_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (source, count) = coordinators(0, Duration::from_secs(3600));
    let mut rig = rig(dir.path(), source);
    let order = runtime_support::python(1, "import os; print(os.environ.get('TIDEWATER_TOKEN_FILE'))");
    rig.runtime.start(CommandNumber(1), &order, &Devices::default()).await.unwrap();
    assert_eq!(rig.ended().await, AttemptState::Succeeded);
    assert_eq!(rig.log(order.attempt, Some("workers-0")).await, "None\n");
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert!(!dir.path().join("attempts").join(order.attempt.to_string()).join("tokens").exists());
}

//! Spark attempts on the process runtime: the real Spark, from the shared cache. Needs Java 17, Python 3.9 or later and
//! PyPI (once).
#![allow(clippy::unwrap_used)]

mod runtime_support;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use agent::runtime::Runtime;
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::CommandNumber;
use protocol::workload::Framework;
use runtime_support::{Rig, alive, devices, order};

fn spark(main: &str, arguments: &[&str]) -> LaunchOrder {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples");
    order(
        serde_json::json!({
            "workingDir": examples,
            "spark": {
                "main": main,
                "arguments": arguments,
                "conf": {"spark.sql.shuffle.partitions": "4"},
                "driver": {"cpu": "1", "memory": "1Gi"},
                "executors": {"name": "executors", "count": 2, "cpu": "1", "memory": "1Gi"},
            },
        }),
        1,
    )
}

async fn set_up(rig: &Rig) {
    let began = Instant::now();
    rig.runtime.provision(Framework::Spark, Arc::new(|text| println!("{text}"))).await.unwrap();
    println!("provisioned after {:.1} s", began.elapsed().as_secs_f32());
}

async fn an_application_computes_on_every_executor_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    set_up(&rig).await;
    let order = spark("spark_sum.py", &["--executors", "2"]);
    let began = Instant::now();
    rig.runtime.start(CommandNumber(1), &order, &devices(&order)).await.unwrap();
    rig.running().await;
    println!("running after {:.1} s", began.elapsed().as_secs_f32());
    let state = rig.ended().await;
    println!("gone after {:.1} s", began.elapsed().as_secs_f32());
    let log = rig.log(order.attempt, None).await;
    println!("{log}");
    assert_eq!(state, AttemptState::Succeeded);
    assert!(log.contains("2 executors") && log.contains("ok: every sum is right"), "{log}");
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
    let members: Vec<_> = rig.runtime.log_files(order.attempt).unwrap().into_iter().map(|file| file.member).collect();
    assert!(members.contains(&"executor-0".to_owned()) && members.contains(&"executor-1".to_owned()), "{members:?}");
}

/// Prints what its processes see of the GPUs.
const SEES: &str = r#"
import os
from pyspark.sql import SparkSession

context = SparkSession.builder.getOrCreate().sparkContext
sees = lambda _: os.environ.get("CUDA_VISIBLE_DEVICES")
print("executors see", sorted(context.parallelize(range(8), 8).map(sees).distinct().collect()), "driver sees", [sees(None)])
"#;

async fn executors_see_their_devices_and_the_driver_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    set_up(&rig).await;
    let program = dir.path().join("sees.py");
    std::fs::write(&program, SEES).unwrap();
    let order = order(
        serde_json::json!({"spark": {
            "main": program,
            "driver": {"cpu": "1", "memory": "1Gi"},
            "executors": {"name": "executors", "count": 1, "cpu": "1", "memory": "1Gi", "gpus": 2},
        }}),
        1,
    );
    rig.runtime.start(CommandNumber(1), &order, &devices(&order)).await.unwrap();
    let state = rig.ended().await;
    let log = rig.log(order.attempt, None).await;
    assert_eq!(state, AttemptState::Succeeded, "{log}");
    assert!(log.contains("executors see ['0,1'] driver sees ['']"), "{log}");
}

async fn an_application_that_fails_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    set_up(&rig).await;
    let order = spark("spark_sum.py", &["--rows", "1000", "--executors", "3"]);
    rig.runtime.start(CommandNumber(1), &order, &devices(&order)).await.unwrap();
    let AttemptState::Failed { class, message, exit_code } = rig.ended().await else { panic!("not failed") };
    assert_eq!((class, exit_code), (FailureClass::User, Some(1)), "{message}");
    assert!(message.contains("only 2 of 3 executors took part"), "{message}");
    assert_eq!(alive(order.attempt), Vec::<i32>::new());
}

fn main() {
    runtime_support::listed::run(
        Framework::Spark,
        runtime_support::listed::tests![
            an_application_computes_on_every_executor_and_leaves_no_process,
            executors_see_their_devices_and_the_driver_none,
            an_application_that_fails_says_why,
        ],
    );
}

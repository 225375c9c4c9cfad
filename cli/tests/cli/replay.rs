//! `replay`: what is written about it in its help, on lists of a few lines.

use super::{Ran, finish, tidewater};

const TIMED: &str = "job,pool,arrival_s,gpus,duration_s\na,x,0,8,3600\nb,y,60,16,3600\nc,x,120,1,600\n";
const UNTIMED: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1000,1024,1,1000\n";
const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\nn0,8000,8192,2,T4\n";

fn replay(args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("timed.csv", TIMED), ("untimed.csv", UNTIMED), ("nodes.csv", NODES)] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let args: Vec<&str> = ["replay"].iter().chain(args).copied().collect();
    finish(tidewater(None, &args).current_dir(dir.path()))
}

#[test]
fn jobs_with_times_make_a_line_for_each_policy() {
    let args = ["--jobs", "timed.csv", "--policy", "tidewater,best-fit", "--reserved", "80", "-o", "json"];
    let ran = replay(&args);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| lines.iter().map(|line| line[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("policy"), ["tidewater", "best-fit"]);
    assert_eq!(of("reserved_percent"), [80, 80]);
    assert_eq!(of("mean_wait_s"), [0.0, 0.0], "the fleet is empty");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let refused = |args: &[&str]| {
        let ran = replay(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        ran.stderr
    };
    let untimed = ["--nodes", "nodes.csv", "--jobs", "untimed.csv"];
    let with = |more: &[&'static str]| refused(&[&untimed[..], more].concat());
    assert!(with(&["--reserved", "80"]).contains("--reserved is for jobs with times"));
    assert!(with(&["--declared"]).contains("--declared is for jobs with times"));
    assert!(with(&["--clusters", "2"]).contains("there are 1 nodes to split"));
    assert!(refused(&["--jobs", "timed.csv", "--reserved", "101"]).contains("101 is not in 0..=100"));
    assert!(refused(&["--jobs", "untimed.csv"]).contains("--nodes is missing"));
}

//! What people write: names, amounts, models, workloads. Each fault says what would be right.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use protocol::ids::{AttemptId, ClusterName, WorkloadName};
use protocol::resources::{Cpu, DataSize, Gpus, Memory, Span};
use protocol::sku::Sku;
use protocol::workload::WorkloadSpec;

#[test]
fn names_are_those_of_kubernetes() {
    for good in ["a", "eu-west-1", "0", &"x".repeat(63)] {
        assert!(ClusterName::new(good).is_ok(), "{good}");
    }
    for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
        assert!(ClusterName::new(bad).is_err(), "{bad}");
    }
    assert!(WorkloadName::new("a.b").is_ok());
    let error = ClusterName::new("Eu").unwrap_err().to_string();
    assert!(error.contains("\"Eu\"") && error.contains("a-z, 0-9 and '-'"), "{error}");
}

#[test]
fn an_attempts_id_reads_back_from_its_text() {
    let id: AttemptId = "01234567-89ab-cdef-0123-456789abcdef-12".parse().unwrap();
    assert_eq!(id.number.0, 12);
    assert_eq!(id.to_string().parse::<AttemptId>().unwrap(), id);
    assert!("01234567-89ab-cdef-0123-456789abcdef-x".parse::<AttemptId>().is_err());
}

#[test]
fn amounts_are_read_as_they_are_written_or_say_what_to_write() {
    assert_eq!("4".parse(), Ok(Cpu(4_000)));
    assert_eq!("0.5".parse(), Ok(Cpu(500)));
    assert_eq!("1500m".parse(), Ok(Cpu(1_500)));
    assert_eq!("16Gi".parse(), Ok(Memory(16_384)));
    assert_eq!("1.5Gi".parse(), Ok(Memory(1_536)));
    assert_eq!("0.1Mi".parse(), Ok(Memory(1)), "rounded up: never less than was asked for");
    assert_eq!("1Ti".parse(), Ok(Memory(1_048_576)));
    assert_eq!("8".parse(), Ok(Gpus(8_000)));
    assert_eq!("90s".parse(), Ok(Span(90_000)));
    for bad in ["", "-1", "1.2345", "4 cores", "1e3", "m", "1.", ".5", "99999999999999999999"] {
        let error = bad.parse::<Cpu>().unwrap_err().to_string();
        assert!(error.contains("cores such as 4, 0.5 or 500m"), "{error}");
    }
    for bad in ["16", "16G", "16gb", "Gi", "-1Gi", "18446744073709551615Ti"] {
        assert!(bad.parse::<Memory>().is_err(), "{bad}");
    }
}

#[test]
fn a_model_goes_by_every_name_that_drivers_give_it() {
    for alias in ["H100", "NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3", "h100", "NVIDIA_H100_80GB_HBM3"] {
        assert_eq!(Sku::parse(alias).unwrap().as_str(), "H100", "{alias}");
    }
    assert_eq!(Sku::parse("NVIDIA A100-SXM4-80GB").unwrap().as_str(), "A100-80GB");
    assert_eq!(Sku::from_driver("NVIDIA X9000 ").as_str(), "NVIDIA-X9000");
    let near = Sku::parse("H10O").unwrap_err().to_string();
    assert!(near.contains("did you mean H100?"), "{near}");
    let far = Sku::parse("banana").unwrap_err().to_string();
    assert!(far.contains("known: ") && !far.contains("did you mean"), "{far}");
}

fn problems(yaml: &str) -> Vec<String> {
    let spec: WorkloadSpec = serde_saphyr::from_str(yaml).unwrap();
    spec.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_workload_has_no_problems() {
    let yaml = "ray:\n  entrypoint: python t.py\n  head: {cpu: 1, memory: 2Gi}\n  workers:\n  - {count: 2, cpu: 500m, memory: 1Gi, gpus: 8, gpu: [h100]}\n";
    assert_eq!(problems(yaml), Vec::<String>::new());
}

#[test]
fn every_problem_is_told_with_its_field() {
    let found = problems(
        "env: {\"A=B\": x}\nbatch:\n  command: []\n  groups:\n  - {name: a, count: 0, cpu: 0, memory: 1Gi, gpus: 1.5}\n  - {name: a, cpu: 1, memory: 1Gi, gpu: [T4]}\n",
    );
    for field in [
        "spec.env[\"A=B\"]:",
        "spec.batch.command:",
        "spec.batch.groups[0].count:",
        "spec.batch.groups[0].cpu:",
        "spec.batch.groups[0].gpus:",
        "spec.batch.groups[1].name:",
        "spec.batch.groups[1].gpu:",
    ] {
        assert!(found.iter().any(|p| p.starts_with(field)), "{field} in {found:#?}");
    }
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn only_rays_workers_are_elastic_and_say_both_bounds_in_place_of_a_count() {
    let ray = |workers: &str| {
        problems(&format!(
            "ray: {{entrypoint: x, head: {{cpu: 1, memory: 1Gi}}, workers: [{{{workers}, cpu: 1, memory: 1Gi}}]}}"
        ))
    };
    assert_eq!(ray("min: 2, max: 8"), Vec::<String>::new());
    assert_eq!(ray("min: 2, max: 2"), Vec::<String>::new());
    let told = |workers: &str| ray(workers).join("; ");
    let count = "spec.ray.workers[0].count: min and max stand in place of count: leave it out, or them";
    assert_eq!(told("count: 2, min: 2, max: 8"), count);
    assert_eq!(told("min: 2"), "spec.ray.workers[0].min: max is needed too: the most members");
    assert_eq!(told("max: 2"), "spec.ray.workers[0].max: min is needed too: the members that start together");
    assert_eq!(told("min: 3, max: 2"), "spec.ray.workers[0].min: it is 3, which is more than max, 2");
    assert!(told("min: 0, max: 2").contains("at least one member starts with the gang"));
    assert!(told("min: 1, max: 200000").contains("200000 members in all"));
    let batch = problems("batch: {command: [x], groups: [{min: 1, max: 2, cpu: 1, memory: 1Gi}]}").join("; ");
    assert_eq!(
        batch,
        "spec.batch.groups[0].min: only Ray's workers may come and go, for the world's size is told to every rank at its start: write count"
    );
    let spark = "spark: {main: x, driver: {cpu: 1, memory: 1Gi}, executors: {max: 2, cpu: 1, memory: 1Gi}}";
    assert!(problems(spark).join("; ").starts_with("spec.spark.executors.max: only Ray's workers"));
}

#[test]
fn exactly_one_framework_is_asked_for() {
    assert_eq!(problems("priority: 1"), ["spec: set one of ray, spark, batch and manifest"]);
    let both = "batch: {command: [x], groups: [{cpu: 1, memory: 1Gi}]}\nspark: {main: x, driver: {cpu: 1, memory: 1Gi}, executors: {cpu: 1, memory: 1Gi}}";
    assert_eq!(problems(both), ["spec: only one of ray, spark, batch and manifest may be set, not spark and batch"]);
}

#[test]
fn a_field_that_nothing_acts_on_is_refused() {
    assert!(serde_saphyr::from_str::<WorkloadSpec>("priorityClassName: high").is_err());
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(milli in 0u64..1 << 50) {
        prop_assert_eq!(Cpu(milli).to_string().parse::<Cpu>().unwrap(), Cpu(milli));
        prop_assert_eq!(Memory(milli >> 12).to_string().parse::<Memory>().unwrap(), Memory(milli >> 12));
        prop_assert_eq!(DataSize(milli >> 3).to_string().parse::<DataSize>().unwrap(), DataSize(milli >> 3));
        prop_assert_eq!(Gpus(milli).to_string().parse::<Gpus>().unwrap(), Gpus(milli));
        prop_assert_eq!(Span(milli >> 4).to_string().parse::<Span>().unwrap(), Span(milli >> 4));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,30}") {
        let _ = text.parse::<Cpu>();
        let _ = text.parse::<Memory>();
        let _ = text.parse::<Span>();
        let _ = Sku::parse(&text);
        let _ = Sku::from_driver(&text);
        let _ = ClusterName::new(&text);
    }
}

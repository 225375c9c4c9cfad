//! Traces: what is right is read, and each thing that can be wrong is said once, with its place and the cure.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use replay::trace::{Format, Table, format, jobs, nodes, pods};

fn table(text: &str) -> Table {
    Table::parse(Path::new("list.csv"), text).unwrap()
}

#[test]
fn headers_tell_what_a_file_holds_in_any_order_of_columns() {
    let kinds = [
        ("model,gpu,memory_mib,cpu_milli,sn\nT4,2,1,1,a", Format::Nodes),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\np,1,1,1,460,T4|P100,LS", Format::Pods),
        ("job,pool,arrival_s,gpus,duration_s\nj,p,0.5,1,90", Format::Jobs),
    ];
    for (text, kind) in kinds {
        assert_eq!(format(&table(text)).unwrap(), kind);
    }
    assert_eq!(nodes(&table(kinds[0].0)).unwrap()[0].model.as_deref(), Some("T4"));
    let pod = pods(&table(kinds[1].0)).unwrap().remove(0);
    assert_eq!((pod.milli, pod.models.len()), (460, 2));
    let job = jobs(&table(kinds[2].0)).unwrap().remove(0);
    assert_eq!((job.arrival_ms, job.duration_ms), (500, 90_000));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let pod = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n";
    let node = "sn,cpu_milli,memory_mib,gpu,model\n";
    let cases = [
        ("pods", String::new()),
        ("pods", "a,b,c\n1,2,3".into()),
        ("pods", format!("{pod}p,1,1,1")),
        ("pods", format!("{pod}p,1,1,1,1000\np,one,1,1,1000")),
        ("pods", format!("{pod}p,1,-1,1,1000")),
        ("pods", format!("{pod}p,1,1,1,1001")),
        ("pods", format!("{pod}p,1,1,1,0")),
        ("pods", format!("{pod}p,1,1,2,500")),
        ("pods", format!("{pod}p,99999999999999999999,1,1,500")),
        ("nodes", pod.into()),
        ("nodes", format!("{node}n,1,1,4,")),
        ("nodes", format!("{node}n,1,1,4000,T4")),
        ("jobs", node.into()),
        ("jobs", "job,pool,arrival_s,gpus,duration_s\nj,p,-1,1,1".into()),
        ("jobs", "job,pool,arrival_s,gpus,duration_s\nj,,1,1,1".into()),
        ("jobs", "job,pool,arrival_s,gpus,duration_s\nj,p,1,0,1".into()),
    ];
    let mut said = String::new();
    for (kind, text) in cases {
        let read = Table::parse(Path::new("list.csv"), &text).and_then(|t| match kind {
            "pods" => pods(&t).map(|_| ()),
            "nodes" => nodes(&t).map(|_| ()),
            _ => jobs(&t).map(|_| ()),
        });
        writeln!(said, "{text:?} as {kind}\n    {}", read.unwrap_err()).unwrap();
    }
    insta::assert_snapshot!(said);
    let missing = Table::read(Path::new("/nowhere/list.csv")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read /nowhere/list.csv: "), "{missing}");
}

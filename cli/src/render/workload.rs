//! Workloads as tables and as a whole page.

use protocol::api::{AttemptStatus, WorkloadObject, WorkloadStatus};
use protocol::resources::{Cpu, Gpus, Memory};

use super::table::{Table, Tone, cell, known, phase};
use super::{Out, age};

/// The phase of a workload that the server has not looked at yet.
const NO_STATUS: &str = "Accepted";

/// A workload's phase.
pub fn phase_of(workload: &WorkloadObject) -> &str {
    workload.status.as_ref().map_or(NO_STATUS, |status| status.phase.as_str())
}

/// Whether nothing comes after its phase.
pub fn is_terminal(workload: &WorkloadObject) -> bool {
    matches!(phase_of(workload), "Succeeded" | "Failed" | "Cancelled")
}

/// The columns of a list.
pub fn columns(wide: bool, namespaces: bool) -> Vec<&'static str> {
    let mut columns = if namespaces { vec!["NAMESPACE"] } else { vec![] };
    columns.extend(["NAME", "PHASE", "FRAMEWORK", "#GPUS", "CLUSTER", "#ATTEMPTS", "#AGE"]);
    if wide {
        columns.extend(["#CPU", "#MEMORY", "REGION", "#PLACE", "#PRIORITY", "MESSAGE"]);
    }
    columns
}

/// One row of a list.
pub fn row(workload: &WorkloadObject, wide: bool, namespaces: bool) -> Vec<(String, Tone)> {
    let status = workload.status.as_ref();
    let needs = workload
        .spec
        .gang()
        .iter()
        .fold(protocol::resources::Resources::ZERO, |sum, group| sum + group.each.times(u64::from(group.count)));
    let needs = status.map_or(needs, |s| s.resources);
    let mut row = if namespaces { vec![known(workload.metadata.namespace.as_ref())] } else { vec![] };
    row.extend([
        cell(&workload.metadata.name),
        phase(phase_of(workload)),
        known(workload.spec.framework().ok()),
        cell(Gpus(needs.gpu_milli)),
        known(status.and_then(|s| s.cluster.as_ref())),
        cell(status.map_or(0, |s| s.attempts.len())),
        known(age::since(workload.metadata.creation_timestamp.as_deref())),
    ]);
    if wide {
        row.extend([
            cell(Cpu(needs.cpu_milli)),
            cell(Memory(needs.memory_mib)),
            known(status.and_then(|s| s.region.as_ref())),
            known(status.and_then(|s| s.place_in_queue)),
            cell(workload.spec.priority),
            known(status.map(|s| s.message.as_str()).filter(|m| !m.is_empty())),
        ]);
    }
    row
}

/// Workloads as a table.
pub fn list(workloads: &[WorkloadObject], out: &Out, namespaces: bool) -> String {
    let mut table = Table::new(&columns(out.wide(), namespaces));
    workloads.iter().for_each(|workload| table.row(row(workload, out.wide(), namespaces)));
    table.text(out)
}

/// Everything about one workload.
pub fn page(workload: &WorkloadObject, out: &Out) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: String| text.push_str(&format!("{:<12} {value}\n", format!("{name}:")));
    field("Name", workload.metadata.name.to_string());
    field("Namespace", workload.metadata.namespace.as_ref().map_or("default".into(), ToString::to_string));
    if let Some(uid) = workload.metadata.uid {
        field("Uid", uid.to_string());
    }
    if let Some(created) = &workload.metadata.creation_timestamp {
        field("Created", format!("{created} ({} ago)", age::since(Some(created)).unwrap_or("some time".into())));
    }
    field("Phase", phase_of(workload).to_owned());
    if let Some(status) = &workload.status {
        field("Message", status.message.clone());
        if let Some(place) = status.place_in_queue {
            field("Queue", format!("place {place}"));
        }
        field("Resources", status.resources.to_string());
        if let (Some(cluster), region) = (&status.cluster, &status.region) {
            field("Cluster", format!("{cluster}{}", region.as_ref().map(|r| format!(" ({r})")).unwrap_or_default()));
        }
    }
    field("Priority", workload.spec.priority.to_string());
    if let Some(dir) = &workload.spec.working_dir {
        field("Directory", dir.clone());
    }
    text.push_str(&section(out, "Gang", &gang(workload)));
    if let Some(status) = &workload.status {
        text.push_str(&section(out, "Attempts", &attempts(status)));
        text.push_str(&placements(status, out));
        text.push_str(&section(out, "Timeline", &timeline(status)));
    }
    text
}

fn section(out: &Out, title: &str, table: &Table) -> String {
    if table.is_empty() {
        return String::new();
    }
    format!("\n{}\n{}", out.heading(&format!("{title}:")), table.indented(out))
}

fn gang(workload: &WorkloadObject) -> Table {
    let mut table = Table::new(&["GROUP", "#COUNT", "#CPU", "#MEMORY", "#GPUS", "MODELS"]);
    let elastic: Vec<_> = workload.spec.elastic().collect();
    for group in workload.spec.gang() {
        let models: Vec<String> = group.skus.iter().map(ToString::to_string).collect();
        table.row(vec![
            cell(&group.name),
            cell(match elastic.iter().find(|(name, ..)| **name == group.name) {
                Some((_, least, most)) => format!("{least} to {most}"),
                None => group.count.to_string(),
            }),
            cell(Cpu(group.each.cpu_milli)),
            cell(Memory(group.each.memory_mib)),
            cell(Gpus(group.each.gpu_milli)),
            match (group.each.gpu_milli, models.is_empty()) {
                (0, _) => known::<&str>(None),
                (_, true) => cell("any"),
                (_, false) => cell(models.join(", ")),
            },
        ]);
    }
    table
}

fn attempts(status: &WorkloadStatus) -> Table {
    let mut table = Table::new(&["#ATTEMPT", "CLUSTER", "STATE", "#EXIT CODE", "BOUND", "#TO RUNNING", "#RAN FOR"]);
    for attempt in &status.attempts {
        table.row(vec![
            cell(attempt.id.number),
            cell(&attempt.cluster),
            cell(state(attempt)),
            known(attempt.exit_code),
            cell(&attempt.bound_at),
            known(attempt.running_at.as_ref().and_then(|running| age::between(&attempt.bound_at, running))),
            known(ran_for(attempt)),
        ]);
    }
    table
}

/// Of an end the kind: why is a long text, in the timeline and for the last attempt above.
fn state(attempt: &AttemptStatus) -> &str {
    match attempt.state.split_once(": ") {
        Some((kind, _)) if attempt.ended_at.is_some() => kind,
        _ => &attempt.state,
    }
}

fn ran_for(attempt: &AttemptStatus) -> Option<String> {
    let running = attempt.running_at.as_deref()?;
    match &attempt.ended_at {
        Some(ended) => age::between(running, ended),
        None => age::since(Some(running)),
    }
}

/// Where the last attempt's groups are.
fn placements(status: &WorkloadStatus, out: &Out) -> String {
    let Some(last) = status.attempts.last().filter(|attempt| !attempt.placement.is_empty()) else {
        return String::new();
    };
    let lines: String = last.placement.iter().map(|line| format!("  {line}\n")).collect();
    format!("\n{}\n{lines}", out.heading(&format!("Placement of attempt {}:", last.id.number)))
}

fn timeline(status: &WorkloadStatus) -> Table {
    let mut table = Table::new(&["AT", "PHASE", "WHAT"]);
    for moment in &status.timeline {
        table.row(vec![cell(&moment.at), phase(&moment.phase), cell(&moment.message)]);
    }
    table
}

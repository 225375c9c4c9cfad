//! GPUs as cells: a small box each, filled as high as it is active. Height, pattern and glyph say what colour says too.

use maud::{Markup, html};
use protocol::api::{DeviceStatus, NodeStatus};
use protocol::capacity::{DeviceState, NodeState};

/// A node's name, model and cells.
pub fn node(node: &NodeStatus) -> Markup {
    html! {
        li.node.out[node.state != NodeState::Ready] {
            span.name title=(node_title(node)) {
                (node.name)
                @match node.state {
                    NodeState::Ready => {}
                    NodeState::Cordoned => { " " small { "cordoned" } }
                    NodeState::Stale => { " " small { "stale" } }
                }
            }
            @if node.devices.is_empty() {
                span.none { "no GPUs" }
            } @else {
                span.cells role="img" aria-label=(summary(node)) {
                    @for (i, device) in node.devices.iter().enumerate() { (cell(i, device)) }
                }
            }
        }
    }
}

fn node_title(node: &NodeStatus) -> String {
    let model = node.sku.as_ref().map_or("no GPUs", |s| s.as_str());
    format!("{}: {model}; free {} of {}", node.name, node.free, node.total)
}

/// One device. `c` is any cell; the second class is what it is doing, `aN` its activity in steps of a tenth.
fn cell(index: usize, device: &DeviceStatus) -> Markup {
    let class = match (device.state, device.activity_percent) {
        (DeviceState::Held, Some(percent)) => format!("c h a{}", (percent.min(100) + 5) / 10),
        (DeviceState::Held, None) => "c h u".to_owned(),
        (DeviceState::Free, _) => "c f".to_owned(),
        (DeviceState::Ghost, _) => "c g".to_owned(),
        (DeviceState::Sick, _) => "c s".to_owned(),
        (DeviceState::Foreign, _) => "c o".to_owned(),
    };
    html! { i class=(class) title=(title(index, device)) {} }
}

fn word(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Held => "held",
        DeviceState::Free => "free",
        DeviceState::Ghost => "ghost",
        DeviceState::Sick => "sick",
        DeviceState::Foreign => "held by others",
    }
}

fn title(index: usize, device: &DeviceStatus) -> String {
    let mut text = format!("GPU {index}: {}", word(device.state));
    match (device.state, device.activity_percent) {
        (_, Some(percent)) => text += &format!(", {percent}%"),
        (DeviceState::Held, None) => text += ", activity unknown",
        (_, None) => {}
    }
    if let Some(mib) = device.memory_used_mib.filter(|m| *m > 0) {
        text += &format!(", {} GiB", mib.div_ceil(1024));
    }
    text
}

/// All cells in words, such as `8 GPUs: 5 held (mean activity 84%), 3 free`.
fn summary(node: &NodeStatus) -> String {
    let count = |state| node.devices.iter().filter(|d| d.state == state).count();
    let held: Vec<_> = node.devices.iter().filter(|d| d.state == DeviceState::Held).collect();
    let known: Vec<usize> = held.iter().filter_map(|d| d.activity_percent).map(usize::from).collect();
    let activity = match known.len() {
        0 => "activity unknown".to_owned(),
        n => format!("mean activity {}%", known.iter().sum::<usize>() / n),
    };
    let parts = [DeviceState::Held, DeviceState::Free, DeviceState::Ghost, DeviceState::Sick, DeviceState::Foreign]
        .into_iter()
        .filter(|s| count(*s) > 0)
        .map(|s| match s {
            DeviceState::Held => format!("{} held ({activity})", count(s)),
            other => format!("{} {}", count(other), word(other)),
        });
    format!("{} GPUs: {}", node.devices.len(), parts.collect::<Vec<_>>().join(", "))
}

/// What the cells mean.
pub fn legend() -> Markup {
    html! {
        p.legend {
            span { i.c.f {} " free" }
            span { i.c.h.a2 {} i.c.h.a5 {} i.c.h.a9 {} " held: the fuller, the more active" }
            span { i.c.h.u {} " held, activity unknown" }
            span { i.c.g {} " ghost: memory held by something unaccounted for" }
            span { i.c.s {} " sick" }
            span { i.c.o {} " held by pods of others" }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn device(state: DeviceState, activity_percent: Option<u8>) -> DeviceStatus {
        DeviceStatus { state, activity_percent, memory_used_mib: Some(62_000) }
    }

    #[test]
    fn unknown_activity_is_never_shown_as_zero() {
        let unknown = cell(3, &device(DeviceState::Held, None)).into_string();
        let idle = cell(3, &device(DeviceState::Held, Some(0))).into_string();
        assert!(unknown.contains("\"c h u\"") && unknown.contains("activity unknown"), "{unknown}");
        assert!(idle.contains("\"c h a0\"") && idle.contains("0%"), "{idle}");
    }

    #[test]
    fn every_state_has_a_class_and_a_word_of_its_own() {
        let all = [DeviceState::Held, DeviceState::Free, DeviceState::Ghost, DeviceState::Sick, DeviceState::Foreign];
        let shown: std::collections::BTreeSet<_> =
            all.iter().map(|s| cell(0, &device(*s, None)).into_string()).collect();
        assert_eq!(shown.len(), 5);
    }

    #[test]
    fn full_activity_is_the_last_step() {
        assert!(cell(0, &device(DeviceState::Held, Some(100))).into_string().contains("a10"));
        assert!(cell(0, &device(DeviceState::Held, Some(255))).into_string().contains("a10"));
    }
}

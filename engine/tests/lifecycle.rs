//! The lifecycle's table, as text and as a graph, and what must hold of it.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use engine::Phase;
use engine::lifecycle::Event;

#[test]
fn the_table_is_as_reviewed() {
    let mut text = String::new();
    for phase in Phase::ALL {
        for event in Event::ALL {
            if let Some(to) = phase.after(event).filter(|_| !phase.is_terminal()) {
                writeln!(text, "{phase:<10} {:<10} -> {to}", format!("{event:?}")).unwrap();
            }
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_graph_is_as_reviewed() {
    let mut text = String::from("digraph lifecycle {\n");
    for phase in Phase::ALL {
        let shape = if phase.is_terminal() { "doublecircle" } else { "box" };
        writeln!(text, "  {phase} [shape={shape}];").unwrap();
        for to in Phase::ALL.into_iter().filter(|_| !phase.is_terminal()) {
            let events: Vec<String> =
                Event::ALL.iter().filter(|e| phase.after(**e) == Some(to)).map(|e| format!("{e:?}")).collect();
            if !events.is_empty() && to != phase {
                writeln!(text, "  {phase} -> {to} [label=\"{}\"];", events.join(", ")).unwrap();
            }
        }
    }
    text.push_str("}\n");
    insta::assert_snapshot!(text);
}

#[test]
fn terminal_phases_absorb_every_event() {
    for phase in Phase::ALL.into_iter().filter(|p| p.is_terminal()) {
        for event in Event::ALL {
            assert_eq!(phase.after(event), Some(phase));
        }
    }
}

#[test]
fn an_ending_attempt_stays_so_until_it_is_gone() {
    for event in Event::ALL {
        let to = Phase::Draining.after(event);
        match event {
            Event::Gone => assert_eq!(to, Some(Phase::Cancelled)),
            // Of those that were preempted.
            Event::Retry => assert_eq!(to, Some(Phase::Queued)),
            // Of those that were idle.
            Event::GiveUp => assert_eq!(to, Some(Phase::Failed)),
            Event::Succeeded => assert_eq!(to, Some(Phase::Succeeded)),
            _ => assert!(matches!(to, None | Some(Phase::Draining)), "{event:?} leads to {to:?}"),
        }
    }
}

#[test]
fn only_a_gone_attempt_leads_back_to_the_queue() {
    for phase in Phase::ALL {
        for event in Event::ALL {
            if phase.after(event) == Some(Phase::Queued) {
                assert_eq!(event, Event::Retry, "{phase} goes back by {event:?}");
            }
        }
    }
}

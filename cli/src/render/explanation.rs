//! The answer to "why": a waiting workload's obstacles with their numbers, cluster by cluster, and what would help; a
//! placed one's decision with every candidate and its score.

use engine::Phase;
use engine::reasons::{Candidate, Decision, Explanation, Obstacle, WaitCause, Waiting};
use engine::state::Avoided;

use super::table::{Table, Tone, cell, known};
use super::{Out, age, obstacle};

/// The explanation as text.
pub fn text(name: &str, explanation: &Explanation, out: &Out) -> String {
    let mut text = format!("{} is {:?}: {}\n", out.heading(name), explanation.phase, explanation.summary);
    if let Some(waiting) = &explanation.waiting {
        text.push_str(&waits(waiting, out));
    }
    if !explanation.cures.is_empty() {
        let what =
            if explanation.phase == Phase::Queued { "What would let it start:" } else { "What would settle it:" };
        text.push_str(&format!("\n{}\n", out.heading(what)));
        explanation.cures.iter().for_each(|cure| text.push_str(&format!("  - {cure}\n")));
    }
    if let Some(decision) = &explanation.decision {
        text.push_str(&decided(decision, out));
    }
    text
}

fn waits(waiting: &Waiting, out: &Out) -> String {
    let pool =
        if waiting.pool == *engine::pools::DEFAULT { String::new() } else { format!(" of pool {}", waiting.pool) };
    let (place, of) = (waiting.place, waiting.of);
    let mut text = format!("\nPlace in the queue{pool}: {place} of {of}\nMain reason: {}\n", cause(&waiting.cause));
    let blocked: Vec<&Candidate> = waiting.candidates.iter().collect();
    if !blocked.is_empty() {
        text.push_str(&format!("\n{}\n", out.heading("Clusters:")));
        text.push_str(&obstacles(&blocked).indented(out));
    }
    text
}

fn cause(cause: &WaitCause) -> String {
    match cause {
        WaitCause::NoClusters => "no cluster has joined the federation".to_owned(),
        WaitCause::Impossible => "no cluster could ever hold it, even empty".to_owned(),
        WaitCause::Backoff { until } => format!("it failed and is tried again {}", age::until(*until)),
        other @ (WaitCause::Dependencies { .. }
        | WaitCause::Companion { .. }
        | WaitCause::UnknownData { .. }
        | WaitCause::NoTokens) => other.to_string(),
        WaitCause::NoRoom => "no cluster has room for the whole gang now".to_owned(),
        WaitCause::BehindOthers { ahead, first } => format!("{ahead} ahead of it in line, {first} first"),
        WaitCause::BeingPlaced => "it has a place, and is being bound to it".to_owned(),
        WaitCause::Quota(short) => short.to_string(),
    }
}

/// Clusters with what keeps the gang out, and the numbers behind it: members that are needed, that fit now, and that
/// would fit but for running attempts, ghosts, sick GPUs and pods of others.
fn obstacles(candidates: &[&Candidate]) -> Table {
    let mut table = Table::new(&["CLUSTER", "#NEEDS", "#FITS", "#BUSY", "#GHOSTS", "#SICK", "#OTHERS", "WHY NOT"]);
    for candidate in candidates {
        let numbers: [Option<u32>; 6] = match &candidate.obstacle {
            Some(Obstacle::NoRoom {
                needs,
                fits,
                held_by_ghosts,
                held_by_sick,
                held_by_foreign,
                held_by_attempts,
                ..
            }) => [*needs, *fits, *held_by_attempts, *held_by_ghosts, *held_by_sick, *held_by_foreign].map(Some),
            Some(Obstacle::TooSmall { needs, holds, .. }) => [Some(*needs), Some(*holds), None, None, None, None],
            _ => [None; 6],
        };
        let why = candidate
            .obstacle
            .as_ref()
            .map_or(("it could hold it".to_owned(), Tone::Good), |o| cell(obstacle::sentence(o)));
        let mut row = vec![cell(&candidate.cluster)];
        row.extend(numbers.map(known));
        row.push(why);
        table.row(row);
    }
    table
}

fn decided(decision: &Decision, out: &Out) -> String {
    let mut text = format!(
        "\n{}\n",
        out.heading(&format!(
            "Decision (on capacity frame {}, {} old, by engine {}):",
            decision.sequence,
            age::span_ms(decision.age_ms),
            decision.engine
        ))
    );
    let mut table = Table::new(&["#RANK", "CLUSTER", "SCORE (LOWER IS BETTER, FIRST TERM COUNTS MOST)"]);
    let (able, unable): (Vec<_>, Vec<_>) = decision.candidates.iter().partition(|c| c.obstacle.is_none());
    for (i, candidate) in able.iter().enumerate() {
        let terms: Vec<String> = candidate.score.iter().map(ToString::to_string).collect();
        let tone = if i == 0 { Tone::Good } else { Tone::Plain };
        table.row(vec![
            cell(i + 1),
            (candidate.cluster.to_string(), tone),
            known(Some(terms.join(", ")).filter(|t| !t.is_empty())),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.indented(out));
    }
    if let Some(Avoided { attempt, .. }) = decision.despite {
        text.push_str(&format!("  Attempt {attempt} failed there lately: no cluster could hold it anywhere else.\n"));
    }
    if !unable.is_empty() {
        text.push_str(&format!("\n{}\n", out.heading("Clusters that could not hold it then:")));
        text.push_str(&obstacles(&unable).indented(out));
    }
    text
}

//! `GET /explain/{ns}/{name}`: why a workload is where it is, for programs and as text.

use axum::Json;
use axum::extract::{Path, Query, State};
use engine::reasons::Explanation;
use engine::{Phase, plan};
use serde::Serialize;

use super::Api;
use super::errors::ApiError;
use super::params::Params;
use super::workloads::{key, no_workload};

/// The engine's explanation, and the same as text.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// For programs.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// For people.
    pub text: String,
}

/// `GET /explain/{ns}/{name}`
pub async fn get(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Result<Json<Explained>, ApiError> {
    let key = key(path)?;
    let wanted = key.clone();
    let found =
        api.read(params.consistency()?, move |view| plan::explain(view.state, view.capacity, view.now, &wanted));
    let explanation = found.await?.ok_or_else(|| no_workload(&key))?;
    Ok(Json(Explained { text: text(&explanation), explanation }))
}

/// An explanation as lines of text.
pub fn text(explanation: &Explanation) -> String {
    let mut lines = vec![explanation.summary.clone()];
    if let Some(waiting) = &explanation.waiting {
        lines.push(format!("Place {} of {} in the queue.", waiting.place, waiting.of));
        lines.extend(waiting.candidates.iter().map(|c| format!("  {c}")));
    }
    if let Some(decision) = &explanation.decision {
        lines.push(format!(
            "Decided on capacity frame {}, {} ms old, by engine {}:",
            decision.sequence, decision.age_ms, decision.engine
        ));
        let chosen = decision.candidates.iter().enumerate();
        lines.extend(chosen.map(|(i, c)| format!("{} {}", if i == 0 { " *" } else { "  " }, c)));
    }
    if !explanation.cures.is_empty() {
        let what = if explanation.phase == Phase::Queued { "It starts once:" } else { "It is settled once:" };
        lines.push(what.into());
        lines.extend(explanation.cures.iter().map(|c| format!("  {c}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

//! A workload's page: what it asks for, why it is where it is, its attempts and its timeline.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use engine::plan;
use engine::reasons::{Candidate, Explanation};
use engine::state::Workload;
use maud::{Markup, PreEscaped, html};
use protocol::ids::{UnixMs, WorkloadKey};
use protocol::workload::{GroupNeed, WorkloadSpec};

use super::dashboard::phase;
use super::frame::{self, time};
use crate::api::Api;
use crate::api::errors::ApiError;
use crate::api::words::{self, span};
use crate::api::workloads::{key, no_workload};
use crate::handle::Consistency;

/// `GET /workloads/{namespace}/{name}`
pub async fn get(State(api): State<Api>, Path(path): Path<(String, String)>) -> Result<Response, ApiError> {
    let key = key(path)?;
    let parts = parts(&api, key.clone()).await?;
    let body = html! {
        div #workload { (PreEscaped(parts.get("workload").cloned().unwrap_or_default())) }
    };
    let events = format!("/events?workload={}/{}", key.namespace, key.name);
    Ok(frame::answer(frame::page(&format!("{key} · Tidewater"), &events, &body)))
}

/// The parts that change, by their element's id.
pub async fn parts(api: &Api, key: WorkloadKey) -> Result<BTreeMap<&'static str, String>, ApiError> {
    let wanted = key.clone();
    let found = api.read(Consistency::Stale, move |view| {
        let workload = view.state.workloads.get(&wanted)?.clone();
        Some((workload, plan::explain(view.state, view.capacity, view.now, &wanted)?, view.now))
    });
    let (workload, explanation, now) = found.await?.ok_or_else(|| no_workload(&key))?;
    Ok(BTreeMap::from([("workload", whole(&workload, &explanation, now).into_string())]))
}

fn whole(workload: &Workload, explanation: &Explanation, now: UnixMs) -> Markup {
    html! {
        div.title {
            h1 { small { (workload.key.namespace) "/" } (workload.key.name) }
            (phase(workload.phase))
        }
        p.lead { (explanation.summary) }
        section { h2 { "Why" } (why(explanation)) }
        section { h2 { "Attempts" } (attempts(workload, now)) }
        div.columns {
            section { h2 { "Timeline" span.count { "UTC" } } (timeline(workload)) }
            section { h2 { "Asks for" } (asks(workload)) }
        }
    }
}

fn why(explanation: &Explanation) -> Markup {
    html! {
        @if let Some(waiting) = &explanation.waiting {
            p { "Place " b { (waiting.place) } " of " (waiting.of) " in the queue." }
            (candidates(&waiting.candidates, None))
        }
        @if let Some(decision) = &explanation.decision {
            (candidates(&decision.candidates, Some("chosen")))
            p.note {
                "Decided on capacity frame " (decision.sequence) ", " (span(decision.age_ms)) " old then, by engine "
                (decision.engine) ". In a score, lower is better, and the first difference decides."
            }
        }
        @if !explanation.cures.is_empty() {
            h3 { "It starts once" }
            ul { @for cure in &explanation.cures { li { (cure) } } }
        }
        @if explanation.waiting.is_none() && explanation.decision.is_none() {
            p.empty { "It was never placed." }
        }
    }
}

/// Every cluster that was looked at. `first` names what the first one is, where that means something.
fn candidates(candidates: &[Candidate], first: Option<&str>) -> Markup {
    html! {
        @if candidates.is_empty() {
            p.empty { "There was no cluster to look at." }
        } @else {
            table {
                thead { tr { th { "Cluster" } th { "Verdict" } th { "Score, or what is in the way" } } }
                tbody {
                    @for (i, candidate) in candidates.iter().enumerate() {
                        tr.chosen[i == 0 && first.is_some()] {
                            td.nowrap { (candidate.cluster) }
                            td.nowrap {
                                @match (&candidate.obstacle, first.filter(|_| i == 0)) {
                                    (_, Some(word)) => { b { "✓ " (word) } }
                                    (None, None) => { "could hold it" }
                                    (Some(_), None) => { "✕ could not" }
                                }
                            }
                            td {
                                @match &candidate.obstacle {
                                    Some(obstacle) => { (obstacle) }
                                    None => {
                                        span.terms { @for term in &candidate.score { span.term { (term) } } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn attempts(workload: &Workload, now: UnixMs) -> Markup {
    let logs = |number: &dyn std::fmt::Display| {
        format!("/logs/{}/{}?attempt={number}", workload.key.namespace, workload.key.name)
    };
    html! {
        @if workload.attempts.is_empty() {
            p.empty { "None yet." }
        } @else {
            table {
                thead { tr { th.num { "Try" } th { "Cluster" } th { "Where" } th { "Bound (UTC)" } th.num { "Took" } th { "Last word" } th { "Log" } } }
                tbody {
                    @for attempt in workload.attempts.iter().rev() {
                        tr {
                            td.num { (attempt.number) }
                            td.nowrap { (attempt.cluster) }
                            td { @for group in &attempt.placement { div { (words::placement(group)) } } }
                            td.nowrap { (time(attempt.bound_at)) }
                            td.num.nowrap { (span(attempt.ended_at.unwrap_or(now).0.saturating_sub(attempt.bound_at.0))) }
                            td.why { (words::attempt(attempt)) }
                            td { a href=(logs(&attempt.number)) { "log" } }
                        }
                    }
                }
            }
        }
    }
}

fn timeline(workload: &Workload) -> Markup {
    html! {
        ol.timeline {
            @for moment in &workload.timeline {
                li { (time(moment.at)) " " (phase(moment.phase)) " " span { (moment.what) } }
            }
        }
    }
}

/// How many members a group has: a number, or from how few to how many.
fn members(spec: &WorkloadSpec, group: &GroupNeed) -> String {
    let elastic = spec.elastic().find(|(name, ..)| **name == group.name);
    elastic.map_or_else(|| group.count.to_string(), |(_, least, most)| format!("{least} to {most}"))
}

fn asks(workload: &Workload) -> Markup {
    let spec = &workload.spec;
    html! {
        table {
            thead { tr { th { "Group" } th.num { "Members" } th { "Each" } th { "GPU" } } }
            tbody {
                @for group in spec.gang() {
                    tr {
                        td { (group.name) }
                        td.num { (members(spec, &group)) }
                        td { (group.each) }
                        td { @for sku in &group.skus { span.term { (sku) } } }
                    }
                }
            }
        }
        p.note {
            "Submitted " (time(workload.submitted_at)) " · priority " (spec.priority) " · uid " code { (workload.uid) }
        }
    }
}

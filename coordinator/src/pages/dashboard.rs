//! The dashboard: totals, clusters with their GPUs, the queue with its reasons, and what runs or ran.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, PreEscaped, html};
use protocol::capacity::Source;
use protocol::ids::UnixMs;

use super::cells;
use super::frame;
use super::model::{ClusterCard, Model, Row, path};
use crate::api::Api;
use crate::api::errors::ApiError;
use crate::api::supply::{ClusterPhase, Supply};
use crate::api::words::span;
use crate::handle::Consistency;

/// `GET /`
pub async fn get(State(api): State<Api>) -> Result<Response, ApiError> {
    let parts = parts(&api).await?;
    let part = |id: &str| PreEscaped(parts.get(id).cloned().unwrap_or_default());
    let body = html! {
        section #totals aria-label="Totals" { (part("totals")) }
        section aria-labelledby="clusters-title" {
            h2 #clusters-title { "Clusters" }
            (cells::legend())
            div #clusters { (part("clusters")) }
        }
        section #queue aria-label="Queue" { (part("queue")) }
        section #recent aria-label="Running and recent" { (part("recent")) }
    };
    Ok(frame::answer(frame::page("Tidewater", "/events", &body)))
}

/// The parts that change, by their element's id.
pub async fn parts(api: &Api) -> Result<BTreeMap<&'static str, String>, ApiError> {
    let reasons = api.reasons().clone();
    let model = api.read(Consistency::Stale, move |view| Model::read(view, &reasons)).await?;
    Ok([
        ("totals", totals(&model)),
        ("clusters", clusters(&model)),
        ("queue", queue(&model)),
        ("recent", recent(&model)),
    ]
    .into_iter()
    .map(|(id, markup)| (id, markup.into_string()))
    .collect())
}

fn totals(model: &Model) -> Markup {
    let all = model.total();
    let figure = |name: &str, value: String, class: &str| {
        html! { div class=(class) { dt { (name) } dd { (value) } } }
    };
    let activity = all.activity_percent().map_or("unknown".to_owned(), |p| format!("{p}%"));
    let coordinators = match model.leader {
        Some(leader) => format!("replica {} of {}; {leader} leads", model.replica, model.voters),
        None => format!("replica {} of {}; no leader known", model.replica, model.voters),
    };
    html! {
        dl.totals {
            (figure("GPUs", all.gpus.total.to_string(), ""))
            (figure("free", all.gpus.free.to_string(), ""))
            (figure("held", all.gpus.held.to_string(), ""))
            (figure("ghost", all.gpus.ghosts.to_string(), if all.gpus.ghosts > 0 { "warn" } else { "quiet" }))
            (figure("sick", all.gpus.sick.to_string(), if all.gpus.sick > 0 { "bad" } else { "quiet" }))
            @if all.gpus.foreign > 0 { (figure("others", all.gpus.foreign.to_string(), "")) }
            (figure("mean activity", activity, ""))
            (figure("running", model.running.to_string(), ""))
            (figure("queued", model.queued.to_string(), ""))
            div.wide { dt { "coordinator" } dd.text { (coordinators) } }
        }
    }
}

fn clusters(model: &Model) -> Markup {
    html! {
        @if model.clusters.is_empty() {
            p.empty { "No cluster has joined yet." }
        }
        div.regions {
            @for (region, clusters) in model.regions() {
                div.region style=(format!("--n:{}", clusters.len().min(3))) {
                    h3 { (region) }
                    div.cards { @for cluster in clusters { (card(cluster)) } }
                }
            }
        }
    }
}

fn card(cluster: &ClusterCard) -> Markup {
    let state = match cluster.phase {
        ClusterPhase::Ready => "ready",
        ClusterPhase::Stale => "stale",
        ClusterPhase::Cordoned => "cordoned",
        ClusterPhase::Draining => "draining",
        ClusterPhase::Drained => "drained",
        ClusterPhase::Lost => "lost",
    };
    html! {
        article.card.(state) aria-label=(format!("cluster {}", cluster.name)) {
            header {
                h4 { (cluster.name) }
                span.tag.(state) { (state) }
                @if cluster.supply.nodes > 0 {
                    @match cluster.supply.source {
                        Source::Measured => {}
                        Source::Label => {
                            span.tag title="Counted by Kubernetes, not measured; activity is not known" { "by label" }
                        }
                        Source::Declared => {
                            span.tag title="Written down, not measured; activity is that of what was placed there" {
                                "declared"
                            }
                        }
                    }
                }
                span.note { (age(cluster)) }
            }
            @if let Some(cordon) = &cluster.cordon {
                p.note { (cordon) }
            }
            @for (sku, supply) in &cluster.models { (model_line(sku.as_str(), supply)) }
            @if cluster.nodes.is_empty() {
                p.empty { "No capacity heard of yet." }
            } @else {
                ul.nodes { @for node in &cluster.nodes { (cells::node(node)) } }
            }
            @if cluster.more_nodes > 0 {
                p.note { "and " (cluster.more_nodes) " more nodes, counted above" }
            }
        }
    }
}

fn age(cluster: &ClusterCard) -> String {
    let running = match cluster.running {
        0 => "nothing runs".to_owned(),
        n => format!("{n} running"),
    };
    match (cluster.phase, cluster.age_ms) {
        (ClusterPhase::Lost, Some(age)) => format!("last heard {} ago; {running}", span(age)),
        (ClusterPhase::Stale, Some(age)) => format!("capacity {} old; {running}", span(age)),
        _ => running,
    }
}

fn model_line(sku: &str, supply: &Supply) -> Markup {
    let g = supply.gpus;
    let all = g.total.max(1) as f64;
    let share = |count: u64| format!("width:{:.2}%", count as f64 * 100.0 / all);
    let mut words = vec![format!("{} free of {}", g.free, g.total)];
    words.extend((g.held > 0).then(|| format!("{} held", g.held)));
    words.extend((g.ghosts > 0).then(|| format!("{} ghost", g.ghosts)));
    words.extend((g.sick > 0).then(|| format!("{} sick", g.sick)));
    words.extend((g.foreign > 0).then(|| format!("{} held by others", g.foreign)));
    let out = g.total.saturating_sub(g.free + g.held + g.ghosts + g.sick + g.foreign);
    words.extend((out > 0).then(|| format!("{out} out of service")));
    words.push(supply.activity_percent().map_or("activity unknown".into(), |p| format!("mean activity {p}%")));
    html! {
        div.model {
            b { (sku) }
            span.words { (words.join(" · ")) }
            span.bar aria-hidden="true" {
                i.h style=(share(g.held)) {}
                i.g style=(share(g.ghosts)) {}
                i.s style=(share(g.sick)) {}
                i.o style=(share(g.foreign)) {}
            }
        }
    }
}

fn queue(model: &Model) -> Markup {
    html! {
        h2 { "Queue" span.count { (model.queued) } }
        @if model.queue.is_empty() {
            p.empty { "Nothing waits." }
        } @else {
            table {
                thead { tr { th.num { "Place" } th { "Workload" } th { "Asks for" } th.num { "Waits" } th { "Why" } } }
                tbody {
                    @for row in &model.queue {
                        tr {
                            td.num { (row.place.map_or("·".to_owned(), |p| p.to_string())) }
                            td.nowrap { (link(row)) }
                            td.nowrap { (row.asks) }
                            td.num.nowrap { (since(model.now, row.submitted_at)) }
                            td.why {
                                span.cause { (row.message) }
                                ul.obstacles {
                                    @for obstacle in &row.obstacles.0 { li { (obstacle) } }
                                    @if row.obstacles.1 > 0 { li { "and " (row.obstacles.1) " more clusters" } }
                                }
                            }
                        }
                    }
                }
            }
            @if model.queued > model.queue.len() {
                p.note { "and " (model.queued - model.queue.len()) " more" }
            }
        }
    }
}

fn recent(model: &Model) -> Markup {
    html! {
        h2 { "Running and recent" span.count { (model.running) " running" } }
        @if model.recent.is_empty() {
            p.empty { "Nothing has run yet." }
        } @else {
            table {
                thead { tr { th { "Workload" } th { "Phase" } th { "Cluster" } th { "Asks for" } th { "Began (UTC)" } th.num { "Took" } th { "Last word" } } }
                tbody {
                    @for row in &model.recent {
                        tr {
                            td.nowrap { (link(row)) }
                            td { (phase(row.phase)) }
                            td.nowrap { (row.cluster.as_ref().map_or("–", |c| c.as_str())) }
                            td.nowrap { (row.asks) }
                            td.nowrap { @if let Some(at) = row.began_at { (frame::time(at)) } }
                            td.num.nowrap { @if let Some(at) = row.began_at { (since(row.ended_at.unwrap_or(model.now), at)) } }
                            td.why { (row.message) }
                        }
                    }
                }
            }
        }
    }
}

fn since(now: UnixMs, then: UnixMs) -> String {
    span(now.0.saturating_sub(then.0))
}

fn link(row: &Row) -> Markup {
    html! {
        a href=(path(&row.key)) { small { (row.key.namespace) "/" } (row.key.name) }
        " " span.kind { (row.framework) }
    }
}

/// A phase as a tag with a mark of its own, so that it is told without its colour.
pub fn phase(phase: engine::lifecycle::Phase) -> Markup {
    use engine::lifecycle::Phase;
    let (class, mark) = match phase {
        Phase::Queued => ("wait", "○"),
        Phase::Bound | Phase::Launching | Phase::Starting => ("start", "◔"),
        Phase::Running => ("run", "●"),
        Phase::Draining => ("start", "◑"),
        Phase::Unknown => ("odd", "?"),
        Phase::Succeeded => ("good", "✓"),
        Phase::Failed => ("fail", "✕"),
        Phase::Cancelled => ("gone", "–"),
    };
    html! { span.phase.(class) { i aria-hidden="true" { (mark) } (phase) } }
}

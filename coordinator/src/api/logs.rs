//! `GET /logs/{ns}/{name}`: an attempt's log as text, streamed from its cluster's agent.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use engine::state::{Attempt, Workload};
use futures_util::stream;
use protocol::control::GroupPlacement;
use protocol::ids::{AttemptNumber, WorkloadKey};
use protocol::workload::is_fixed;
use tokio::sync::mpsc;

use super::Api;
use super::errors::ApiError;
use super::params::Params;
use super::workloads::{key, no_workload};
use crate::handle::{Consistency, LogQuestion};

/// How often a follower looks whether a queued workload has its first attempt.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long the first chunk is awaited before the answer begins without it: an error by then has its proper HTTP code.
const FIRST: Duration = Duration::from_secs(1);

/// Which log of a workload there is.
enum Found {
    Log(LogQuestion),
    /// It waits for its first attempt.
    NotYet,
    /// It ended without one, or the attempt asked for is not kept.
    Never(String),
}

/// Which log is asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// None: the last.
    attempt: Option<AttemptNumber>,
    worker: Option<u32>,
    follow: bool,
}

/// `GET /logs/{ns}/{name}?follow=&attempt=&worker=`. With `follow` it goes on until the attempt ends, and a queued workload's log
/// begins with its first attempt.
pub async fn get(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Result<Response, ApiError> {
    let key = key(path)?;
    let wanted = Wanted {
        attempt: params.parsed::<u32>("attempt")?.map(AttemptNumber),
        worker: params.parsed("worker")?,
        follow: params.switch("follow")?,
    };
    let body = match find(&api, &key, wanted, Consistency::Linearizable).await? {
        Found::Log(question) => begin(&api, question).await?,
        Found::NotYet if wanted.follow => later(api, key, wanted),
        Found::NotYet => {
            return Err(ApiError::NotFound(format!(
                "workload {key} has no log yet: it has not been placed; ask with follow=true to wait for it"
            )));
        }
        Found::Never(why) => return Err(ApiError::NotFound(why)),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, body).into_response())
}

async fn find(api: &Api, key: &WorkloadKey, wanted: Wanted, consistency: Consistency) -> Result<Found, ApiError> {
    let workload = key.clone();
    let found = api.read(consistency, move |view| Some(which(view.state.workloads.get(&workload)?, wanted)));
    found.await?.ok_or_else(|| no_workload(key))
}

fn which(workload: &Workload, wanted: Wanted) -> Found {
    let attempts = &workload.attempts;
    let chosen = match wanted.attempt {
        None => attempts.last(),
        Some(number) => attempts.iter().find(|a| a.number == number),
    };
    let beyond = |attempt: &&Attempt| wanted.worker.is_some_and(|worker| worker >= workers(attempt));
    if let Some(attempt) = chosen.filter(beyond) {
        let (key, number) = (&workload.key, attempt.number);
        return Found::Never(match workers(attempt) {
            0 => format!("attempt {number} of workload {key} has no workers: leave out which"),
            1 => format!("attempt {number} of workload {key} has one worker: 0"),
            count => format!("attempt {number} of workload {key} has workers 0 to {}", count - 1),
        });
    }
    match chosen {
        Some(attempt) => Found::Log(LogQuestion {
            cluster: attempt.cluster.clone(),
            attempt: workload.attempt_id(attempt.number),
            follow: wanted.follow && attempt.ended_at.is_none(),
            worker: wanted.worker,
        }),
        None if workload.phase.is_terminal() || !attempts.is_empty() => {
            let kept: Vec<String> = attempts.iter().map(|a| a.number.to_string()).collect();
            Found::Never(match kept.is_empty() {
                true => format!("workload {} ended before it was placed: it has no log", workload.key),
                false => format!("workload {} has attempts {} only", workload.key, kept.join(", ")),
            })
        }
        None => Found::NotYet,
    }
}

/// How many members it has beside Ray's head and Spark's driver.
fn workers(attempt: &Attempt) -> u32 {
    attempt.placement.iter().filter(|group| !is_fixed(&group.group)).map(GroupPlacement::members).sum()
}

/// Asks for the log and waits a moment for its first chunk.
async fn begin(api: &Api, question: LogQuestion) -> Result<Body, ApiError> {
    let cluster = question.cluster.clone();
    let mut chunks = api.handle().logs(question);
    let first = match tokio::time::timeout(FIRST, chunks.recv()).await {
        Ok(Some(Err(why))) => {
            return Err(ApiError::Unavailable(format!("cluster {cluster} could not give the log: {why}")));
        }
        Ok(first) => first,
        Err(_) => None,
    };
    Ok(body(api.clone(), first, chunks))
}

type Chunk = Result<Vec<u8>, String>;

/// Chunks as a body. An error breaks the transfer off, so that nobody takes a part for the whole.
fn body(api: Api, first: Option<Chunk>, chunks: mpsc::Receiver<Chunk>) -> Body {
    Body::from_stream(stream::unfold((api, first, chunks), |(api, first, mut chunks)| async move {
        let chunk = match first {
            Some(chunk) => chunk,
            None => tokio::select! {
                chunk = chunks.recv() => chunk?,
                () = api.settings().stopping.cancelled() => return None,
            },
        };
        let chunk = chunk.map(Bytes::from).map_err(std::io::Error::other);
        Some((chunk, (api, None, chunks)))
    }))
}

/// The log of an attempt that does not exist yet.
fn later(api: Api, key: WorkloadKey, wanted: Wanted) -> Body {
    enum At {
        Waiting,
        Reading(mpsc::Receiver<Chunk>),
    }
    Body::from_stream(stream::unfold((api, key, At::Waiting), move |(api, key, mut at)| async move {
        loop {
            match at {
                At::Reading(mut chunks) => {
                    let chunk = tokio::select! {
                        chunk = chunks.recv() => chunk?,
                        () = api.settings().stopping.cancelled() => return None,
                    };
                    let chunk = chunk.map(Bytes::from).map_err(std::io::Error::other);
                    return Some((chunk, (api, key, At::Reading(chunks))));
                }
                At::Waiting => match find(&api, &key, wanted, Consistency::Stale).await {
                    Ok(Found::Log(question)) => at = At::Reading(api.handle().logs(question)),
                    Ok(Found::NotYet) => tokio::select! {
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                        () = api.settings().stopping.cancelled() => return None,
                    },
                    // It was cancelled or deleted before it ran: the log is complete, and empty.
                    Ok(Found::Never(_)) | Err(_) => return None,
                },
            }
        }
    }))
}

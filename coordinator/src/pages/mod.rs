//! The first pages: the dashboard at `/` and a page for each workload. Read-only, rendered here, whole without scripts, and
//! live by server-sent events where scripts run. They read through the API's state alone.
//!
//! One read of the core makes a [`model`]; one file for each part makes its HTML of that.

mod cells;
mod dashboard;
mod events;
mod frame;
mod model;
mod workload;

use axum::Router;
use axum::routing::get;

use crate::api::Api;

pub use events::Live;

/// The pages' routes.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/", get(dashboard::get))
        .route("/workloads/{namespace}/{name}", get(workload::get))
        .route("/events", get(events::get))
        .route("/style.css", get(frame::style))
        .route("/live.js", get(frame::script))
}

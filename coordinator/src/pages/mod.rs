//! The first pages: read-only, rendered here, live by server-sent events. They read through the API's state alone.

use axum::Router;

use crate::api::Api;

/// What the live pages share.
#[derive(Debug, Default)]
pub struct Live;

/// The pages' routes.
pub fn routes() -> Router<Api> {
    Router::new()
}

//! What whoever verifies workload tokens asks for, without a login: who the issuer is (OpenID Connect Discovery 1.0), and its keys.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use protocol::workload::{SpecError, WorkloadSpec};
use serde_json::{Value, json};

use super::Api;
use super::errors::ApiError;
use crate::handle::{Consistency, View};
use crate::identity::workload_tokens::{NOT_ISSUED, key_set};

/// Where the issuer says who it is.
pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
/// Where its keys are.
pub const KEYS: &str = "/openid/v1/jwks";
/// How long an answer may be kept. A key is served before anything is signed with it, and whoever meets one that it does not know asks again.
const KEPT: &str = "public, max-age=300";

/// `GET /.well-known/openid-configuration`
pub async fn configuration(State(api): State<Api>) -> Result<Response, ApiError> {
    let issuer = api.settings().issuer.as_ref().ok_or_else(|| ApiError::NotFound(NOT_ISSUED.to_owned()))?;
    Ok(kept(json!({
        "issuer": issuer.to_string(),
        "jwks_uri": issuer.at(KEYS),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "tidewater.dev"],
    })))
}

/// `GET /openid/v1/jwks`: the keys of all replicas, also of one that issues no tokens itself. Without a quorum, those that it knows.
pub async fn keys(State(api): State<Api>) -> Result<Response, ApiError> {
    let look = |view: &View<'_>| key_set(&view.state.token_keys, view.now.max(view.state.now));
    let keys = match api.read(Consistency::Linearizable, look).await {
        Ok(keys) => keys,
        Err(_) => api.read(Consistency::Stale, look).await?,
    };
    Ok(kept(keys))
}

fn kept(body: Value) -> Response {
    ([(header::CACHE_CONTROL, KEPT)], Json(body)).into_response()
}

/// What is wrong with a specification that asks for tokens where none are issued.
pub(super) fn unissued(api: &Api, spec: &WorkloadSpec) -> Option<SpecError> {
    let wanted = !spec.tokens.is_empty() && api.settings().issuer.is_none();
    wanted.then(|| SpecError { field: "spec.tokens".into(), problem: format!("{NOT_ISSUED}, or leave it out") })
}

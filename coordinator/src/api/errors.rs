//! How a request goes wrong: one enum, and its way to a Kubernetes `Status` with the right HTTP code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::commands::Refusal;
use engine::data::DataFault;
use engine::pools::PoolFault;
use protocol::api::Status;
use protocol::data::DATA_KIND;
use protocol::ids::BadName;
use protocol::pool::objects::POOL_KIND;
use protocol::workload::SpecError;
use serde::Serialize;

use crate::handle::{ProposeError, ReadError};

/// Why a request was not carried out. Each says what, where and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request can't be read.
    #[error("{0}")]
    Malformed(String),
    /// Nothing has that name.
    #[error("{0}")]
    NotFound(String),
    /// The path exists, the method does not.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// The name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// The watch's start is older than what is kept.
    #[error("{0}")]
    Expired(String),
    /// The body is over the limit.
    #[error("{0}")]
    TooLarge(String),
    /// The body is in a format that is not read here.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The specification has faults: all of them.
    #[error("{kind} {name:?} is invalid: {}", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// The object's kind.
        kind: &'static str,
        /// The object's name.
        name: String,
        /// Each fault with its field.
        faults: Vec<SpecError>,
    },
    /// Too much is in flight.
    #[error("{0}")]
    Overloaded(String),
    /// No leader, no quorum, or the process is going away.
    #[error("{0}")]
    Unavailable(String),
}

impl ApiError {
    /// The HTTP code and Kubernetes' word for it.
    pub fn code(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Malformed(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            ApiError::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            ApiError::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            ApiError::AlreadyExists(_) => (StatusCode::CONFLICT, "AlreadyExists"),
            ApiError::Conflict(_) => (StatusCode::CONFLICT, "Conflict"),
            ApiError::Expired(_) => (StatusCode::GONE, "Expired"),
            ApiError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            ApiError::UnsupportedMediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
            ApiError::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            ApiError::Overloaded(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            ApiError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        }
    }

    /// The `Status` object.
    pub fn status(&self) -> Status {
        let (code, reason) = self.code();
        Status {
            api_version: "v1".into(),
            kind: "Status".into(),
            status: "Failure".into(),
            message: self.to_string(),
            reason: reason.into(),
            code: code.as_u16(),
        }
    }

    /// `Status` with what Kubernetes puts into `details`.
    fn body(&self) -> StatusBody {
        let details = match self {
            ApiError::Invalid { kind, name, faults } => Some(Details {
                kind,
                name: name.clone(),
                causes: faults
                    .iter()
                    .map(|f| Cause { reason: "FieldValueInvalid", field: f.field.clone(), message: f.problem.clone() })
                    .collect(),
            }),
            _ => None,
        };
        StatusBody { status: self.status(), details }
    }
}

/// A `Status` as it crosses the wire.
#[derive(Serialize)]
struct StatusBody {
    #[serde(flatten)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Serialize)]
struct Details {
    kind: &'static str,
    name: String,
    causes: Vec<Cause>,
}

#[derive(Serialize)]
struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, _) = self.code();
        let mut response = (code, axum::Json(self.body())).into_response();
        if matches!(self, ApiError::Overloaded(_) | ApiError::Unavailable(_)) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ReadError> for ApiError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::NoQuorum => ApiError::Unavailable(format!(
                "{e}: try again, or ask for what this replica knows with ?consistency=stale"
            )),
            ReadError::ShuttingDown => ApiError::Unavailable(e.to_string()),
        }
    }
}

impl From<ProposeError> for ApiError {
    fn from(e: ProposeError) -> Self {
        match e {
            ProposeError::Refused(refusal) => refusal.into(),
            ProposeError::Overloaded => ApiError::Overloaded(e.to_string()),
            ProposeError::Unconfirmed | ProposeError::ShuttingDown => ApiError::Unavailable(e.to_string()),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NameTaken { .. } | Refusal::Exists { .. } => ApiError::AlreadyExists(text),
            Refusal::Pool(fault) => match *fault {
                PoolFault::NoPool { .. } | PoolFault::NoRule { .. } => ApiError::NotFound(text),
                PoolFault::Invalid(faults) => ApiError::Invalid { kind: POOL_KIND, name: String::new(), faults },
                _ => ApiError::Conflict(text),
            },
            Refusal::Data(fault) => match *fault {
                DataFault::NoData { .. } => ApiError::NotFound(text),
                DataFault::Invalid(faults) => ApiError::Invalid { kind: DATA_KIND, name: String::new(), faults },
                DataFault::TooMany => ApiError::Conflict(text),
            },
            Refusal::NoWorkload { .. } | Refusal::NoCluster { .. } | Refusal::UnknownCluster { .. } => {
                ApiError::NotFound(text)
            }
            Refusal::Invalid(faults) => ApiError::Invalid { kind: "Workload", name: String::new(), faults },
            Refusal::UidTaken { .. }
            | Refusal::StaleBinding { .. }
            | Refusal::StaleGrowth { .. }
            | Refusal::StaleRaise { .. }
            | Refusal::StalePreemption { .. }
            | Refusal::OldEpoch { .. }
            | Refusal::StrayReport { .. }
            | Refusal::NotDue { .. }
            | Refusal::NotIdle { .. }
            | Refusal::NotFenced { .. }
            | Refusal::NotDrained { .. }
            | Refusal::ClusterRemoved { .. }
            | Refusal::ClusterStays { .. }
            | Refusal::TokenKeyRefused { .. }
            | Refusal::NotAbandoned { .. } => ApiError::Conflict(text),
        }
    }
}

impl From<BadName> for ApiError {
    fn from(e: BadName) -> Self {
        ApiError::Malformed(e.to_string())
    }
}

//! Why there is no answer, in words a person can act on.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use crrl_report::ReadError;
use crrl_store::StoreError;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    says: String,
}

impl Problem {
    /// What was asked makes no sense.
    #[must_use]
    pub fn usage(says: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, says: says.into() }
    }

    /// There is no such thing, or not yet.
    #[must_use]
    pub fn missing(says: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, says: says.into() }
    }

    /// Too much is asked at one time.
    #[must_use]
    pub fn busy(says: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, says: says.into() }
    }

    /// It should have been answered, and was not.
    #[must_use]
    pub fn failed(why: &dyn std::fmt::Display) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, says: why.to_string() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.says)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing { .. } | ReadError::NoFolder { .. } => {
                Self::missing(error.to_string())
            }
            ReadError::Store(error) => error.into(),
            other => Self::failed(&other),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy { .. } => Self::busy(error.to_string()),
            StoreError::Open { ref path, .. } if !path.exists() => Self::missing(format!(
                "{} is not there: the run has no store on this machine, or has not begun",
                path.display()
            )),
            other => Self::failed(&other),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.says }).to_string();
        (self.status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

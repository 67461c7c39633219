//! Replies to requests, and [`ApiError`], the reason why a request failed.

use crate::config::ConfigError;
use crate::settings::SaveError;
use crate::system::helper::HelperError;
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use serde_json::json;
use std::io::ErrorKind;
use warp::Reply;
use warp::reply::Response;

/// Value of `Retry-After`, in seconds, when a limit is reached.
pub(super) const RETRY_AFTER_SECONDS: u32 = 10;

/// Why a request failed. [`ApiError::into_response`] converts it to the reply.
#[derive(Debug)]
pub(super) enum ApiError {
    /// A status with a message, as plain text.
    Status(StatusCode, String),
    /// 405 Method Not Allowed, with the list of allowed methods.
    Method(&'static str),
    /// 422 Unprocessable Content, for an invalid configuration. The reply is JSON with the line and
    /// column of the error.
    Invalid(ConfigError),
    /// 503 Service Unavailable, with `Retry-After`.
    Busy(String),
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError::Status(status, message.into())
    }

    pub(super) fn into_response(self) -> Response {
        match self {
            ApiError::Status(status, message) => {
                let mut response = plain(status, &message);
                let headers = response.headers_mut();
                match status {
                    StatusCode::UNAUTHORIZED => {
                        let challenge = "Basic realm=\"BerryMSE\", charset=\"UTF-8\"";
                        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
                    }
                    StatusCode::UPGRADE_REQUIRED => {
                        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                    }
                    _ => {}
                }
                response
            }
            ApiError::Method(allowed) => {
                let message = format!("method not allowed; use {allowed}");
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, &message);
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                response
            }
            ApiError::Invalid(error) => {
                let (line, column) = error.at.unzip();
                let reply = json!({ "error": error.message, "line": line, "column": column });
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                warp::reply::with_status(warp::reply::json(&reply), status).into_response()
            }
            ApiError::Busy(message) => {
                let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, &message);
                let seconds = HeaderValue::from(RETRY_AFTER_SECONDS);
                response.headers_mut().insert(RETRY_AFTER, seconds);
                response
            }
        }
    }
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> ApiError {
        ApiError::Invalid(error)
    }
}

impl From<SaveError> for ApiError {
    fn from(error: SaveError) -> ApiError {
        use ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
        let message = error.to_string();
        let status = match error {
            SaveError::Invalid(error) => return ApiError::Invalid(error),
            SaveError::Changed => StatusCode::PRECONDITION_FAILED,
            SaveError::Write { error, .. } => match error.kind() {
                PermissionDenied | ReadOnlyFilesystem | NotFound => StatusCode::FORBIDDEN,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            SaveError::Helper(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::Status(status, message)
    }
}

impl From<HelperError> for ApiError {
    fn from(error: HelperError) -> ApiError {
        let status = match error {
            HelperError::Absent => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::Status(status, error.to_string())
    }
}

/// Returns a plain-text reply. A line break is appended to `message`.
pub(super) fn plain(status: StatusCode, message: &str) -> Response {
    let mut response = Response::new(format!("{message}\n").into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

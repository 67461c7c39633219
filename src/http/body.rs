//! Request bodies.

use super::reply::ApiError;
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use hyper::StatusCode;
use std::error::Error;
use std::pin::Pin;
use std::time::Duration;
use std::{fmt, io};

/// Maximum time between two pieces of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of a request, as a stream of pieces.
pub(super) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The connection broke.
    Broken(io::Error),
    /// The client sent nothing for [`IDLE_TIMEOUT`].
    Idle,
    /// The body exceeds this limit, in bytes.
    TooLong(usize),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Broken(error) => write!(f, "the request ended early: {error}"),
            BodyError::Idle => write!(f, "no data received for {} s", IDLE_TIMEOUT.as_secs()),
            BodyError::TooLong(limit) => write!(f, "the request body exceeds {limit} bytes"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BodyError::Broken(error) => Some(error),
            BodyError::Idle | BodyError::TooLong(_) => None,
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> ApiError {
        let status = match error {
            BodyError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::Status(status, error.to_string())
    }
}

/// Converts a body from warp to [`Body`].
pub(super) fn boxed<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> Body {
    Box::pin(body.map(|piece| match piece {
        Ok(mut piece) => Ok(piece.copy_to_bytes(piece.remaining())),
        Err(error) => Err(BodyError::Broken(io::Error::other(error))),
    }))
}

/// Returns the next piece of a body, or `None` at the end.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    match tokio::time::timeout(IDLE_TIMEOUT, body.next()).await {
        Ok(piece) => piece.transpose(),
        Err(_) => Err(BodyError::Idle),
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn read(body: &mut Body, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = vec![];
    while let Some(piece) = next(body).await? {
        if bytes.len() + piece.len() > limit {
            return Err(BodyError::TooLong(limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

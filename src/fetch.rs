//! A small HTTP client: `http` with hyper, `https` with curl.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fmt, io};
use tokio::net::TcpStream;

/// Maximum time for a request over `http`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time for a request over `https`, in seconds.
const CURL_TIMEOUT_SECONDS: &str = "30";

/// Maximum size of a response body over `http`, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Maximum size of a response body over `https`, in bytes.
const CURL_MAX_BODY: &str = "65536";

/// Why a request failed.
#[derive(Debug)]
pub enum FetchError {
    /// The URL is not of the form `http://host:port/path`.
    InvalidUrl(String),
    /// The server could not be reached, or the connection broke.
    Connection {
        /// The requested URL.
        url: String,
        /// The cause.
        error: Box<dyn Error + Send + Sync>,
    },
    /// The server did not reply in time.
    Timeout {
        /// The requested URL.
        url: String,
    },
    /// The status of the reply does not indicate success.
    Status {
        /// The requested URL.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// curl could not be started.
    StartCurl {
        /// The requested URL.
        url: String,
        /// The cause.
        error: io::Error,
    },
    /// curl failed.
    Curl {
        /// The requested URL.
        url: String,
        /// The error message from curl.
        message: String,
    },
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::InvalidUrl(url) => {
                write!(f, "invalid URL {url:?}: it must have the form http://host:port/path")
            }
            FetchError::Connection { url, error } => write!(f, "cannot reach {url}: {error}"),
            FetchError::Timeout { url } => {
                write!(f, "cannot reach {url}: no reply within {} s", TIMEOUT.as_secs())
            }
            FetchError::Status { url, status } => write!(f, "{url} returned {status}"),
            FetchError::StartCurl { url, error } if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "cannot fetch {url}: curl is not installed")
            }
            FetchError::StartCurl { url, error } => {
                write!(f, "cannot fetch {url}: cannot start curl: {error}")
            }
            FetchError::Curl { url, message } => write!(f, "cannot fetch {url}: {message}"),
        }
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            FetchError::Connection { error, .. } => Some(&**error),
            FetchError::StartCurl { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Sends a GET request for `url` (`http://…` only), and returns the status and the body.
///
/// # Errors
///
/// Fails if `url` is invalid, or if no complete response of at most 64 KiB arrives within 5 s.
pub async fn get(url: &str) -> Result<(StatusCode, String), FetchError> {
    let invalid = || FetchError::InvalidUrl(url.into());
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(invalid)?;
    let port = uri.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
    let exchange = async {
        let address = format!("{host}:{port}");
        let stream = TcpStream::connect(&address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path).header(HOST, address).body(Empty::<bytes::Bytes>::new())?;
        let response = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).trim().to_string()))
        };
        tokio::pin!(response);
        tokio::select! {
            response = &mut response => response,
            // The connection drives the exchange. If the connection ends first, the response is
            // already available.
            _ = connection => response.await,
        }
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(result) => result.map_err(|error| FetchError::Connection { url: url.into(), error }),
        Err(_) => Err(FetchError::Timeout { url: url.into() }),
    }
}

/// Fetches a text file of at most 64 KiB over `http` or `https`.
pub(crate) async fn fetch(url: &str) -> Result<String, FetchError> {
    if url.starts_with("http://") {
        let (status, text) = get(url).await?;
        return match status.is_success() {
            true => Ok(text),
            false => Err(FetchError::Status { url: url.into(), status }),
        };
    }
    let owned = url.to_string();
    let task = tokio::task::spawn_blocking(move || with_curl(&owned));
    task.await.unwrap_or_else(|error| {
        Err(FetchError::Connection { url: url.into(), error: error.into() })
    })
}

/// Fetches a text file over `https`. curl handles TLS, because RAUC requires libcurl anyway.
fn with_curl(url: &str) -> Result<String, FetchError> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--location", "--proto", "=https"]);
    curl.args(["--max-time", CURL_TIMEOUT_SECONDS, "--max-filesize", CURL_MAX_BODY, "--", url]);
    let output = curl
        .stdin(Stdio::null())
        .output()
        .map_err(|error| FetchError::StartCurl { url: url.into(), error })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
            Err(FetchError::Curl { url: url.into(), message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_name_the_url_and_the_cause() {
        for url in ["ftp://127.0.0.1/", "127.0.0.1", "http://", "a b"] {
            assert!(matches!(get(url).await, Err(FetchError::InvalidUrl(_))), "{url}");
        }
        // No program listens on this port, so connections are refused.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let error = fetch(&url).await.unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert_eq!(error.to_string(), format!("cannot reach {url}: {cause}"));
    }
}

//! A request to a running server: what `berrymse health` makes.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;

/// A server that has not answered by then does not work.
const TIMEOUT: Duration = Duration::from_secs(5);

/// More of an answer is not read, bytes.
const MAX_BODY: usize = 64 * 1024;

/// curl gives up after so many seconds.
pub(crate) const CURL_TIMEOUT_SECONDS: &str = "30";

/// An announcement is not larger than this, bytes.
pub(crate) const MAX_MANIFEST: &str = "65536";

/// Gets `url` (`http://…` only): status and text. The error says what went wrong.
pub async fn get(url: &str) -> Result<(StatusCode, String), String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no address"))?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
    let Some(host) = host else {
        return Err(format!("{url:?} is no address of the form http://host:port/path"));
    };
    let port = uri.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
    let exchange = async {
        let address = format!("{host}:{port}");
        let stream = TcpStream::connect(&address).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        let request = Request::get(path)
            .header(HOST, address)
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|e| e.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY);
            let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).trim().to_string()))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection drives the exchange; when it ends first, the answer is there or an error.
            _ = connection => answer.await,
        }
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(result) => result.map_err(|error: String| format!("{url} cannot be reached: {error}")),
        Err(_) => Err(format!("{url} has not answered within {} s", TIMEOUT.as_secs())),
    }
}

/// Gets a small text.
pub(crate) async fn fetch(url: &str) -> Result<String, String> {
    if url.starts_with("http://") {
        let (status, text) = get(url).await?;
        return match status.is_success() {
            true => Ok(text),
            false => Err(format!("{url} answers {status}")),
        };
    }
    let url = url.to_string();
    let fetched = tokio::task::spawn_blocking(move || with_curl(&url)).await;
    fetched.unwrap_or_else(|error| Err(error.to_string()))
}

/// TLS is curl's: RAUC has its library on board anyway.
pub(crate) fn with_curl(url: &str) -> Result<String, String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--location", "--proto", "=https"]);
    curl.args(["--max-time", CURL_TIMEOUT_SECONDS, "--max-filesize", MAX_MANIFEST, "--", url]);
    let output = curl.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{url} needs the program curl, which is not here"),
        _ => format!("curl cannot be started: {error}"),
    })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{url}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

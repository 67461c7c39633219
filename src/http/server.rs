//! Accepts connections and serves HTTP/1.1 on them.
//!
//! warp's own server neither sets socket options nor limits the time and the size of a request, so
//! hyper serves here and warp routes.

use super::door::Entry;
use super::{Context, routes};
use hyper::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use warp::reply::Response;

/// A request's headers must have come within this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's line and headers may be so long, bytes: a browser's are about 1 KiB.
const MAX_HEADERS: usize = 16 * 1024;

/// Room for what the kernel has not sent yet, bytes a connection (it doubles this for its own
/// bookkeeping). A viewer's lag must show up here and not hide in megabytes of kernel memory: at
/// 4 Mbit/s this is half a second.
const SEND_BUFFER: usize = 256 * 1024;

/// A connection on which nothing is taken any more, though there is something to take, is closed.
const DEAD_PEER: Duration = Duration::from_secs(15);

/// What to do when no connection can be accepted for lack of file descriptors: they come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for what is still being answered when the program ends.
const DRAIN: Duration = Duration::from_secs(1);

/// Opens the port. The error says what to do.
pub fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let open = || -> std::io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program uses it; stop that, or choose another with --listen"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; or choose \
                 another with --listen"
            }
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => return format!("cannot listen on {address}: {error}"),
        };
        format!("cannot listen on {address}: {hint}")
    })
}

/// The web server.
pub struct Server {
    listener: TcpListener,
    context: Arc<Context>,
}

impl Server {
    /// Will serve `context` on `listener`.
    pub fn new(listener: TcpListener, context: Arc<Context>) -> Server {
        Server { listener, context }
    }

    /// Serves until the context's shutdown.
    pub async fn run(self) {
        let service = warp::service(routes::all(self.context.clone()));
        let mut shutdown = self.context.shutdown.clone();
        let connections = Arc::new(());
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            set_options(&stream);
            let context = self.context.clone();
            let routes = TowerToHyperService::new(service.clone());
            let counted = connections.clone();
            tokio::spawn(async move {
                serve(stream, context, routes).await;
                drop(counted);
            });
        }
        drop(self.listener);
        // Viewers are told that the server goes, and downloads end.
        let drained = async {
            while Arc::strong_count(&connections) > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, drained).await;
    }
}

fn set_options(stream: &TcpStream) {
    // None of these is needed for a connection to work.
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let _ = socket.set_tcp_user_timeout(Some(DEAD_PEER));
}

/// One connection.
async fn serve<S>(stream: TcpStream, context: Arc<Context>, routes: S)
where
    S: hyper::service::Service<Request<hyper::body::Incoming>, Response = Response>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut shutdown = context.shutdown.clone();
    let service = hyper::service::service_fn(move |request| {
        let (context, routes) = (context.clone(), routes.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, &context, routes).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        log::debug!("a connection ended: {error}");
    }
}

async fn answer<S>(
    request: Request<hyper::body::Incoming>,
    context: &Context,
    routes: S,
) -> Response
where
    S: hyper::service::Service<Request<hyper::body::Incoming>, Response = Response>,
{
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let entry = context.door.check(&method, &uri, request.headers()).await;
    let mut response = match &entry {
        Err(refusal) => {
            log::debug!("{method} {uri}: {} {}", refusal.status, refusal.message);
            let mut response = plain(refusal.status, &refusal.message);
            if refusal.status == StatusCode::UNAUTHORIZED {
                let challenge = "Basic realm=\"BerryMSE\", charset=\"UTF-8\"";
                response
                    .headers_mut()
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            response
        }
        Ok(_) => match routes.call(request).await {
            Ok(response) => response,
            // warp answers everything; its error type only can't say so here.
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "this went wrong"),
        },
    };
    if let Ok(Entry::Password(cookie)) = entry {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// On every answer: nothing is guessed, framed, cached or leaked unless a route says so.
const HEADERS: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob:; img-src 'self' \
         data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors *",
    ),
];

/// An answer in a sentence.
pub(super) fn plain(status: StatusCode, message: &str) -> Response {
    let mut response = Response::new(format!("{message}\n").into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

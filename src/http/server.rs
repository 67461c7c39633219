//! Accepts connections and serves HTTP/1.1 on them.
//!
//! hyper serves the connections and warp routes the requests, because warp's own server neither
//! sets socket options nor limits the time and the size of a request.

use crate::http::Context;
use crate::http::access;
use crate::http::api::wifi;
use crate::http::connections::{ConnectionLimiter, ConnectionPermit, refuse};
use crate::http::reply::{ApiError, plain};
use crate::http::routes;
use crate::stream::fanout::Fanout;
use hyper::header::{HeaderValue, SET_COOKIE};
use hyper::server::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};
use tokio::net::{TcpListener, TcpStream};
use warp::reply::Response;

/// Size of a connection's send buffer, in bytes (the kernel doubles this for its bookkeeping): half
/// a second at 4 Mbit/s. With a larger buffer, the server would not notice that a viewer lags.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Maximum amount of unsent data in a socket, in bytes: a quarter of a second at 2 Mbit/s. The
/// server keeps the rest, so that it can drop frames for a slow viewer.
const MAX_UNSENT_BYTES: u32 = 64 * 1024;

/// Time after which a connection is closed if the peer has not acknowledged the sent data
/// (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Delay after a failed accept. Accepting can fail for lack of file descriptors, which become
/// available when other connections end.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Maximum time to wait for open connections to end when the server shuts down.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the server could not listen on an address.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError { address, error } = self;
        write!(f, "cannot listen on {address}: ")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => f.write_str(
                "another program uses this address; stop that program, or choose another address \
                 with --listen",
            ),
            io::ErrorKind::PermissionDenied => f.write_str(
                "ports below 1024 require root or the capability CAP_NET_BIND_SERVICE; choose \
                 another port with --listen",
            ),
            io::ErrorKind::AddrNotAvailable => f.write_str(
                "no network interface has this address; choose another address with --listen",
            ),
            _ => error.fmt(f),
        }
    }
}

impl Error for ListenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// Opens a listening socket.
///
/// # Errors
///
/// Fails if the address is already in use or not available, or if the port requires a capability.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let open = || -> io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error| ListenError { address, error })
}

/// The web server.
pub struct Server {
    listener: TcpListener,
    context: Arc<Context>,
}

impl Server {
    /// Creates a server for `context` on `listener`. [`Server::run`] starts it.
    pub fn new(listener: TcpListener, context: Arc<Context>) -> Server {
        Server { listener, context }
    }

    /// Serves connections until the context signals shutdown.
    pub async fn run(self) {
        let context = &self.context;
        let fanouts = context
            .cameras
            .iter()
            .map(|camera| Arc::new(Fanout::start(&camera.stream, &context.shutdown)))
            .collect();
        let service = warp::service(routes::all(self.context.clone(), fanouts));
        let mut shutdown = self.context.shutdown.clone();
        let connections = Arc::new(());
        let limiter = ConnectionLimiter::default();
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok((stream, address)) => (stream, address.ip()),
                Err(error) => {
                    log::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            set_options(&stream);
            let own_address = stream.local_addr().ok().map(|own| own.ip());
            let limit = self.context.server.max_connections_per_address;
            let Some(permit) = limiter.acquire(address, own_address, limit) else {
                refuse(&stream);
                continue;
            };
            let context = self.context.clone();
            let routes = TowerToHyperService::new(service.clone());
            let counted = connections.clone();
            tokio::spawn(async move {
                serve(stream, permit, context, routes).await;
                drop(counted);
            });
        }
        drop(self.listener);
        // On the shutdown signal, each viewer is sent a close frame, and downloads end.
        let drained = async {
            while Arc::strong_count(&connections) > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    }
}

fn set_options(stream: &TcpStream) {
    // The connection works without these options, so errors are ignored.
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
    let _ = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// Serves one connection.
async fn serve<S>(
    stream: TcpStream,
    permit: Arc<ConnectionPermit>,
    context: Arc<Context>,
    routes: S,
) where
    S: hyper::service::Service<Request<hyper::body::Incoming>, Response = Response>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut shutdown = context.shutdown.clone();
    let limits = context.server.clone();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(permit.clone());
        let (context, routes) = (context.clone(), routes.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, &context, routes).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.request_timeout.into()))
        .max_buf_size(limits.max_request_size as usize)
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
    if let Some(response) = wifi::captive(context, &request) {
        return response;
    }
    let access = access::check(&context.access, &request).await;
    let mut response = match &access {
        Err(denied) => {
            log::debug!("{method} {uri}: {denied}");
            ApiError::from(denied.clone()).into_response()
        }
        Ok(_) => match routes.call(request).await {
            Ok(response) => response,
            // warp replies to every request, although its error type does not guarantee this.
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        },
    };
    if let Ok(Some(cookie)) = access {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Headers that are added to each reply unless the route has already set them.
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

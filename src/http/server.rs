//! Accepts connections and serves HTTP/1.1 on them.
//!
//! warp's own server neither sets socket options nor limits the time and the size of a request, so
//! hyper serves here and warp routes.

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
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use warp::reply::Response;

/// Room for what the kernel has not sent yet, bytes a connection (it doubles this for its own
/// bookkeeping). A viewer's lag must show up here and not hide in megabytes of kernel memory: at
/// 4 Mbit/s this is half a second.
const SEND_BUFFER: usize = 256 * 1024;

/// What may lie in a socket without having been sent, bytes: a viewer that falls behind is to be
/// noticed here, where it can skip, after a quarter of a second at 2 Mbit/s.
const NOT_SENT: u32 = 64 * 1024;

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
                    log::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            set_options(&stream);
            let Some(permit) =
                limiter.acquire(address, self.context.server.max_connections_per_address)
            else {
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
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
    let _ = socket.set_tcp_user_timeout(Some(DEAD_PEER));
}

/// One connection.
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
    if let Some(response) = wifi::captive(context, &method, request.headers()) {
        return response;
    }
    let access = access::check(&context.access, &method, &uri, request.headers()).await;
    let mut response = match &access {
        Err(denied) => {
            log::debug!("{method} {uri}: {denied}");
            ApiError::from(denied.clone()).into_response()
        }
        Ok(_) => match routes.call(request).await {
            Ok(response) => response,
            // warp replies to everything, but its error type cannot say so.
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

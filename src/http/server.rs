//! Accepts connections and serves HTTP/1.1 on them.
//!
//! warp's own server neither sets socket options nor limits the time and the size of a request, so
//! hyper serves here and warp routes.

use super::door::Entry;
use super::fanout::Fanout;
use super::{Context, routes, wifi};
use hyper::header::{
    CONTENT_TYPE, HeaderValue, RETRY_AFTER as RETRY_AFTER_HEADER, SET_COOKIE, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// When somebody who is refused for want of room may try again, seconds.
const RETRY_AFTER: u32 = 10;

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
            .map(|camera| Arc::new(Fanout::start(camera, &context.shutdown)))
            .collect();
        let service = warp::service(routes::all(self.context.clone(), fanouts));
        let mut shutdown = self.context.shutdown.clone();
        let connections = Arc::new(());
        let guests = Guests::default();
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
            let Some(guest) = guests.come(address, self.context.server.max_connections_per_address)
            else {
                refuse(&stream);
                continue;
            };
            let context = self.context.clone();
            let routes = TowerToHyperService::new(service.clone());
            let counted = connections.clone();
            tokio::spawn(async move {
                serve(stream, guest, context, routes).await;
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

/// How many connections each address has.
#[derive(Default, Clone)]
struct Guests(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One connection; dropped, it is gone. A viewer over WebSocket takes it along.
pub(super) struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Guests {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come(&self, address: IpAddr, limit: u32) -> Option<Arc<Guest>> {
        let mut guests = self.lock();
        let count = guests.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(guests);
        Some(Arc::new(Guest { guests: self.clone(), address }))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.guests.lock();
        if let Some(count) = guests.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.address);
            }
        }
    }
}

/// Answers a connection that is one too many, without reading from it.
fn refuse(stream: &TcpStream) {
    let body = "too many connections from your address: try again later\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER}\r\nContent-Type: \
         text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes()); // new, so there is room for it
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
async fn serve<S>(stream: TcpStream, guest: Arc<Guest>, context: Arc<Context>, routes: S)
where
    S: hyper::service::Service<Request<hyper::body::Incoming>, Response = Response>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut shutdown = context.shutdown.clone();
    let limits = context.server.clone();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(guest.clone());
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

/// An answer to whom there is no room for.
pub(super) fn busy(message: &str) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(RETRY_AFTER_HEADER, HeaderValue::from(RETRY_AFTER));
    response
}

/// An answer in a sentence.
pub(super) fn plain(status: StatusCode, message: &str) -> Response {
    let mut response = Response::new(format!("{message}\n").into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

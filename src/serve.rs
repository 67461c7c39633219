//! `berrymse serve`: runs the cameras and the server, and restarts them when the configuration
//! changes.

use crate::access::AccessPolicy;
use crate::camera::{Camera, Cameras};
use crate::config::error::ConfigError;
use crate::config::{Config, Network, System};
use crate::http::{Context, ListenError, NO_CAMERA, Server};
use crate::paths;
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use crate::system::camera_record::{CameraRecords, Slot};
use crate::system::mdns::Announcement;
use crate::system::{Found, as_shipped, mdns, notify};
use crate::update::{Updater, schedule};
use crate::{cli, http, system};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Why the server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration file is missing or invalid.
    Config(ConfigError),
    /// The server could not listen on its address.
    Listen(ListenError),
    /// A signal handler, a thread or another system resource was not available.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Listen(error) => error.fmt(f),
            StartError::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Config(error) => Some(error),
            StartError::Listen(error) => Some(error),
            StartError::System(error) => Some(error),
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> StartError {
        StartError::Config(error)
    }
}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> StartError {
        StartError::Listen(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::System(error)
    }
}

/// Loads the configuration from `file`, or from the default path if a file exists there.
/// `last_good`, if given, is used when the file is missing or invalid.
///
/// # Errors
///
/// Fails if `last_good` is `None` and the file is missing or invalid.
pub fn load(file: Option<PathBuf>, last_good: Option<PathBuf>) -> Result<Found, ConfigError> {
    if let Some(last_good) = last_good {
        let file = file.unwrap_or_else(|| paths::CONFIG.into());
        return Ok(system::load(&file, &last_good));
    }
    let file = file.or_else(|| Some(PathBuf::from(paths::CONFIG)).filter(|path| path.exists()));
    let config = match &file {
        Some(file) if !file.exists() => {
            return Err(ConfigError {
                file: file.display().to_string(),
                at: None,
                message: "no such file: specify another one with --config, or omit --config".into(),
            });
        }
        Some(file) => Config::load(file)?,
        None => Config::without_file(),
    };
    Ok(Found { config, file, text: None, problem: None })
}

/// Runs the cameras and the server until SIGINT or SIGTERM.
///
/// # Errors
///
/// Fails if the configuration is invalid, or if a system resource is not available.
pub async fn serve(mut options: cli::Serve) -> Result<(), StartError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut found = load(options.config.clone(), options.last_good.clone())?;
    if options.last_good.is_some() {
        found.problem = system::with_problems_at_start(found.problem);
    }
    let mut state = ProcessState {
        started: Instant::now(),
        at_start: (found.config.system.clone(), found.config.network.clone()),
        changed: Arc::default(),
        listening: None,
        updater: Updater::new(&options.data),
        records: CameraRecords::new(&options.data, running_slot(options.slot.as_deref())),
        cameras: vec![],
    };
    loop {
        let running = Running::start(&options, &mut state, &found)?;
        notify::tell("READY=1");
        let restart = tokio::select! {
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
            _ = state.changed.notified() => true,
        };
        log::info!("{}", if restart { "applying the new configuration" } else { "stopping" });
        if !restart {
            notify::tell("STOPPING=1");
        }
        // On a second signal, exit without waiting.
        tokio::select! {
            _ = running.end() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        if !restart {
            return Ok(());
        }
        // If the system chose the port, keep it.
        options.listen = options.listen.and(state.listening);
        match load(options.config.clone(), options.last_good.clone()) {
            Ok(new) => found = new,
            // The file was valid when it was saved, so it has changed since then: keep the old
            // configuration.
            Err(error) => found.problem = Some(error.to_string()),
        }
    }
}

/// State that outlives a configuration.
struct ProcessState {
    started: Instant,
    /// The configuration of the machine when the program started.
    at_start: (System, Network),
    changed: Arc<Notify>,
    updater: Arc<Updater>,
    /// Cameras that an update must not lose.
    records: CameraRecords,
    /// The cameras of the last configuration.
    cameras: Vec<Arc<Camera>>,
    /// Address of the last listener.
    listening: Option<SocketAddr>,
}

/// The tasks and threads of one configuration.
struct Running {
    cameras: Cameras,
    server: JoinHandle<()>,
    updates: JoinHandle<()>,
    watchdog: JoinHandle<()>,
    stop: watch::Sender<bool>,
    announcement: Option<Announcement>,
}

impl Running {
    fn start(
        options: &cli::Serve,
        state: &mut ProcessState,
        found: &Found,
    ) -> Result<Self, StartError> {
        let mut config = found.config.clone();
        if let Some(listen) = options.listen {
            config.server.listen = listen;
        }
        log_startup(&config, found);
        let mut problem = found.problem.clone();
        let appliance = options.last_good.is_some();
        // If the server is unreachable, its configuration cannot be corrected from the page, so
        // fall back to another address.
        let fallback = state.listening.or_else(|| appliance.then(|| as_shipped().server.listen));
        let listener = listen(config.server.listen, fallback, &mut problem)?;
        let address = listener.local_addr()?;
        state.listening = Some(address);
        let cameras = Cameras::start(&config.cameras)?;
        cameras.continue_from(&state.cameras);
        state.cameras.clone_from(&cameras.all);
        let mut settings = Settings {
            file: found.file.clone().unwrap_or_else(|| paths::CONFIG.into()),
            helper: options.helper.clone(),
            wifi: options.wifi.clone(),
            problem,
            reboot: false,
            at_start: state.at_start.clone(),
            changed: state.changed.clone(),
            writing: Default::default(),
        };
        settings.reboot = settings.needs_restart(&config);
        let (stop, shutdown) = Shutdown::new();
        let context = Context {
            cameras: cameras.all.clone(),
            access: AccessPolicy::new(&config.server),
            settings,
            server: config.server,
            updater: state.updater.clone(),
            records: state.records.clone(),
            update_url: config.update.url.clone(),
            started: state.started,
            shutdown,
        };
        let server = tokio::spawn(Server::new(listener, Arc::new(context)).run());
        let updates = schedule::run(state.updater.clone(), config.update, options.helper.clone());
        let updates = tokio::spawn(updates);
        log::info!("streaming at http://{}/", reachable(address));
        notify::tell(&format!("STATUS=streaming at http://{}/", reachable(address)));
        let watchdog = tokio::spawn(notify::watchdog(loopback_for(address)));
        let announcement = announce(options, &state.at_start.0, address);
        Ok(Running { cameras, server, updates, watchdog, stop, announcement })
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.updates.abort();
        self.watchdog.abort();
        let _ = self.server.await;
        // Dropping these withdraws the announcement and joins the threads of the cameras.
        let rest = (self.announcement, self.cameras);
        let _ = tokio::task::spawn_blocking(move || drop(rest)).await;
    }
}

/// Listens on `wanted`. If that fails, listens on `fallback` and reports the error in `problem`.
fn listen(
    wanted: SocketAddr,
    fallback: Option<SocketAddr>,
    problem: &mut Option<String>,
) -> Result<TcpListener, ListenError> {
    let error = match http::listen(wanted) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let Some(other) = fallback.filter(|other| *other != wanted) else { return Err(error) };
    let Ok(listener) = http::listen(other) else { return Err(error) };
    log::error!("{error}; listening on {other}");
    *problem = Some(format!("{error}\nUntil this is corrected, the server listens on {other}."));
    Ok(listener)
}

/// Announces the server over mDNS, under the host name that was configured when the program
/// started. A new name takes effect only after a restart of the machine.
fn announce(options: &cli::Serve, at_start: &System, address: SocketAddr) -> Option<Announcement> {
    let host = at_start.hostname.clone().or_else(|| options.mdns.then(mdns::host_name))?;
    if address.ip().is_loopback() || host.is_empty() {
        return None;
    }
    match Announcement::start(&host, address) {
        Ok(announcement) => {
            log::info!("announced as http://{host}.local/");
            Some(announcement)
        }
        Err(error) => {
            log::warn!("{error}");
            None
        }
    }
}

/// Logs the version, and what the user should know about the configuration.
fn log_startup(config: &Config, found: &Found) {
    let version = env!("CARGO_PKG_VERSION");
    match &found.file {
        Some(file) => log::info!("BerryMSE {version}, configuration file {}", file.display()),
        None => log::info!("BerryMSE {version}, no configuration file"),
    }
    if let Some(problem) = &found.problem {
        log::error!("{problem}");
    }
    if config.cameras.is_empty() {
        log::warn!("{NO_CAMERA}");
    }
    if config.server.password.is_none() {
        log::warn!("no password is set: anyone who can reach this machine can watch the cameras");
    }
}

/// Returns the slot of the running system: `name`, or else the one in the kernel's arguments.
pub fn running_slot(name: Option<&str>) -> Option<Slot> {
    match name {
        Some(name) => name.parse().ok(),
        None => Slot::running(),
    }
}

/// Returns the address at which programs on this machine can reach a server that listens on
/// `address`.
pub fn loopback_for(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
    }
    address
}

/// Returns the host and port of the URL at which a browser on this machine can reach a server that
/// listens on `address`.
fn reachable(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_string(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    match address.port() {
        80 => host,
        port => format!("{host}:{port}"),
    }
}

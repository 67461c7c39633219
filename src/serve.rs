//! `berrymse serve`: cameras and server at work, from one configuration to the next.

use crate::access::AccessPolicy;
use crate::camera::Cameras;
use crate::config::error::ConfigError;
use crate::config::{Config, Network, System};
use crate::http::{Context, NO_CAMERA, Server};
use crate::paths;
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use crate::system::mdns::Announcement;
use crate::system::{Found, as_shipped, mdns, notify};
use crate::update::{Updater, schedule};
use crate::{cli, http, system};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// The configuration that counts.
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
                message: "no such file: name another with --config, or leave that out".into(),
            });
        }
        Some(file) => Config::load(file)?,
        None => Config::without_file(),
    };
    Ok(Found { config, file, text: None, problem: None })
}

/// Runs the cameras and the server until a signal ends them.
pub async fn serve(mut options: cli::Serve) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("it cannot be started: {error}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut found = load(options.config.clone(), options.last_good.clone())
        .map_err(|error| error.to_string())?;
    if options.last_good.is_some() {
        found.problem = found.problem.or_else(system::problem_at_start);
    }
    let mut state = ProcessState {
        started: Instant::now(),
        at_start: (found.config.system.clone(), found.config.network.clone()),
        changed: Arc::default(),
        listening: None,
        updater: Updater::new(&options.data),
    };
    loop {
        let running = Running::start(&options, &mut state, &found)?;
        notify::tell("READY=1");
        let again = tokio::select! {
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
            _ = state.changed.notified() => true,
        };
        log::info!("{}", if again { "starting anew, as configured" } else { "stopping" });
        if !again {
            notify::tell("STOPPING=1");
        }
        // A second signal does not wait for anybody.
        tokio::select! {
            _ = running.end() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        if !again {
            return Ok(());
        }
        // Where the system chose the port, it is the port from now on.
        options.listen = options.listen.and(state.listening);
        match load(options.config.clone(), options.last_good.clone()) {
            Ok(new) => found = new,
            // It was good a moment ago.
            Err(error) => found.problem = Some(error.to_string()),
        }
    }
}

/// What one configuration leaves to the next.
struct ProcessState {
    started: Instant,
    /// As the machine was set up when it started.
    at_start: (System, Network),
    changed: Arc<Notify>,
    updater: Arc<Updater>,
    /// Where it could be reached last.
    listening: Option<SocketAddr>,
}

/// One configuration at work.
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
    ) -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("it cannot be started: {error}");
        let mut config = found.config.clone();
        if let Some(listen) = options.listen {
            config.server.listen = listen;
        }
        log_startup(&config, found);
        let mut problem = found.problem.clone();
        let appliance = options.last_good.is_some();
        // A machine that nobody can reach any more cannot be mended from the page.
        let otherwise = state.listening.or_else(|| appliance.then(|| as_shipped().server.listen));
        let listener = listen(config.server.listen, otherwise, &mut problem)?;
        let address = listener.local_addr().map_err(cannot)?;
        state.listening = Some(address);
        let cameras = Cameras::start(&config.cameras).map_err(cannot)?;
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
        // Says goodbye; joins the cameras' threads, which end their programs.
        let rest = (self.announcement, self.cameras);
        let _ = tokio::task::spawn_blocking(move || drop(rest)).await;
    }
}

fn listen(
    wanted: SocketAddr,
    otherwise: Option<SocketAddr>,
    problem: &mut Option<String>,
) -> Result<TcpListener, String> {
    let error = match http::listen(wanted) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let Some(other) = otherwise.filter(|other| *other != wanted) else { return Err(error) };
    let listener = http::listen(other).map_err(|_| error.clone())?;
    log::error!("{error}; listening on {other}");
    *problem = Some(format!("{error}\nUntil that is mended, it listens on {other}."));
    Ok(listener)
}

/// The name as it was when the machine started: another one needs a restart.
fn announce(options: &cli::Serve, at_start: &System, at: SocketAddr) -> Option<Announcement> {
    let host = at_start.hostname.clone().or_else(|| options.mdns.then(mdns::host_name))?;
    if at.ip().is_loopback() || host.is_empty() {
        return None;
    }
    match Announcement::start(&host, at) {
        Ok(announcement) => {
            log::info!("announced as http://{host}.local/");
            Some(announcement)
        }
        Err(why) => {
            log::warn!("{why}");
            None
        }
    }
}

/// What everybody should know at the start.
fn log_startup(config: &Config, found: &Found) {
    let version = env!("CARGO_PKG_VERSION");
    match &found.file {
        Some(file) => log::info!("BerryMSE {version}, configured by {}", file.display()),
        None => log::info!("BerryMSE {version}, without a configuration file"),
    }
    if let Some(problem) = &found.problem {
        log::error!("{problem}");
    }
    if config.cameras.is_empty() {
        log::warn!("{NO_CAMERA}");
    }
    if config.server.password.is_none() {
        log::warn!("no password is set: whoever reaches this machine sees the picture");
    }
}

/// Where a program on this machine reaches a server that listens on `address`.
pub fn loopback_for(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
    }
    address
}

/// How a browser on this machine reaches `address`.
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

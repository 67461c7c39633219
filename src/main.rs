//! The executable: command line → configuration → run.

use berrymse::camera::Cameras;
use berrymse::camera::v4l2::find;
use berrymse::cli::{Cli, Command, Serve};
use berrymse::config::{Config, ConfigError, DEFAULT_PATH};
use berrymse::http::{self, Context, Door, Server, Shutdown};
use berrymse::system::{self, Found};
use clap::Parser;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(options) => serve(options),
        Command::Check { file } => Config::load(&file).map(drop).map_err(|e| e.to_string()),
        Command::Cameras { json } => cameras(json),
        Command::Apply { config, last_good, root } => apply(config, last_good, root),
        Command::Health { url, config, last_good } => health(url, config, last_good),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("berrymse: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration that counts.
fn load(file: Option<PathBuf>, last_good: Option<PathBuf>) -> Result<Found, ConfigError> {
    if let Some(last_good) = last_good {
        let file = file.unwrap_or_else(|| DEFAULT_PATH.into());
        return Ok(system::load(&file, &last_good));
    }
    let file = file.or_else(|| Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists()));
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

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the threads cannot be started: {error}"))
}

fn serve(options: Serve) -> Result<(), String> {
    start_log(options.verbose);
    let appliance = options.last_good.is_some();
    let mut found = load(options.config, options.last_good).map_err(|error| error.to_string())?;
    if let Some(listen) = options.listen {
        found.config.server.listen = listen;
    }
    if appliance {
        found.problem = found.problem.or_else(system::problem_at_start);
    }
    greet(&found);
    runtime()?.block_on(stream(&found))
}

/// Runs the cameras and the server until a signal ends them.
async fn stream(found: &Found) -> Result<(), String> {
    let config = &found.config;
    let cannot = |error: std::io::Error| format!("it cannot be started: {error}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let listener = http::listen(config.server.listen)?;
    let address = listener.local_addr().map_err(cannot)?;
    let cameras = Cameras::start(&config.cameras).map_err(cannot)?;
    let (stop, shutdown) = Shutdown::new();
    let context = Context {
        cameras: cameras.all.clone(),
        door: Door::new(&config.server),
        server: config.server.clone(),
        config_error: found.problem.clone(),
        started: Instant::now(),
        shutdown,
    };
    let server = tokio::spawn(Server::new(listener, Arc::new(context)).run());
    log::info!("streaming at http://{}/", reachable(address));

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    log::info!("stopping");
    stop.send_replace(true);
    // A second signal does not wait for anybody.
    tokio::select! {
        _ = server => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Joins their threads, which end their programs.
    tokio::task::spawn_blocking(move || drop(cameras)).await.map_err(|error| error.to_string())
}

/// What everybody should know at the start.
fn greet(found: &Found) {
    let version = env!("CARGO_PKG_VERSION");
    let config = &found.config;
    match &found.file {
        Some(file) => log::info!("BerryMSE {version}, configured by {}", file.display()),
        None => log::info!("BerryMSE {version}, without a configuration file"),
    }
    if let Some(problem) = &found.problem {
        log::error!("{problem}");
    }
    if config.cameras.is_empty() {
        log::warn!("no camera is configured: add a [[camera]] to the configuration");
    }
    if config.server.password.is_none() {
        log::warn!("no password is set: whoever reaches this machine sees the picture");
    }
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

/// `berrymse cameras`
fn cameras(json: bool) -> Result<(), String> {
    let devices = find::devices();
    let text = match json {
        true => serde_json::to_string_pretty(&devices).map_err(|error| error.to_string())? + "\n",
        false if devices.is_empty() => {
            "no V4L2 device: is a camera plugged in? (On a Raspberry Pi, also: rpicam-hello \
             --list-cameras)\n"
                .into()
        }
        false => devices.iter().map(|device| format!("{device}\n")).collect(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// `berrymse apply`
fn apply(config: Option<PathBuf>, last_good: Option<PathBuf>, root: PathBuf) -> Result<(), String> {
    let report = system::apply(&system::Paths {
        config: config.unwrap_or_else(|| root.join("boot/berrymse.toml")),
        last_good: last_good.unwrap_or_else(|| root.join("data/berrymse/berrymse.toml")),
        root,
    });
    for problem in &report.problems {
        eprintln!("berrymse: {problem}");
    }
    match report.failures.is_empty() {
        true => Ok(()),
        false => Err(report.failures.join("\nberrymse: ")),
    }
}

fn health(
    url: Option<String>,
    config: Option<PathBuf>,
    last_good: Option<PathBuf>,
) -> Result<(), String> {
    let url = match url {
        // `http://cam:2020` or a whole address: what is asked is /healthz.
        Some(url) if url.matches('/').count() <= 2 => format!("{url}/healthz"),
        Some(url) if url.matches('/').count() == 3 && url.ends_with('/') => format!("{url}healthz"),
        Some(url) => url,
        None => {
            let config = load(config, last_good).map_err(|error| error.to_string())?.config;
            let mut address = config.server.listen;
            match address.ip() {
                ip if !ip.is_unspecified() => {}
                IpAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            }
            format!("http://{address}/healthz")
        }
    };
    let (status, text) = runtime()?.block_on(http::client::get(&url))?;
    match status.is_success() {
        true => Ok(()),
        false => Err(text),
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // BERRYMSE_LOG says it more exactly: "warn,berrymse::camera=debug".
    let others = if verbose < 2 { "warn" } else { "debug" };
    let default = format!("{others},berrymse={level}");
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("BERRYMSE_LOG", default))
        .format_target(false)
        .init();
}

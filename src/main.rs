//! The executable: command line → configuration → run.

use berrymse::camera::v4l2::listing;
use berrymse::cli::{Cli, Command, RootHelper, Wifi};
use berrymse::config::Config;
use berrymse::serve::{load, loopback_for, serve};
use berrymse::system;
use berrymse::system::helper::Helper;
use berrymse::system::wifi;
use berrymse::{fetch, paths};
use clap::Parser;
use hyper::StatusCode;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `berrymse health`: the server answers, and a camera does not deliver. (2 is clap's, for a command
/// line that is wrong.)
const UNHEALTHY: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(options) => {
            start_log(options.verbose);
            runtime().and_then(|runtime| runtime.block_on(serve(options)))
        }
        Command::Check { file } => check(&file),
        Command::Cameras { json } => cameras(json),
        Command::Apply { config, last_good, root } => apply(config, last_good, root),
        Command::RootHelper(options) => root_helper(options),
        Command::Wifi(options) => manage_wifi(options),
        Command::Health { url, config, last_good } => match health(url, config, last_good) {
            Ok(Some(problem)) => {
                eprintln!("berrymse: {problem}");
                return UNHEALTHY.into();
            }
            well => well.map(drop),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("berrymse: {message}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the threads cannot be started: {error}"))
}

/// `berrymse root-helper`
fn root_helper(options: RootHelper) -> Result<(), String> {
    start_log(0);
    let helper = Helper {
        config: options.config,
        last_good: options.last_good,
        config_error: paths::CONFIG_ERROR.into(),
        reboot: system::helper::reboot,
    };
    helper.run(&options.socket, options.group.as_deref()).map_err(|error| error.to_string())
}

/// `berrymse wifi`
fn manage_wifi(options: Wifi) -> ! {
    start_log(0);
    let Wifi { config, last_good, state, report } = options;
    wifi::WifiManager::new(wifi::Files { config, last_good, state, report }).run()
}

/// `berrymse cameras`
fn cameras(json: bool) -> Result<(), String> {
    let devices = listing::devices();
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

/// `berrymse check`
fn check(file: &Path) -> Result<(), String> {
    let text = Config::read(file).map_err(|error| error.to_string())?;
    let errors = Config::check(&text, &file.display().to_string()).err().unwrap_or_default();
    match errors.is_empty() {
        true => Ok(()),
        false => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Err(lines.join("\nberrymse: "))
        }
    }
}

/// `berrymse apply`
fn apply(config: Option<PathBuf>, last_good: Option<PathBuf>, root: PathBuf) -> Result<(), String> {
    let report = system::apply(&system::Paths {
        config: config.unwrap_or_else(|| below(&root, paths::CONFIG)),
        last_good: last_good.unwrap_or_else(|| below(&root, paths::LAST_GOOD)),
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

/// An absolute path, below another root directory.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// `berrymse health`: which cameras do not deliver, if any. The error: there is no such answer.
fn health(
    url: Option<String>,
    config: Option<PathBuf>,
    last_good: Option<PathBuf>,
) -> Result<Option<String>, String> {
    let url = match url {
        // `http://cam:2020` or a whole address: what is asked is /healthz.
        Some(url) if url.matches('/').count() <= 2 => format!("{url}/healthz"),
        Some(url) if url.matches('/').count() == 3 && url.ends_with('/') => format!("{url}healthz"),
        Some(url) => url,
        None => {
            let config = load(config, last_good).map_err(|error| error.to_string())?.config;
            format!("http://{}/healthz", loopback_for(config.server.listen))
        }
    };
    let (status, text) = runtime()?.block_on(fetch::get(&url))?;
    match status {
        StatusCode::OK => Ok(None),
        StatusCode::SERVICE_UNAVAILABLE => Ok(Some(text)),
        status => Err(format!("{url} answers {status}: is that BerryMSE? {text}")),
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

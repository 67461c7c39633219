//! The program `berrymse`: parses the command line and runs a command.

use berrymse::camera::v4l2::listing;
use berrymse::cli::{Cli, Command, RecordCameras, RootHelper, Wifi};
use berrymse::config::Config;
use berrymse::serve::{load, loopback_for, running_slot, serve};
use berrymse::system;
use berrymse::system::camera_record::{CameraRecords, RecordedCamera};
use berrymse::system::helper::Helper;
use berrymse::system::wifi;
use berrymse::{fetch, paths};
use clap::Parser;
use hyper::StatusCode;
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit status of `berrymse health` if the server replies but a camera delivers no video. (clap
/// exits with 2 if the command line is invalid.)
const UNHEALTHY: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(options) => {
            start_log(options.verbose);
            runtime().and_then(|runtime| Ok(runtime.block_on(serve(options))?))
        }
        Command::Check { file } => check(&file),
        Command::Cameras { json } => cameras(json),
        Command::Apply { config, last_good, root } => apply(config, last_good, root),
        Command::RootHelper(options) => root_helper(options),
        Command::RecordCameras(options) => record_cameras(options),
        Command::Wifi(options) => manage_wifi(options),
        Command::BootFiles { root } => boot_files(&root),
        Command::Health { url, config, last_good, since_update } => {
            let path = if since_update { "/healthz/update" } else { "/healthz" };
            match url_of(path, url, config, last_good).and_then(|url| health(&url)) {
                Ok(Some(problem)) => {
                    eprintln!("berrymse: {problem}");
                    return UNHEALTHY.into();
                }
                result => result.map(drop),
            }
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The Display output of the error includes its causes.
            eprintln!("berrymse: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The error that a failed command returns. The message is shown to the user.
type CommandError = Box<dyn Error>;

fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start threads: {error}").into())
}

/// `berrymse root-helper`
fn root_helper(options: RootHelper) -> Result<(), CommandError> {
    start_log(0);
    let helper = Helper {
        config: options.config,
        last_good: options.last_good,
        config_error: paths::CONFIG_ERROR.into(),
        boot_lock: paths::BOOT_LOCK.into(),
        boot_moved: paths::BOOT_MOVED.into(),
        reboot: system::helper::reboot,
    };
    Ok(helper.run(&options.socket, options.group.as_deref())?)
}

/// `berrymse wifi`
fn manage_wifi(options: Wifi) -> ! {
    start_log(0);
    let Wifi { config, last_good, state, report } = options;
    wifi::WifiManager::new(wifi::Files { config, last_good, state, report }).run()
}

/// `berrymse boot-files`
fn boot_files(root: &Path) -> Result<(), CommandError> {
    start_log(0);
    let Some(report) = system::boot_files::update(root) else { return Ok(()) };
    writeln!(io::stdout(), "boot files: {report}")?;
    Ok(())
}

/// `berrymse cameras`
fn cameras(json: bool) -> Result<(), CommandError> {
    let devices = listing::devices();
    let text = match json {
        true => serde_json::to_string_pretty(&devices)? + "\n",
        false if devices.is_empty() => {
            "no V4L2 device found: is a camera plugged in? (On a Raspberry Pi, also try \
             rpicam-hello --list-cameras.)\n"
                .into()
        }
        false => devices.iter().map(|device| format!("{device}\n")).collect(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// `berrymse check`
fn check(file: &Path) -> Result<(), CommandError> {
    let text = Config::read(file)?;
    let errors = Config::check(&text, &file.display().to_string()).err().unwrap_or_default();
    all_of(&errors)
}

/// Combines errors into a single one, with a line for each.
fn all_of(errors: &[impl ToString]) -> Result<(), CommandError> {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match lines.is_empty() {
        true => Ok(()),
        false => Err(lines.join("\nberrymse: ").into()),
    }
}

/// `berrymse apply`
fn apply(
    config: Option<PathBuf>,
    last_good: Option<PathBuf>,
    root: PathBuf,
) -> Result<(), CommandError> {
    let report = system::apply(&system::Paths {
        config: config.unwrap_or_else(|| below(&root, paths::CONFIG)),
        last_good: last_good.unwrap_or_else(|| below(&root, paths::LAST_GOOD)),
        root,
    });
    for line in report.notices.iter().chain(&report.problems) {
        eprintln!("berrymse: {line}");
    }
    all_of(&report.failures)
}

/// Returns the absolute path `path` resolved below the root directory `root`.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Returns the URL of `path` on the server at `url`, or else on the server of this configuration.
///
/// # Errors
///
/// The configuration cannot be read.
fn url_of(
    path: &str,
    url: Option<String>,
    config: Option<PathBuf>,
    last_good: Option<PathBuf>,
) -> Result<String, CommandError> {
    Ok(match url {
        // A URL that has a path, unlike `http://cam:2020`, is complete.
        Some(url) if url.matches('/').count() <= 2 => format!("{url}{path}"),
        Some(url) if url.matches('/').count() == 3 && url.ends_with('/') => {
            format!("{}{path}", url.trim_end_matches('/'))
        }
        Some(url) => url,
        None => {
            let config = load(config, last_good)?.config;
            format!("http://{}{path}", loopback_for(config.server.listen))
        }
    })
}

/// `berrymse record-cameras`
///
/// # Errors
///
/// The server gives no valid reply, or the record cannot be changed.
fn record_cameras(options: RecordCameras) -> Result<(), CommandError> {
    start_log(0);
    let RecordCameras { url, config, last_good, data, slot } = options;
    let records = CameraRecords::new(&data, running_slot(slot.as_deref()));
    match recent_cameras(url, config, last_good) {
        Ok(cameras) => {
            let names: Vec<&str> = cameras.iter().map(|camera| camera.name.as_str()).collect();
            log::info!("cameras that delivered video in the last hour: {}", names.join(", "));
            Ok(records.save(cameras)?)
        }
        Err(error) => {
            // The record of an earlier update does not apply to this one.
            records.remove()?;
            Err(error)
        }
    }
}

fn recent_cameras(
    url: Option<String>,
    config: Option<PathBuf>,
    last_good: Option<PathBuf>,
) -> Result<Vec<RecordedCamera>, CommandError> {
    let url = url_of("/healthz/cameras", url, config, last_good)?;
    let (status, text) = runtime()?.block_on(fetch::get(&url))?;
    let invalid = |reason: String| format!("{url} returned no list of cameras: {reason}");
    match status {
        StatusCode::OK => serde_json::from_str(&text).map_err(|e| invalid(e.to_string()).into()),
        status => Err(invalid(format!("{status} {text}")).into()),
    }
}

/// `berrymse health`: returns the cameras that deliver no video, as text, or `None` if all cameras
/// deliver video.
///
/// # Errors
///
/// Fails if the server does not return a valid health reply.
fn health(url: &str) -> Result<Option<String>, CommandError> {
    let (status, text) = runtime()?.block_on(fetch::get(url))?;
    match status {
        StatusCode::OK => Ok(None),
        StatusCode::SERVICE_UNAVAILABLE => Ok(Some(text)),
        status => Err(format!("{url} returned {status}: is this a BerryMSE server? {text}").into()),
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // BERRYMSE_LOG overrides this, for example with "warn,berrymse::camera=debug".
    let others = if verbose < 2 { "warn" } else { "debug" };
    let default = format!("{others},berrymse={level}");
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("BERRYMSE_LOG", default))
        .format_target(false)
        .init();
}

//! The command line. `docs/berrymse.1` is made from it (`ci/man`).

use crate::paths;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A camera's H.264, live in any browser, at the least delay.
///
/// Reads H.264 that a camera's hardware has encoded, wraps each frame in an MP4 fragment the
/// moment it arrives, and sends it over a WebSocket to the page it serves. Nothing is transcoded.
///
/// Without a configuration file, the first camera that is found plays at http://localhost:2020/,
/// or the built-in test card.
#[derive(Debug, Parser)]
#[command(name = "berrymse", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; without it: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of serve, when no command is named.
    #[command(flatten)]
    pub serve: Serve,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stream the cameras (the default)
    ///
    /// Serves until SIGINT or SIGTERM. A camera that fails is opened again by itself; the page,
    /// /api/status and the log say what is wrong with it.
    Serve(Serve),
    /// Check a configuration file
    ///
    /// Prints nothing and exits with 0 when it is good; otherwise prints file:line:column, what is
    /// wrong and what would be right, and exits with 1.
    Check {
        /// The file to check
        #[arg(value_name = "FILE", default_value = paths::CONFIG)]
        file: PathBuf,
    },
    /// List the cameras that are there
    ///
    /// Every V4L2 device: its names, what it delivers, which controls it has, which program has it
    /// open, and the lines for the configuration.
    Cameras {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Set up the appliance, early at its start
    ///
    /// Writes host name, network, Wi-Fi, SSH keys and time zone as the configuration has them, and
    /// keeps a copy of it. When it is missing or broken, the last good copy is in force, and what
    /// is wrong is said on standard error, in /run/berrymse/config-error, and so on the page.
    Apply {
        /// Configuration file [default: boot/berrymse.toml in --root]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where the last good copy is kept [default: data/berrymse/berrymse.toml in --root]
        #[arg(long, value_name = "FILE")]
        last_good: Option<PathBuf>,
        /// What counts as / for everything that is written
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Do for the server what only root may do: save the configuration, restart the machine
    #[command(hide = true)]
    RootHelper(RootHelper),
    /// Join the appliance's wireless network, or open an access point where none is configured
    #[command(hide = true)]
    Wifi(Wifi),
    /// Ask a running server whether every camera delivers pictures
    ///
    /// Exits with 0 while every camera does; with 3 if the server answers, and says which camera does
    /// not; with 1 if it does not answer.
    Health {
        /// Address to ask; by default the one that the configuration listens on
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Configuration file that says where the server listens [default: /boot/berrymse.toml,
        /// where there is one]
        #[arg(long, value_name = "FILE", conflicts_with = "url")]
        config: Option<PathBuf>,
        /// Copy of the configuration that is in force while that file is broken
        #[arg(long, value_name = "FILE", conflicts_with = "url")]
        last_good: Option<PathBuf>,
    },
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Configuration file [default: /boot/berrymse.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Copy of the configuration that is in force while that file is missing or broken, as `apply`
    /// keeps it; without this option, that ends the program
    #[arg(long, value_name = "FILE")]
    pub last_good: Option<PathBuf>,
    /// Address to listen on, instead of the configuration's: 0.0.0.0:2020, [::]:80, or a port
    #[arg(long, value_name = "ADDR", value_parser = crate::config::parse_listen)]
    pub listen: Option<std::net::SocketAddr>,
    /// Answer in the local network for HOSTNAME.local (mDNS), also where [system] has no hostname
    #[arg(long)]
    pub mdns: bool,
    /// Socket of `berrymse root-helper`, which saves the configuration and restarts the machine
    #[arg(long, value_name = "SOCKET", default_value = paths::ROOT_HELPER, hide = true)]
    pub helper: PathBuf,
    /// Where uploads lie until they are installed, and why the last update was given up
    #[arg(long, value_name = "DIR", default_value = paths::DATA, hide = true)]
    pub data: PathBuf,
    /// What `berrymse wifi` says of the wireless network
    #[arg(long, value_name = "FILE", default_value = paths::WIFI_REPORT, hide = true)]
    pub wifi: PathBuf,
    /// Say more in the log; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Options of `root-helper`.
#[derive(Debug, Args)]
pub struct RootHelper {
    /// Where it is spoken to
    #[arg(long, value_name = "SOCKET", default_value = paths::ROOT_HELPER)]
    pub socket: PathBuf,
    /// Who may speak to it, beside root
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// The configuration that it writes
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    pub config: PathBuf,
    /// Where it keeps the last good copy
    #[arg(long, value_name = "FILE", default_value = paths::LAST_GOOD)]
    pub last_good: PathBuf,
}

/// Options of `wifi`.
#[derive(Debug, Args)]
pub struct Wifi {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    pub config: PathBuf,
    /// Copy of it that is in force while that file is missing or broken
    #[arg(long, value_name = "FILE", default_value = paths::LAST_GOOD)]
    pub last_good: PathBuf,
    /// Where it is kept which network has worked
    #[arg(long, value_name = "FILE", default_value = paths::WIFI_STATE)]
    pub state: PathBuf,
    /// Where it says how it is doing
    #[arg(long, value_name = "FILE", default_value = paths::WIFI_REPORT)]
    pub report: PathBuf,
}

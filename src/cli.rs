//! The command line. `ci/generate/man` generates `docs/berrymse.1` and `docs/completions` from it.

use crate::paths;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Stream H.264 from a camera to any browser with the lowest possible latency.
///
/// Reads video that the camera's hardware has encoded as H.264, wraps each frame in an MP4 fragment
/// as soon as the frame arrives, and sends the fragment over a WebSocket to the page that berrymse
/// serves. Nothing is transcoded.
///
/// Without a configuration file, http://localhost:2020/ shows the first camera found, or the
/// built-in test card if there is none.
#[derive(Debug, Parser)]
#[command(name = "berrymse", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    /// The command. The default is `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `serve`, if no command is given.
    #[command(flatten)]
    pub serve: Serve,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stream the cameras (the default)
    ///
    /// Runs until it receives SIGINT or SIGTERM. A camera that fails is reopened automatically. The
    /// page, /api/status and the log report the reason.
    Serve(Serve),
    /// Check a configuration file
    ///
    /// Prints nothing and exits with 0 if the file is valid. Otherwise prints each error with
    /// file:line:column and how to correct it, and exits with 1.
    Check {
        /// The file to check
        #[arg(value_name = "FILE", default_value = paths::CONFIG)]
        file: PathBuf,
    },
    /// List the cameras connected to this machine
    ///
    /// For each V4L2 device, prints its names, its formats, its controls, the program that has it
    /// open, and the lines to copy into the configuration file.
    Cameras {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set up the appliance at boot
    ///
    /// Moves the settings in rpi-preseed.toml, which Raspberry Pi Imager writes beside the
    /// configuration, to the configuration. Sets the host name, network, Wi-Fi, SSH keys and time
    /// zone from the configuration, and saves a copy of the configuration. If the configuration is
    /// missing or invalid, the last good copy is used. Errors are printed to standard error, written
    /// to /run/berrymse/config-error, and shown on the page.
    Apply {
        /// Configuration file [default: boot/berrymse.toml in --root]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Last good copy of the configuration [default: data/berrymse/berrymse.toml in --root]
        #[arg(long, value_name = "FILE")]
        last_good: Option<PathBuf>,
        /// Directory to use as / for all files that are written
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Save the configuration and restart the machine on behalf of the server
    #[command(hide = true)]
    RootHelper(RootHelper),
    /// Save which cameras of a running server have delivered video within the last hour
    ///
    /// The appliance runs this before each update. Without a reply from the server, or with an
    /// invalid one, an existing record is removed.
    #[command(hide = true)]
    RecordCameras(RecordCameras),
    /// Join the configured wireless network, or start an access point if none is configured
    #[command(hide = true)]
    Wifi(Wifi),
    /// Update the boot files, if those of the running system are not in use
    #[command(hide = true)]
    BootFiles {
        /// Directory to use as /
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Check whether every camera of a running server is delivering video
    ///
    /// Exits with 0 if every camera is delivering video, with 3 if the server reports that a camera
    /// is not, and with 1 if the server does not reply.
    Health {
        /// URL of the server [default: the address in the configuration]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Configuration file to read the server's address from [default: /boot/berrymse.toml, if
        /// it exists]
        #[arg(long, value_name = "FILE", conflicts_with = "url")]
        config: Option<PathBuf>,
        /// Copy of the configuration to use if the configuration file is missing or invalid
        #[arg(long, value_name = "FILE", conflicts_with = "url")]
        last_good: Option<PathBuf>,
        /// On an appliance, in a system that was just installed, check only the cameras that
        /// delivered video in the hour before the update
        #[arg(long)]
        since_update: bool,
    },
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Configuration file [default: /boot/berrymse.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Copy of the configuration, saved by `apply`, to use if the configuration file is missing or
    /// invalid; without this option, the program exits in that case
    #[arg(long, value_name = "FILE")]
    pub last_good: Option<PathBuf>,
    /// Address or port to listen on; overrides the configuration.
    // The help text differs from the doc comment, because rustdoc would take the brackets for
    // links.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = crate::config::parse_listen,
        help = "Address to listen on, such as 0.0.0.0:2020 or [::]:80, or only a port; overrides the \
                configuration"
    )]
    pub listen: Option<std::net::SocketAddr>,
    /// Announce HOSTNAME.local on the local network (mDNS) even if no host name is configured.
    #[arg(
        long,
        help = "Announce HOSTNAME.local on the local network (mDNS) even if [system] has no hostname"
    )]
    pub mdns: bool,
    /// Socket of `berrymse root-helper`
    #[arg(long, value_name = "SOCKET", default_value = paths::ROOT_HELPER, hide = true)]
    pub helper: PathBuf,
    /// Directory for uploads and for the error message from the last failed update
    #[arg(long, value_name = "DIR", default_value = paths::DATA, hide = true)]
    pub data: PathBuf,
    /// Slot of the running system [default: from the kernel's arguments]
    #[arg(long, value_name = "SLOT", value_parser = ["A", "B"], hide = true)]
    pub slot: Option<String>,
    /// Report file written by `berrymse wifi`
    #[arg(long, value_name = "FILE", default_value = paths::WIFI_REPORT, hide = true)]
    pub wifi: PathBuf,
    /// Log more; use twice to log everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Options of `root-helper`.
#[derive(Debug, Args)]
pub struct RootHelper {
    /// Socket to listen on
    #[arg(long, value_name = "SOCKET", default_value = paths::ROOT_HELPER)]
    pub socket: PathBuf,
    /// Group that may use the socket, in addition to root
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Configuration file to write
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    pub config: PathBuf,
    /// Last good copy of the configuration
    #[arg(long, value_name = "FILE", default_value = paths::LAST_GOOD)]
    pub last_good: PathBuf,
}

/// Options of `record-cameras`.
#[derive(Debug, Args)]
pub struct RecordCameras {
    /// URL of the server [default: the address in the configuration]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Configuration file to read the server's address from
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// Copy of the configuration to use if the configuration file is missing or invalid
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub last_good: Option<PathBuf>,
    /// Directory for persistent data
    #[arg(long, value_name = "DIR", default_value = paths::DATA)]
    pub data: PathBuf,
    /// Slot of the running system [default: from the kernel's arguments]
    #[arg(long, value_name = "SLOT", value_parser = ["A", "B"])]
    pub slot: Option<String>,
}

/// Options of `wifi`.
#[derive(Debug, Args)]
pub struct Wifi {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    pub config: PathBuf,
    /// Copy of the configuration to use if the configuration file is missing or invalid
    #[arg(long, value_name = "FILE", default_value = paths::LAST_GOOD)]
    pub last_good: PathBuf,
    /// File with the name of the last network that was joined
    #[arg(long, value_name = "FILE", default_value = paths::WIFI_STATE)]
    pub state: PathBuf,
    /// File to write the report to (JSON)
    #[arg(long, value_name = "FILE", default_value = paths::WIFI_REPORT)]
    pub report: PathBuf,
}

//! The appliance's wireless network: joins what is configured, and where nothing is, opens an access
//! point, so that a phone can reach the page and configure it.
//!
//! ```text
//!             ┌── nothing configured, no cable for 20 s ──────────────┐
//!  start ─────┤                                                       ▼
//!             └── configured ──► join ── never worked, refused ──► access point
//!                                 ▲  │                              │ │
//!                                 │  └─ works: stays, tries for ever│ │ cable: closed
//!                                 └─── saved, or 3 min without a phone┘
//! ```
//!
//! The access point is open, because a password would have to be known to everybody who has read the
//! manual. So it is there for the first configuration only: never where a cable has had a link since
//! the start, never once the configured network has let this machine in. Nobody opens it by jamming
//! a network or by pulling a router's plug.

mod captive_dns;
pub(crate) mod files;
mod supplicant;

use crate::config::{Address, Config, Network, Wifi};
use crate::process::{self, Child, Group, run};
use crate::system::files::write;
use crate::system::last_good::load;
use crate::system::network;
use crate::system::wifi::captive_dns::CaptiveDns;
use crate::system::wifi::supplicant::{
    Control, SOCKETS, ScanResult, channel, mismatch, reason, scan_results,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The radio, and the cable.
const RADIO: &str = "wlan0";

const CABLE: &str = "eth0";

/// This machine in its access point's network.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 20, 1);

/// A cable's link takes some seconds to come up.
const LINK_TIMEOUT: Duration = Duration::from_secs(20);

/// Finding a network, its password's check and an address take a few seconds, more if the router is
/// starting, too.
const JOIN_TIMEOUT: Duration = Duration::from_secs(45);

/// An access point that nobody uses is closed after so long, to try the configured network again:
/// it may have been its router that was not ready.
const ACCESS_POINT_TIMEOUT: Duration = Duration::from_secs(180);

/// Time for the page to hear that what it has saved is saved.
const REPLY_GRACE: Duration = Duration::from_secs(2);

/// A scan of all channels.
const SCAN_TIMEOUT: Duration = Duration::from_secs(10);

/// A program to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for a program to end when it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// How often cable and configuration are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Where everything is.
#[derive(Debug)]
pub struct Files {
    /// The configuration.
    pub config: PathBuf,
    /// The last one that was good.
    pub last_good: PathBuf,
    /// Which configuration has worked: what lasts.
    pub state: PathBuf,
    /// What is known, for the server.
    pub report: PathBuf,
}

/// What is known about it all.
#[derive(Debug, Default, Clone, Serialize)]
struct Report {
    /// The access point's name, while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_point: Option<String>,
    /// The network that has let this machine in.
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<String>,
    /// The network that is being tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    joining: Option<String>,
    /// Why it is not joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What was in reach when the access point opened.
    networks: Vec<ScanResult>,
}

/// How a try to join ended.
enum End {
    /// There is something else to do now.
    Changed,
    /// It never worked, and does not.
    Refused,
}

/// Keeps the radio busy with the right thing.
pub struct WifiManager {
    files: Files,
    network: Network,
    host: String,
    /// When the configuration was written.
    written: [Option<SystemTime>; 2],
    started: Instant,
    /// Whether the cable has had a link.
    cable: bool,
    report: Report,
}

impl WifiManager {
    /// Knows nothing yet.
    pub fn new(files: Files) -> WifiManager {
        WifiManager {
            files,
            network: Network::default(),
            host: String::new(),
            written: [None; 2],
            started: Instant::now(),
            cable: false,
            report: Report::default(),
        }
    }

    /// Does what is to be done, for ever.
    pub fn run(mut self) -> ! {
        self.poll_inputs();
        loop {
            if !is_there() {
                // A server that finds no report shows nothing of Wi-Fi.
                let _ = super::files::remove(&self.files.report);
                std::thread::sleep(POLL_INTERVAL);
                self.poll_inputs();
                continue;
            }
            self.publish();
            if let Err(error) = self.step() {
                self.report.access_point = None;
                self.report.joined = None;
                self.report.error = Some(error.to_string());
                log::error!("Wi-Fi: {error}");
                self.publish();
                std::thread::sleep(5 * POLL_INTERVAL);
                self.poll_inputs();
            }
        }
    }

    /// One thing, until there is another to do.
    fn step(&mut self) -> Result<()> {
        unblock();
        if let Some(wifi) = self.network.wifi.clone() {
            if matches!(self.join(&wifi)?, End::Refused) && !self.cable {
                self.open(Some(ACCESS_POINT_TIMEOUT))?;
            }
            return Ok(());
        }
        self.report.error = None;
        // A fixed address is a network that is configured.
        let open = self.network == Network::default();
        loop {
            let waited = self.started.elapsed() > LINK_TIMEOUT;
            if open && !self.cable && waited {
                return self.open(None);
            }
            std::thread::sleep(POLL_INTERVAL);
            if self.poll_inputs() || !is_there() {
                return Ok(());
            }
        }
    }

    /// Joins the configured network, and stays in it.
    fn join(&mut self, wifi: &Wifi) -> Result<End> {
        let ssid = &wifi.ssid;
        let mut succeeded = self.has_succeeded(wifi);
        let mut supplicant = Supplicant::start(&files::wpa_supplicant(wifi))?;
        self.report.joining = Some(ssid.clone());
        self.publish();
        let (mut connected, mut addresses) = (false, None);
        let mut why = format!("{ssid:?} does not answer");
        let mut without = Instant::now();
        let end = loop {
            if self.poll_inputs() || !is_there() {
                break End::Changed;
            }
            let mut last = false;
            if let Some(event) = supplicant.event(POLL_INTERVAL)? {
                if event.starts_with("CTRL-EVENT-CONNECTED") {
                    connected = true;
                    why = format!("{ssid:?} lets this machine in, but gives it no address (DHCP)");
                    drop(addresses.take());
                    addresses = Some(self.get_address()?);
                } else if event.starts_with("CTRL-EVENT-DISCONNECTED") {
                    connected = false;
                } else if let Some((reason_text, is_last)) = reason(&event, ssid) {
                    (why, last) = (reason_text, is_last);
                }
            }
            let joined = self.report.joined.is_some();
            if connected && (joined || has_address()) {
                without = Instant::now();
                if !joined {
                    self.log_once(&format!("joined {ssid:?}"));
                    self.report.joined = Some(ssid.clone());
                    self.report.joining = None;
                    self.report.error = None;
                    self.publish();
                    self.remember_success(wifi);
                    succeeded = true;
                }
                continue;
            }
            if joined {
                self.report.joined = None;
                self.report.joining = Some(ssid.clone());
                self.publish();
            }
            if (last && !succeeded) || without.elapsed() > JOIN_TIMEOUT {
                let found = scan_results(&supplicant.control.ask("SCAN_RESULTS")?);
                let reason_text =
                    mismatch(&found, ssid, wifi.psk.is_some()).unwrap_or_else(|| why.clone());
                if self.report.error.as_ref() != Some(&reason_text) {
                    self.log_once(&reason_text);
                    self.report.error = Some(reason_text);
                    self.publish();
                }
                if !succeeded {
                    break End::Refused;
                }
            }
        };
        self.report.joined = None;
        self.report.joining = None;
        drop((addresses, supplicant));
        let _ = run(&["ip", "addr", "flush", "dev", RADIO]);
        self.publish();
        Ok(end)
    }

    /// The address in the network that has been joined: a program that keeps it, if it needs one.
    fn get_address(&self) -> Result<Option<Child>> {
        let Address::Fixed(address, prefix) = self.network.address else {
            let name = format!("hostname:{}", self.host);
            let words = ["udhcpc", "-f", "-i", RADIO, "-x", &name, "-O", "ntpsrv", "-t", "5", "-T"];
            return start(&[&words[..], &["2", "-A", "5"]].concat()).map(Some);
        };
        run(&["ip", "addr", "replace", &format!("{address}/{prefix}"), "dev", RADIO])?;
        if let Some(gateway) = self.network.gateway {
            let gateway = gateway.to_string();
            run(&["ip", "route", "replace", "default", "via", &gateway, "dev", RADIO])?;
        }
        if let Some(text) = network::resolv_conf(&self.network) {
            write(Path::new("/etc/resolv.conf"), text.as_bytes(), 0o644)?;
            // What a router says to a cable does not replace it.
            write(Path::new("/run/berrymse/dns"), b"", 0o644)?;
        }
        Ok(None)
    }

    /// Opens the access point, until there is something better.
    fn open(&mut self, timeout: Option<Duration>) -> Result<()> {
        let name = name_of(&std::fs::read_to_string(format!("/sys/class/net/{RADIO}/address"))?);
        let country = self.network.wifi.as_ref().map(|wifi| wifi.country.as_str());
        let mut supplicant = Supplicant::start(&files::access_point(&name, country))?;
        // Most radios cannot look around while they are an access point.
        self.report.networks = supplicant.scan().unwrap_or_else(|error| {
            log::warn!("Wi-Fi: {error}");
            vec![]
        });
        let frequency = channel(&self.report.networks);
        supplicant.control.ask(&format!("SET_NETWORK 0 frequency {frequency}"))?;
        supplicant.control.ask("SELECT_NETWORK 0")?;
        supplicant.wait_for("AP-ENABLED", START_TIMEOUT)?;
        let address = format!("{ADDRESS}/24");
        run(&["ip", "addr", "flush", "dev", RADIO])?;
        run(&["ip", "addr", "add", &address, "dev", RADIO])?;
        let leases = Path::new("/run/berrymse/udhcpd.conf");
        write(leases, files::udhcpd(RADIO, ADDRESS).as_bytes(), 0o644)?;
        let addresses = start(&["udhcpd", "-f", &leases.to_string_lossy()])?;
        let names = CaptiveDns::start(ADDRESS)?;
        self.log_once(&format!(
            "the access point {name:?} is open: join it and open http://{ADDRESS}/"
        ));
        self.report.access_point = Some(name);
        self.publish();
        let mut phones = HashSet::new();
        let mut unused = Instant::now();
        let mut written = self.written;
        while is_there() {
            if let Some(event) = supplicant.event(POLL_INTERVAL)? {
                let mut words = event.split_whitespace();
                match (words.next(), words.next()) {
                    (Some("AP-STA-CONNECTED"), Some(phone)) => {
                        phones.insert(phone.to_string());
                    }
                    (Some("AP-STA-DISCONNECTED"), Some(phone)) => {
                        phones.remove(phone);
                    }
                    _ => {}
                }
            }
            let changed = self.poll_inputs();
            // Saved once more as it was: somebody wants it tried.
            let again = written != self.written && self.network.wifi.is_some();
            written = self.written;
            if changed || again {
                std::thread::sleep(REPLY_GRACE);
                break;
            }
            if !phones.is_empty() {
                unused = Instant::now();
            }
            if self.cable || timeout.is_some_and(|timeout| unused.elapsed() > timeout) {
                break;
            }
        }
        self.log_once("the access point closes");
        self.report.access_point = None;
        self.publish();
        drop((names, addresses, supplicant));
        let _ = run(&["ip", "addr", "flush", "dev", RADIO]);
        Ok(())
    }

    /// Looks at cable and configuration; whether the network is configured otherwise than before.
    fn poll_inputs(&mut self) -> bool {
        let link = std::fs::read_to_string(format!("/sys/class/net/{CABLE}/carrier"));
        self.cable |= link.is_ok_and(|link| link.trim() == "1");
        let time = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
        let written = [time(&self.files.config), time(&self.files.last_good)];
        if written == self.written {
            return false;
        }
        self.written = written;
        let Config { network, system, .. } = load(&self.files.config, &self.files.last_good).config;
        self.host = system.hostname.unwrap_or_else(|| network::HOSTNAME.into());
        let changed = network != self.network;
        self.network = network;
        changed
    }

    fn publish(&self) {
        let text = serde_json::to_vec(&self.report).unwrap_or_default();
        if let Err(error) = write(&self.files.report, &text, 0o644) {
            log::warn!("{}: {error}", self.files.report.display());
        }
    }

    /// For the log and for whoever looks at the screen.
    fn log_once(&self, text: &str) {
        log::info!("Wi-Fi: {text}");
        let _ = std::fs::write("/dev/console", format!("berrymse: Wi-Fi: {text}\n"));
    }

    fn has_succeeded(&self, wifi: &Wifi) -> bool {
        std::fs::read_to_string(&self.files.state).is_ok_and(|text| text == fingerprint(wifi))
    }

    fn remember_success(&self, wifi: &Wifi) {
        if let Err(error) = write(&self.files.state, fingerprint(wifi).as_bytes(), 0o600) {
            log::warn!("{}: {error}", self.files.state.display());
        }
    }
}

/// Tells one configuration from another.
fn fingerprint(wifi: &Wifi) -> String {
    let digest = Sha256::digest(format!("{:?} {:?}", wifi.ssid, wifi.psk));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The access point's name: two of them in one house have different ones.
fn name_of(hardware_address: &str) -> String {
    let digits: String = hardware_address.chars().filter(char::is_ascii_hexdigit).collect();
    format!("BerryMSE-{}", &digits[digits.len().saturating_sub(4)..])
}

fn is_there() -> bool {
    Path::new(&format!("/sys/class/net/{RADIO}")).exists()
}

fn has_address() -> bool {
    run(&["ip", "-o", "addr", "show", "dev", RADIO, "scope", "global"])
        .is_ok_and(|text| text.contains("inet"))
}

/// Some systems switch radios off until somebody switches them on.
fn unblock() {
    for switch in std::fs::read_dir("/sys/class/rfkill").into_iter().flatten().flatten() {
        let file = |name: &str| switch.path().join(name);
        if std::fs::read_to_string(file("type")).is_ok_and(|kind| kind.trim() == "wlan") {
            let _ = std::fs::write(file("soft"), "0");
        }
    }
}

/// Starts `words`, a program and its arguments. Its messages go where our log goes.
fn start(words: &[&str]) -> Result<Child> {
    Child::spawn(&mut process::command(words), Group::Shared, END_TIMEOUT)
        .map_err(|error| process::start_error(words[0], &error))
}

/// wpa_supplicant at work.
struct Supplicant {
    control: Control,
    process: Child,
}

impl Supplicant {
    fn start(configuration: &str) -> Result<Supplicant> {
        let file = Path::new("/etc/wpa_supplicant.conf");
        write(file, configuration.as_bytes(), 0o600)?;
        let theirs = Path::new(SOCKETS).join(RADIO);
        super::files::remove(&theirs)?;
        let words = ["wpa_supplicant", "-i", RADIO, "-D", "nl80211", "-c"];
        let mut process = start(&[&words[..], &[&file.to_string_lossy()]].concat())?;
        let end = Instant::now() + START_TIMEOUT;
        loop {
            match Control::connect(&theirs, Path::new("/run/berrymse/wpa_control")) {
                Ok(control) => return Ok(Supplicant { control, process }),
                Err(error) if Instant::now() > end || !process.is_running() => {
                    return Err(Error::other(format!("wpa_supplicant does not answer: {error}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn event(&mut self, timeout: Duration) -> Result<Option<String>> {
        if !self.process.is_running() {
            return Err(Error::other("wpa_supplicant has ended"));
        }
        self.control.event(Instant::now() + timeout)
    }

    fn wait_for(&mut self, event: &str, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        while Instant::now() < end {
            if self.event(POLL_INTERVAL)?.is_some_and(|happened| happened.starts_with(event)) {
                return Ok(());
            }
        }
        Err(Error::other(format!("wpa_supplicant: no {event} within {timeout:?}")))
    }

    /// What is in reach.
    fn scan(&mut self) -> Result<Vec<ScanResult>> {
        self.control.ask("SCAN")?;
        self.wait_for("CTRL-EVENT-SCAN-RESULTS", SCAN_TIMEOUT)?;
        Ok(scan_results(&self.control.ask("SCAN_RESULTS")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn an_access_point_is_named_by_its_hardware() {
        assert_eq!(name_of("dc:a6:32:01:1a:2b\n"), "BerryMSE-1a2b");
        assert_eq!(name_of(""), "BerryMSE-");
    }

    #[test]
    fn scans_with_the_commands_of_wpa_supplicant() {
        let folder = std::env::temp_dir().join(format!("berrymse-scan-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let server = UnixDatagram::bind(folder.join("wlan0")).unwrap();
        let replies = std::thread::spawn(move || {
            let mut commands = vec![];
            while commands.last().is_none_or(|last| last != "SCAN_RESULTS") {
                let mut command = [0; 100];
                let (length, from) = server.recv_from(&mut command).unwrap();
                let command = String::from_utf8_lossy(&command[..length]).into_owned();
                let replies: &[&str] = match command.as_str() {
                    "SCAN" => &["OK\n", "<3>CTRL-EVENT-SCAN-RESULTS "],
                    "SCAN_RESULTS" => &["02:00:00:00:01:00\t2412\t-71\t[ESS]\tHome\n"],
                    "ATTACH" => &["OK\n"],
                    _ => &["UNKNOWN COMMAND\n"],
                };
                for reply in replies {
                    server.send_to(reply.as_bytes(), from.as_pathname().unwrap()).unwrap();
                }
                commands.push(command);
            }
            commands
        });
        let control = Control::connect(&folder.join("wlan0"), &folder.join("own")).unwrap();
        let mut supplicant = Supplicant { control, process: start(&["sleep", "60"]).unwrap() };
        assert_eq!(supplicant.scan().unwrap()[0].ssid, "Home");
        assert_eq!(replies.join().unwrap(), ["ATTACH", "SCAN", "SCAN_RESULTS"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

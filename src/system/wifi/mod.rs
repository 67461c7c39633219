//! The wireless network of the appliance: joins the configured network or, if none is configured,
//! starts an access point so that a phone can reach the page and configure a network.
//!
//! ```text
//!            ┌── not configured, no cable for 20 s ─────────────────┐
//!   start ───┤                                                      ▼
//!            └── configured ──► join ── failed, never joined ──► access point ──► stopped
//!                               ▲  │    before                      │      cable plugged in
//!                               │  └─ joined before: retry forever  │
//!                               └── settings saved, or 3 min idle ──┘
//! ```
//!
//! The access point has no password, because anyone who reads the manual would know it. It is
//! therefore available for the initial setup only: it does not start if the wired interface has had
//! a link since startup, or if the configured network has been joined before. An attacker cannot
//! make it start by jamming the network or switching off the router.

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
    Control, SOCKETS, ScanResult, channel, explain, mismatch, scan_results,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The wireless interface.
const RADIO: &str = "wlan0";

/// The wired interface.
const CABLE: &str = "eth0";

/// Address of this machine on the network of its access point.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 20, 1);

/// Maximum time for the wired link to come up after startup.
const LINK_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum time to find a network, authenticate and get an address. This takes a few seconds, or
/// longer if the router is also booting.
const JOIN_TIMEOUT: Duration = Duration::from_secs(45);

/// Time after which an unused access point stops, so that the configured network is tried again.
/// The router may not have been ready at the first attempt.
const ACCESS_POINT_TIMEOUT: Duration = Duration::from_secs(180);

/// Time for the page to receive the response to its request before the access point stops.
const REPLY_GRACE: Duration = Duration::from_secs(2);

/// Maximum time for a scan of all channels.
const SCAN_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time for a program to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum time for a program to exit after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between checks for the cable and for a new configuration.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The files of the Wi-Fi manager.
#[derive(Debug)]
pub struct Files {
    /// The configuration file.
    pub config: PathBuf,
    /// The last good configuration.
    pub last_good: PathBuf,
    /// Fingerprint of the network that was last joined. It persists across restarts.
    pub state: PathBuf,
    /// Status report for the server, in JSON.
    pub report: PathBuf,
}

/// Status report for the server.
#[derive(Debug, Default, Clone, Serialize)]
struct Report {
    /// Name of the access point, while it is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_point: Option<String>,
    /// The joined network.
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<String>,
    /// The network that this machine is joining.
    #[serde(skip_serializing_if = "Option::is_none")]
    joining: Option<String>,
    /// Why the network cannot be joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The networks in range when the access point started.
    networks: Vec<ScanResult>,
}

/// How an attempt to join a network ended.
enum JoinEnd {
    /// The configuration has changed, or the interface has disappeared.
    Changed,
    /// The network cannot be joined, and has not been joined before.
    Failed,
}

/// Joins networks and starts the access point.
pub struct WifiManager {
    files: Files,
    network: Network,
    host: String,
    /// Modification times of the configuration and its copy.
    written: [Option<SystemTime>; 2],
    started: Instant,
    /// Whether the wired interface has had a link since startup.
    cable: bool,
    report: Report,
}

impl WifiManager {
    /// Creates a manager that has not read the configuration yet.
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

    /// Manages the wireless interface. Never returns.
    pub fn run(mut self) -> ! {
        self.poll_inputs();
        loop {
            if !radio_exists() {
                // Without a report, the server does not offer Wi-Fi.
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

    /// Joins the network or starts the access point. Returns when that ends, for example because
    /// the configuration has changed.
    fn step(&mut self) -> Result<()> {
        unblock();
        if let Some(wifi) = self.network.wifi.clone() {
            if matches!(self.join(&wifi)?, JoinEnd::Failed) && !self.cable {
                self.run_access_point(Some(ACCESS_POINT_TIMEOUT))?;
            }
            return Ok(());
        }
        self.report.error = None;
        // A fixed address also counts as a configured network.
        let is_unconfigured = self.network == Network::default();
        loop {
            let waited = self.started.elapsed() > LINK_TIMEOUT;
            if is_unconfigured && !self.cable && waited {
                return self.run_access_point(None);
            }
            std::thread::sleep(POLL_INTERVAL);
            if self.poll_inputs() || !radio_exists() {
                return Ok(());
            }
        }
    }

    /// Joins the configured network and stays connected.
    fn join(&mut self, wifi: &Wifi) -> Result<JoinEnd> {
        let ssid = &wifi.ssid.to_string();
        let mut succeeded = self.has_succeeded(wifi);
        let mut supplicant = Supplicant::start(&files::wpa_supplicant(wifi))?;
        self.report.joining = Some(ssid.clone());
        self.publish();
        let (mut connected, mut addresses) = (false, None);
        let mut message = format!("{ssid:?} does not respond");
        let mut last_joined = Instant::now();
        let end = loop {
            if self.poll_inputs() || !radio_exists() {
                break JoinEnd::Changed;
            }
            let mut is_final = false;
            if let Some(event) = supplicant.event(POLL_INTERVAL)? {
                if event.starts_with("CTRL-EVENT-CONNECTED") {
                    connected = true;
                    message = format!("{ssid:?} was joined, but DHCP assigned no address");
                    drop(addresses.take());
                    addresses = Some(self.get_address()?);
                } else if event.starts_with("CTRL-EVENT-DISCONNECTED") {
                    connected = false;
                } else if let Some(explanation) = explain(&event, ssid) {
                    (message, is_final) = explanation;
                }
            }
            let joined = self.report.joined.is_some();
            if connected && (joined || has_address()) {
                last_joined = Instant::now();
                if !joined {
                    self.log_to_console(&format!("joined {ssid:?}"));
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
            if (is_final && !succeeded) || last_joined.elapsed() > JOIN_TIMEOUT {
                let found = scan_results(&supplicant.control.request("SCAN_RESULTS")?);
                let error = mismatch(&found, ssid, wifi.psk.as_deref());
                let error = error.unwrap_or_else(|| message.clone());
                if self.report.error.as_ref() != Some(&error) {
                    self.log_to_console(&error);
                    self.report.error = Some(error);
                    self.publish();
                }
                if !succeeded {
                    break JoinEnd::Failed;
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

    /// Gets an address on the joined network. With DHCP, returns the client that keeps the lease.
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
            // This file keeps the wired interface's DHCP client from replacing resolv.conf.
            write(Path::new("/run/berrymse/dns"), b"", 0o644)?;
        }
        Ok(None)
    }

    /// Runs the access point. Stops it when the configuration changes, a cable is plugged in, or no
    /// phone has been connected for `timeout`.
    fn run_access_point(&mut self, timeout: Option<Duration>) -> Result<()> {
        let name = name_of(&std::fs::read_to_string(format!("/sys/class/net/{RADIO}/address"))?);
        let country = self.network.wifi.as_ref().and_then(|wifi| wifi.country.as_deref());
        let mut supplicant = Supplicant::start(&files::access_point(&name, country))?;
        // Most devices cannot scan while they operate as an access point.
        self.report.networks = supplicant.scan().unwrap_or_else(|error| {
            log::warn!("Wi-Fi: {error}");
            vec![]
        });
        let frequency = channel(&self.report.networks);
        supplicant.control.request(&format!("SET_NETWORK 0 frequency {frequency}"))?;
        supplicant.control.request("SELECT_NETWORK 0")?;
        supplicant.wait_for("AP-ENABLED", START_TIMEOUT)?;
        let address = format!("{ADDRESS}/24");
        run(&["ip", "addr", "flush", "dev", RADIO])?;
        run(&["ip", "addr", "add", &address, "dev", RADIO])?;
        let leases = Path::new("/run/berrymse/udhcpd.conf");
        write(leases, files::udhcpd(RADIO, ADDRESS).as_bytes(), 0o644)?;
        let addresses = start(&["udhcpd", "-f", &leases.to_string_lossy()])?;
        let dns = CaptiveDns::start(ADDRESS)?;
        self.log_to_console(&format!(
            "the access point {name:?} is running: join it and open http://{ADDRESS}/"
        ));
        self.report.access_point = Some(name);
        self.publish();
        let mut phones = HashSet::new();
        let mut last_used = Instant::now();
        let mut written = self.written;
        while radio_exists() {
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
            // The user saved the same network again to retry it.
            let retry = written != self.written && self.network.wifi.is_some();
            written = self.written;
            if changed || retry {
                std::thread::sleep(REPLY_GRACE);
                break;
            }
            if !phones.is_empty() {
                last_used = Instant::now();
            }
            if self.cable || timeout.is_some_and(|timeout| last_used.elapsed() > timeout) {
                break;
            }
        }
        self.log_to_console("stopping the access point");
        self.report.access_point = None;
        self.publish();
        drop((dns, addresses, supplicant));
        let _ = run(&["ip", "addr", "flush", "dev", RADIO]);
        Ok(())
    }

    /// Checks the cable, and reads the configuration if it has changed. Returns whether the network
    /// settings changed.
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
            log::warn!("cannot write {}: {error}", self.files.report.display());
        }
    }

    /// Writes to the log and to the console.
    fn log_to_console(&self, text: &str) {
        log::info!("Wi-Fi: {text}");
        let _ = std::fs::write("/dev/console", format!("berrymse: Wi-Fi: {text}\n"));
    }

    fn has_succeeded(&self, wifi: &Wifi) -> bool {
        std::fs::read_to_string(&self.files.state).is_ok_and(|text| text == fingerprint(wifi))
    }

    fn remember_success(&self, wifi: &Wifi) {
        if let Err(error) = write(&self.files.state, fingerprint(wifi).as_bytes(), 0o600) {
            log::warn!("cannot write {}: {error}", self.files.state.display());
        }
    }
}

/// Returns a hash of the network's name and password. It identifies the network without revealing
/// the password.
fn fingerprint(wifi: &Wifi) -> String {
    let digest = Sha256::digest(format!("{:?} {:?}", wifi.ssid, wifi.psk));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the name of the access point. It contains the end of the hardware address, so that two
/// devices in one building have different names.
fn name_of(hardware_address: &str) -> String {
    let digits: String = hardware_address.chars().filter(char::is_ascii_hexdigit).collect();
    format!("BerryMSE-{}", &digits[digits.len().saturating_sub(4)..])
}

/// Returns whether the wireless interface exists.
fn radio_exists() -> bool {
    Path::new(&format!("/sys/class/net/{RADIO}")).exists()
}

/// Returns whether the wireless interface has a global address.
fn has_address() -> bool {
    run(&["ip", "-o", "addr", "show", "dev", RADIO, "scope", "global"])
        .is_ok_and(|text| text.contains("inet"))
}

/// Enables the wireless devices. Some systems block them at boot.
fn unblock() {
    for switch in std::fs::read_dir("/sys/class/rfkill").into_iter().flatten().flatten() {
        let file = |name: &str| switch.path().join(name);
        if std::fs::read_to_string(file("type")).is_ok_and(|kind| kind.trim() == "wlan") {
            let _ = std::fs::write(file("soft"), "0");
        }
    }
}

/// Starts `words`, a program and its arguments. Its output goes to the log of this process.
fn start(words: &[&str]) -> Result<Child> {
    Child::spawn(&mut process::command(words), Group::Shared, END_TIMEOUT)
        .map_err(|error| process::start_error(words[0], &error))
}

/// A running wpa_supplicant.
struct Supplicant {
    control: Control,
    process: Child,
}

impl Supplicant {
    fn start(configuration: &str) -> Result<Supplicant> {
        let file = Path::new("/etc/wpa_supplicant.conf");
        write(file, configuration.as_bytes(), 0o600)?;
        let socket = Path::new(SOCKETS).join(RADIO);
        super::files::remove(&socket)?;
        let words = ["wpa_supplicant", "-i", RADIO, "-D", "nl80211", "-c"];
        let mut process = start(&[&words[..], &[&file.to_string_lossy()]].concat())?;
        let end = Instant::now() + START_TIMEOUT;
        loop {
            match Control::connect(&socket, Path::new("/run/berrymse/wpa_control")) {
                Ok(control) => return Ok(Supplicant { control, process }),
                Err(error) if Instant::now() > end || !process.is_running() => {
                    return Err(Error::other(format!("wpa_supplicant does not respond: {error}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Returns the next event, or `None` if there is none within `timeout`.
    fn event(&mut self, timeout: Duration) -> Result<Option<String>> {
        if !self.process.is_running() {
            return Err(Error::other("wpa_supplicant has exited"));
        }
        self.control.event(Instant::now() + timeout)
    }

    /// Waits for an event that starts with `event`.
    fn wait_for(&mut self, event: &str, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        while Instant::now() < end {
            if self.event(POLL_INTERVAL)?.is_some_and(|text| text.starts_with(event)) {
                return Ok(());
            }
        }
        Err(Error::other(format!("wpa_supplicant: no {event} within {timeout:?}")))
    }

    /// Returns the networks in range.
    fn scan(&mut self) -> Result<Vec<ScanResult>> {
        self.control.request("SCAN")?;
        self.wait_for("CTRL-EVENT-SCAN-RESULTS", SCAN_TIMEOUT)?;
        Ok(scan_results(&self.control.request("SCAN_RESULTS")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ssid;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn names_the_access_point_after_its_hardware_address() {
        assert_eq!(name_of("dc:a6:32:01:1a:2b\n"), "BerryMSE-1a2b");
        assert_eq!(name_of(""), "BerryMSE-");
    }

    /// Another digest would make an updated device forget that it has joined its network.
    #[test]
    fn keeps_the_fingerprints_of_earlier_versions() {
        let wifi = |ssid: Ssid| Wifi { ssid, psk: Some("a secret".into()), country: None };
        let text = fingerprint(&wifi(Ssid::new("Café \"5\"").unwrap()));
        assert_eq!(text, "163db9d9ed23c2e38f83e23d6c0db1f9f08d13844bedd57deca0a9ef3ba5173e");
        assert_ne!(fingerprint(&wifi(Ssid::from_hex("ff").unwrap())), text);
    }

    #[test]
    fn scans_with_wpa_supplicant_commands() {
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

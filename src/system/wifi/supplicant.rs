//! The control interface of wpa_supplicant (its `ctrl_interface`), and explanations of its events.
//!
//! Each datagram is one command or one reply. After `ATTACH`, events arrive between the replies. They
//! start with a log level: `<3>CTRL-EVENT-CONNECTED …`.

use serde::Serialize;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Directory in which wpa_supplicant creates one socket per interface.
pub(super) const SOCKETS: &str = "/run/wpa_supplicant";

/// Maximum time for a reply. It usually takes milliseconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The control socket of one interface.
pub(super) struct Control {
    socket: UnixDatagram,
    own: PathBuf,
    /// Events that arrived before a reply.
    events: VecDeque<String>,
}

impl Control {
    /// Connects the new socket `own` to the socket `server`, and subscribes to events.
    pub(super) fn connect(server: &Path, own: &Path) -> Result<Control> {
        crate::system::files::remove(own)?;
        let socket = UnixDatagram::bind(own)?;
        let mut control = Control { socket, own: own.into(), events: VecDeque::new() };
        control.socket.connect(server)?;
        control.request("ATTACH")?;
        Ok(control)
    }

    /// Sends a command and waits for the reply.
    ///
    /// # Errors
    ///
    /// No reply arrives within 5 s, or the reply is `FAIL`.
    pub(super) fn request(&mut self, command: &str) -> Result<String> {
        self.socket.set_write_timeout(Some(REPLY_TIMEOUT))?;
        self.socket.send(command.as_bytes())?;
        let end = Instant::now() + REPLY_TIMEOUT;
        while let Some(text) = self.receive(end)? {
            if let Some(event) = event_in(&text) {
                self.events.push_back(event);
                continue;
            }
            return match text.starts_with("FAIL") || text.starts_with("UNKNOWN COMMAND") {
                true => Err(Error::other(format!("wpa_supplicant: {command}: {}", text.trim()))),
                false => Ok(text),
            };
        }
        Err(Error::new(ErrorKind::TimedOut, format!("wpa_supplicant: no reply to {command}")))
    }

    /// Returns the next event without its level, or `None` if none arrives before `end`.
    pub(super) fn event(&mut self, end: Instant) -> Result<Option<String>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        while let Some(text) = self.receive(end)? {
            if let Some(event) = event_in(&text) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn receive(&self, end: Instant) -> Result<Option<String>> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left))?;
        let mut bytes = vec![0; 65536];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(&bytes[..length]).into_owned())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = crate::system::files::remove(&self.own);
    }
}

/// Returns the event without its level, or `None` if the text is a reply.
fn event_in(text: &str) -> Option<String> {
    let (_, event) = text.strip_prefix('<')?.split_once('>')?;
    Some(event.trim().into())
}

/// A network found by a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ScanResult {
    /// Name of the network.
    pub(super) ssid: String,
    /// Signal strength, in dBm, from about -30 (next to it) to -90 (barely usable).
    pub(super) signal: i32,
    /// Whether it requires a password.
    pub(super) locked: bool,
    /// Whether it accepts only WPA3, which needs the password itself: a key of 64 digits, which is
    /// derived from the password for WPA2, does not suffice.
    #[serde(skip)]
    pub(super) wpa3_only: bool,
    /// Frequency, in MHz.
    #[serde(skip)]
    pub(super) frequency: u32,
}

/// Parses the reply to `SCAN_RESULTS`: `bssid / frequency / signal level / flags / ssid`, separated by
/// tabs. Returns the strongest network of each name, strongest first. Skips hidden networks.
pub(super) fn scan_results(text: &str) -> Vec<ScanResult> {
    let mut found: Vec<ScanResult> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(5, '\t').skip(1);
            let frequency = fields.next()?.parse().ok()?;
            let signal = fields.next()?.parse().ok()?;
            let flags = fields.next()?;
            let ssid = unescape(fields.next()?)?;
            let locked = ["WPA", "RSN", "WEP", "SAE"].iter().any(|word| flags.contains(word));
            let wpa3_only = flags.contains("SAE") && !flags.contains("PSK");
            Some(ScanResult { ssid, signal, locked, wpa3_only, frequency })
        })
        .filter(|network| !network.ssid.is_empty() && !network.ssid.contains('\0'))
        .collect();
    found.sort_by(|a, b| b.signal.cmp(&a.signal).then_with(|| a.ssid.cmp(&b.ssid)));
    let mut names = std::collections::HashSet::new();
    found.retain(|network| names.insert(network.ssid.clone()));
    found
}

/// Decodes wpa_supplicant's escapes, such as `\xc3`. `None` if the result is not UTF-8.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first()?;
        rest = after;
        bytes.push(match kind {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'e' => 0x1b,
            b'x' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Explains why the network `ssid` cannot be joined, as reported by an event. The flag says whether
/// the error is final, so that further attempts are useless.
pub(super) fn explain(event: &str, ssid: &str) -> Option<(String, bool)> {
    let field = |name: &str| event.split_whitespace().find_map(|word| word.strip_prefix(name));
    let wrong_password = || Some((format!("the password for {ssid:?} is wrong"), true));
    match event.split_whitespace().next()? {
        "CTRL-EVENT-SSID-TEMP-DISABLED" if field("reason=") == Some("WRONG_KEY") => {
            wrong_password()
        }
        // WPA3: the access point does not confirm the password (IEEE 802.11, 12.4.5: the second
        // message, with a status other than success).
        "CTRL-EVENT-AUTH-REJECT"
            if field("auth_type=") == Some("3") && field("auth_transaction=") == Some("2") =>
        {
            wrong_password()
        }
        "CTRL-EVENT-NETWORK-NOT-FOUND" => {
            Some((format!("no network named {ssid:?} is in range"), false))
        }
        "CTRL-EVENT-ASSOC-REJECT" | "CTRL-EVENT-AUTH-REJECT" => {
            let status = field("status_code=").unwrap_or("?");
            Some((format!("{ssid:?} rejects this machine (status {status})"), false))
        }
        _ => None,
    }
}

/// Explains why the network `ssid` cannot be joined with the password or key `psk`, based on the
/// results of a scan: what the network requires and what is configured do not match.
pub(super) fn mismatch(found: &[ScanResult], ssid: &str, psk: Option<&str>) -> Option<String> {
    let network = found.iter().find(|network| network.ssid == ssid)?;
    match (network.locked, psk) {
        (true, None) => Some(format!("{ssid:?} requires a password, but none is set")),
        (false, Some(_)) => Some(format!("{ssid:?} is an open network, but a password is set")),
        (true, Some(key)) if network.wpa3_only && key.len() == 64 => Some(format!(
            "{ssid:?} requires WPA3, which does not work with a key of 64 digits: set its password"
        )),
        _ => None,
    }
}

/// Chooses the frequency for an access point, in MHz: that of channel 1, 6 or 11, whichever has the
/// fewest networks. Every country allows these channels, and they do not overlap.
pub(super) fn channel(found: &[ScanResult]) -> u32 {
    let channels = [2437_u32, 2412, 2462];
    let near = |channel: u32| found.iter().filter(|n| n.frequency.abs_diff(channel) < 25).count();
    channels.into_iter().min_by_key(|&channel| near(channel)).unwrap_or(channels[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RESULTS: &str = "bssid / frequency / signal level / flags / ssid\n\
        02:00:00:00:01:00\t2412\t-71\t[WPA2-PSK-CCMP][ESS]\tHome\n\
        02:00:00:00:02:00\t5180\t-40\t[WPA2-PSK+SAE-CCMP][ESS]\tHome\n\
        02:00:00:00:03:00\t2437\t-60\t[ESS]\tCaf\\xc3\\xa9 \\\"x\\\"\n\
        02:00:00:00:04:00\t2462\t-30\t[ESS]\t\n\
        02:00:00:00:05:00\t2462\t-30\t[ESS]\t\\x00\\x00\n\
        02:00:00:00:06:00\t2462\t-35\t[ESS]\t\\xff\n";

    #[test]
    fn lists_the_strongest_network_of_each_name() {
        let result = |ssid: &str, signal, locked, frequency| ScanResult {
            ssid: ssid.into(),
            signal,
            locked,
            wpa3_only: false,
            frequency,
        };
        let found = scan_results(RESULTS);
        let cafe = result("Café \"x\"", -60, false, 2437);
        assert_eq!(found, [result("Home", -40, true, 5180), cafe]);
        let key = "ab".repeat(32);
        for psk in ["a secret", &key] {
            assert_eq!(mismatch(&found, "Home", Some(psk)), None);
        }
        assert!(mismatch(&found, "Home", None).unwrap().contains("requires a password"));
        assert!(mismatch(&found, "Café \"x\"", Some("a")).unwrap().contains("open network"));
        assert_eq!(mismatch(&found, "elsewhere", Some("a")), None);
        let modern =
            scan_results("h\n02:00:00:00:07:00\t2412\t-50\t[WPA2-SAE-CCMP][ESS]\tModern\n");
        assert!(mismatch(&modern, "Modern", Some(&key)).unwrap().contains("set its password"));
        assert_eq!(mismatch(&modern, "Modern", Some("a secret")), None);
        assert_eq!(channel(&found), 2412);
        assert_eq!(channel(&[]), 2437);
    }

    #[test]
    fn explains_events() {
        let wrong = "CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"Home\" auth_failures=1 duration=10 \
                     reason=WRONG_KEY";
        assert_eq!(
            explain(wrong, "Home"),
            Some(("the password for \"Home\" is wrong".into(), true))
        );
        let sae = "CTRL-EVENT-AUTH-REJECT 02:00:00:00:01:00 auth_type=3 auth_transaction=2 \
                   status_code=1";
        assert_eq!(explain(sae, "Home"), explain(wrong, "Home"));
        let refused = "CTRL-EVENT-ASSOC-REJECT bssid=02:00:00:00:01:00 status_code=17";
        assert!(explain(refused, "Home").unwrap().0.ends_with("(status 17)"));
        let (message, is_final) = explain("CTRL-EVENT-NETWORK-NOT-FOUND ", "a\nb").unwrap();
        let expected = "no network named \"a\\nb\" is in range";
        assert_eq!((message.as_str(), is_final), (expected, false));
        assert_eq!(explain("CTRL-EVENT-SCAN-STARTED ", "Home"), None);
        assert_eq!(explain("", "Home"), None);
    }

    #[test]
    fn separates_replies_and_events() {
        let folder = std::env::temp_dir().join(format!("berrymse-wpa-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let server = UnixDatagram::bind(folder.join("wlan0")).unwrap();
        let replies = std::thread::spawn(move || {
            for replies in [&["OK\n"][..], &["<3>CTRL-EVENT-SCAN-STARTED ", "a\tb\n"], &["FAIL\n"]]
            {
                let mut command = [0; 100];
                let (_, from) = server.recv_from(&mut command).unwrap();
                let from = from.as_pathname().unwrap().to_path_buf();
                for reply in replies {
                    server.send_to(reply.as_bytes(), &from).unwrap();
                }
            }
            let event = b"<3>CTRL-EVENT-CONNECTED - x";
            server.send_to(event, folder.join("own")).unwrap();
            folder
        });
        let folder = std::env::temp_dir().join(format!("berrymse-wpa-{}", std::process::id()));
        let mut control = Control::connect(&folder.join("wlan0"), &folder.join("own")).unwrap();
        assert_eq!(control.request("SCAN_RESULTS").unwrap(), "a\tb\n");
        assert!(control.request("NONSENSE").unwrap_err().to_string().contains("FAIL"));
        let soon = Instant::now() + REPLY_TIMEOUT;
        // The first event arrived before a reply.
        assert_eq!(control.event(soon).unwrap().as_deref(), Some("CTRL-EVENT-SCAN-STARTED"));
        assert_eq!(control.event(soon).unwrap().as_deref(), Some("CTRL-EVENT-CONNECTED - x"));
        std::fs::remove_dir_all(replies.join().unwrap()).unwrap();
    }

    proptest! {
        #[test]
        fn does_not_panic_on_any_text(text in "\\PC{0,80}", tabs in "([-0-9a-z\\\\x]{0,9}\t?){0,9}") {
            for text in [&text, &tabs] {
                let _ = scan_results(text);
                let _ = explain(text, "x");
                let _ = unescape(text);
            }
        }
    }
}

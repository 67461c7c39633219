//! wpa_supplicant: its control socket, and what it says, in plain words.
//!
//! One datagram is one command or one answer; after `ATTACH`, what happens comes in between, each
//! line with its level in front: `<3>CTRL-EVENT-CONNECTED …`.

use serde::Serialize;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where wpa_supplicant makes its sockets, one an interface.
pub(super) const SOCKETS: &str = "/run/wpa_supplicant";

/// Its answers come within milliseconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The control socket of one interface.
pub(super) struct Control {
    socket: UnixDatagram,
    own: PathBuf,
    /// What happened while an answer was waited for.
    events: VecDeque<String>,
}

impl Control {
    /// Connects to the socket `theirs`, and asks to be told what happens.
    pub(super) fn connect(theirs: &Path, own: &Path) -> Result<Control> {
        crate::system::files::remove(own)?;
        let socket = UnixDatagram::bind(own)?;
        let mut control = Control { socket, own: own.into(), events: VecDeque::new() };
        control.socket.connect(theirs)?;
        control.ask("ATTACH")?;
        Ok(control)
    }

    /// Sends a command and waits for its answer. `FAIL` is an error.
    pub(super) fn ask(&mut self, command: &str) -> Result<String> {
        self.socket.set_write_timeout(Some(REPLY_TIMEOUT))?;
        self.socket.send(command.as_bytes())?;
        let end = Instant::now() + REPLY_TIMEOUT;
        while let Some(text) = self.receive(end)? {
            if let Some(event) = event_in(&text) {
                self.events.push_back(event);
                continue;
            }
            return match text.starts_with("FAIL") || text.starts_with("UNKNOWN COMMAND") {
                true => Err(Error::other(format!("{command}: {}", text.trim()))),
                false => Ok(text),
            };
        }
        Err(Error::new(ErrorKind::TimedOut, format!("{command}: no answer")))
    }

    /// The next thing that happens, without its level; `None` if nothing does until `end`.
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

/// What happened, if that is what this is about.
fn event_in(text: &str) -> Option<String> {
    let (_, event) = text.strip_prefix('<')?.split_once('>')?;
    Some(event.trim().into())
}

/// A network that a scan has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ScanResult {
    /// Its name.
    pub(super) ssid: String,
    /// Strength in dBm: -30 is beside it, -90 hardly there.
    pub(super) signal: i32,
    /// Whether it wants a password.
    pub(super) locked: bool,
    /// MHz.
    #[serde(skip)]
    pub(super) frequency: u32,
}

/// What `SCAN_RESULTS` says: `bssid / frequency / signal level / flags / ssid`, with tabs between.
/// The strongest of each name, in order of strength; those without a name are left out.
pub(super) fn scan_results(text: &str) -> Vec<ScanResult> {
    let mut seen: Vec<ScanResult> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(5, '\t').skip(1);
            let frequency = fields.next()?.parse().ok()?;
            let signal = fields.next()?.parse().ok()?;
            let flags = fields.next()?;
            let ssid = unescape(fields.next()?)?;
            let locked = ["WPA", "RSN", "WEP", "SAE"].iter().any(|word| flags.contains(word));
            Some(ScanResult { ssid, signal, locked, frequency })
        })
        .filter(|network| !network.ssid.is_empty() && !network.ssid.contains('\0'))
        .collect();
    seen.sort_by(|a, b| b.signal.cmp(&a.signal).then_with(|| a.ssid.cmp(&b.ssid)));
    let mut names = std::collections::HashSet::new();
    seen.retain(|network| names.insert(network.ssid.clone()));
    seen
}

/// wpa_supplicant writes bytes that it thinks unprintable as `\xc3`. `None` if it is no UTF-8 then.
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

/// What an event says about why the network `ssid` cannot be joined, and whether that is the last
/// word: trying on would not help.
pub(super) fn reason(event: &str, ssid: &str) -> Option<(String, bool)> {
    let field = |name: &str| event.split_whitespace().find_map(|word| word.strip_prefix(name));
    let wrong = || Some((format!("the password for {ssid:?} is wrong"), true));
    match event.split_whitespace().next()? {
        "CTRL-EVENT-SSID-TEMP-DISABLED" if field("reason=") == Some("WRONG_KEY") => wrong(),
        // WPA3: the other side does not confirm that it knows the same password (IEEE 802.11,
        // 12.4.5: the second message, with a status that is no success).
        "CTRL-EVENT-AUTH-REJECT"
            if field("auth_type=") == Some("3") && field("auth_transaction=") == Some("2") =>
        {
            wrong()
        }
        "CTRL-EVENT-NETWORK-NOT-FOUND" => {
            Some((format!("no network called {ssid:?} is in reach"), false))
        }
        "CTRL-EVENT-ASSOC-REJECT" | "CTRL-EVENT-AUTH-REJECT" => {
            let status = field("status_code=").unwrap_or("?");
            Some((format!("{ssid:?} does not let this machine in (status {status})"), false))
        }
        _ => None,
    }
}

/// What `seen` says about why it cannot be joined: a password too many, or none.
pub(super) fn mismatch(seen: &[ScanResult], ssid: &str, password: bool) -> Option<String> {
    let network = seen.iter().find(|network| network.ssid == ssid)?;
    match (network.locked, password) {
        (true, false) => Some(format!("{ssid:?} wants a password, and none is given")),
        (false, true) => Some(format!("{ssid:?} is an open network, and a password is given")),
        _ => None,
    }
}

/// The channel for an access point, MHz: 1, 6 or 11, which the rules of every country allow and
/// which do not overlap; the one with the fewest networks.
pub(super) fn channel(seen: &[ScanResult]) -> u32 {
    let channels = [2437_u32, 2412, 2462];
    let near = |channel: u32| seen.iter().filter(|n| n.frequency.abs_diff(channel) < 25).count();
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
    fn what_a_scan_finds() {
        let seen = |ssid: &str, signal, locked, frequency| ScanResult {
            ssid: ssid.into(),
            signal,
            locked,
            frequency,
        };
        let found = scan_results(RESULTS);
        let cafe = seen("Café \"x\"", -60, false, 2437);
        assert_eq!(found, [seen("Home", -40, true, 5180), cafe]);
        assert_eq!(mismatch(&found, "Home", true), None);
        assert!(mismatch(&found, "Home", false).unwrap().contains("wants a password"));
        assert!(mismatch(&found, "Café \"x\"", true).unwrap().contains("open network"));
        assert_eq!(mismatch(&found, "elsewhere", true), None);
        assert_eq!(channel(&found), 2412);
        assert_eq!(channel(&[]), 2437);
    }

    #[test]
    fn events_in_plain_words() {
        let wrong = "CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"Home\" auth_failures=1 duration=10 \
                     reason=WRONG_KEY";
        assert_eq!(
            reason(wrong, "Home"),
            Some(("the password for \"Home\" is wrong".into(), true))
        );
        let sae = "CTRL-EVENT-AUTH-REJECT 02:00:00:00:01:00 auth_type=3 auth_transaction=2 \
                   status_code=1";
        assert_eq!(reason(sae, "Home"), reason(wrong, "Home"));
        let refused = "CTRL-EVENT-ASSOC-REJECT bssid=02:00:00:00:01:00 status_code=17";
        assert!(reason(refused, "Home").unwrap().0.ends_with("(status 17)"));
        let (why, last) = reason("CTRL-EVENT-NETWORK-NOT-FOUND ", "a\nb").unwrap();
        assert_eq!((why.as_str(), last), ("no network called \"a\\nb\" is in reach", false));
        assert_eq!(reason("CTRL-EVENT-SCAN-STARTED ", "Home"), None);
        assert_eq!(reason("", "Home"), None);
    }

    #[test]
    fn a_control_socket() {
        let folder = std::env::temp_dir().join(format!("berrymse-wpa-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let theirs = UnixDatagram::bind(folder.join("wlan0")).unwrap();
        let answers = std::thread::spawn(move || {
            for answers in [&["OK\n"][..], &["<3>CTRL-EVENT-SCAN-STARTED ", "a\tb\n"], &["FAIL\n"]]
            {
                let mut command = [0; 100];
                let (_, from) = theirs.recv_from(&mut command).unwrap();
                let from = from.as_pathname().unwrap().to_path_buf();
                for answer in answers {
                    theirs.send_to(answer.as_bytes(), &from).unwrap();
                }
            }
            let event = b"<3>CTRL-EVENT-CONNECTED - x";
            theirs.send_to(event, folder.join("own")).unwrap();
            folder
        });
        let folder = std::env::temp_dir().join(format!("berrymse-wpa-{}", std::process::id()));
        let mut control = Control::connect(&folder.join("wlan0"), &folder.join("own")).unwrap();
        assert_eq!(control.ask("SCAN_RESULTS").unwrap(), "a\tb\n");
        assert!(control.ask("NONSENSE").unwrap_err().to_string().contains("FAIL"));
        let soon = Instant::now() + REPLY_TIMEOUT;
        // Came before an answer, and is not lost.
        assert_eq!(control.event(soon).unwrap().as_deref(), Some("CTRL-EVENT-SCAN-STARTED"));
        assert_eq!(control.event(soon).unwrap().as_deref(), Some("CTRL-EVENT-CONNECTED - x"));
        std::fs::remove_dir_all(answers.join().unwrap()).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_it_says(text in "\\PC{0,80}", tabs in "([-0-9a-z\\\\x]{0,9}\t?){0,9}") {
            for text in [&text, &tabs] {
                let _ = scan_results(text);
                let _ = reason(text, "x");
                let _ = unescape(text);
            }
        }
    }
}

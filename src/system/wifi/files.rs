//! Configuration files of wpa_supplicant and udhcpd.

use crate::config::Wifi;
use std::net::Ipv4Addr;

/// First line of every generated file.
pub(crate) const WIFI_HEAD: &str = "# Written by `berrymse wifi`, from berrymse.toml.\n";

/// Returns `/etc/wpa_supplicant.conf` for joining a network.
pub(crate) fn wpa_supplicant(wifi: &Wifi) -> String {
    let ssid = wifi.ssid.to_hex();
    let key = match &wifi.psk {
        None => "\tkey_mgmt=NONE\n".into(),
        // A key instead of a password. WPA3 cannot use it.
        Some(key) if key.len() == 64 => format!("\tkey_mgmt=WPA-PSK\n\tpsk={key}\n"),
        // wpa_supplicant reads up to the last quotation mark on the line, so no escapes are needed.
        Some(password) => {
            format!("\tkey_mgmt=WPA-PSK SAE\n\tieee80211w=1\n\tpsk=\"{password}\"\n")
        }
    };
    let head = supplicant_head(wifi.country.as_deref());
    // scan_ssid: also find hidden networks.
    format!("{head}network={{\n\tssid={ssid}\n\tscan_ssid=1\n{key}}}\n")
}

/// Returns `/etc/wpa_supplicant.conf` for an access point that has no password and is not enabled
/// yet. If the country is unknown, the kernel uses only what all countries allow.
pub(crate) fn access_point(name: &str, country: Option<&str>) -> String {
    let head = supplicant_head(country);
    let ssid: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{head}network={{\n\tssid={ssid}\n\tmode=2\n\tkey_mgmt=NONE\n\tdisabled=1\n}}\n")
}

pub(crate) fn supplicant_head(country: Option<&str>) -> String {
    let country = country.map(|country| format!("country={country}\n")).unwrap_or_default();
    let sockets = crate::system::wifi::supplicant::SOCKETS;
    format!("{WIFI_HEAD}ctrl_interface={sockets}\np2p_disabled=1\n{country}")
}

/// Returns `udhcpd.conf`, which assigns addresses on the access point's network. Leases are short
/// (300 s), so that phones look for another network when the access point stops.
pub(crate) fn udhcpd(interface: &str, own: Ipv4Addr) -> String {
    let [a, b, c, _] = own.octets();
    format!(
        "{WIFI_HEAD}interface {interface}\nstart {a}.{b}.{c}.10\nend {a}.{b}.{c}.250\n\
         max_leases 240\nlease_file /run/berrymse/leases\npidfile /run/berrymse/udhcpd.pid\n\
         opt subnet 255.255.255.0\nopt router {own}\nopt dns {own}\nopt lease 300\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ssid;

    #[test]
    fn keeps_names_and_passwords_within_their_lines() {
        let wifi = Wifi {
            ssid: Ssid::new("a\"\n}\nnetwork={ä").unwrap(),
            psk: Some("\"} #\\ ssid=x\"".into()),
            country: Some("DE".into()),
        };
        let text = wpa_supplicant(&wifi);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[5], "\tssid=61220a7d0a6e6574776f726b3d7bc3a4");
        assert_eq!(
            lines[7..],
            ["\tkey_mgmt=WPA-PSK SAE", "\tieee80211w=1", "\tpsk=\"\"} #\\ ssid=x\"\"", "}"]
        );
    }

    #[test]
    fn sets_the_country_of_an_access_point_if_known() {
        let text = access_point("BerryMSE-1a2b", Some("DE"));
        assert!(text.contains("country=DE\n") && text.contains("\tmode=2\n"), "{text}");
        assert!(!access_point("x", None).contains("country"));
        let text = udhcpd("wlan0", Ipv4Addr::new(10, 20, 20, 1));
        assert!(text.contains("start 10.20.20.10\n") && text.contains("opt dns 10.20.20.1\n"));
    }

    /// Names that are not UTF-8, and networks whose name is hidden.
    #[test]
    fn joins_networks_with_any_name_and_without_a_country() {
        let ssid = Ssid::from_hex("436166e9").unwrap();
        let text = wpa_supplicant(&Wifi { ssid, psk: None, country: None });
        assert!(text.contains("\tssid=436166e9\n\tscan_ssid=1\n"), "{text}");
        assert!(!text.contains("country"), "{text}");
    }

    #[test]
    fn supports_open_networks_and_hexadecimal_keys() {
        let wifi = |psk: Option<String>| {
            let country = Some("GB".into());
            wpa_supplicant(&Wifi { ssid: Ssid::new("x").unwrap(), psk, country })
        };
        let open = wifi(None);
        assert!(open.contains("country=GB\n") && open.contains("key_mgmt=NONE"), "{open}");
        assert!(!open.contains("psk"));
        let key = wifi(Some("ab".repeat(32)));
        assert!(key.contains(&format!("\tkey_mgmt=WPA-PSK\n\tpsk={}\n", "ab".repeat(32))), "{key}");
    }
}

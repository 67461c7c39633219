//! The files that BusyBox' ifup and udhcpd and wpa_supplicant read.

use crate::config::{Address, Network, Wifi};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// The name of a machine that has been given none.
pub const HOSTNAME: &str = "berrymse";

/// In front of every file that is written: whoever looks at it must know where to change it.
pub const HEAD: &str = "# Written by `berrymse apply` at every start, from berrymse.toml.\n";

/// The same for what changes without a start.
const WIFI_HEAD: &str = "# Written by `berrymse wifi`, from berrymse.toml.\n";

/// What a network without its wireless part is: one fixed address is one interface's, the wireless
/// one's where there is one. It is in force after a restart; the wireless part is at once.
pub fn without_wifi(network: &Network) -> Network {
    match network.wifi {
        Some(_) => Network::default(),
        None => network.clone(),
    }
}

/// `/etc/network/interfaces`: the cable. The radio is `berrymse wifi`'s.
pub fn interfaces(network: &Network, hostname: &str) -> String {
    let network = without_wifi(network);
    let mut text = format!("{HEAD}\nauto lo\niface lo inet loopback\n\nauto eth0\niface eth0 ");
    let _ = match network.address {
        // -b: a cable that comes later gets its address then. The router is told the name, and may
        // name a time server.
        Address::Dhcp => {
            write!(text, "inet dhcp\n\thostname {hostname}\n\tudhcpc_opts -b -O ntpsrv\n")
        }
        Address::Fixed(IpAddr::V4(address), prefix) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let mask = std::net::Ipv4Addr::from(mask);
            write!(text, "inet static\n\taddress {address}\n\tnetmask {mask}\n")
        }
        Address::Fixed(IpAddr::V6(address), prefix) => {
            write!(text, "inet6 static\n\taddress {address}\n\tnetmask {prefix}\n")
        }
    };
    if let (Address::Fixed(..), Some(gateway)) = (network.address, network.gateway) {
        let _ = writeln!(text, "\tgateway {gateway}");
    }
    text
}

/// `/etc/resolv.conf`, where the router does not tell the name servers.
pub fn resolv_conf(network: &Network) -> Option<String> {
    if network.address == Address::Dhcp {
        return None;
    }
    let servers = network.dns.iter().map(|server| format!("nameserver {server}\n"));
    Some(HEAD.to_string() + &servers.collect::<String>())
}

/// `/etc/wpa_supplicant.conf`
pub fn wpa_supplicant(wifi: &Wifi) -> String {
    let ssid = hexadecimal(&wifi.ssid);
    let key = match &wifi.psk {
        None => "\tkey_mgmt=NONE\n".into(),
        // The key itself, of which WPA3 knows nothing.
        Some(key) if key.len() == 64 => format!("\tkey_mgmt=WPA-PSK\n\tpsk={key}\n"),
        // wpa_supplicant takes everything up to the line's last quotation mark.
        Some(password) => {
            format!("\tkey_mgmt=WPA-PSK SAE\n\tieee80211w=1\n\tpsk=\"{password}\"\n")
        }
    };
    let head = supplicant_head(Some(&wifi.country));
    // scan_ssid: networks that hide their name are found, too.
    format!("{head}network={{\n\tssid={ssid}\n\tscan_ssid=1\n{key}}}\n")
}

/// The same file for an access point that anybody may join, which is not open yet. Without a country,
/// the kernel keeps to what all of them allow.
pub fn access_point(name: &str, country: Option<&str>) -> String {
    let head = supplicant_head(country);
    let ssid = hexadecimal(name);
    format!("{head}network={{\n\tssid={ssid}\n\tmode=2\n\tkey_mgmt=NONE\n\tdisabled=1\n}}\n")
}

fn supplicant_head(country: Option<&str>) -> String {
    let country = country.map(|country| format!("country={country}\n")).unwrap_or_default();
    let sockets = super::supplicant::SOCKETS;
    format!("{WIFI_HEAD}ctrl_interface={sockets}\np2p_disabled=1\n{country}")
}

/// In hexadecimal digits any byte is safe.
fn hexadecimal(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// `udhcpd.conf`: addresses for who joins the access point. Leases are short: when it closes, the
/// phone is to look for another network.
pub fn udhcpd(interface: &str, own: Ipv4Addr) -> String {
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
    use crate::config::Config;

    fn network(text: &str) -> Network {
        Config::parse(&format!("[network]\n{text}"), "").unwrap().network
    }

    #[test]
    fn without_anything_the_cable_asks_the_router() {
        let text = interfaces(&network(""), "cam");
        assert!(text.contains("auto eth0\niface eth0 inet dhcp\n\thostname cam\n"), "{text}");
        assert!(!text.contains("wlan0") && !text.contains("gateway"), "{text}");
        assert_eq!(resolv_conf(&network("")), None);
    }

    #[test]
    fn a_fixed_address_belongs_to_one_interface() {
        let fixed =
            "address = \"192.168.1.10/20\"\ngateway = \"192.168.1.1\"\ndns = [\"9.9.9.9\"]\n";
        let stanza = "inet static\n\taddress 192.168.1.10\n\tnetmask 255.255.240.0\n\t\
                      gateway 192.168.1.1\n";
        let text = interfaces(&network(fixed), "cam");
        assert!(text.contains(&format!("iface eth0 {stanza}")), "{text}");
        let wifi = format!("{fixed}wifi = {{ ssid = \"x\", country = \"de\" }}");
        let text = interfaces(&network(&wifi), "cam");
        assert!(text.contains("iface eth0 inet dhcp"), "{text}");
        assert!(!text.contains("wlan0"), "{text}");
        assert_eq!(without_wifi(&network(&wifi)), Network::default());
        assert_eq!(without_wifi(&network(fixed)), network(fixed));
        assert!(resolv_conf(&network(fixed)).unwrap().ends_with("\nnameserver 9.9.9.9\n"));
        let text = interfaces(&network("address = \"10.0.0.1/1\"\ngateway = \"10.0.0.2\""), "cam");
        assert!(text.contains("netmask 128.0.0.0"), "{text}");
        let ip6 = network("address = \"2001:db8::2/64\"\ngateway = \"fe80::1\"");
        let stanza = "inet6 static\n\taddress 2001:db8::2\n\tnetmask 64\n\tgateway fe80::1\n";
        assert!(interfaces(&ip6, "cam").contains(stanza));
    }

    #[test]
    fn no_name_and_no_password_gets_out_of_its_line() {
        let wifi = Wifi {
            ssid: "a\"\n}\nnetwork={ä".into(),
            psk: Some("\"} #\\ ssid=x\"".into()),
            country: "DE".into(),
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
    fn an_access_point_obeys_the_country_where_there_is_one() {
        let text = access_point("BerryMSE-1a2b", Some("DE"));
        assert!(text.contains("country=DE\n") && text.contains("\tmode=2\n"), "{text}");
        assert!(!access_point("x", None).contains("country"));
        let text = udhcpd("wlan0", Ipv4Addr::new(10, 20, 20, 1));
        assert!(text.contains("start 10.20.20.10\n") && text.contains("opt dns 10.20.20.1\n"));
    }

    #[test]
    fn open_networks_and_ready_keys() {
        let wifi = |psk: Option<String>| {
            wpa_supplicant(&Wifi { ssid: "x".into(), psk, country: "GB".into() })
        };
        let open = wifi(None);
        assert!(open.contains("country=GB\n") && open.contains("key_mgmt=NONE"), "{open}");
        assert!(!open.contains("psk"));
        let key = wifi(Some("ab".repeat(32)));
        assert!(key.contains(&format!("\tkey_mgmt=WPA-PSK\n\tpsk={}\n", "ab".repeat(32))), "{key}");
    }
}

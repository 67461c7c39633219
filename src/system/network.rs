//! The files that BusyBox' ifup and wpa_supplicant read.

use crate::config::{Address, Network, Wifi};
use std::fmt::Write as _;
use std::net::IpAddr;

/// In front of every file that is written: whoever looks at it must know where to change it.
pub const HEAD: &str = "# Written by `berrymse apply` at every start, from berrymse.toml.\n";

/// `/etc/network/interfaces`
pub fn interfaces(network: &Network, hostname: &str) -> String {
    let mut text = format!("{HEAD}\nauto lo\niface lo inet loopback\n");
    // One address is one interface's: the wireless one's, where there is one.
    let wired = if network.wifi.is_some() { &Address::Dhcp } else { &network.address };
    interface(&mut text, "eth0", wired, network.gateway, hostname);
    if network.wifi.is_some() {
        interface(&mut text, "wlan0", &network.address, network.gateway, hostname);
        text.push_str(
            "\tpre-up wpa_supplicant -B -i wlan0 -c /etc/wpa_supplicant.conf \
             -P /run/wpa_supplicant.pid\n\
             \tpost-down kill $(cat /run/wpa_supplicant.pid)\n",
        );
    }
    text
}

fn interface(
    text: &mut String,
    name: &str,
    address: &Address,
    gateway: Option<IpAddr>,
    host: &str,
) {
    let _ = write!(text, "\nauto {name}\niface {name} ");
    let _ = match address {
        // -b: a cable that comes later gets its address then. The router is told the name.
        Address::Dhcp => {
            write!(text, "inet dhcp\n\thostname {host}\n\tudhcpc_opts -b\n")
        }
        Address::Fixed(IpAddr::V4(address), prefix) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
            let mask = std::net::Ipv4Addr::from(mask);
            write!(text, "inet static\n\taddress {address}\n\tnetmask {mask}\n")
        }
        Address::Fixed(IpAddr::V6(address), prefix) => {
            write!(text, "inet6 static\n\taddress {address}\n\tnetmask {prefix}\n")
        }
    };
    if let (Address::Fixed(..), Some(gateway)) = (address, gateway) {
        let _ = writeln!(text, "\tgateway {gateway}");
    }
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
    // In hexadecimal digits any byte is safe.
    let ssid: String = wifi.ssid.bytes().map(|byte| format!("{byte:02x}")).collect();
    let key = match &wifi.psk {
        None => "\tkey_mgmt=NONE\n".into(),
        // The key itself, of which WPA3 knows nothing.
        Some(key) if key.len() == 64 => format!("\tkey_mgmt=WPA-PSK\n\tpsk={key}\n"),
        // wpa_supplicant takes everything up to the line's last quotation mark.
        Some(password) => {
            format!("\tkey_mgmt=WPA-PSK SAE\n\tieee80211w=1\n\tpsk=\"{password}\"\n")
        }
    };
    let country = &wifi.country;
    // scan_ssid: networks that hide their name are found, too.
    format!("{HEAD}country={country}\nnetwork={{\n\tssid={ssid}\n\tscan_ssid=1\n{key}}}\n")
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
        assert!(text.contains(&format!("iface wlan0 {stanza}")), "{text}");
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
        assert_eq!(lines[3], "\tssid=61220a7d0a6e6574776f726b3d7bc3a4");
        assert_eq!(
            lines[5..],
            ["\tkey_mgmt=WPA-PSK SAE", "\tieee80211w=1", "\tpsk=\"\"} #\\ ssid=x\"\"", "}"]
        );
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

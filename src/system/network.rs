//! Configuration files of the wired network, for BusyBox's ifup and the resolver. Also the name of
//! this machine in its network.

use super::mdns::host_name;
use crate::config::{Address, Network};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Default host name.
pub const HOSTNAME: &str = "berrymse";

/// First line of every generated file. It says where to make changes.
pub const HEAD: &str = "# Written by `berrymse apply` at every boot, from berrymse.toml.\n";

/// Returns `/etc/network/interfaces` for the wired interface. `berrymse wifi` configures the wireless
/// interface.
pub fn interfaces(network: &Network, hostname: &str) -> String {
    let network = network.without_wifi();
    let mut text = format!("{HEAD}\nauto lo\niface lo inet loopback\n\nauto eth0\niface eth0 ");
    let _ = match network.address {
        // -b: continue in the background, in case the cable is plugged in later. The client sends
        // its host name and requests time servers (option 42).
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

/// Returns `/etc/resolv.conf`, or `None` if the name servers come from DHCP.
pub fn resolv_conf(network: &Network) -> Option<String> {
    if network.address == Address::Dhcp {
        return None;
    }
    let servers = network.dns.iter().map(|server| format!("nameserver {server}\n"));
    Some(HEAD.to_string() + &servers.collect::<String>())
}

/// Returns whether `name`, in lower case, is the host name followed by a domain in which the resolver
/// searches. DHCP announces this domain, such as `fritz.box` or `lan`.
pub fn is_own_name(name: &str) -> bool {
    let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    is_name_in_domain(name, &host_name(), &resolv_conf)
}

/// Configuration of the resolver (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

fn is_name_in_domain(name: &str, host: &str, resolv_conf: &str) -> bool {
    let Some(domain) = name.strip_prefix(host).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let is_search = |word: &str| word == "search" || word == "domain";
    let mut lines = resolv_conf.lines().map(str::split_whitespace);
    !host.is_empty()
        && !domain.is_empty()
        && lines.any(|mut words| {
            words.next().is_some_and(is_search)
                && words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(domain))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn network(text: &str) -> Network {
        Config::parse(&format!("[network]\n{text}"), "").unwrap().network
    }

    #[test]
    fn knows_its_name_in_the_domains_of_its_network() {
        let dhcp = "# search evil.example\nnameserver 192.168.178.1\n  search Fritz.Box. lan\n";
        let is_own = |name: &str| is_name_in_domain(name, "berrymse", dhcp);
        assert!(is_own("berrymse.fritz.box") && is_own("berrymse.lan"));
        for name in [
            "berrymse",
            "berrymse.",
            "other.fritz.box",
            "fritz.box",
            "berrymse.evil.example",
            "x.berrymse.lan",
            "berrymse.x.lan",
            "berrymse2.lan",
        ] {
            assert!(!is_own(name), "{name}");
        }
        assert!(!is_name_in_domain("berrymse.", "berrymse", "search .\n"));
        assert!(!is_name_in_domain(".lan", "", "search lan\n"));
    }

    #[test]
    fn defaults_to_dhcp_on_the_wired_interface() {
        let text = interfaces(&network(""), "cam");
        assert!(text.contains("auto eth0\niface eth0 inet dhcp\n\thostname cam\n"), "{text}");
        assert!(!text.contains("wlan0") && !text.contains("gateway"), "{text}");
        assert_eq!(resolv_conf(&network("")), None);
    }

    #[test]
    fn assigns_a_fixed_address_to_one_interface_only() {
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
        assert_eq!(network(&wifi).without_wifi(), Network::default());
        assert_eq!(network(fixed).without_wifi(), network(fixed));
        assert!(resolv_conf(&network(fixed)).unwrap().ends_with("\nnameserver 9.9.9.9\n"));
        let text = interfaces(&network("address = \"10.0.0.1/1\"\ngateway = \"10.0.0.2\""), "cam");
        assert!(text.contains("netmask 128.0.0.0"), "{text}");
        let ip6 = network("address = \"2001:db8::2/64\"\ngateway = \"fe80::1\"");
        let stanza = "inet6 static\n\taddress 2001:db8::2\n\tnetmask 64\n\tgateway fe80::1\n";
        assert!(interfaces(&ip6, "cam").contains(stanza));
    }
}

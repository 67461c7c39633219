"""Wi-Fi, access point, host name and time, with simulated radios (mac80211_hwsim) and with a second machine
connected by cable.

`./ci/image/appliance network` runs these tests. The card is that of the appliance; tests/appliance/lab adds
the radios and a second network card (eth1) for the tests. The appliance itself is not changed.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from machine import Machine

LAB = Path(os.environ["APPLIANCE_LAB"])

PHONE, ROUTER = "phone", "router"
ROUTER_ADDRESS = "192.168.77.1"


class LabMachine(Machine):
    """A machine with a removable cable (eth0) and a separate network card for the tests (eth1)."""

    def __init__(self, folder, cable="user", linked=True):
        super().__init__(LAB, folder)
        self.cable, self.linked = cable, linked
        # A short path, because the paths of sockets are limited.
        self.sockets = Path(tempfile.mkdtemp(prefix="lab"))
        self.monitor_file = self.sockets / "monitor"
        # Many commands share one connection.
        self.ssh_options = ["-o", "ControlMaster=auto", "-o", f"ControlPath={self.sockets}/ssh", "-o", "ControlPersist=100"]

    def network(self, _):
        return [
            "-netdev", f"{self.cable},id=cable", "-device", "virtio-net-pci,netdev=cable,id=eth0,romfile=",
            "-netdev", f"user,id=way-in,net=10.0.9.0/24,{self.forward()}", "-device", "virtio-net-pci,netdev=way-in,romfile=",
            "-qmp", f"unix:{self.monitor_file},server=on,wait=off", "-S",
        ]

    def power_on(self, **options):
        super().power_on(**options)
        self.wait("QEMU's monitor", 30, self.monitor_file.exists)
        self.plug(self.linked)
        self.monitor("cont")

    def power_off(self, rng=None):
        subprocess.run(["ssh", "-q", *self.ssh_options, "-O", "exit", "x"], capture_output=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
        return super().power_off(rng)

    def monitor(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.monitor_file))
            lines = monitor.makefile("rw")
            lines.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                lines.write(json.dumps(request) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
                assert "return" in answer, answer

    def plug(self, linked):
        self.monitor("set_link", name="eth0", up=linked)

    # Other Wi-Fi devices, each in a network namespace with a radio.

    def namespace(self, name, radio):
        """Creates a namespace with a radio and its own resolv.conf."""
        self.ssh(f"""
            mkdir -p /tmp/{name} && : >/tmp/{name}/resolv.conf
            unshare -n -m sh -c 'mount --bind /tmp/{name}/resolv.conf /etc/resolv.conf; exec sleep 100000' \\
                >/dev/null 2>&1 </dev/null & echo $! >/tmp/{name}/pid
            sleep 1; iw phy phy{radio} set netns $(cat /tmp/{name}/pid)
        """)
        self.inside(name, f"ip link set lo up; ip link set wlan{radio} up")

    def inside(self, name, command, **options):
        # The process ID is that of sleep: unshare has executed sh, and sh has executed sleep.
        return self.ssh(f"nsenter -t $(cat /tmp/{name}/pid) -n -m sh -c {shlex.quote(command)}", **options)

    def supplicant(self, name, radio, network):
        """Restarts wpa_supplicant with this network."""
        self.ssh(f"printf %s {shlex.quote(network)} >/tmp/{name}/wpa.conf")
        self.inside(name, f"""
            [ ! -e /tmp/{name}/wpa.pid ] || kill $(cat /tmp/{name}/wpa.pid); sleep 1
            wpa_supplicant -B -i wlan{radio} -c /tmp/{name}/wpa.conf -P /tmp/{name}/wpa.pid -f /tmp/{name}/wpa.log >/dev/null 2>&1 </dev/null
        """)

    def start_router(self, ssid, psk=None, kind="WPA-PSK"):
        """Starts an access point with DHCP, like a home router."""
        key = f'\n\tpsk="{psk}"\n\tproto=RSN\n\tpairwise=CCMP' if psk else ""
        key += "\n\tieee80211w=2" if kind == "SAE" else ""
        self.supplicant(ROUTER, 2, "ctrl_interface=/tmp/router/wpa\ncountry=DE\nnetwork={\n\tssid=\"%s\"\n\tmode=2\n"
                        "\tfrequency=2412\n\tkey_mgmt=%s%s\n}\n" % (ssid, kind if psk else "NONE", key))
        self.inside(ROUTER, f"""
            ip addr replace {ROUTER_ADDRESS}/24 dev wlan2
            printf '%s\\n' 'interface wlan2' 'start 192.168.77.20' 'end 192.168.77.90' 'lease_file /tmp/router/leases' \\
                'pidfile /tmp/router/udhcpd.pid' 'opt subnet 255.255.255.0' 'opt router {ROUTER_ADDRESS}' >/tmp/router/udhcpd.conf
            [ -e /tmp/router/udhcpd.pid ] || udhcpd /tmp/router/udhcpd.conf >/dev/null 2>&1 </dev/null
        """)

    def phone_joins(self, ssid):
        """Joins an open network. Returns the address of the phone."""
        self.supplicant(PHONE, 1, f'ctrl_interface=/tmp/phone/wpa\nnetwork={{\n\tssid="{ssid}"\n\tkey_mgmt=NONE\n}}\n')
        self.inside(PHONE, "udhcpc -i wlan1 -n -q -t 20 -T 3 -s /usr/lib/lab/addresses", timeout=120)
        return re.search(r"inet (\S+)/", self.inside(PHONE, "ip -4 addr show dev wlan1")).group(1)

    def phone_asks(self, method, path, body="", host="10.20.20.1"):
        """Sends a request from the phone. Returns status and body."""
        request = (f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
                   f"Content-Length: {len(body.encode())}\r\n\r\n{body}")
        self.ssh(f"printf %s {shlex.quote(request)} >/tmp/phone/request")
        answer = self.inside(PHONE, f"(cat /tmp/phone/request; sleep 3) | nc {host} 80")
        head, _, text = answer.partition("\r\n\r\n")
        return int(head.split()[1]), text

    def wifi(self):
        """Returns the Wi-Fi status of the appliance."""
        status, text = self.http("/api/wifi")
        return json.loads(text) if status == 200 else {}

    def wait_wifi(self, what, seconds, condition):
        return self.wait(what, seconds, lambda: condition(self.wifi()))

    def wait_open(self, seconds=120):
        return self.wait_wifi("start of the access point", seconds, lambda now: now.get("access_point"))

    def wait_closed(self):
        # While the server restarts, there is no status.
        self.wait_wifi("stop of the access point", 60, lambda now: now and "access_point" not in now)


@pytest.fixture
def sockets():
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        yield folder


@pytest.fixture
def lab(tmp_path):
    machines = []

    def make(name, config="", **options):
        folder = tmp_path / name
        folder.mkdir()
        machine = LabMachine(folder, **options)
        machine.allow_ssh(config)
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        machine.power_off()


def wifi_request(ssid, psk=None):
    return json.dumps({"ssid": ssid, "country": "DE", **({"psk": psk} if psk else {})})


def test_setup_with_a_phone(lab):
    """The complete setup with a phone, without a configuration and a cable."""
    machine = lab("pi", linked=False)
    machine.power_on()
    machine.wait_ssh(180)
    machine.namespace(PHONE, 1)
    machine.namespace(ROUTER, 2)
    machine.start_router("Home", "correct horse")
    name = machine.wait_open()
    hardware = machine.ssh("cat /sys/class/net/wlan0/address").strip().replace(":", "")
    assert name == f"BerryMSE-{hardware[-4:]}"
    machine.wait("the name of the access point on the console", 10, lambda: f'access point "{name}" is running' in machine.console())

    # The phone joins, gets an address and sees the page for every request.
    address = machine.phone_joins(name)
    assert re.fullmatch(r"10\.20\.20\.\d+", address)
    for host, path in [("connectivitycheck.gstatic.com", "generate_204"), ("captive.apple.com", "hotspot-detect.html"),
                       ("www.msftconnecttest.com", "connecttest.txt")]:
        shown = machine.inside(PHONE, f"wget -S -O - http://{host}/{path} 2>&1")
        assert "302 Found" in shown and "Settings · BerryMSE" in shown, shown
    assert "10.20.20.1" in machine.inside(PHONE, "nslookup anything.example 10.20.20.1")
    seen = {network["ssid"] for network in json.loads(machine.phone_asks("GET", "/api/wifi")[1])["networks"]}
    print(f"\nnetworks found before the access point started: {seen}")

    # After a wrong network name or password, the access point starts again and reports the error.
    status, text = machine.phone_asks("PUT", "/api/wifi", wifi_request("Hme", "correct horse"))
    assert (status, json.loads(text)) == (200, {"reboot": False}), text
    machine.wait_closed()
    machine.wait_open()
    assert 'no network named "Hme" is in range' in machine.wifi()["error"]
    assert "Home" in {network["ssid"] for network in machine.wifi()["networks"]}
    machine.phone_joins(name)
    machine.phone_asks("PUT", "/api/wifi", wifi_request("Home", "wrong horse"))
    machine.wait_closed()
    machine.wait_open()
    assert machine.wifi()["error"] == 'the password for "Home" is wrong'
    machine.phone_joins(name)
    error = json.loads(machine.phone_asks("GET", "/api/wifi")[1])["error"]
    assert error == 'the password for "Home" is wrong'

    # With the right password, the machine joins and gets an address, and the access point stops.
    started = time.monotonic()
    machine.phone_asks("PUT", "/api/wifi", wifi_request("Home", "correct horse"))
    machine.wait_wifi("joined", 90, lambda now: now.get("joined") == "Home")
    print(f"joined {time.monotonic() - started:.0f} s after saving")
    assert "error" not in machine.wifi() and "access_point" not in machine.wifi()
    address = re.search(r"inet (192\.168\.77\.\d+)/", machine.ssh("ip -4 addr show dev wlan0")).group(1)
    assert "BerryMSE" in machine.inside(ROUTER, f"wget -q -O - http://{address}/")
    assert "10.20.20.1" not in machine.ssh("ip addr; netstat -lun")
    assert 'psk = "correct horse"' in machine.ssh("cat /boot/berrymse.toml")

    # After the first success, no access point starts, even if the router is switched off.
    machine.inside(ROUTER, "kill $(cat /tmp/router/wpa.pid)")
    machine.wait_wifi("the error", 120, lambda now: "in range" in now.get("error", ""))
    time.sleep(10)
    assert "access_point" not in machine.wifi()
    machine.start_router("Home", "correct horse")
    machine.wait_wifi("joined again", 120, lambda now: now.get("joined") == "Home" and "error" not in now)


def test_joins_wpa3_and_open_networks(lab):
    machine = lab("pi", linked=False)
    machine.power_on()
    machine.wait_ssh(180)
    machine.namespace(ROUTER, 2)
    machine.start_router("Modern", "correct horse", kind="SAE")
    machine.wait_open()
    put = {"method": "PUT"}
    assert machine.http("/api/wifi", body=wifi_request("Modern", "wrong horse"), **put)[0] == 200
    machine.wait_closed()
    machine.wait_open()
    assert machine.wifi()["error"] == 'the password for "Modern" is wrong'
    machine.http("/api/wifi", body=wifi_request("Modern"), **put)
    machine.wait_closed()
    machine.wait_open()
    assert machine.wifi()["error"] == '"Modern" requires a password, but none is set'
    machine.http("/api/wifi", body=wifi_request("Modern", "correct horse"), **put)
    machine.wait_wifi("joined", 90, lambda now: now.get("joined") == "Modern")
    status = machine.ssh("wpa_cli -p /run/wpa_supplicant -i wlan0 status")
    assert "key_mgmt=SAE" in status and re.search("^pmf=[12]$", status, re.M), status
    machine.start_router("Café")
    machine.http("/api/wifi", body=wifi_request("Café"), **put)
    machine.wait_wifi("joined", 90, lambda now: now.get("joined") == "Café")


def test_a_cable_stops_the_access_point(lab):
    machine = lab("pi", linked=False)
    machine.power_on()
    machine.wait_ssh(180)
    machine.wait_open()
    machine.plug(True)
    machine.wait_closed()
    machine.wait("an address on the cable", 60, lambda: "inet 10.0.2." in machine.ssh("ip -4 addr show dev eth0"))
    # The access point does not start again if the router is switched off.
    machine.plug(False)
    time.sleep(30)
    assert "access_point" not in machine.wifi()
    # The services of the access point are stopped.
    listening = machine.ssh("netstat -lntu")
    assert not re.search(r":(53|67|123|323) ", listening), listening


def test_no_access_point_starts_with_a_cable(lab):
    machine = lab("pi")
    machine.power_on()
    machine.wait_ssh(180)
    time.sleep(30)
    assert machine.wifi()["networks"] == [] and "access_point" not in machine.wifi()


ROUTER_NETWORK = f'[network]\naddress = "{ROUTER_ADDRESS}/24"\ngateway = "192.168.77.254"\n'


def test_name_and_time_from_another_machine(lab, sockets):
    """Two machines connected by a cable. One provides DHCP, a time server and Avahi, like a home network; the
    other is the appliance as shipped."""
    cable = f"{sockets}/cable"
    router = lab("router", ROUTER_NETWORK, cable=f"stream,server=on,addr.type=unix,addr.path={cable}")
    machine = lab("pi", '[[camera]]\nname = "camera"\n', cable=f"stream,server=off,addr.type=unix,addr.path={cable}")
    # As shipped, without a host name.
    machine.write_config(machine.read_config().replace('hostname = "tested"', ""))
    router.power_on()
    time.sleep(2)
    machine.power_on()
    router.wait_ssh(180)
    ahead = 400 * 86400
    router.ssh(textwrap.dedent(f"""
        date -s @$(($(date +%s) + {ahead}))
        chronyd -u nobody 'local stratum 5' 'allow' 'cmdport 0' 'bindcmdaddress /' 'pidfile /tmp/chronyd.pid' >/dev/null 2>&1 </dev/null
        printf '%s\\n' 'interface eth0' 'start 192.168.77.20' 'end 192.168.77.90' 'lease_file /tmp/leases' \\
            'opt subnet 255.255.255.0' 'opt router {ROUTER_ADDRESS}' 'opt ntpsrv {ROUTER_ADDRESS}' >/tmp/udhcpd.conf
        udhcpd /tmp/udhcpd.conf >/dev/null 2>&1 </dev/null
        printf '%s\\n' '[server]' 'enable-dbus=no' 'use-ipv6=no' 'allow-interfaces=eth0' '[publish]' 'disable-publishing=yes' \\
            >/tmp/avahi.conf
        mkdir -p /run/avahi-daemon
        avahi-daemon --daemonize --no-drop-root --no-chroot --no-rlimits -f /tmp/avahi.conf >/dev/null </dev/null
    """))
    # The machine starts with the time of its image, more than a year behind, and streams.
    machine.wait_healthy(240)
    # The router resolves berrymse.local with nss-mdns, which queries Avahi.
    def reachable(url):
        return "status 0" in router.ssh(f"berrymse health --url {url}; echo status $?", check=False)

    router.wait("berrymse.local", 60, lambda: reachable("http://berrymse.local"))
    assert reachable("http://berrymse.local/settings.html")
    assert not reachable("http://nobody.local")
    machine.wait_ssh(120)

    def clock_difference():
        times = [int(one.ssh("date +%s")) for one in (router, machine)]
        return abs(times[0] - times[1])

    started = time.monotonic()
    machine.wait("the time of the router", 180, lambda: clock_difference() < 5)
    print(f"\nthe clock is correct {time.monotonic() - started:.0f} s after SSH is available")
    assert "chronyd" in machine.ssh("ps") and ROUTER_ADDRESS in machine.ssh("ps")
    assert machine.http("/healthz")[0] == 200

    # A step of the clock does not interrupt a viewer.
    stream = machine.ssh(f"""
        wget -O /tmp/seen http://127.0.0.1/live.mp4 >/tmp/wget.log 2>&1 & viewer=$!
        for second in $(seq 60); do [ -s /tmp/seen ] && break; sleep 1; done
        [ -s /tmp/seen ] || cat /tmp/wget.log
        sleep 5; before=$(stat -c %s /tmp/seen)
        date -s @$(($(date +%s) - 200 * 86400)) >/dev/null
        sleep 5; wrong=$(stat -c %s /tmp/seen)
        killall chronyd; sleep 20
        after=$(stat -c %s /tmp/seen); kill $viewer 2>&1; tail -n 3 /tmp/wget.log
        echo $before $wrong $after
    """, timeout=120)
    before, wrong, after = map(int, stream.split()[-3:])
    print(f"bytes received before the step, with the wrong clock and after its correction: {before} {wrong} {after}")
    assert 0 < before < wrong < after
    machine.wait("the correct time", 120, lambda: clock_difference() < 5)
    assert machine.http("/healthz")[0] == 200
    assert [camera["restarts"] for camera in machine.status()["cameras"]] == [0]

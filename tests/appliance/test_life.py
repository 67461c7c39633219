"""The life of a device, from its first start.

Tests of the same group (`xdist_group`) share a machine. They run in the order of this file, and each test
leaves the machine in the state that the next one expects.
"""

import json
import re
import socket
import textwrap

import pytest
from browser import Browser
from conftest import BUILT, Depot, make_certificate
from machine import Machine
from neighbor import THEIRS, Neighbor


class Shared:
    """A machine shared by several tests. Replaced after a failed test."""

    def __init__(self, folder):
        self.folder = folder
        self.machine = None
        self.count = 0

    def running(self):
        if self.machine is None:
            self.count += 1
            folder = self.folder / str(self.count)
            folder.mkdir()
            self.machine = Machine(BUILT, folder)
            self.machine.allow_ssh()
            self.machine.power_on()
            self.machine.wait_good("A")
            self.machine.wait_ssh()
            self.machine.ssh("echo precious >/data/precious && sync")
        return self.machine

    def give_up(self):
        if self.machine:
            self.machine.power_off()
        self.machine = None


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    devices = {}
    yield lambda name: devices.setdefault(name, Shared(tmp_path_factory.mktemp(name)))
    for device in devices.values():
        device.give_up()


@pytest.fixture
def running(devices, request):
    """The running machine of this test's group, with SSH and its slot marked good."""
    device = devices(request.node.get_closest_marker("xdist_group").args[0])
    failed = request.session.testsfailed
    yield device.running()
    if request.session.testsfailed != failed:
        device.give_up()


def install(machine, depot, bundle):
    """Installs a bundle directly with RAUC."""
    return machine.ssh(f"rauc install {depot.url(bundle)} 2>&1; echo status $?", timeout=300)


# ---- Start ----


def test_streams_after_power_on(machine):
    machine.power_on()
    machine.wait_healthy()
    picture = machine.stream(200_000)
    assert picture[4:8] == b"ftyp" and b"moof" in picture and b"mdat" in picture
    status = machine.status()
    assert [camera["state"] for camera in status["cameras"]] == ["streaming"]
    machine.wait_good("A")
    # SSH is not enabled. QEMU accepts the connection, but no server answers.
    with socket.create_connection(("127.0.0.1", machine.ssh_port), 5) as client:
        client.settimeout(5)
        try:
            assert client.recv(100) == b""
        except ConnectionResetError:
            pass
    # The console offers no login either.
    assert not re.search(r"login:|[Pp]assword:|/ #", machine.console())


def test_only_http_and_mdns_ports_are_open(machine, tmp_path):
    network = Neighbor(tmp_path)
    machine.power_on(wire=network.address)
    machine.wait_good("A")
    assert network.scan_tcp(range(1, 65536)) == {80}
    # 5353: mDNS. 68: DHCP client, during a request.
    assert network.scan_udp([*range(1, 1025), 1900, 3702, 4500, 5353, 5355, 5683]) <= {68, 5353}
    network.ask_name("berrymse.local")
    machine.wait("the address of berrymse.local", 10, lambda: any(THEIRS in answer for answer in network.names))
    network.close()


@pytest.mark.xdist_group("update")
def test_first_start_grows_data_and_drops_privileges(running):
    # Sizes: card 512 MiB, image 432 MiB.
    size = int(running.ssh("df -m /data | awk 'END { print $2 }'"))
    assert 90 <= size <= 112
    # The options for loading drivers of plugged-in devices. Not every BusyBox supports -b.
    assert "option" not in running.ssh("modprobe -a -b -q usb:nobody-knows-it 2>&1", check=False)
    mounts = running.ssh("mount")
    assert re.search(r" on / type squashfs \(ro,", mounts)
    assert re.search(r" on /boot type vfat \(ro,", mounts)
    assert "tested" in running.ssh("hostname")
    # The server runs as an unprivileged user.
    assert re.search(r"^ *\d+ berrymse +berrymse serve ", running.ssh("ps"), re.M)
    assert "can't create" in running.ssh("su -s /bin/sh -c 'echo x >/boot/berrymse.toml' berrymse 2>&1", check=False)


@pytest.mark.xdist_group("update")
def test_coldplug_loads_the_driver_of_a_device_without_modalias(running):
    """On Debian's kernel, the processors are such devices. Their bus has the attribute, so it is hidden here."""
    processors = "/sys/devices/system/cpu"
    alias = re.search("^MODALIAS=(cpu:.*)$", running.ssh(f"cat {processors}/cpu0/uevent"), re.M)
    if not alias:
        pytest.skip("this kernel's processor has no alias")
    assert "No such file" in running.ssh(f"ls {processors}/cpu0/modalias 2>&1", check=False)
    # Debian's kernel has several drivers for this processor; the image contains one.
    assert "/sha2-ce.ko" in running.ssh(f"modprobe -D '{alias[1]}'")
    running.ssh(f"rmmod sha2_ce && mount --bind /dev/null {processors}/modalias")
    try:
        assert not re.search("^sha2_ce ", running.ssh("lsmod"), re.M)
        running.ssh("/usr/lib/berrymse/coldplug")
        assert re.search("^sha2_ce ", running.ssh("lsmod"), re.M)
    finally:
        running.ssh(f"umount {processors}/modalias")


@pytest.mark.xdist_group("update")
def test_keys_enable_only_ssh(running):
    # All sockets for IPv4 and IPv6, on any address. State 0A is LISTEN.
    def ports(table, state):
        lines = [line.split() for line in running.ssh(f"cat /proc/net/{table} /proc/net/{table}6").splitlines()]
        return {int(line[1].rsplit(":", 1)[1], 16) for line in lines if len(line) > 3 and line[3] == state}

    assert ports("tcp", "0A") == {80, 22}, running.ssh("netstat -ltnp")
    # mDNS. 68: DHCP client, during a renewal.
    assert ports("udp", "07") <= {5353, 68}, running.ssh("netstat -lunp")
    # No account has a password.
    for line in running.ssh("cat /etc/shadow").splitlines():
        assert line.split(":")[1] in ("*", "!"), line
    assert "dropbear -F -E -s -g" in running.ssh("ps"), "dropbear must not offer password authentication"
    assert not re.search("getty|login", running.ssh("ps"))


# ---- Configuration ----


def imager_settings(key):
    """What Raspberry Pi Imager writes for the answers in its wizard."""
    return textwrap.dedent(f"""\
        config_version = "1.0"

        [system]
        hostname = "imaged"

        [user]
        name = "me"
        password = "$y$j9T$never-to-be-seen"
        password_encrypted = true
        groups = ["sudo"]

        [ssh]
        enabled = true
        password_authentication = false
        authorized_keys = [
          "{key}",
        ]

        [wlan]
        ssid = "Home"
        password = "{"5e" * 32}"
        password_encrypted = true
        hidden = true
        country = "DE"

        [locale]
        keymap = "de"
        timezone = "Europe/Berlin"
        """)


def test_applies_edits_and_reports_mistakes_in_the_configuration(machine):
    """And takes over the settings of Raspberry Pi Imager."""
    garden = '[[camera]]\nname = "garden"\n'
    more = '[system]\nhostname = "cam-in-the-garden"\n[server]\nlisten = "0.0.0.0:80"\npassword = "1234 5678"\n'
    machine.write_config(garden + more)
    machine.write_boot("rpi-preseed.toml", imager_settings(machine.public_key()))
    machine.power_on()
    machine.wait_good("A")
    # Any user name, password "1234 5678".
    login = {"Authorization": "Basic OjEyMzQgNTY3OA=="}

    def check():
        assert machine.http("/api/status")[0] == 401
        status = json.loads(machine.http("/api/status", headers=login)[1])
        assert [camera["name"] for camera in status["cameras"]] == ["garden"]
        return status

    def check_taken_over():
        machine.wait_ssh()
        assert machine.ssh("hostname").strip() == "imaged"
        assert machine.ssh("cat /etc/timezone").strip() == "Europe/Berlin"
        wifi = machine.ssh("cat /etc/wpa_supplicant.conf")
        for line in ("country=DE", "ssid=486f6d65", "scan_ssid=1", f"psk={'5e' * 32}"):
            assert line in wifi, wifi
        # The only remaining copy of the secrets is the configuration.
        assert machine.ssh("find /run /data /boot /etc -type f -exec grep -l never-to-be-seen {} ';'").strip() == ""

    # Settings that this machine does not have are listed. Everything else is in the file, beside what was there.
    error = check()["config_error"]
    assert "`user`: has no effect" in error and "`locale.keymap`" in error and "berrymse.toml:" not in error, error
    assert "rpi-preseed.toml: applied: " in machine.console()
    check_taken_over()
    machine.ssh("sync")
    machine.power_off()
    assert "rpi-preseed.toml" not in machine.boot_files() and "berrymse.toml" in machine.boot_files()
    config = machine.read_config()
    assert 'hostname = "imaged"' in config and "1234 5678" in config
    start, size = machine.partition("boot")
    with machine.card_file.open("rb") as card:
        card.seek(start)
        assert b"never-to-be-seen" not in card.read(size), "the secrets must be overwritten"

    machine.write_config(f"{garden}framrate = 30\n{more}")
    machine.write_boot("firstrun.sh", "#!/bin/sh\n")
    machine.power_on()
    machine.wait_healthy()
    # The last good configuration applies, with its camera and password. The error names the line.
    error = check()["config_error"]
    assert "/boot/berrymse.toml:3:1" in error and "framerate" in error and "last good" in error, error
    assert "/boot/firstrun.sh: has no effect" in error, error
    machine.wait("the error on the console", 60, lambda: "berrymse.toml:3:" in machine.console())
    assert "framerate" in machine.console()
    check_taken_over()


def test_starts_without_its_camera_and_reports_the_error(machine):
    missing = '[server]\nlisten = "0.0.0.0:80"\n[[camera]]\nname = "garden"\nsource = "/dev/video9"\n'
    machine.write_config(missing)
    machine.power_on()
    machine.wait_good("A")
    assert machine.http("/healthz")[0] == 503
    assert machine.http("/")[0] == 200
    assert "/dev/video9" in json.dumps(machine.status()["cameras"][0]["error"])
    # A system marked good that loses its camera does not restart either.
    machine.power_off()
    machine.write_config(missing.replace('"/dev/video9"', '"test-card"'))
    machine.power_on()
    machine.wait_healthy()
    machine.wait_good("A")
    machine.power_off()
    machine.write_config(missing)
    machine.power_on()
    machine.wait_good("A")
    assert machine.starts() == ["A"]


# ---- Updates ----


@pytest.mark.xdist_group("update")
def test_update_keeps_data_and_downloads_only_changes(running, depot):
    depot.sent = 0
    running.start_update(depot.url("good.raucb"))
    now, progress = running.wait_update()
    assert now["state"] == "installed", now
    assert len(progress) >= 3, f"too few progress values: {progress}"
    first = depot.sent
    assert running.http("/api/reboot", "POST")[0] == 202
    running.wait("the other slot", 60, lambda: running.starts()[-1:] == ["B"])
    running.wait_good("B")
    running.wait_ssh()
    assert running.booted() == "B"
    assert running.update()["version"] == "0.1.1"
    assert running.ssh("cat /data/precious").strip() == "precious"
    assert running.ssh("hostname").strip() == "tested"

    # The block hashes of both slots are now known, so that only changed blocks are downloaded.
    depot.sent = 0
    assert "status 0" in install(running, depot, "next.raucb")
    size = (depot.folder / "next.raucb").stat().st_size
    print(f"\nbytes downloaded: first update {first}, second update {depot.sent} of {size}")
    assert depot.sent < size / 4


@pytest.mark.xdist_group("update")
def test_https_requires_a_trusted_certificate(running, tmp_path):
    certificate, key = make_certificate(tmp_path)
    with Depot(BUILT / "bundles", certificate, key) as depot:
        running.start_update(depot.url("next.raucb"))
        now, _ = running.wait_update()
        assert now["state"] == "failed" and "certificate" in now["error"], now
        # The owner of the device adds a certificate authority.
        running.ssh("cat >>/etc/ssl/certs/ca-certificates.crt", data=certificate.read_bytes())
        running.start_update(depot.url("next.raucb"))
        now, _ = running.wait_update()
        assert (now["state"], now["installing"]) == ("installed", "0.1.2"), now
        assert depot.sent > 100_000


REFUSED = [
    ("stranger", "not signed with a certificate that this machine trusts"),
    ("unsigned", "not a signed update"),
    ("plain", "format"),
    ("other-machine", "for another device"),
    ("truncated", "truncated"),
    ("corrupt", "damaged"),
    ("older", "older than the running 0.1.0"),
]


@pytest.mark.xdist_group("refused")
@pytest.mark.parametrize("upload", [True, False], ids=["upload", "address"])
@pytest.mark.parametrize("bundle, words", REFUSED)
def test_rejects_invalid_updates_and_keeps_the_system(running, depot, bundle, words, upload):
    system = running.content("boot-a", "root-a")
    if upload:
        running.start_update(upload=depot.folder / f"{bundle}.raucb")
    else:
        running.start_update(depot.url(f"{bundle}.raucb"))
    now, _ = running.wait_update()
    print(f"\n{bundle}: {now['error']} ({now.get('detail')})")
    assert now["state"] == "failed" and words in now["error"], now
    # The old system is unchanged and remains the primary one.
    running.wait("RAUC", 30, lambda: running.update().get("available"))
    slots = {slot["bootname"]: slot for slot in running.update()["slots"]}
    assert slots["A"]["booted"] and slots["A"]["primary"] and slots["A"]["state"] == "good"
    assert slots["B"]["state"] == "bad"
    left = running.ssh("fw_printenv BOOT_A_LEFT BOOT_B_LEFT BOOT_ORDER")
    assert "BOOT_A_LEFT=3" in left and "BOOT_B_LEFT=0" in left and re.search("BOOT_ORDER=A", left), left
    assert running.content("boot-a", "root-a") == system
    assert running.http("/healthz")[0] == 200
    assert running.ssh("cat /data/precious; ls /data/berrymse/upload").strip() == "precious"


@pytest.mark.xdist_group("refused")
def test_installs_an_older_version_on_request(running, depot):
    running.start_update(upload=depot.folder / "older.raucb", downgrade=True)
    now, _ = running.wait_update()
    assert (now["state"], now["installing"], now["progress"]) == ("installed", "0.0.9", 100), now
    slots = {slot["bootname"]: slot for slot in now["slots"]}
    assert slots["B"]["primary"], slots


@pytest.mark.xdist_group("page")
def test_update_from_the_page(running, tmp_path):
    browser = Browser(tmp_path)
    try:
        browser.open(f"http://127.0.0.1:{running.http_port}/settings.html")
        browser.wait("the update page", 30, lambda: "Version 0.1.0 is running." in browser.text("#update-state"))
        # Record each change of the progress bar.
        browser.run("""
            window.seen = [];
            const bar = document.getElementById('progress');
            const note = () => window.seen.push([bar.value, document.getElementById('update-state').textContent]);
            new MutationObserver(note).observe(bar, { attributes: true, attributeFilter: ['value'] });
        """)
        browser.choose_file("#bundle", BUILT / "bundles/good.raucb")
        browser.click("#upload")
        browser.wait("the end of the installation", 300, lambda: "Version 0.1.1 is installed" in browser.text("#update-state"))
        seen = browser.run("return window.seen")
        uploaded = [value for value, text in seen if text.startswith("Uploading")]
        # 0 means that the progress is not known yet.
        installed = [value for value, text in seen if text.startswith("Installing version 0.1.1") and value]
        assert uploaded == sorted(uploaded) and len(uploaded) > 3 and uploaded[-1] == 100, seen
        assert installed == sorted(installed) and len(installed) > 3, seen
        assert browser.run("return document.getElementById('progress').value") == 100
        browser.screenshot(BUILT / "installed.png")
        browser.click("#reboot")
        browser.wait("the new version", 180, lambda: "Version 0.1.1 is running." in browser.text("#update-state"))
        running.wait_good("B")
        # The page shows the picture.
        browser.open(f"http://127.0.0.1:{running.http_port}/")
        playing = "return document.querySelector('berry-mse').state === 'playing'"
        browser.wait("a live picture", 60, lambda: browser.run(playing))
        browser.screenshot(BUILT / "plays.png")
    except AssertionError:
        browser.screenshot(BUILT / "failed.png")
        raise
    finally:
        browser.close()


# ---- Fallback after an update to a broken system ----


@pytest.mark.xdist_group("bad")
@pytest.mark.parametrize("bundle, reason", [
    ("no-kernel", "did not start"),
    ("panics", "did not start"),
    ("mute", "did not deliver video"),
])
def test_falls_back_from_a_broken_system(running, depot, bundle, reason):
    running.start_update(depot.url(f"{bundle}.raucb"))
    now, _ = running.wait_update()
    assert now["state"] == "installed", now
    running.ssh("sync")
    running.power_off()
    # Only the system without pictures waits: the others fail in seconds, and a panicking kernel is busy until
    # its restart, which counting instructions makes slower and once kept from coming at all.
    running.power_on(skip_waiting=bundle == "mute")
    running.wait(
        "three attempts, then the old slot", 600, lambda: running.starts()[-4:] == ["B", "B", "B", "A"]
    )
    running.wait_good("A")
    running.wait_ssh()
    assert running.booted() == "A"
    assert running.ssh("cat /data/precious").strip() == "precious"
    assert running.http("/healthz")[0] == 200
    fell_back = running.update()["fell_back"]
    assert reason in fell_back["why"], fell_back

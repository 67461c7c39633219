"""The life of a device, from its first start on."""

import json
import re
import socket

import pytest


@pytest.fixture
def running(machine):
    """A machine that runs, with SSH, its slot marked good."""
    machine.allow_ssh()
    machine.power_on()
    machine.wait_good("A")
    machine.wait_ssh()
    return machine


def install(machine, depot, bundle):
    """What RAUC says; raises if it does not refuse and does not install."""
    return machine.ssh(f"rauc install {depot.url(bundle)} 2>&1; echo status $?", timeout=300)


def test_power_on_and_it_streams(machine):
    machine.power_on()
    machine.wait_healthy()
    picture = machine.stream(200_000)
    assert picture[4:8] == b"ftyp" and b"moof" in picture and b"mdat" in picture
    status = machine.status()
    assert [camera["state"] for camera in status["cameras"]] == ["streaming"]
    machine.wait_good("A")
    # Nobody asked for SSH: QEMU takes the connection, and nobody greets.
    with socket.create_connection(("127.0.0.1", machine.ssh_port), 5) as visitor:
        visitor.settimeout(5)
        try:
            assert visitor.recv(100) == b""
        except ConnectionResetError:
            pass


def test_the_first_start(running):
    # The card had 512 MiB, the image 432.
    size = int(running.ssh("df -m /data | awk 'END { print $2 }'"))
    assert 90 <= size <= 112
    mounts = running.ssh("mount")
    assert re.search(r" on / type squashfs \(ro,", mounts)
    assert re.search(r" on /boot type vfat \(ro,", mounts)
    assert "tested" in running.ssh("hostname")
    # The server is nobody in particular, and can do what it has to.
    assert re.search(r"^ *\d+ berrymse +berrymse serve ", running.ssh("ps"), re.M)
    assert "can't create" in running.ssh("su -s /bin/sh -c 'echo x >/boot/berrymse.toml' berrymse 2>&1", check=False)
    # HTTP, SSH because it was asked for, DHCP's client (raw). Nothing else.
    listening = {line.split()[3] for line in running.ssh("netstat -ltn").splitlines() if "LISTEN" in line}
    assert listening == {"0.0.0.0:80", "0.0.0.0:22"} or listening == {"0.0.0.0:80", "0.0.0.0:22", ":::22"}, listening
    # No password opens anything.
    assert re.fullmatch(r"root:\*:.*", running.ssh("grep ^root: /etc/shadow").strip())


def test_an_edited_configuration_and_one_with_a_mistake(machine):
    good = '[[camera]]\nname = "garden"\n[system]\nhostname = "cam-in-the-garden"\n[server]\nlisten = "0.0.0.0:80"\npassword = "1234 5678"\n'
    machine.write_config(good)
    machine.power_on()
    machine.wait_good("A")
    assert machine.http("/api/status")[0] == 401
    machine.power_off()

    machine.write_config('[[camera]]\nname = "garden"\nframrate = 30\n')
    machine.power_on()
    machine.wait_healthy()
    # The last good one: still with its password.
    assert machine.http("/api/status")[0] == 401
    machine.wait("the console names the line", 60, lambda: "berrymse.toml:3:" in machine.console())
    assert "framerate" in machine.console()


def test_without_its_camera_it_still_starts_and_says_so(machine):
    missing = '[server]\nlisten = "0.0.0.0:80"\n[[camera]]\nname = "garden"\nsource = "/dev/video9"\n'
    machine.write_config(missing)
    machine.power_on()
    machine.wait_good("A")
    assert machine.http("/healthz")[0] == 503
    assert machine.http("/")[0] == 200
    assert "/dev/video9" in json.dumps(machine.status()["cameras"][0]["error"])
    # One that has been good, and then loses its camera, does not start over either.
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


def test_update_keeps_everything_and_a_small_change_is_a_small_download(running, depot):
    running.ssh("echo precious >/data/precious && sync")
    depot.sent = 0
    # As the page does it.
    order = {"Content-Type": "application/json"}
    status, text = running.http("/api/update", "POST", json.dumps({"url": depot.url("good.raucb")}), headers=order)
    assert status == 202, text
    progress = set()

    def done():
        state = json.loads(running.http("/api/update")[1])
        progress.add(state.get("progress"))
        assert state["state"] != "failed", state
        return state["state"] == "installed"

    running.wait("it is installed", 300, done)
    assert len(progress) >= 3, f"no progress to be seen: {progress}"
    first = depot.sent
    assert running.http("/api/reboot", "POST")[0] == 202
    running.wait("the other slot", 60, lambda: running.starts()[-1:] == ["B"])
    running.wait_good("B")
    running.wait_ssh()
    assert running.booted() == "B"
    assert json.loads(running.http("/api/update")[1])["version"] == "0.1.1"
    assert running.ssh("cat /data/precious").strip() == "precious"
    assert running.ssh("hostname").strip() == "tested"

    # Now both slots and their block hashes are known: only what is new is fetched.
    depot.sent = 0
    assert "status 0" in install(running, depot, "next.raucb")
    size = (depot.folder / "next.raucb").stat().st_size
    print(f"\nthe first update fetched {first} bytes, the second {depot.sent} of {size}")
    assert depot.sent < size / 4


@pytest.mark.xdist_group("refused")
@pytest.mark.parametrize(
    "bundle, reason",
    [
        ("stranger", "signature"),
        ("other-machine", "compatible"),
        ("truncated", "signature|size|identifier"),
        # dm-verity refuses the block. Where RAUC has mapped the file into its memory that ends the service
        # (SIGBUS), and init starts it again.
        ("corrupt", "input/output error|service disappeared"),
    ],
)
def test_what_is_refused(refusing, depot, bundle, reason):
    text = install(refusing, depot, f"{bundle}.raucb")
    assert "status 0" not in text and re.search(reason, text, re.I), text
    refusing.wait("RAUC is there", 30, lambda: '"booted":"A"' in refusing.ssh("rauc status --output-format=json", check=False))
    left = refusing.ssh("fw_printenv BOOT_A_LEFT BOOT_B_LEFT BOOT_ORDER")
    assert "BOOT_A_LEFT=3" in left and "BOOT_B_LEFT=0" in left and re.search("BOOT_ORDER=A", left), left
    assert refusing.http("/healthz")[0] == 200


@pytest.mark.xdist_group("refused")
def test_after_all_that_a_good_one_is_installed(refusing, depot):
    assert "status 0" in install(refusing, depot, "good.raucb")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """One machine for all that is refused: the old system has to stay untouched each time."""
    from conftest import BUILT
    from machine import Machine

    machine = Machine(BUILT, tmp_path_factory.mktemp("refusing"))
    machine.allow_ssh()
    machine.power_on()
    machine.wait_good("A")
    machine.wait_ssh()
    yield machine
    machine.power_off()


@pytest.mark.parametrize("bundle", ["panics", "mute", "no-kernel"])
def test_a_bad_system_falls_back_by_itself(running, depot, bundle):
    running.ssh("echo precious >/data/precious && sync")
    assert "status 0" in install(running, depot, f"{bundle}.raucb")
    running.reboot()
    running.wait(
        "three attempts, then the old slot", 600, lambda: running.starts()[-4:] == ["B", "B", "B", "A"]
    )
    running.wait_good("A")
    running.wait_ssh()
    assert running.booted() == "A"
    assert running.ssh("cat /data/precious").strip() == "precious"
    assert running.http("/healthz")[0] == 200
    fell_back = json.loads(running.http("/api/update")[1])["fell_back"]
    if bundle == "mute":
        assert "did not deliver pictures" in fell_back["why"], fell_back
    else:
        assert "did not start" in fell_back["why"], fell_back

"""The appliance's scripts, run by BusyBox on a simulated machine (machine.py)."""

import os
import pty
import re
import select
import subprocess
import time

import machine
import pytest
from machine import ROOT


@pytest.fixture
def pi(tmp_path):
    return machine.Machine(tmp_path / "root")


UNICAM = "of:NcsiT(null)Cbrcm,bcm2835-unicam-legacy"
IMX708 = "of:Nimx708T(null)Csony,imx708"
MODULES = {
    "bcm2835-unicam-legacy": (["of:N*T*Cbrcm,bcm2835-unicam-legacy", "of:N*T*Cbrcm,bcm2835-unicam-legacyC*"], ["videodev"]),
    "videodev": ([], []),
    "bcm2835-isp": (["vchiq:bcm2835-isp"], ["videodev"]),
    "i2c-mux-pinctrl": (["of:N*T*Ci2c-mux-pinctrl", "of:N*T*Ci2c-mux-pinctrlC*"], []),
    "imx708": (["of:N*T*Csony,imx708", "of:N*T*Csony,imx708C*"], ["videodev"]),
    "dw9807-vcm": (["of:N*T*Cdongwoon,dw9817-vcm", "of:N*T*Cdongwoon,dw9817-vcmC*"], []),
    "overlay": ([], []),
}


def test_boot_loads_the_driver_of_every_device(pi):
    pi.modules(MODULES)
    pi.device("platform/soc/fe801000.csi", attribute=True, OF_NAME="csi", MODALIAS=UNICAM)
    # VCHIQ's devices have no modalias attribute.
    pi.device("platform/soc/fe00b840.mailbox/bcm2835-isp", subsystem="vchiq-bus", MODALIAS="vchiq:bcm2835-isp")
    pi.device("platform/soc/soc:i2c0mux", MODALIAS="of:Ni2c0muxT(null)Ci2c-mux-pinctrl")
    # A device without a driver or without an alias does not stop the others.
    pi.device("platform/aaa", MODALIAS="of:NaaaT(null)Cacme,unknown")
    pi.device("system/cpu/cpu0", DRIVER="processor")
    # The sensor is behind the multiplexer, its lens behind the sensor.
    pi.write("kernel/probe/i2c-mux-pinctrl", f"mkdir -p /sys/devices/i2c-10; echo 'MODALIAS={IMX708}' >/sys/devices/i2c-10/uevent\n")
    lens = "of:Ndw9817T(null)Cdongwoon,dw9817-vcm"
    pi.write("kernel/probe/imx708", f"mkdir -p /sys/devices/lens; echo 'MODALIAS={lens}' >/sys/devices/lens/uevent\n")

    _, said = pi.run("/etc/init.d/rcS")
    assert set(pi.read("kernel/inserted").split()) == set(MODULES), said
    # mdev starts before any driver, so that it does not miss the devices that a driver adds.
    assert pi.read("kernel/log").splitlines()[0] == "mdev -d"
    # Each module is loaded only once, even though there are several scans.
    assert len(pi.read("kernel/inserted").split()) == len(MODULES)


def test_coldplug_stops_after_20_scans(pi):
    """Each driver that is loaded adds another device, endlessly."""
    pi.modules({"endless": (["acme:*"], [])})
    pi.device("acme", MODALIAS="acme:0")
    pi.write("usr/sbin/modprobe", "#!/bin/sh\necho >>/kernel/log\nn=$(wc -l </kernel/log)\nmkdir /sys/devices/$n\necho MODALIAS=acme:$n >/sys/devices/$n/uevent\n")
    status, _ = pi.run("/usr/lib/berrymse/coldplug")
    assert status == 1
    assert len(pi.read("kernel/log").splitlines()) == 20


def test_mdev_loads_the_driver_of_a_new_device(pi):
    pi.modules(MODULES)
    pi.device("i2c-10/10-001a", subsystem="i2c", MODALIAS=IMX708)
    pi.run("/usr/bin/busybox", "mdev", ACTION="add", DEVPATH="/devices/i2c-10/10-001a", SUBSYSTEM="i2c", MODALIAS=IMX708)
    assert pi.read("kernel/inserted").split() == ["videodev", "imx708"]


def device_nodes():
    """Returns the rows of appliance/device-nodes."""
    lines = (ROOT / "appliance/device-nodes").read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def test_mdev_and_systemd_allow_the_same_device_nodes():
    rows = device_nodes()
    rules = [f"{node} root:{group} {mode}" for node, group, mode, _ in rows]
    conf = (ROOT / "appliance/root/etc/mdev.conf").read_text().splitlines()
    # The other rules are for drivers, the network and nodes that every user may open.
    own = [line for line in conf if line and not re.match(r"#|\$MODALIAS|eth0 |wlan|\w+ root:root 666$", line)]
    assert own == rules

    unit = (ROOT / "appliance/systemd/berrymse.service").read_text()
    allowed = [f"{name} rw" for name in dict.fromkeys(allow for *_, allow in rows)]
    assert re.findall("^DeviceAllow=(.*)$", unit, re.M) == allowed
    assert re.findall("^SupplementaryGroups=(.*)$", unit, re.M) == [" ".join(dict.fromkeys(group for _, group, *_ in rows))]


def test_server_is_in_the_group_of_its_devices_in_every_image():
    for group in {group for _, group, *_ in device_nodes()}:
        virtual = (ROOT / "appliance/virt/root/etc/group").read_text()
        assert re.search(f"^{group}:.*\\bberrymse$", virtual, re.M)
        buildroot = (ROOT / "buildroot-external/package/berrymse/berrymse.mk").read_text()
        assert re.search(f"^\tberrymse -1 berrymse -1 ! - - {group} ", buildroot, re.M)
        recipe = (ROOT / "meta-berrymse/recipes-berrymse/berrymse/berrymse.bb").read_text()
        assert f"--groups {group} " in recipe


# One node of each class that the server, rpicam-vid or libcamera opens, with the numbers of a Raspberry Pi, and
# nodes that they must not open. DEVNAME in /sys is the name below /dev.
NODES = {
    "video0": ((81, 0), "video4linux", "660 root video"),
    "video11": ((81, 11), "video4linux", "660 root video"),
    "v4l-subdev0": ((81, 20), "video4linux", "660 root video"),
    "media3": ((234, 3), "media", "660 root video"),
    "dma_heap/linux,cma": ((251, 0), "dma_heap", "660 root video"),
    "dma_heap/system": ((251, 1), "dma_heap", "660 root video"),
    "udmabuf": ((10, 125), "misc", "660 root video"),
    "vchiq": ((511, 0), "vchiq", "660 root video"),
    "vcsm-cma": ((10, 124), "misc", "660 root video"),
    "null": ((1, 3), "mem", "666 root root"),
    "urandom": ((1, 9), "mem", "666 root root"),
    "kmsg": ((1, 11), "mem", "660 root root"),
    "watchdog": ((10, 130), "misc", "660 root root"),
}


@pytest.mark.parametrize("present", ("at boot", "later"))
def test_server_may_open_only_its_devices(pi, present):
    for name, (number, subsystem, _) in NODES.items():
        pi.device(f"virtual/{subsystem}/{name.rsplit('/')[-1]}", number, subsystem, DEVNAME=name)
    if present == "at boot":
        pi.run("/usr/bin/busybox", "mdev", "-s")
    else:
        for name, (number, subsystem, _) in NODES.items():
            where = f"/devices/virtual/{subsystem}/{name.rsplit('/')[-1]}"
            major, minor = map(str, number)
            pi.run("/usr/bin/busybox", "mdev", ACTION="add", DEVPATH=where, SUBSYSTEM=subsystem, DEVNAME=name, MAJOR=major, MINOR=minor)
    assert {name: " ".join(has) for name, has in pi.nodes().items()} == {name: has for name, (*_, has) in NODES.items()}


def test_wifi_power_saving_is_disabled(pi):
    pi.write("usr/sbin/iw", '#!/bin/sh\necho "iw $*" >>/kernel/log\n').chmod(0o755)
    where = "devices/platform/soc/mmc1:0001:1/net/wlan0"
    pi.device(where.removeprefix("devices/"), subsystem="net", INTERFACE="wlan0", IFINDEX="3")
    pi.run("/usr/bin/busybox", "mdev", ACTION="add", DEVPATH=f"/{where}", SUBSYSTEM="net", INTERFACE="wlan0")
    assert pi.read("kernel/log") == "iw dev wlan0 set power_save off\n"
    # Not called when the interface is removed.
    pi.run("/usr/bin/busybox", "mdev", ACTION="remove", DEVPATH=f"/{where}", SUBSYSTEM="net", INTERFACE="wlan0")
    assert pi.read("kernel/log").count("iw") == 1


# Time runs faster for the keeper, through /proc/uptime, sleep and sync.
SPEED = 5
# Delay of a write to a busy card, in seconds of the keeper's time.
STALL = 10
# When the system was built.
BUILT = 1764547200
# Default timeout of the Raspberry Pi's watchdog, in seconds.
WATCHDOG = 15

KEEPER_SURROUNDINGS = {
    "sleep": f"exec /usr/bin/busybox sleep $(echo $1 | awk '{{ print $1 / {SPEED} }}')",
    "sync": f"sleep {STALL}",
    "logger": "exit 0",
    "fw_printenv": "echo 1",
    # Takes as long as three writes.
    "rauc": f"echo \"rauc $*\" >>/kernel/log\nsleep {3 * STALL}",
    # The server: healthy at first. Once the slot is marked good, every other check reports an error, so that
    # there is something to write. With /kernel/gone, the server does not respond. With /kernel/cameras, a camera
    # always fails, and the file contains the exit status of the health check since the update.
    "berrymse": """
if [ "$1" = boot-files ]; then echo boot-files >>/kernel/log; sleep 30; echo "boot files: up to date"; exit; fi
[ ! -e /kernel/gone ] || exit 1
case " $* " in
*" --since-update "*) [ ! -e /kernel/cameras ] || exit "$(cat /kernel/cameras)" ;;
*) [ ! -e /kernel/cameras ] || exit 3 ;;
esac
[ -e /run/berrymse/good ] || exit 0
if rm /kernel/well 2>/dev/null; then exit 3; else touch /kernel/well; fi""",
    "reboot": "echo reboot >>/kernel/log; exec /usr/bin/busybox sleep 1000",
}


class Keeper:
    """Runs the keeper with a terminal instead of the watchdog, and records when the watchdog is fed."""

    def __init__(self, pi):
        self.pi = pi
        for name, script in KEEPER_SURROUNDINGS.items():
            pi.write(f"usr/sbin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)
        pi.write("proc/cmdline", "rauc.slot=A\n")
        os.utime(pi.write("etc/os-release", "IMAGE_VERSION=0.1.0\n"), (0, BUILT))
        pi.write("run/log/messages", "what happened\n")
        (pi.root / "run/berrymse").mkdir()
        self.master, slave = pty.openpty()
        self.started = time.monotonic()
        self.tick()
        self.fed = [0.0]
        self.process = subprocess.Popen(pi.command("/usr/lib/berrymse/keeper", device=(os.ttyname(slave), "dev/watchdog")))

    def stop(self):
        self.process.kill()
        self.process.wait()

    def now(self):
        return (time.monotonic() - self.started) * SPEED

    def tick(self):
        new = self.pi.write("proc/uptime.new", f"{self.now():.2f} 0\n")
        new.rename(self.pi.root / "proc/uptime")

    def run(self, seconds, until=lambda: False):
        end = self.now() + seconds
        while self.now() < end and not until():
            self.tick()
            if select.select([self.master], [], [], 0.02)[0]:
                os.read(self.master, 1000)
                self.fed.append(self.now())

    def gap(self):
        return max(later - earlier for earlier, later in zip(self.fed, [*self.fed[1:], self.now()]))

    def log(self):
        return self.pi.read("kernel/log")


@pytest.fixture
def keeper(pi):
    keeper = Keeper(pi)
    yield keeper
    keeper.stop()


def test_watchdog_is_fed_while_the_card_is_busy(keeper):
    good = keeper.pi.root / "run/berrymse/good"
    keeper.run(90, until=good.exists)
    assert good.exists(), keeper.log()
    keeper.run(80)
    # The state is written despite the delays.
    assert keeper.pi.read("data/berrymse/state/health").strip() in ("well", "ill")
    assert keeper.pi.read("data/berrymse/state/proved-A").startswith("0.1.0 ")
    assert keeper.log().count("rauc status mark-good") == 1
    # Once, after the slot is marked good.
    assert keeper.log().splitlines() == ["rauc status mark-good", "boot-files"]
    assert "reboot" not in keeper.log()
    assert keeper.gap() < WATCHDOG, keeper.fed


def test_machine_restarts_if_the_server_is_gone_and_saves_the_log(keeper):
    good = keeper.pi.root / "run/berrymse/good"
    keeper.run(90, until=good.exists)
    keeper.pi.write("kernel/gone", "")
    gone = keeper.now()
    keeper.run(150, until=lambda: "reboot" in keeper.log())
    assert "reboot" in keeper.log()
    assert keeper.now() - gone > 60
    # The watchdog is fed until then: otherwise the machine would be reset before the log is on the card.
    assert keeper.gap() < WATCHDOG, keeper.fed
    assert keeper.pi.read("data/log/messages.A") == "what happened\n"
    assert keeper.pi.read("data/berrymse/health-error").startswith("the server did not answer for 60 s")
    # After that, it is no longer fed, so that it resets the machine if the restart hangs.
    keeper.run(2)
    before = len(keeper.fed)
    keeper.run(2 * WATCHDOG)
    assert len(keeper.fed) == before


# A new system in slot A. The exit status of `berrymse health --since-update` (0: the cameras that the old system
# in slot B recorded deliver pictures, 3: one does not), and what the keeper does. Without this option, the
# health check always fails: another camera does not deliver.
@pytest.mark.parametrize("before", ("well", "ill"))
@pytest.mark.parametrize("since_update, stays", ((0, True), (3, False)))
def test_new_system_stays_only_with_the_cameras_of_the_old_one(pi, before, since_update, stays):
    record = pi.write("data/berrymse/state/cameras-B", "{}")
    pi.write("data/berrymse/state/health", f"{before}\n")
    pi.write("kernel/cameras", f"{since_update}\n")
    keeper = Keeper(pi)
    try:
        good = pi.root / "run/berrymse/good"
        keeper.run(150, until=lambda: good.exists() or "reboot" in keeper.log())
        assert (good.exists(), "reboot" in keeper.log()) == (stays, not stays)
        # The cameras are required as long as the system is new.
        keeper.run(150, until=lambda: not record.exists() or "reboot" in keeper.log())
        assert record.exists() != stays
    finally:
        keeper.stop()


# Without a record, for example from 0.1.0, and in a system that was marked good before, a camera that failed
# before the update does not matter.
@pytest.mark.parametrize("proved, before", ((False, "ill"), (True, "well")))
def test_failed_cameras_do_not_matter_if_they_failed_before(pi, proved, before):
    pi.write("data/berrymse/state/health", f"{before}\n")
    pi.write("kernel/cameras", "3\n")
    if proved:
        pi.write("data/berrymse/state/proved-A", f"0.1.0 {BUILT}\n")
        record = pi.write("data/berrymse/state/cameras-B", "{}")
    keeper = Keeper(pi)
    try:
        good = pi.root / "run/berrymse/good"
        keeper.run(150, until=lambda: good.exists() or "reboot" in keeper.log())
        assert good.exists() and "reboot" not in keeper.log()
        # The page still shows the missing camera.
        assert not proved or record.exists()
    finally:
        keeper.stop()


# RAUC calls the script as root, and an error must not prevent the installation.
@pytest.mark.parametrize("status", (0, 1))
def test_cameras_are_recorded_before_an_installation(pi, status):
    conf = (ROOT / "appliance/root/etc/rauc/system.conf").read_text()
    script = re.search(r"^pre-install=(.*)$", conf, re.M)[1]
    pi.write("usr/sbin/berrymse", f'#!/bin/sh\necho "$*" >>/kernel/log\nexit {status}\n').chmod(0o755)
    pi.write("usr/sbin/logger", "#!/bin/sh\ncat >/dev/null\n").chmod(0o755)
    assert pi.run(script)[0] == 0
    assert pi.read("kernel/log") == "record-cameras --config /boot/berrymse.toml --last-good /data/berrymse/berrymse.toml\n"


def test_raspberry_pi_watchdog_timeout_exceeds_the_delay_of_a_busy_card():
    heartbeat = int(re.fullmatch("bcm2835_wdt.heartbeat=([0-9]+)", (ROOT / "appliance/raspberrypi/arguments").read_text().strip())[1])
    # The health check and the sleep take at most 5 s each; each can also be delayed by a write.
    assert heartbeat > 5 + 5 + 2 * STALL
    # The driver sets the hardware timer to the timeout modulo 16 s, and the kernel feeds it every 8 s.
    assert heartbeat % 16 > 12

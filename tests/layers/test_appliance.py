"""The appliance's own scripts, run by BusyBox on a made-up machine: machine.py."""

import re

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


def test_the_start_loads_the_driver_of_every_device(pi):
    pi.modules(MODULES)
    pi.device("platform/soc/fe801000.csi", attribute=True, OF_NAME="csi", MODALIAS=UNICAM)
    # VCHIQ's devices have no modalias attribute.
    pi.device("platform/soc/fe00b840.mailbox/bcm2835-isp", subsystem="vchiq-bus", MODALIAS="vchiq:bcm2835-isp")
    pi.device("platform/soc/soc:i2c0mux", MODALIAS="of:Ni2c0muxT(null)Ci2c-mux-pinctrl")
    # Neither does a device without a driver stop the others, nor one without an alias.
    pi.device("platform/aaa", MODALIAS="of:NaaaT(null)Cacme,unknown")
    pi.device("system/cpu/cpu0", DRIVER="processor")
    # The sensor is behind the multiplexer, its lens behind the sensor.
    pi.write("kernel/probe/i2c-mux-pinctrl", f"mkdir -p /sys/devices/i2c-10; echo 'MODALIAS={IMX708}' >/sys/devices/i2c-10/uevent\n")
    lens = "of:Ndw9817T(null)Cdongwoon,dw9817-vcm"
    pi.write("kernel/probe/imx708", f"mkdir -p /sys/devices/lens; echo 'MODALIAS={lens}' >/sys/devices/lens/uevent\n")

    _, said = pi.run("/etc/init.d/rcS")
    assert set(pi.read("kernel/inserted").split()) == set(MODULES), said
    # Before any driver, or the devices that it brings are missed.
    assert pi.read("kernel/log").splitlines()[0] == "mdev -d"
    # Each module once: the scans do not load again what they have loaded.
    assert len(pi.read("kernel/inserted").split()) == len(MODULES)


def test_the_start_ends_however_many_devices_appear(pi):
    """A driver whose device brings a device, and so on for ever."""
    pi.modules({"endless": (["acme:*"], [])})
    pi.device("acme", MODALIAS="acme:0")
    pi.write("usr/sbin/modprobe", "#!/bin/sh\necho >>/kernel/log\nn=$(wc -l </kernel/log)\nmkdir /sys/devices/$n\necho MODALIAS=acme:$n >/sys/devices/$n/uevent\n")
    status, _ = pi.run("/usr/lib/berrymse/coldplug")
    assert status == 1
    assert len(pi.read("kernel/log").splitlines()) == 20


def test_a_device_that_comes_later_gets_its_driver_from_mdev(pi):
    pi.modules(MODULES)
    pi.device("i2c-10/10-001a", subsystem="i2c", MODALIAS=IMX708)
    pi.run("/usr/bin/busybox", "mdev", ACTION="add", DEVPATH="/devices/i2c-10/10-001a", SUBSYSTEM="i2c", MODALIAS=IMX708)
    assert pi.read("kernel/inserted").split() == ["videodev", "imx708"]


def device_nodes():
    """The rows of appliance/device-nodes."""
    lines = (ROOT / "appliance/device-nodes").read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def test_mdev_and_systemd_have_the_same_device_nodes():
    rows = device_nodes()
    rules = [f"{node} root:{group} {mode}" for node, group, mode, _ in rows]
    conf = (ROOT / "appliance/root/etc/mdev.conf").read_text().splitlines()
    # Everything else in it is the system's: drivers, the network, what everyone may open.
    own = [line for line in conf if line and not re.match(r"#|\$MODALIAS|eth0 |\w+ root:root 666$", line)]
    assert own == rules

    unit = (ROOT / "appliance/systemd/berrymse.service").read_text()
    allowed = [f"{name} rw" for name in dict.fromkeys(allow for *_, allow in rows)]
    assert re.findall("^DeviceAllow=(.*)$", unit, re.M) == allowed
    assert re.findall("^SupplementaryGroups=(.*)$", unit, re.M) == [" ".join(dict.fromkeys(group for _, group, *_ in rows))]


def test_in_every_image_the_server_is_in_the_group_of_its_devices():
    for group in {group for _, group, *_ in device_nodes()}:
        virtual = (ROOT / "appliance/virt/root/etc/group").read_text()
        assert re.search(f"^{group}:.*\\bberrymse$", virtual, re.M)
        buildroot = (ROOT / "buildroot-external/package/berrymse/berrymse.mk").read_text()
        assert re.search(f"^\tberrymse -1 berrymse -1 ! - - {group} ", buildroot, re.M)
        recipe = (ROOT / "meta-berrymse/recipes-berrymse/berrymse/berrymse.bb").read_text()
        assert f"--groups {group} " in recipe


# Each class of node that the server, rpicam-vid or libcamera opens, with numbers as on a Pi, and one that it
# must not open. In /sys, DEVNAME has the name below /dev.
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


@pytest.mark.parametrize("present", ("at the start", "later"))
def test_the_server_may_open_its_devices_and_no_others(pi, present):
    for name, (number, subsystem, _) in NODES.items():
        pi.device(f"virtual/{subsystem}/{name.rsplit('/')[-1]}", number, subsystem, DEVNAME=name)
    if present == "at the start":
        pi.run("/usr/bin/busybox", "mdev", "-s")
    else:
        for name, (number, subsystem, _) in NODES.items():
            where = f"/devices/virtual/{subsystem}/{name.rsplit('/')[-1]}"
            major, minor = map(str, number)
            pi.run("/usr/bin/busybox", "mdev", ACTION="add", DEVPATH=where, SUBSYSTEM=subsystem, DEVNAME=name, MAJOR=major, MINOR=minor)
    assert {name: " ".join(has) for name, has in pi.nodes().items()} == {name: has for name, (*_, has) in NODES.items()}

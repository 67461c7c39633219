"""The appliance's own scripts, run by BusyBox on a made-up machine: machine.py."""

import machine
import pytest


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

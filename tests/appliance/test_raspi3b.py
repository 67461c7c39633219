"""The appliance on QEMU's Raspberry Pi 3B: start, streaming, an update and a fallback."""

import os
import re

import pytest
from conftest import BUILT
from machine import IMAGER_WORDS, RaspberryPi3


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    machine = RaspberryPi3(BUILT, tmp_path_factory.mktemp("raspi3b"))
    machine.allow_ssh()
    machine.power_on()
    yield machine
    machine.power_off()


def test_starts_and_streams(board):
    board.wait_healthy()
    picture = board.stream(100_000)
    assert picture[4:8] == b"ftyp" and b"moof" in picture and b"mdat" in picture
    board.wait_good("A")
    assert "copies of the boot state are invalid" not in board.console(), "U-Boot must read the boot state of the new card"
    board.wait_ssh()
    assert "Raspberry Pi 3" in board.ssh("cat /proc/device-tree/model")
    assert IMAGER_WORDS in board.ssh("cat /proc/cmdline")
    board.ssh("echo precious >/data/precious && sync")


@pytest.mark.skipif("KERNEL_TREE" not in os.environ, reason="Debian's kernel has other drivers")
def test_loads_the_drivers_of_a_camera_module(board):
    """The device tree contains a Camera Module 3. QEMU emulates neither it nor the video processor, so probing fails,
    but the drivers are loaded: of the receiver, the I2C bus and multiplexer, then of the devices that these add, sensor
    and lens, and of the video processor's devices, whose alias is only in `uevent`."""
    loaded = set(re.findall(r"^(\w+) ", board.ssh("lsmod"), re.M))
    camera = {"bcm2835_unicam_legacy", "i2c_bcm2835", "i2c_mux_pinctrl", "imx708", "dw9807_vcm"}
    video_processor = {"vc_sm_cma", "bcm2835_mmal_vchiq", "bcm2835_codec", "bcm2835_isp", "bcm2835_v4l2"}
    assert camera | video_processor <= loaded, loaded


def test_updates(board, depot):
    board.start_update(depot.url("good.raucb"))
    now, progress = board.wait_update()
    assert now["state"] == "installed" and progress, now
    assert board.http("/api/reboot", "POST")[0] == 202
    board.wait("the other slot", 120, lambda: board.starts()[-1:] == ["B"])
    board.wait_good("B")
    board.wait_ssh()
    assert board.update()["version"] == "0.1.1"
    assert board.ssh("cat /data/precious; hostname").split() == ["precious", "tested"]


def test_falls_back(board, depot):
    board.start_update(depot.url("panics.raucb"))
    now, _ = board.wait_update()
    assert now["state"] == "installed", now
    assert board.http("/api/reboot", "POST")[0] == 202
    board.wait("three attempts, then the old slot", 600, lambda: board.starts()[-4:] == ["A", "A", "A", "B"])
    board.wait_good("B")
    board.wait("reason for the fallback", 60, lambda: "did not start" in board.update().get("fell_back", {}).get("why", ""))
    assert board.http("/healthz")[0] == 200

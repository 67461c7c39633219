"""The appliance on QEMU's Raspberry Pi 3B: start, streaming, an update and a fallback."""

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

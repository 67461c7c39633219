"""The same card on the hardware of a Raspberry Pi 3B, as far as QEMU has it: it starts, streams, is updated
once and falls back once."""

import pytest
from conftest import BUILT
from machine import RaspberryPi3


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    machine = RaspberryPi3(BUILT, tmp_path_factory.mktemp("raspi3b"))
    machine.allow_ssh()
    machine.power_on()
    yield machine
    machine.power_off()


def test_it_starts_and_streams(board):
    board.wait_healthy()
    picture = board.stream(100_000)
    assert picture[4:8] == b"ftyp" and b"moof" in picture and b"mdat" in picture
    board.wait_good("A")
    assert "starting over" not in board.console(), "U-Boot reads the boot state that the card comes with"
    board.wait_ssh()
    assert "Raspberry Pi 3" in board.ssh("cat /proc/device-tree/model")
    board.ssh("echo precious >/data/precious && sync")


def test_it_is_updated(board, depot):
    board.start_update(depot.url("good.raucb"))
    now, progress = board.wait_update()
    assert now["state"] == "installed" and progress, now
    assert board.http("/api/reboot", "POST")[0] == 202
    board.wait("the other slot", 120, lambda: board.starts()[-1:] == ["B"])
    board.wait_good("B")
    board.wait_ssh()
    assert board.update()["version"] == "0.1.1"
    assert board.ssh("cat /data/precious; hostname").split() == ["precious", "tested"]


def test_it_falls_back(board, depot):
    board.start_update(depot.url("panics.raucb"))
    now, _ = board.wait_update()
    assert now["state"] == "installed", now
    assert board.http("/api/reboot", "POST")[0] == 202
    board.wait("three attempts, then the old slot", 600, lambda: board.starts()[-4:] == ["A", "A", "A", "B"])
    board.wait_good("B")
    board.wait("it says why", 60, lambda: "did not start" in board.update().get("fell_back", {}).get("why", ""))
    assert board.http("/healthz")[0] == 200

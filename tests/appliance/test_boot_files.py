"""Updates of the boot files: written by a new system once it is healthy, in use after the next restart, confirmed by a
healthy system, and taken back after three failed attempts.

The tests with a card of an earlier release run only if named (`./ci/image/appliance bootfiles`).
"""

import re

import pytest
from conftest import BUILT
from machine import Machine

# A card image of commit 08d13ce, the last release without updates of the boot files.
OLD_CARD = BUILT / "old/card.img"


def console_since_start(machine):
    return re.split("U-Boot 20", machine.console())[-1]


def wait_boot_files(machine, text, seconds=120):
    machine.wait(f"boot files: {text}", seconds, lambda: re.search(rf"boot files: .*{text}", console_since_start(machine)))


def upload(machine, bundle):
    machine.start_update(upload=BUILT / f"bundles/{bundle}.raucb")
    now, _ = machine.wait_update()
    assert now["state"] == "installed", now


def restart(machine):
    before = machine.console().count("U-Boot 20")
    assert machine.http("/api/reboot", "POST")[0] == 202
    machine.wait("the restart", 90, lambda: machine.console().count("U-Boot 20") > before)


def save_camera_name(machine, name):
    """Saves the configuration with another camera name, as the page does."""
    status, text = machine.http("/api/config")
    assert status == 200
    text = re.sub(r'^name = "[^"]*"', f'name = "{name}"', text, count=1, flags=re.M)
    status, answer = machine.http("/api/config", "PUT", text, timeout=30)
    assert status == 200, answer


def camera_name(machine):
    return machine.status()["cameras"][0]["name"]


def half(machine):
    return machine.ssh("dd if=/dev/berrymse/disk bs=1 skip=454 count=4 2>/dev/null | hexdump -v -e '1/4 \"%u\"'").strip()


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    machine = Machine(BUILT, tmp_path_factory.mktemp("boot-files"))
    machine.allow_ssh()
    machine._mtools("mcopy", "-", "::Notes of the user.txt", input=b"mine")
    machine.power_on()
    yield machine
    machine.power_off()


@pytest.mark.xdist_group("boot-files")
def test_new_boot_files_are_used_after_a_restart(device):
    device.wait_good("A")
    wait_boot_files(device, "up to date")
    first = device.boot_set()
    assert device.update()["boot_files"] == {"state": "current"}
    upload(device, "boot-new")
    # The old system does not touch them.
    assert device.boot_set() == first
    restart(device)
    device.wait_good("B")
    wait_boot_files(device, "new ones take effect at the next restart")
    new = device.boot_set()
    assert new != first
    assert device.update()["boot_files"] == {"state": "waiting"}
    device.wait_ssh()
    assert half(device) == str(44 * 2048)
    assert f"berrymse.boot={first} " in device.ssh("cat /proc/cmdline")
    # A configuration that is saved now is saved in the new half.
    save_camera_name(device, "while-waiting")
    device.ssh("grep -q while-waiting /boot/berrymse.toml")
    assert "BerryMSE: second boot files" not in device.console()

    restart(device)
    device.wait_good("B")
    assert "BerryMSE: second boot files" in console_since_start(device)
    assert "boot files on trial, 2 more attempts" in console_since_start(device)
    wait_boot_files(device, "up to date")
    device.wait_ssh()
    assert camera_name(device) == "while-waiting"
    assert f"berrymse.boot={new} " in device.ssh("cat /proc/cmdline")
    assert "BOOT_FILES" not in device.ssh("fw_printenv", check=False)
    assert device.ssh("cat '/boot/Notes of the user.txt'") == "mine"
    # The former half contains no configuration, and sector 0 has no copy.
    with device.card_file.open("rb") as card:
        content = card.read(76 << 20)
    places = [match.start() for match in re.finditer(b"ssh-ed25519", content)]
    assert places and min(places) >= 44 << 20, places
    assert not any(content[10 << 20 : (10 << 20) + 1024])


@pytest.mark.xdist_group("boot-files")
def test_broken_boot_files_are_taken_back(device):
    before = device.boot_set()
    upload(device, "boot-broken")
    restart(device)
    device.wait_good("A")
    wait_boot_files(device, "new ones take effect at the next restart")
    assert device.boot_set() != before
    save_camera_name(device, "during-the-trial")
    device.wait_ssh()
    device.ssh("sync")
    restart(device)
    # Three attempts, in which it finds no kernel, and then the former ones.
    device.wait("the return to the former boot files", 180, lambda: "returning to the former ones" in device.console())
    attempts = re.findall(r"boot files on trial, (\d) more attempts", device.console())
    assert attempts[-3:] == ["2", "1", "0"], attempts
    device.wait_good("A")
    assert "BerryMSE: second boot files" in console_since_start(device)
    wait_boot_files(device, "not updated: the new boot files did not lead to a working system")
    assert device.boot_set() == before
    assert device.update()["boot_files"]["state"] == "reverted"
    # The slot lost no attempt to them, and the configuration is the newest.
    device.wait_ssh()
    assert "BOOT_A_LEFT=3" in device.ssh("fw_printenv")
    assert "BOOT_FILES" not in device.ssh("fw_printenv", check=False)
    assert camera_name(device) == "during-the-trial"


@pytest.mark.skipif(not OLD_CARD.exists(), reason="runs only if named")
@pytest.mark.parametrize("bundle", ["boot-new", "boot-broken"])
def test_card_of_an_earlier_release_migrates(tmp_path, bundle):
    machine = Machine(BUILT, tmp_path, image=OLD_CARD)
    machine.allow_ssh()
    machine.power_on()
    try:
        machine.wait_good("A")
        assert machine.boot_set() is None
        upload(machine, bundle)
        restart(machine)
        machine.wait_good("B")
        wait_boot_files(machine, "new ones take effect at the next restart")
        assert machine.boot_set() is not None
        save_camera_name(machine, "while-waiting")
        restart(machine)
        if bundle == "boot-new":
            machine.wait_good("B")
            assert "BerryMSE: second boot files" in console_since_start(machine)
            wait_boot_files(machine, "up to date")
        else:
            machine.wait("the return", 180, lambda: "returning to the former ones" in machine.console())
            machine.wait_good("B")
            wait_boot_files(machine, "not updated")
            assert machine.boot_set() is None
        assert camera_name(machine) == "while-waiting"
        machine.wait_ssh()
        assert machine.ssh("hostname").strip() == "tested"
    finally:
        machine.power_off()

"""Power cuts at random moments, each followed by a successful start.

`./ci/image/appliance powercut N` performs N cuts during operations that write, on POWER_LIVES devices in
parallel. The write at which the power is cut, the speed of the card and the lost writes are random, derived
from POWER_SEED, so that a failure can be reproduced. Results are appended to $APPLIANCE/powercut.log.

After each cut, the machine must start and stream without intervention, with its configuration and the
flushed data in /data, and mark its slot good.
"""

import os
import re
import time

import pytest
from card import seeded_rng
from conftest import BUILT
from machine import Machine

CUTS = int(os.environ.get("POWER_CUTS", "5"))
LIVES = int(os.environ.get("POWER_LIVES", "1"))
SEED = int(os.environ.get("POWER_SEED", time.time_ns() % 1_000_000))
MOMENTS = ["first-start", "install", "slot-switch", "mark-good", "config"]
# The two copies of the boot state: appliance/layout.
BOOT_STATE = [range(4 << 20, 5 << 20), range(8 << 20, 9 << 20)]

# Minimum number of writes during an update.
INSTALL_WRITES = 100
# Write speeds of the card, in bytes per second. None means unlimited.
WRITE_SPEEDS = [None, 4_000_000, 1_500_000]


def of_life(number):
    """Groups the tests of one device, which run in sequence."""
    return pytest.mark.xdist_group(f"life {number % LIVES}")


cuts = [
    pytest.param(number, MOMENTS[number % len(MOMENTS)], marks=of_life(number), id=f"{number}-{MOMENTS[number % len(MOMENTS)]}")
    for number in range(CUTS)
]


class Cutter:
    """Cuts the power at a random write of those selected by `counts`, starting when it is armed."""

    def __init__(self, rng, max_writes, counts=lambda offset: True):
        self.left = rng.randint(1, max_writes)
        self.counts = counts
        self.armed = False

    def __call__(self, offset, _length):
        if self.armed and self.counts(offset):
            self.left -= 1
        return self.armed and self.left <= 0


def is_boot_state(offset):
    return any(offset in copy for copy in BOOT_STATE)


def note(text):
    with (BUILT / "powercut.log").open("a") as log:
        print(text, file=log, flush=True)


def configuration(name):
    return f'[[camera]]\nname = "{name}"\n'


class Life:
    """A device that is reused for several power cuts."""

    def __init__(self, folder):
        self.folder = folder
        self.machine = None
        self.cameras = {"camera"}

    def fresh(self, number):
        """Creates a machine with a new card and configuration. Host name and SSH key are those that Raspberry Pi Imager
        wrote beside it."""
        if self.machine:
            self.machine.power_off()
        folder = self.folder / str(number)
        folder.mkdir()
        self.machine = Machine(BUILT, folder)
        self.cameras = {"first"}
        self.machine.write_config(f'{configuration("first")}[server]\nlisten = "0.0.0.0:80"\n')
        key = self.machine.public_key()
        self.machine.write_boot("rpi-preseed.toml", f'[system]\nhostname = "tested"\n[ssh]\nauthorized_keys = ["{key}"]\n')
        return self.machine

    def settled(self, number):
        """Returns a running machine with a file in /data that must be preserved."""
        machine = self.machine or self.fresh(number)
        if machine.qemu is None:
            machine.power_on()
            machine.wait_good()
        machine.wait_ssh()
        machine.ssh("echo precious >/data/precious && sync")
        return machine


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    note(f"POWER_SEED={SEED} POWER_LIVES={LIVES}")
    life = Life(tmp_path_factory.mktemp("life"))
    yield life
    if life.machine:
        life.machine.power_off()


def wait_cut(machine, seconds):
    """Waits for the power cut. Returns false if there were too few writes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not machine.card.cut.is_set():
        time.sleep(0.1)
    return machine.card.cut.is_set()


@of_life(0)
def test_card_loses_unflushed_writes(life):
    """Verifies the simulated card. Killing QEMU alone would keep every write."""
    machine = life.settled("control")
    start, _ = machine.partition("root-b")
    write = "dd if=/dev/urandom of=/dev/berrymse/root-b bs=64k count=8 oflag=direct conv=notrunc"

    def read_slot():
        with machine.card_file.open("rb") as card:
            card.seek(start)
            return card.read(512 << 10)

    blank = read_slot()
    machine.ssh(f"{write},fsync")
    flushed = read_slot()
    assert flushed != blank
    machine.ssh(write)
    # The card has received the data and returns it to readers ...
    assert read_slot() != flushed
    note(f"control: {machine.power_off(seeded_rng(SEED), share=0)}")
    # ... but loses it with the power.
    assert read_slot() == flushed
    machine.power_on()
    machine.wait_good()


@pytest.mark.parametrize("number, moment", cuts)
def test_starts_after_a_power_cut(life, depot, number, moment):
    rng = seeded_rng(f"{SEED} {number}")
    precious = moment != "first-start"
    # Alternate the bundle, because identical data is not written again.
    bundle = depot.url(("good.raucb", "next.raucb")[number // len(MOMENTS) % 2 ^ MOMENTS.index(moment) % 2])
    write_speed = rng.choice(WRITE_SPEEDS)
    if moment == "first-start":
        machine = life.fresh(number)
        cutter = Cutter(rng, 60)
        cutter.armed = True
        machine.power_on(write_speed, cutter)
        wait_cut(machine, 40)
    else:
        machine = life.settled(number)
        if moment == "install":
            cutter = Cutter(rng, INSTALL_WRITES)
        elif moment == "config":
            cutter = Cutter(rng, 12)
        else:
            cutter = Cutter(rng, 4, is_boot_state)
        machine.card.on_write = cutter
        machine.card.write_speed = write_speed
        if moment == "config":
            name = f"camera-{number}"
            status, text = machine.http("/api/config")
            assert status == 200
            changed = re.sub(r'^name = "[^"]*"', f'name = "{name}"', text, count=1, flags=re.M)
            life.cameras.add(name)
            cutter.armed = True
            status, _ = machine.http("/api/config", "PUT", changed, timeout=15)
            if status == 200:
                # After a successful response, the new configuration must be kept.
                life.cameras = {name}
            wait_cut(machine, 10)
        else:
            # For mark-good, the power is cut during the start of the new system.
            if moment == "mark-good":
                before = machine.card.writes
                assert "status 0" in machine.ssh(f"rauc install {bundle} 2>&1; echo status $?", timeout=300)
                note(f"{number}: {machine.card.writes - before} writes for an update")
            cutter.armed = True
            if moment == "mark-good":
                machine.reboot()
                wait_cut(machine, 60)
            else:
                machine.ssh(f"rauc install {bundle} >/dev/null 2>&1 &", check=False)
                wait_cut(machine, 60)
    met = machine.card.cut.is_set()
    writes = machine.card.writes
    lost = machine.power_off(rng)
    note(f"{number} {moment}: cut {'at a write' if met else 'while idle'} ({writes} writes, {write_speed or 'unlimited'} B/s), {lost}")

    machine.power_on()
    machine.wait_good(seconds=400)
    cameras = {camera["name"] for camera in machine.status()["cameras"]}
    assert len(cameras) == 1 and cameras <= life.cameras, f"{cameras} instead of {life.cameras}"
    life.cameras = cameras
    machine.wait_ssh()
    assert machine.ssh("hostname").strip() == "tested"
    assert "rpi-preseed" not in machine.ssh("ls /boot")
    if precious:
        assert machine.ssh("cat /data/precious").strip() == "precious"
    assert "tmpfs" not in machine.ssh("df /data | tail -n 1")
    note(f"{number} {moment}: good")

"""The power goes at any moment, and the next start is a good one.

`./ci/image/appliance powercut N`: N cuts, over everything that writes, on POWER_LIVES devices at a time. Which
write a cut meets, how fast the card is, and what of the unflushed writes is lost, is rolled from
POWER_SEED, so that a failure can be had again. What became of each stands in $APPLIANCE/powercut.log.

After each cut: the machine starts by itself and streams, its configuration is in force, what was in /data
and flushed is there, and the slot is marked good.
"""

import os
import re
import time

import pytest
from card import dice
from conftest import BUILT
from machine import Machine

CUTS = int(os.environ.get("POWER_CUTS", "5"))
LIVES = int(os.environ.get("POWER_LIVES", "1"))
SEED = int(os.environ.get("POWER_SEED", time.time_ns() % 1_000_000))
MOMENTS = ["first-start", "install", "slot-switch", "mark-good", "config"]
# The two copies of the boot state: appliance/layout.
BOOT_STATE = [range(4 << 20, 5 << 20), range(8 << 20, 9 << 20)]

# So many writes an update makes, at least.
INSTALL_WRITES = 100
# Bytes a second that a card writes; None: as fast as it can.
SPEEDS = [None, 4_000_000, 1_500_000]


def of_life(number):
    """Those of one device, one after the other."""
    return pytest.mark.xdist_group(f"life {number % LIVES}")


cuts = [
    pytest.param(number, MOMENTS[number % len(MOMENTS)], marks=of_life(number), id=f"{number}-{MOMENTS[number % len(MOMENTS)]}")
    for number in range(CUTS)
]


class Die:
    """Cuts at the n-th write that counts, counted from when it is armed."""

    def __init__(self, roll, most, what=lambda offset: True):
        self.left = roll.randint(1, most)
        self.what = what
        self.armed = False

    def __call__(self, offset, _length):
        if self.armed and self.what(offset):
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
    """One device, through all of its power cuts."""

    def __init__(self, folder):
        self.folder = folder
        self.machine = None
        self.cameras = {"camera"}

    def fresh(self, number):
        """A new card, with what has to survive on it."""
        if self.machine:
            self.machine.power_off()
        folder = self.folder / str(number)
        folder.mkdir()
        self.machine = Machine(BUILT, folder)
        self.cameras = {"first"}
        self.machine.allow_ssh(configuration("first"))
        return self.machine

    def settled(self, number):
        """A machine that runs, with something precious in /data."""
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
    """Until the die has fallen; false if there were not so many writes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not machine.card.cut.is_set():
        time.sleep(0.1)
    return machine.card.cut.is_set()


@of_life(0)
def test_the_card_forgets_what_was_not_flushed(life):
    """Or the cuts below would show nothing: killing QEMU alone keeps every write."""
    machine = life.settled("control")
    start, _ = machine.place("root-b")
    write = "dd if=/dev/urandom of=/dev/berrymse/root-b bs=64k count=8 oflag=direct conv=notrunc"

    def there():
        with machine.card_file.open("rb") as card:
            card.seek(start)
            return card.read(512 << 10)

    blank = there()
    machine.ssh(f"{write},fsync")
    flushed = there()
    assert flushed != blank
    machine.ssh(write)
    # The card has taken it, and would give it back to whoever reads it ...
    assert there() != flushed
    note(f"control: {machine.power_off(dice(SEED), share=0)}")
    # ... but it is gone with the power.
    assert there() == flushed
    machine.power_on()
    machine.wait_good()


@pytest.mark.parametrize("number, moment", cuts)
def test_the_power_goes(life, depot, number, moment):
    roll = dice(f"{SEED} {number}")
    precious = moment != "first-start"
    # Another one than last time: what is there already is not written again.
    bundle = depot.url(("good.raucb", "next.raucb")[number // len(MOMENTS) % 2 ^ MOMENTS.index(moment) % 2])
    write_speed = roll.choice(SPEEDS)
    if moment == "first-start":
        machine = life.fresh(number)
        die = Die(roll, 45)
        die.armed = True
        machine.power_on(write_speed, die)
        wait_cut(machine, 40)
    else:
        machine = life.settled(number)
        if moment == "install":
            die = Die(roll, INSTALL_WRITES)
        elif moment == "config":
            die = Die(roll, 12)
        else:
            die = Die(roll, 4, is_boot_state)
        machine.card.on_write = die
        machine.card.write_speed = write_speed
        if moment == "config":
            name = f"camera-{number}"
            status, text = machine.http("/api/config")
            assert status == 200
            changed = re.sub(r'^name = "[^"]*"', f'name = "{name}"', text, count=1, flags=re.M)
            life.cameras.add(name)
            die.armed = True
            status, _ = machine.http("/api/config", "PUT", changed, timeout=15)
            if status == 200:
                # Who was told that it is saved can rely on it.
                life.cameras = {name}
            wait_cut(machine, 10)
        else:
            # Installed once only for all that need it; then the power goes when the next one starts.
            if moment == "mark-good":
                before = machine.card.writes
                assert "status 0" in machine.ssh(f"rauc install {bundle} 2>&1; echo status $?", timeout=300)
                note(f"{number}: {machine.card.writes - before} writes for an update")
            die.armed = True
            if moment == "mark-good":
                machine.reboot()
                wait_cut(machine, 60)
            else:
                machine.ssh(f"rauc install {bundle} >/dev/null 2>&1 &", check=False)
                wait_cut(machine, 60)
    met = machine.card.cut.is_set()
    writes = machine.card.writes
    lost = machine.power_off(roll)
    note(f"{number} {moment}: cut {'at a write' if met else 'in quiet'} ({writes} writes, {write_speed or 'any'} B/s), {lost}")

    machine.power_on()
    machine.wait_good(seconds=400)
    cameras = {camera["name"] for camera in machine.status()["cameras"]}
    assert len(cameras) == 1 and cameras <= life.cameras, f"{cameras} instead of {life.cameras}"
    life.cameras = cameras
    machine.wait_ssh()
    assert machine.ssh("hostname").strip() == "tested"
    if precious:
        assert machine.ssh("cat /data/precious").strip() == "precious"
    assert "tmpfs" not in machine.ssh("df /data | tail -n 1")
    note(f"{number} {moment}: good")

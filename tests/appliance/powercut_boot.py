"""Power cuts at random writes while the boot files are updated.

`./ci/image/appliance bootfiles N` performs N cuts, on POWER_LIVES devices in parallel. Each device switches between the
boot files of its system and two other sets. The power is cut at a random write to the boot record, the boot state or
one of the halves: while the new set is written, or while it is confirmed. In some runs, a configuration is saved at the
same time. Results are appended to $APPLIANCE/powercut-boot.log.

After each cut, the model of the firmware must find one complete set. Then the machine must start, keep its
configuration and end with the boot files of its system.
"""

import os
import re
import subprocess
import threading
import time

import pytest
from card import seeded_rng
from conftest import BUILT
from machine import Machine

CUTS = int(os.environ.get("POWER_CUTS", "5"))
LIVES = int(os.environ.get("POWER_LIVES", "2"))
SEED = int(os.environ.get("POWER_SEED", time.time_ns() % 1_000_000))
MIB = 1 << 20
# Boot record, both copies of the boot state, former boot record, both halves.
AREAS = [range(512), range(4 * MIB, 5 * MIB), range(8 * MIB, 9 * MIB), range(10 * MIB, 11 * MIB), range(12 * MIB, 76 * MIB)]
MOMENTS = ["write", "save", "confirm"]


def note(text):
    with (BUILT / "powercut-boot.log").open("a") as log:
        print(text, file=log, flush=True)


class Cutter:
    """Cuts the power at a random write to AREAS."""

    def __init__(self, left):
        self.left = left

    def __call__(self, offset, _length):
        self.left -= any(offset in area for area in AREAS)
        return self.left < 0


class Life:
    def __init__(self, folder):
        self.folder = folder
        self.machine = None
        self.names = {"camera"}

    def running(self):
        if self.machine is None:
            self.folder.mkdir(exist_ok=True)
            self.machine = Machine(BUILT, self.folder)
            self.machine.allow_ssh()
            self.machine.power_on()
            self.settle()
            tar = subprocess.run(["tar", "-C", BUILT, "-c", "sets"], capture_output=True, check=True).stdout
            self.machine.ssh("tar -x -C /data && sync", data=tar)
            self.own = self.machine.boot_set()
        return self.machine

    def settle(self):
        """Waits until the machine runs with the boot files of its system. Restarts it if they wait."""
        machine = self.machine
        for _ in range(4):
            machine.wait_good(seconds=400)
            console = re.split("U-Boot 20", machine.console())
            machine.wait("the report", 120, lambda: "boot files: " in re.split("U-Boot 20", machine.console())[-1])
            machine.wait_ssh()
            if "boot files: up to date" in re.split("U-Boot 20", machine.console())[-1]:
                return
            machine.ssh("reboot", check=False)
            machine.wait("the restart", 90, lambda: len(re.split("U-Boot 20", machine.console())) > len(console))
        raise AssertionError("the boot files are not up to date after four starts")


lives = {}


@pytest.fixture
def life(tmp_path_factory, request):
    name = request.node.get_closest_marker("xdist_group").args[0]
    if name not in lives:
        note(f"POWER_SEED={SEED} {name}")
        lives[name] = Life(tmp_path_factory.mktemp(name.replace(" ", "-")) / "life")
    life = lives[name]
    failed = request.session.testsfailed
    yield life
    if request.session.testsfailed != failed and life.machine:
        life.machine.power_off()
        del lives[name]


cuts = [
    pytest.param(number, MOMENTS[number % len(MOMENTS)], marks=pytest.mark.xdist_group(f"boot life {number % LIVES}"),
                 id=f"{number}-{MOMENTS[number % len(MOMENTS)]}")
    for number in range(CUTS)
]


def save(machine, name):
    """Saves another camera name. Returns whether the machine confirmed it."""
    status, text = machine.http("/api/config")
    text = re.sub(r'^name = "[^"]*"', f'name = "{name}"', text, count=1, flags=re.M)
    return status == 200 and machine.http("/api/config", "PUT", text, timeout=20)[0] == 200


@pytest.mark.parametrize("number, moment", cuts)
def test_one_complete_set_starts_after_a_power_cut(life, number, moment):
    rng = seeded_rng(f"{SEED} {number}")
    machine = life.running()
    update = f"mount --bind /data/sets/{rng.choice(['one', 'two'])} /usr/share/berrymse/boot && berrymse boot-files"
    saved = f"camera-{number}"
    if moment == "confirm":
        assert "next restart" in machine.ssh(update)
        assert machine.boot_set() != life.own
        machine.ssh("reboot", check=False)
        # Starting reads these areas, and writes the attempts.
        machine.card.on_write = Cutter(rng.randint(0, 30))
        cut = machine.card.cut.wait(150)
    else:
        machine.card.on_write = Cutter(rng.randint(0, 26))
        machine.ssh(f"({update}) >/dev/null 2>&1 &")
        if moment == "save":
            life.names.add(saved)
            time.sleep(rng.random() * 4)
            result = []
            thread = threading.Thread(target=lambda: result.append(save(machine, saved)))
            thread.start()
        cut = machine.card.cut.wait(30)
        if moment == "save":
            thread.join()
            if result == [True]:
                life.names = {saved}
    lost = machine.power_off(rng)
    note(f"{number} {moment}: cut {'at a write' if cut else 'while idle'}, {lost}")
    # One complete set, which belongs to the system or to one of the others.
    started = machine.boot_set()
    note(f"{number} {moment}: {'the former' if started == life.own else 'a new'} set")
    machine.power_on()
    life.settle()
    assert machine.boot_set() == life.own
    names = {camera["name"] for camera in machine.status()["cameras"]}
    assert len(names) == 1 and names <= life.names, f"{names} instead of {life.names}"
    life.names = names
    variables = machine.ssh("fw_printenv")
    assert "BOOT_FILES" not in variables and "BOOT_A_LEFT=3" in variables, variables
    note(f"{number} {moment}: good")

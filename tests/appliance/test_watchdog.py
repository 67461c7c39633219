"""The hardware watchdog of QEMU's machine virt, i6300esb, with the default timeout of the Raspberry Pi's: 15 s.

The machine restarts when the server or the keeper hangs, and does not when the card is busy. The last test takes
BUSY_MINUTES: `./ci/image/appliance watchdog` runs it for 20.
"""

import os
import re
import time

import pytest
from card import seeded_rng
from conftest import BUILT
from machine import TIMEOUT_FACTOR, Machine

WATCHDOG = 15
BUSY_MINUTES = float(os.environ.get("BUSY_MINUTES", "1"))
# A slow card, in bytes per second.
WRITE_SPEED = 2_000_000
# How long the card is busy with a flush, in seconds.
MAX_FLUSH_DELAY = 10

pytestmark = pytest.mark.xdist_group("watchdog")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    machine = Machine(BUILT, tmp_path_factory.mktemp("watchdog"))
    machine.allow_ssh()
    machine.add_arguments(f"i6300esb.heartbeat={WATCHDOG}")
    machine.power_on()
    machine.wait_good("A")
    machine.wait_ssh()
    yield machine
    machine.power_off()


def pid_of(machine, command):
    """The process ID of the only process with this command line."""
    found = re.findall(rf"^ *(\d+) \S+ +{command}", machine.ssh("ps"), re.M)
    assert len(found) == 1, machine.ssh("ps")
    return found[0]


def wait_restarted(machine, starts, seconds):
    machine.wait("a restart", seconds, lambda: len(machine.starts()) > starts)
    machine.wait_good("A")
    machine.wait_ssh()
    assert len(machine.starts()) == starts + 1, machine.starts()


def test_watchdog_has_the_timeout_of_the_raspberry_pi(guarded):
    assert guarded.ssh("cat /sys/class/watchdog/watchdog0/identity /sys/class/watchdog/watchdog0/timeout").splitlines()[1:] == [str(WATCHDOG)]
    assert guarded.ssh("cat /sys/class/watchdog/watchdog0/state").strip() == "active"


def test_machine_restarts_if_the_server_hangs_and_keeps_the_log(guarded):
    before = len(guarded.starts())
    guarded.ssh("logger before the hang")
    guarded.ssh(f"kill -STOP {pid_of(guarded, 'berrymse serve ')}")
    wait_restarted(guarded, before, 60 + 5 * WATCHDOG)
    assert "the server did not answer for 60 s" in guarded.console()
    assert "before the hang" in guarded.ssh("cat /data/log/messages.A")
    assert "the server did not answer for 60 s" in guarded.ssh("cat /data/berrymse/health-error; true")


def test_watchdog_resets_the_machine_if_the_keeper_hangs(guarded):
    before = len(guarded.starts())
    stopped = time.monotonic()
    guarded.ssh(f"kill -STOP {pid_of(guarded, '.*/usr/lib/berrymse/keeper')}")
    wait_restarted(guarded, before, 4 * WATCHDOG)
    # Not by the keeper.
    assert "restarting the machine" not in guarded.console().rsplit("is good", 2)[1]
    print(f"\nslot A was good again {time.monotonic() - stopped:.0f} s later")


def test_watchdog_does_not_reset_the_machine_while_the_card_is_busy(guarded):
    before = len(guarded.starts())
    rng, delays = seeded_rng(1), []

    def flush_delay():
        delays.append(rng.uniform(0, MAX_FLUSH_DELAY))
        return delays[-1]

    # Also causes the card's other files to be read again.
    guarded.ssh("(while :; do dd if=/dev/urandom of=/data/fill bs=64k count=128 conv=fsync; done) >/dev/null 2>&1 &")
    writes = guarded.card.writes
    guarded.card.write_speed, guarded.card.flush_delay = WRITE_SPEED, flush_delay
    end = time.monotonic() + BUSY_MINUTES * 60
    unhealthy = 0
    while time.monotonic() < end:
        time.sleep(5)
        unhealthy += guarded.http("/healthz", timeout=30)[0] != 200
        assert len(guarded.starts()) == before, guarded.console()[-3000:]
    guarded.card.write_speed = guarded.card.flush_delay = None
    print(f"\n{guarded.card.writes - writes} writes, {len(delays)} flushes, which took up to {max(delays):.1f} s, "
          f"{sum(delays):.0f} of {BUSY_MINUTES * 60:.0f} s together; {unhealthy} checks without an answer")
    # The card was indeed busy.
    assert sum(delays) > BUSY_MINUTES * 60 / 4 / TIMEOUT_FACTOR
    assert max(delays) > MAX_FLUSH_DELAY / 2
    guarded.ssh("killall dd; true")
    assert guarded.starts()[before - 1:] == ["A"]

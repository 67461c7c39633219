"""`./ci/bench start`: how long a start takes, until a viewer has the first picture."""

import os
import threading
import time

from conftest import BUILT
from machine import Machine

RUNS = int(os.environ.get("RUNS", "5"))


class Watch(threading.Thread):
    """When a word first stands on the console: seconds of time.monotonic."""

    def __init__(self, machine, words):
        super().__init__(daemon=True)
        self.machine, self.seen, self.missing = machine, {}, set(words)

    def run(self):
        while self.missing:
            console = self.machine.console()
            now = time.monotonic()
            for word in [word for word in self.missing if word in console]:
                self.seen[word] = now
                self.missing.remove(word)
            time.sleep(0.01)


def first_picture(machine):
    """When somebody who asks all the time has the first whole fragment."""
    while True:
        try:
            # QEMU takes the connection at once, and asks the machine again only after seconds if it is not
            # there yet: so each attempt is a short one.
            picture = machine.stream(20_000, timeout=0.5)
            if b"moof" in picture and b"mdat" in picture:
                return time.monotonic()
        except OSError:
            time.sleep(0.02)


# When programs started, in seconds since the kernel did: field 22 of /proc/PID/stat, in hundredths.
STEPS = r"""
dmesg | sed -n 's/^\[ *\([0-9.]*\)\] Run \(.*init\) as init process.*/\1 \2/p'
for pid in $(ls /proc | grep '^[0-9]'); do
    stat=$(cat /proc/$pid/stat 2>/dev/null) || continue
    set -- ${stat##*) }
    # Kernel threads are children of 2.
    [ "$2" = 2 ] || [ "$pid" -le 2 ] ||
        echo "$(awk "BEGIN { print ${20} / 100 }") $(tr '\0\n' '  ' </proc/$pid/cmdline | cut -c 1-50)"
done | sort -n
"""


def test_start(tmp_path, capsys):
    machine = Machine(BUILT, tmp_path)
    machine.allow_ssh()
    rows = []
    # The first one grows the data partition, and is told apart.
    for run in range(RUNS + 1):
        begin = time.monotonic()
        machine.power_on()
        watch = Watch(machine, ["U-Boot 20", "Starting kernel"])
        watch.start()
        picture = first_picture(machine)
        watch.join(10)
        kernel = watch.seen["Starting kernel"]
        rows.append((kernel - begin, picture - kernel))
        machine.wait_good()
        if run == RUNS:
            steps = machine.ssh(STEPS)
        machine.power_off()
    with capsys.disabled():
        print(f"\nWhat started when, in the last one:\n{steps}")
        for number, (kernel, picture) in enumerate(rows):
            what = "first start" if number == 0 else f"start {number}"
            print(f"{what:12}  power -> kernel {kernel:5.1f} s   kernel -> first fragment at a viewer {picture:5.1f} s")
        print(f"best of {RUNS}: power -> kernel {min(row[0] for row in rows[1:]):.1f} s, "
              f"kernel -> first fragment {min(row[1] for row in rows[1:]):.1f} s")

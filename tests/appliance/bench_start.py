"""`./ci/bench start`: measures the time from power on to the first picture at a viewer."""

import os
import threading
import time

from conftest import BUILT
from machine import Machine

RUNS = int(os.environ.get("RUNS", "5"))


class Watch(threading.Thread):
    """Records when each word first appears on the console (time.monotonic)."""

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
    """Requests the stream repeatedly. Returns the time of the first complete fragment."""
    while True:
        try:
            # QEMU accepts the connection immediately. If the machine is not ready, QEMU retries only after
            # seconds, so each attempt has a short timeout.
            picture = machine.stream(20_000, timeout=0.5)
            if b"moof" in picture and b"mdat" in picture:
                return time.monotonic()
        except OSError:
            time.sleep(0.02)


# Start times of programs, in seconds since the start of the kernel (field 22 of /proc/PID/stat, in 1/100 s).
STEPS = r"""
dmesg | sed -n 's/^\[ *\([0-9.]*\)\] Run \(.*init\) as init process.*/\1 \2/p'
for pid in $(ls /proc | grep '^[0-9]'); do
    stat=$(cat /proc/$pid/stat 2>/dev/null) || continue
    set -- ${stat##*) }
    # Kernel threads are children of process 2.
    [ "$2" = 2 ] || [ "$pid" -le 2 ] ||
        echo "$(awk "BEGIN { print ${20} / 100 }") $(tr '\0\n' '  ' </proc/$pid/cmdline | cut -c 1-50)"
done | sort -n
"""


def test_start(tmp_path, capsys):
    machine = Machine(BUILT, tmp_path)
    machine.allow_ssh()
    rows = []
    # The first start grows the data partition and is reported separately.
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
        print(f"\nStart times of programs in the last run:\n{steps}")
        for number, (kernel, picture) in enumerate(rows):
            what = "first start" if number == 0 else f"start {number}"
            print(f"{what:12}  power -> kernel {kernel:5.1f} s   kernel -> first fragment at a viewer {picture:5.1f} s")
        print(f"best of {RUNS}: power -> kernel {min(row[0] for row in rows[1:]):.1f} s, "
              f"kernel -> first fragment {min(row[1] for row in rows[1:]):.1f} s")

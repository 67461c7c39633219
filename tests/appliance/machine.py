"""The machine that is tested: what can be done with it from outside.

Everything that is particular to QEMU is in this class: its power, its card, its console, the way to its
network. A real board, driven by labgrid for instance (PowerProtocol, USBSDMuxDriver, SerialDriver), needs
the same methods, and the tests stay as they are.
"""

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from card import Card

BOOT_STARTS = 12 * 1024 * 1024
# Where the host is busy with other things, everything may take so many times as long.
PATIENCE = float(os.environ.get("PATIENCE", "1"))


class Machine:
    def __init__(self, built, folder, size="512M"):
        self.built = Path(built)
        self.folder = Path(folder)
        self.card_file = self.folder / "card.img"
        self.console_file = self.folder / "console.log"
        self.console_file.write_bytes(b"")
        self.qemu = None
        self.card = None
        self.http_port, self.ssh_port = free_port(), free_port()
        # A new card, bigger than the image.
        subprocess.run(["cp", "--sparse=always", self.built / "card.img", self.card_file], check=True)
        subprocess.run(["truncate", "-s", size, self.card_file], check=True)
        self.key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.seen = 0
        self.ssh_options = []

    # Its card, while it is off.

    def _mtools(self, *arguments, **options):
        command, *rest = arguments
        return subprocess.run(
            [command, "-i", f"{self.card_file}@@{BOOT_STARTS}", *rest], check=True, capture_output=True, **options
        ).stdout

    def read_config(self):
        return self._mtools("mtype", "::berrymse.toml").decode()

    def write_config(self, text):
        self._mtools("mcopy", "-o", "-", "::berrymse.toml", input=text.encode())

    def allow_ssh(self, more=""):
        """Puts a configuration with the tests' key on the card, and `more` of its lines."""
        key = (self.folder / "key.pub").read_text().strip()
        self.write_config(f'{more}\n[server]\nlisten = "0.0.0.0:80"\n[system]\nhostname = "tested"\nssh_keys = ["{key}"]\n')

    # Its power.

    def power_on(self, write_speed=None, on_write=None):
        assert self.qemu is None
        address = self.folder / "card.socket"
        self.card = Card(self.card_file, address, write_speed)
        self.card.on_write = on_write
        tools = self.built / "tools"
        self.qemu = subprocess.Popen(
            [
                "qemu-system-aarch64", "-L", tools / "usr/share/qemu", "-M", "virt", "-cpu", "cortex-a53",
                "-smp", "2", "-m", "512", "-accel", "tcg,thread=multi", "-display", "none", "-monitor", "none",
                "-serial", f"file:{self.console_file}.{self.seen}", "-bios", self.built / "u-boot.bin",
                "-drive", f"file=nbd+unix:///?socket={address},format=raw,if=none,id=card,cache=writeback",
                "-device", "virtio-blk-pci,drive=card",
                *self.network(),
                "-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
            ],
            stdin=subprocess.DEVNULL,
        )

    def forward(self):
        """The way in: what QEMU's user network hands on."""
        return f"hostfwd=tcp:127.0.0.1:{self.http_port}-:80,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"

    def network(self):
        return ["-netdev", f"user,id=net,{self.forward()}", "-device", "virtio-net-pci,netdev=net,romfile="]

    def power_off(self, dice=None):
        """At once. Says what became of what was not flushed."""
        if self.qemu is None:
            return ""
        self.qemu.kill()
        self.qemu.wait()
        self.qemu = None
        report = self.card.power_off(dice)
        self.seen += 1
        return report

    # What it says and does.

    def console(self):
        """Everything since it was switched on."""
        file = Path(f"{self.console_file}.{self.seen}")
        return file.read_text(errors="replace") if file.exists() else ""

    def starts(self):
        """The slots that U-Boot has started since then, in order."""
        return re.findall(r"BerryMSE: slot ([AB]), \S+ more attempts", self.console())

    def wait(self, what, seconds, condition):
        end = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < end:
            result = condition()
            if result:
                return result
            assert self.qemu.poll() is None, "QEMU has ended"
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.console()[-3000:]}")

    def http(self, path, method="GET", body=None, timeout=5, headers=None):
        """Status and text; 0 if nobody answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", method=method, data=body.encode() if body else None,
            headers=headers or {},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError:
            return 0, ""

    def stream(self, size):
        """The first bytes of the picture."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/live.mp4", timeout=20) as answer:
            return answer.read(size)

    def status(self):
        return json.loads(self.http("/api/status")[1])

    def wait_healthy(self, seconds=150):
        self.wait("it streams", seconds, lambda: self.http("/healthz")[0] == 200)

    def wait_good(self, slot=None, seconds=150):
        """Until the slot that runs is marked good."""
        def good():
            return re.search(r"slot ([AB]) is good", self.console().rsplit("U-Boot 20", 1)[-1])
        found = self.wait("the slot is good", seconds, good).group(1)
        assert slot in (None, found), f"it runs from slot {found}"

    def ssh(self, command, check=True, timeout=120, data=None):
        result = subprocess.run(
            [
                "ssh", "-q", "-i", self.key, "-p", str(self.ssh_port), "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={20 * PATIENCE:.0f}",
                *self.ssh_options, "root@127.0.0.1", command,
            ],
            capture_output=True, timeout=timeout * PATIENCE, input=data,
        )
        text = (result.stdout + result.stderr).decode(errors="replace")
        assert not check or result.returncode == 0, f"{command}: {result.returncode}\n{text}"
        return text

    def wait_ssh(self, seconds=60):
        self.wait("SSH", seconds, lambda: "up" in self.ssh("echo up", check=False))

    def slots(self):
        return json.loads(self.ssh("rauc status --output-format=json"))

    def booted(self):
        return self.slots()["booted"]

    def reboot(self):
        self.ssh("reboot", check=False)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""The machine that is tested: what can be done with it from outside.

Everything that is particular to QEMU is in this class: its power, its card, its console, the way to its
network. A real board, driven by labgrid for instance (PowerProtocol, USBSDMuxDriver, SerialDriver), needs
the same methods, and the tests stay as they are.
"""

import hashlib
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

LAYOUT = Path(__file__).parents[2] / "appliance/layout"
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
        start, _ = self.place("boot")
        return subprocess.run(
            [command, "-i", f"{self.card_file}@@{start}", *rest], check=True, capture_output=True, **options
        ).stdout

    @staticmethod
    def place(name):
        """Where a partition is, and its size, as the layout says."""
        for line in LAYOUT.read_text().splitlines():
            if line.split()[:1] == [name]:
                start, size = line.split()[3:5]
                return int(start) << 20, int(size) << 20
        raise KeyError(name)

    def content(self, *partitions):
        """What is in them, as a checksum. (Also while it runs.)"""
        sums = hashlib.sha256()
        with self.card_file.open("rb") as card:
            for name in partitions:
                start, size = self.place(name)
                card.seek(start)
                sums.update(card.read(size))
        return sums.hexdigest()

    def read_config(self):
        return self._mtools("mtype", "::berrymse.toml").decode()

    def write_config(self, text):
        self._mtools("mcopy", "-o", "-", "::berrymse.toml", input=text.encode())

    def allow_ssh(self, more=""):
        """Puts a configuration with the tests' key on the card, and `more` of its lines."""
        key = (self.folder / "key.pub").read_text().strip()
        camera = "" if "[[camera]]" in more else '[[camera]]\nname = "camera"\n'
        self.write_config(f'{camera}{more}\n[server]\nlisten = "0.0.0.0:80"\n[system]\nhostname = "tested"\nssh_keys = ["{key}"]\n')

    # Its power.

    def power_on(self, write_speed=None, on_write=None, wire=None, skip_waiting=False):
        """`wire`: a Unix socket that Ethernet frames go to, instead of a way out and back in.
        `skip_waiting`: time is what the processor has computed, and passes at once where it has nothing
        to do. So a minute of waiting costs nothing, and a busy host does not make it slow; but whoever
        waits for somebody outside may find that he has waited long."""
        assert self.qemu is None
        address = self.folder / "card.socket"
        self.card = Card(self.card_file, address, write_speed)
        self.card.on_write = on_write
        net = f"stream,addr.type=unix,addr.path={wire}" if wire else f"user,{self.forward()}"
        self.qemu = subprocess.Popen(
            [
                "qemu-system-aarch64", "-L", self.built / "tools/usr/share/qemu", "-display", "none", "-monitor", "none",
                "-drive", f"file=nbd+unix:///?socket={address},format=raw,id=card,cache=writeback,if={self.card_bus}",
                *self.hardware(skip_waiting), *self.network(net), "-serial", f"file:{self.console_file}.{self.seen}",
            ],
            stdin=subprocess.DEVNULL,
        )

    card_bus = "none"

    def hardware(self, skip_waiting):
        """QEMU's words for what this is; its card is there, its network and its console come next."""
        processor = ["-smp", "2", "-accel", "tcg,thread=multi"]
        if skip_waiting:
            processor = ["-smp", "1", "-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off"]
        return [
            "-M", "virt", "-cpu", "cortex-a53", *processor, "-m", "512", "-bios", self.built / "u-boot.bin",
            "-device", "virtio-blk-pci,drive=card", "-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
        ]

    def network(self, net):
        """`net`: where its cable leads."""
        return ["-netdev", f"{net},id=net", "-device", "virtio-net-pci,netdev=net,romfile="]

    def forward(self):
        """The way in: what QEMU's user network hands on."""
        return f"hostfwd=tcp:127.0.0.1:{self.http_port}-:80,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"

    def power_off(self, dice=None, share=None):
        """At once. Says what became of what was not flushed."""
        if self.qemu is None:
            return ""
        self.qemu.kill()
        self.qemu.wait()
        self.qemu = None
        report = self.card.power_off(dice, share)
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
            f"http://127.0.0.1:{self.http_port}{path}", method=method, headers=headers or {},
            data=body.encode() if isinstance(body, str) else body,
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError:
            return 0, ""

    def stream(self, size, timeout=20):
        """The first bytes of the picture."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/live.mp4", timeout=timeout) as answer:
            return answer.read(size)

    def status(self):
        return json.loads(self.http("/api/status")[1])

    def update(self):
        """How its update stands; nothing where it can't say that."""
        status, text = self.http("/api/update")
        return json.loads(text) if status == 200 else {}

    def start_update(self, url=None, upload=None, downgrade=False):
        """As the page does it."""
        if url:
            body, headers = json.dumps({"url": url, "downgrade": downgrade}), {"Content-Type": "application/json"}
        else:
            body, headers = Path(upload).read_bytes(), {"Content-Type": "application/octet-stream"}
            headers |= {"Berrymse-Downgrade": "true"} if downgrade else {}
        status, text = self.http("/api/update", "POST", body, timeout=120, headers=headers)
        assert status == 202, f"{status} {text}"

    def wait_update(self, seconds=300):
        """Until it is installed or has failed. What it says then, and how far it was seen to be."""
        seen = []

        def ended():
            now = self.update()
            if now.get("state") == "installing" and now.get("progress") not in seen:
                seen.append(now.get("progress"))
            return now if now.get("state") in ("installed", "failed") else None

        return self.wait("the end of the update", seconds, ended), seen

    def wait_healthy(self, seconds=150):
        self.wait("it streams", seconds, lambda: self.http("/healthz")[0] == 200)

    def wait_good(self, slot=None, seconds=150):
        """Until the slot that runs is marked good."""
        def good():
            since_start = re.split("U-Boot 20|BerryMSE: slot ", self.console())[-1]
            return re.search(r"slot ([AB]) is good", since_start)
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


class RaspberryPi3(Machine):
    """QEMU's Raspberry Pi 3B: its SD card's controller, its U-Boot, its watchdog for restarts, a network card
    on its USB. With Debian's kernel, no firmware, no camera, no encoder."""

    card_bus = "sd"

    def __init__(self, built, folder):
        super().__init__(built, folder)
        # Debian's U-Boot for it starts USB first, after which Linux finds no network card there: not with
        # an environment of its own.
        environment = self.built / "raspi3b/uboot.env"
        if environment.exists():
            self._mtools("mcopy", "-o", environment, "::uboot.env")

    def hardware(self, skip_waiting):
        files = self.built / "raspi3b"
        return [
            # Several threads are several times slower here.
            "-M", "raspi3b", "-accel", "tcg,thread=single", "-kernel", files / "u-boot.bin", "-dtb", files / "board.dtb",
            # What the firmware would hand on. QEMU's watchdog starts the machine again as soon as it is
            # opened; and one emulated core at a time is no hurry.
            "-append", "console=ttyS1,115200 berrymse.watchdog=off berrymse.patience=180",
            # The first serial line is the Bluetooth chip's.
            "-serial", "null",
        ]

    def network(self, net):
        # An address of a vendor: Linux calls others usb0.
        return ["-netdev", f"{net},id=net", "-device", "usb-net,netdev=net,mac=40:54:00:12:34:56"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

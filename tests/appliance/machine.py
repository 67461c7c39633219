"""Control of the machine under test: power, card, console and network.

Everything specific to QEMU is in this class. For tests on a real board, for example with labgrid
(PowerProtocol, USBSDMuxDriver, SerialDriver), implement the same methods; the tests need no changes.
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

import firmware
from card import Card

LAYOUT = Path(__file__).parents[2] / "appliance/layout"
# Factor for all timeouts, for hosts with other load.
TIMEOUT_FACTOR = float(os.environ.get("PATIENCE", "1"))
# What Raspberry Pi Imager adds to cmdline.txt: the country for any image, the rest for images with systemd or
# cloud-init. Imager 1 takes every local image for one with systemd.
IMAGER_WORDS = (
    "cfg80211.ieee80211_regdom=DE systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot "
    "systemd.unit=kernel-command-line.target ds=nocloud;i=rpi-imager-1"
)


class Machine:
    def __init__(self, built, folder, size="512M", image=None):
        self.built = Path(built)
        self.folder = Path(folder)
        self.card_file = self.folder / "card.img"
        self.console_file = self.folder / "console.log"
        self.console_file.write_bytes(b"")
        self.qemu = None
        self.card = None
        self.http_port, self.ssh_port = free_port(), free_port()
        # A new card, larger than the image.
        subprocess.run(["cp", "--sparse=always", image or self.built / "card.img", self.card_file], check=True)
        subprocess.run(["truncate", "-s", size, self.card_file], check=True)
        self.key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.power_cycles = 0
        self.ssh_options = []

    # Access to the card while the machine is off.

    def _mtools(self, *arguments, partition="boot", **options):
        command, *rest = arguments
        if partition == "boot":
            with self.card_file.open("rb") as card:
                start, _ = firmware.boot_partition(card)
        else:
            start, _ = self.partition(partition)
        return subprocess.run(
            [command, "-i", f"{self.card_file}@@{start}", *rest], check=True, capture_output=True, **options
        ).stdout

    @staticmethod
    def partition(name):
        """Returns offset and size of a partition according to the layout, in bytes."""
        for line in LAYOUT.read_text().splitlines():
            if line.split()[:1] == [name]:
                start, size = line.split()[3:5]
                return int(start) << 20, int(size) << 20
        raise KeyError(name)

    def content(self, *partitions):
        """Returns a checksum of partitions. Also works while the machine is on."""
        sums = hashlib.sha256()
        with self.card_file.open("rb") as card:
            for name in partitions:
                start, size = self.partition(name)
                card.seek(start)
                sums.update(card.read(size))
        return sums.hexdigest()

    def read_config(self):
        return self._mtools("mtype", "::berrymse.toml").decode()

    def write_config(self, text):
        self._mtools("mcopy", "-o", "-", "::berrymse.toml", input=text.encode())

    def boot_set(self):
        """Returns the identity of the boot files that start the machine; they must be complete."""
        return firmware.identity(self.card_file)

    def add_arguments(self, arguments):
        """Adds kernel arguments to slot A."""
        text = self._mtools("mtype", "::slot.txt", partition="boot-a").decode()
        text = re.sub("^arguments=.*$", f"\\g<0> {arguments}", text, count=1, flags=re.M)
        assert arguments in text, text
        self._mtools("mcopy", "-o", "-", "::slot.txt", partition="boot-a", input=text.encode())

    def write_boot(self, name, text):
        self._mtools("mcopy", "-o", "-", f"::{name}", input=text.encode())

    def boot_files(self):
        """Returns the names of the files on the boot partition."""
        return set(self._mtools("mdir", "-b", "::").decode().replace("::/", "").split("\n"))

    def public_key(self):
        return (self.folder / "key.pub").read_text().strip()

    def allow_ssh(self, more=""):
        """Writes a configuration with the key of the tests and the lines `more` to the card."""
        key = self.public_key()
        camera = "" if "[[camera]]" in more else '[[camera]]\nname = "camera"\n'
        self.write_config(f'{camera}{more}\n[server]\nlisten = "0.0.0.0:80"\n[system]\nhostname = "tested"\nssh_keys = ["{key}"]\n')

    # Power.

    def power_on(self, write_speed=None, on_write=None, wire=None, skip_waiting=False):
        """Switches the machine on.

        `wire` is a Unix socket for Ethernet frames, in place of QEMU's user network. With `skip_waiting`, the
        guest's time counts instructions and skips idle periods, so that waiting takes no real time and the
        load of the host has no effect. Waiting for replies from outside may then take long in guest time.
        """
        assert self.qemu is None
        address = self.folder / "card.socket"
        self.card = Card(self.card_file, address, write_speed)
        self.card.on_write = on_write
        net = f"stream,addr.type=unix,addr.path={wire}" if wire else f"user,{self.forward()}"
        self.qemu = subprocess.Popen(
            [
                "qemu-system-aarch64", "-L", self.built / "tools/usr/share/qemu", "-display", "none", "-monitor", "none",
                "-drive", f"file=nbd+unix:///?socket={address},format=raw,id=card,cache=writeback,if={self.card_bus}",
                *self.hardware(skip_waiting), *self.network(net), "-serial", f"file:{self.console_file}.{self.power_cycles}",
            ],
            stdin=subprocess.DEVNULL,
        )

    card_bus = "none"

    def hardware(self, skip_waiting):
        """QEMU options for the hardware, except card, network and console."""
        processor = ["-smp", "2", "-accel", "tcg,thread=multi"]
        if skip_waiting:
            processor = ["-smp", "1", "-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off"]
        return [
            "-M", "virt", "-cpu", "cortex-a53", *processor, "-m", "512", "-bios", self.built / "u-boot.bin",
            "-device", "virtio-blk-pci,drive=card", "-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
        ]

    def network(self, net):
        """QEMU options for the network card. `net` is the network backend."""
        return ["-netdev", f"{net},id=net", "-device", "virtio-net-pci,netdev=net,romfile="]

    def forward(self):
        """Port forwarding options of QEMU's user network."""
        return f"hostfwd=tcp:127.0.0.1:{self.http_port}-:80,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"

    def power_off(self, rng=None, share=None):
        """Cuts the power. Returns a report on the unflushed writes."""
        if self.qemu is None:
            return ""
        self.qemu.kill()
        self.qemu.wait()
        self.qemu = None
        report = self.card.power_off(rng, share)
        self.power_cycles += 1
        return report

    # Console, HTTP and SSH.

    def console(self):
        """The console output since power on."""
        file = Path(f"{self.console_file}.{self.power_cycles}")
        return file.read_text(errors="replace") if file.exists() else ""

    def starts(self):
        """The slots that U-Boot has started since power on, in order."""
        return re.findall(r"BerryMSE: slot ([AB]), \S+ more attempts", self.console())

    def wait(self, what, seconds, condition):
        end = time.monotonic() + seconds * TIMEOUT_FACTOR
        while time.monotonic() < end:
            result = condition()
            if result:
                return result
            assert self.qemu.poll() is None, "QEMU has exited"
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.console()[-3000:]}")

    def http(self, path, method="GET", body=None, timeout=5, headers=None):
        """Sends a request. Returns status and text; the status is 0 without a response."""
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
        """Returns the first `size` bytes of the stream."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/live.mp4", timeout=timeout) as answer:
            return answer.read(size)

    def status(self):
        return json.loads(self.http("/api/status")[1])

    def update(self):
        """Returns the update status; empty if it is not available."""
        status, text = self.http("/api/update")
        return json.loads(text) if status == 200 else {}

    def start_update(self, url=None, upload=None, downgrade=False):
        """Starts an update in the same way as the page."""
        if url:
            body, headers = json.dumps({"url": url, "downgrade": downgrade}), {"Content-Type": "application/json"}
        else:
            body, headers = Path(upload).read_bytes(), {"Content-Type": "application/octet-stream"}
            headers |= {"Berrymse-Downgrade": "true"} if downgrade else {}
        status, text = self.http("/api/update", "POST", body, timeout=120, headers=headers)
        assert status == 202, f"{status} {text}"

    def wait_update(self, seconds=300):
        """Waits until the update is installed or has failed. Returns the final status and the progress values."""
        seen = []

        def ended():
            now = self.update()
            if now.get("state") == "installing" and now.get("progress") not in seen:
                seen.append(now.get("progress"))
            return now if now.get("state") in ("installed", "failed") else None

        return self.wait("end of the update", seconds, ended), seen

    def wait_healthy(self, seconds=150):
        self.wait("healthy cameras", seconds, lambda: self.http("/healthz")[0] == 200)

    def wait_good(self, slot=None, seconds=150):
        """Waits until the running slot is marked good."""
        def good():
            since_start = re.split("U-Boot 20|BerryMSE: slot ", self.console())[-1]
            return re.search(r"slot ([AB]) is good", since_start)
        found = self.wait("the good mark of the slot", seconds, good).group(1)
        assert slot in (None, found), f"running from slot {found}"

    def ssh(self, command, check=True, timeout=120, data=None):
        result = subprocess.run(
            [
                "ssh", "-q", "-i", self.key, "-p", str(self.ssh_port), "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={20 * TIMEOUT_FACTOR:.0f}",
                *self.ssh_options, "root@127.0.0.1", command,
            ],
            capture_output=True, timeout=timeout * TIMEOUT_FACTOR, input=data,
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
    """QEMU's Raspberry Pi 3B: SD card controller, U-Boot, watchdog for restarts and USB network card. With
    Debian's kernel, but without firmware, camera and encoder."""

    card_bus = "sd"

    def __init__(self, built, folder):
        super().__init__(built, folder)
        # By default, Debian's U-Boot starts USB, after which Linux finds no USB network card. A separate
        # environment prevents this.
        environment = self.built / "raspi3b/uboot.env"
        if environment.exists():
            self._mtools("mcopy", "-o", environment, "::uboot.env")

    def hardware(self, skip_waiting):
        files = self.built / "raspi3b"
        return [
            # Multiple threads are several times slower here.
            "-M", "raspi3b", "-accel", "tcg,thread=single", "-kernel", files / "u-boot.bin", "-dtb", files / "board.dtb",
            # The kernel command line that the firmware would pass. QEMU's watchdog resets the machine as soon
            # as it is opened, and the emulation is slow.
            "-append", f"{(files / 'arguments').read_text().strip()} berrymse.watchdog=off berrymse.patience=180 {IMAGER_WORDS}",
            # Serial lines before the console: the first one belongs to the Bluetooth chip, unless an overlay disables it.
            *["-serial", "null"] * int((files / "serial").read_text()),
        ]

    def network(self, net):
        # A vendor's address: with others, Linux names the interface usb0.
        return ["-netdev", f"{net},id=net", "-device", "usb-net,netdev=net,mac=40:54:00:12:34:56"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

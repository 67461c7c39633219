"""The 32-bit boot path on QEMU's Raspberry Pi 2B: U-Boot's rpi_2, the boot script, bootz, and Debian's kernel, whose
initramfs prints the memory that Linux has. ./ci/test layers unpacks the packages."""

import os
import pathlib
import re
import shutil
import struct

from test_buildroot import ROOT, emulate, make_card, run

PACKAGES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "layers/armhf"
MEMORY = 1 << 30
# Used by the video processor.
VIDEO_MEMORY = 64 << 20
LOST = 128 << 20

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox grep -E "MemTotal" /proc/meminfo
/bin/busybox grep "System RAM" /proc/iomem
echo end of the list
/bin/busybox sleep 1000
"""


def cpio(files):
    """An initramfs in the kernel's format. `files`: {name: (mode, content)}."""
    archive = b""
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        for part in (head, content):
            archive += part + bytes(-len(part) % 4)
    return archive


def as_kernel(u_boot):
    """U-Boot as a kernel for QEMU, which passes only a kernel the device tree and stops the other processors. QEMU loads
    it at 0x10000; these instructions move it to 0x8000, where the firmware loads U-Boot."""
    u_boot += bytes(-len(u_boot) % 4)
    end = 4 + len(u_boot)
    start = [0xEA000000 | (end - 8) >> 2]  # b end
    mover = [
        0xE59F4018,  # ldr r4, from
        0xE59F6018,  # ldr r6, to
        0xE3A05902,  # mov r5, #0x8000
        0xE4947004,  # ldr r7, [r4], #4
        0xE4857004,  # str r7, [r5], #4
        0xE1540006,  # cmp r4, r6
        0x3AFFFFFB,  # blo: the fourth instruction
        0xE3A0F902,  # mov pc, #0x8000
        0x10004,  # from
        0x10000 + end,  # to
    ]
    return struct.pack("<I", *start) + u_boot + struct.pack(f"<{len(mover)}I", *mover)


def device_tree(at):
    """The kernel's device tree, with the card on the controller that the firmware uses for Wi-Fi on other boards: QEMU
    does not report the clock of the other controller to U-Boot, which then divides by 0."""
    (kernel,) = PACKAGES.glob("usr/lib/linux-image-*/bcm2836-rpi-2-b.dtb")
    tree = at / "tree.dtb"
    shutil.copy(kernel, tree)
    pins = run("fdtget", tree, "/__symbols__", "emmc_gpio48").strip()
    number = run("fdtget", "-t", "x", tree, pins, "phandle").strip()
    run("fdtput", "-t", "s", tree, "/soc/mmc@7e202000", "status", "disabled")
    for kind, name, value in (("s", "status", "okay"), ("s", "pinctrl-names", "default"), ("x", "pinctrl-0", number), ("x", "bus-width", "4")):
        run("fdtput", "-t", kind, tree, "/soc/mmc@7e300000", name, value)
    return tree


def test_linux_has_all_memory_that_the_video_processor_leaves(tmp_path):
    (kernel,) = PACKAGES.glob("boot/vmlinuz-*")
    (tmp_path / "slot").mkdir()
    files = {
        "bin": (0o40755, b""), "proc": (0o40755, b""),
        "bin/busybox": (0o100755, (PACKAGES / "usr/bin/busybox").read_bytes()), "init": (0o100755, INIT.encode()),
    }  # fmt: skip
    (tmp_path / "slot/initrd").write_bytes(cpio(files))
    card = make_card(tmp_path, kernel.read_bytes(), "kernel=image.gz\ninitrd=initrd\nstart=bootz\n")
    # QEMU accepts only powers of two.
    run("truncate", "-s", "512M", card)
    (tmp_path / "u-boot").write_bytes(as_kernel((PACKAGES / "usr/lib/u-boot/rpi_2/u-boot.bin").read_bytes()))
    text = emulate(
        [
            "qemu-system-arm", "-M", "raspi2b", "-kernel", tmp_path / "u-boot", "-dtb", device_tree(tmp_path),
            "-append", "console=ttyAMA0,115200", "-drive", f"file={card},format=raw,if=sd",
        ],
        tmp_path, "end of the list|attempts.*attempts",
    )  # fmt: skip
    total = int(re.search(r"MemTotal: +(\d+) kB", text)[1]) << 10
    # The kernel's own memory is not part of MemTotal.
    assert MEMORY - VIDEO_MEMORY >= total > MEMORY - VIDEO_MEMORY - LOST / 2, text
    assert re.search("^00000000-.* : System RAM", text, re.M), text

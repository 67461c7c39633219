"""ci/image/drivers, which asks the BusyBox of a finished image for the driver of each device."""

import shutil
import subprocess

import pytest
from devices import ROOT, parts
from machine import BUSYBOX

RELEASE = "6.12.61-v8"
BOARD = "rpi4_64"
PARTS = [part for part in parts() if BOARD in part.boards and part.value == "m"]


@pytest.fixture
def root(tmp_path):
    """A root file system whose kernel has all modules of a board."""
    root = tmp_path / "root"
    shutil.copytree(BUSYBOX, root, symlinks=True, ignore=shutil.ignore_patterns("share", "gconv"))
    for link in ("bin", "sbin", "lib", "lib64"):
        if not (root / link).exists():
            (root / link).symlink_to(f"usr/{link}")
    (root / "usr/sbin").mkdir(exist_ok=True)
    (root / "usr/sbin/modprobe").symlink_to("../bin/busybox")
    modules = root / f"usr/lib/modules/{RELEASE}"
    modules.mkdir(parents=True)
    names = sorted({part.driver for part in PARTS})
    (modules / "modules.dep").write_text("".join(f"kernel/{name}.ko:\n" for name in names))
    aliases = [(part.device.replace("of:", "of:N*T*C"), part.driver.replace("-", "_")) for part in PARTS if part.device != "-"]
    (modules / "modules.alias").write_text("".join(f"alias {alias} {name}\n" for alias, name in aliases))
    return root


def drivers(root, *board):
    """Makes an image and runs the script. Returns its status, output and errors."""
    image = root.parent / "root.img"
    subprocess.run(["mksquashfs", root, image, "-quiet", "-no-progress", "-noappend"], check=True, capture_output=True)
    done = subprocess.run([ROOT / "ci/image/drivers", image, *board], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_finds_the_driver_of_every_device(root):
    expected = sum(part.device != "-" for part in PARTS)
    status, said, errors = drivers(root, BOARD)
    assert status == 0, errors
    assert f"finds {expected} drivers" in said and said.startswith("BusyBox v1.37")


def test_rejects_image_in_which_busybox_does_not_find_a_driver(root):
    alias = root / f"usr/lib/modules/{RELEASE}/modules.alias"
    alias.write_text(alias.read_text().replace("alias vchiq:bcm2835-isp ", "alias vchiq:bcm2835-isps "))
    status, _, errors = drivers(root, BOARD)
    assert status != 0 and "modprobe does not find the module bcm2835-isp by vchiq:bcm2835-isp" in errors


def test_rejects_image_without_modules(root):
    modules = root / f"usr/lib/modules/{RELEASE}"
    (modules / "modules.dep").write_text("")
    assert "modules.dep" in drivers(root, BOARD)[2]
    shutil.rmtree(modules)
    assert "contains no kernel modules" in drivers(root, BOARD)[2]


def test_image_with_another_kernel_needs_only_the_modules_that_it_has(root):
    modules = root / f"usr/lib/modules/{RELEASE}"
    (modules / "modules.dep").write_text("kernel/uvcvideo.ko:\n")
    status, said, errors = drivers(root)
    assert status == 0 and "finds 1 drivers" in said, errors
    (modules / "modules.dep").write_text("kernel/loop.ko:\n")
    assert "contains no module in" in drivers(root)[2]


def test_rejects_image_whose_modprobe_is_not_busybox(root):
    (root / "usr/sbin/modprobe").unlink()
    shutil.copy("/bin/true", root / "usr/sbin/modprobe")
    status, _, errors = drivers(root, BOARD)
    assert status != 0 and "is not BusyBox" in errors

"""Configuration and modules of the Raspberry Pi kernel, as built by both trees.

    KERNEL_TREE=DIR ./ci/test layers        or, without the other tests:
    KERNEL_TREE=DIR target/layers/venv/bin/python -m pytest tests/layers/kernel.py

DIR contains a source tree of https://github.com/raspberrypi/linux: `./ci/image/kernel fetch` downloads the ones
that the two trees pin. The fragments are merged into each board's configuration with that kernel's merge_config.sh,
once as in Buildroot (defaults of the board) and once as in meta-raspberrypi (--alldefconfig). KERNEL_FOR=buildroot or
KERNEL_FOR=yocto selects one of them. Then the tests check every row of devices.tsv: the symbol has its value, it
builds the driver, and the driver supports the device.

The 64-bit modules in the table are compiled, and BusyBox modprobe must find each by the alias of its device. This
takes ten minutes. Requires bison, flex, bc, libssl-dev, kmod, gcc-aarch64-linux-gnu and gcc-arm-linux-gnueabihf.
"""

import functools
import os
import pathlib
import re
import subprocess

import machine
import pytest
from devices import BOARDS, ROOT, YOCTO_BOARDS, fragments, parts, settings

KERNEL = pathlib.Path(os.environ["KERNEL_TREE"]).resolve()
COMPILER = {"arm": "arm-linux-gnueabihf-", "arm64": "aarch64-linux-gnu-"}
TREES = os.environ.get("KERNEL_FOR", "buildroot yocto").split()
# The Yocto layer has no 32-bit image for the Raspberry Pi 4.
MERGES = [(board, tree) for board in BOARDS for tree in TREES if (board, tree) != ("rpi4", "yocto")]
MERGES += [(board, "yocto") for board in YOCTO_BOARDS if "yocto" in TREES]


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=KERNEL, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]


def architecture(board):
    return "arm64" if board in YOCTO_BOARDS or "BR2_aarch64=y" in BOARDS[board] else "arm"


def defconfig(board):
    # As in linux-raspberrypi.inc of meta-raspberrypi.
    if board == "rpi5":
        return "bcm2712"
    return re.search('^BR2_LINUX_KERNEL_DEFCONFIG="(.*)"', BOARDS[board], re.M)[1]


def environment(board):
    arch = architecture(board)
    return os.environ | {"ARCH": arch, "CROSS_COMPILE": COMPILER[arch]}


def merge(board, tree, out):
    """Writes out/.config."""
    base = f"arch/{architecture(board)}/configs/{defconfig(board)}_defconfig"
    script = ["scripts/kconfig/merge_config.sh", "-O", out]
    if tree == "buildroot":
        run(*script, "-m", base, *fragments(tree, board), env=environment(board))
        run("make", "-s", f"O={out}", "olddefconfig", env=environment(board))
    else:
        run(*script, base, *fragments(tree, board), env=environment(board))


@pytest.mark.parametrize("board, tree", MERGES)
def test_configuration_meets_the_requirements_of_each_part(board, tree, tmp_path):
    merge(board, tree, tmp_path)
    have = settings(tmp_path / ".config")
    wanted = {(part.name, part.symbol): part.value for part in parts() if board in part.boards}
    wrong = {part: have.get(part[1], "n") for part, value in wanted.items() if have.get(part[1], "n") != value}
    assert wrong == {}


@functools.cache
def makefiles():
    """Returns the Makefiles of the drivers and the network stack, with continued lines joined."""
    files = [*KERNEL.glob("drivers/**/Makefile"), *KERNEL.glob("net/**/Makefile")]
    return {file: file.read_text(errors="replace").replace("\\\n", " ") for file in files}


def folders(part):
    """Returns the directories in which the part's symbol builds its driver."""
    rule = re.compile(rf"^obj-\$\(CONFIG_{part.symbol}\)\s*\+?=.*(?<![\w-]){re.escape(part.driver)}\.o\b", re.M)
    return [file.parent for file, text in makefiles().items() if rule.search(text)]


@pytest.mark.parametrize("part", [part for part in parts() if part.driver != "-"], ids=lambda part: part.name)
def test_symbol_builds_the_driver_of_the_device(part):
    found = folders(part)
    assert len(found) == 1, f"CONFIG_{part.symbol} builds {part.driver}.o in {found}"
    if part.device.startswith("of:"):
        compatible = part.device.removeprefix("of:")
        sources = [source.read_text(errors="replace") for source in found[0].rglob("*.c")]
        assert any(f'"{compatible}"' in source for source in sources), f"{found[0]} does not contain {compatible}"


def test_overlays_exist_and_their_devices_are_in_the_table():
    """The table has a row for each sensor and lens that an overlay adds."""
    made = (KERNEL / "arch/arm/boot/dts/overlays/Makefile").read_text().split()
    known = {part.device for part in parts()}
    for name in (ROOT / "appliance/overlays").read_text().splitlines():
        if name[0] == "#":
            continue
        assert f"{name}.dtbo" in made, name
        folder = KERNEL / "arch/arm/boot/dts/overlays"
        text = (folder / f"{name}-overlay.dts").read_text()
        for include in re.findall('#include "(.*)"', text):
            text += (folder / include).read_text()
        added = re.findall('compatible = "((?:sony|ovti|dongwoon|adi|asahi-kasei|rohm|raspberrypi),.*)"', text)
        # A monochrome variant that uses the same driver.
        added = [device for device in added if device != "sony,imx290llr"]
        assert {f"of:{device}" for device in added} <= known, name


@pytest.mark.parametrize("name", ("bcm270x.dtsi", "bcm2711-rpi-ds.dtsi"))
def test_u_boot_knows_the_serial_line(name):
    """U-Boot crashes without a driver for it. Buildroot adds the name with a patch; newer kernels have it."""
    text = (KERNEL / "arch/arm/boot/dts/broadcom" / name).read_text()
    compatible = re.search(r"^&uart0 \{[^}]*?compatible = ([^;]*);", text, re.M)[1]
    assert '"arm,pl011"' in compatible, f"{compatible}: run ./ci/image/kernel patch {KERNEL}"


# Modules are found by the alias in the device's uevent.


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A machine with the compiled modules of the table and the index generated by depmod."""
    board, out = "rpi4_64", tmp_path_factory.mktemp("kernel")
    merge(board, TREES[0], out)
    make = ["make", "-s", f"-j{os.cpu_count()}", f"O={out}"]
    run(*make, "modules_prepare", env=environment(board))
    objects = {folders(part)[0].relative_to(KERNEL) / f"{part.driver}.ko" for part in parts() if part.value == "m"}
    # Symbols of the kernel itself remain unresolved, because it is not compiled.
    run(*make, "KBUILD_MODPOST_WARN=1", *sorted(objects), env=environment(board))
    pi = machine.Machine(tmp_path_factory.mktemp("machine") / "root")
    release = os.uname().release
    for name in objects:
        pi.write(f"lib/modules/{release}/kernel/{name}", "")
        (pi.root / f"lib/modules/{release}/kernel/{name}").write_bytes((out / name).read_bytes())
    run("/sbin/depmod", "-b", pi.root, release)
    assert pi.read(f"lib/modules/{release}/modules.dep")
    return pi


def test_assemble_check_finds_the_modules(modules):
    run(ROOT / "appliance/assemble", "check", modules.root, "rpi4_64")


@pytest.mark.parametrize("part", [part for part in parts() if part.value == "m" and part.device != "-"], ids=lambda part: part.name)
def test_busybox_finds_the_module_by_the_alias_of_its_device(part, modules):
    alias = re.sub("^of:", "of:NdeviceT(null)C", part.device)
    _, said = modules.run("/usr/bin/busybox", "modprobe", "-b", "-D", alias)
    assert re.search(rf"/{re.escape(part.driver)}\.ko", said), said

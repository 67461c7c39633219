"""Checks of the Buildroot tree that need neither a build nor Buildroot itself, unlike `ci/image/buildroot check`. The
tools come from Debian: mkimage, mtools, mkfs, sfdisk, QEMU and a U-Boot for QEMU."""

import gzip
import hashlib
import os
import pathlib
import re
import struct
import subprocess
import zlib

import pytest
from devices import YOCTO_BOARDS, parts

ROOT = pathlib.Path(__file__).parents[2]
TREE = ROOT / "buildroot-external"
ASSEMBLE = ROOT / "appliance/assemble"
BOARDS = sorted(file.parent.name for file in TREE.glob("board/*/board.config"))
MIB = 1024 * 1024


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def settings(text):
    """Returns the settings in a file with Kconfig syntax, including "# X is not set"."""
    lines = [line for line in text.splitlines() if line.startswith(("BR2_", "CONFIG_", "# BR2_", "# CONFIG_"))]
    assert len(set(lines)) == len(lines), sorted(line for line in lines if lines.count(line) > 1)
    return set(lines)


def layout():
    rows = (line.split() for line in (ROOT / "appliance/layout").read_text().splitlines())
    return {row[0]: (int(row[3]), int(row[4])) for row in rows if row and row[0] != "#"}


def test_each_board_has_a_configuration():
    assert {f"berrymse_{board}_defconfig" for board in BOARDS} == set(os.listdir(TREE / "configs"))
    assert {"rpi0w", "rpi0_2w_rpi3_64", "rpi4_64", "rpi4", "qemu_aarch64"} <= set(BOARDS)


@pytest.mark.parametrize("board", BOARDS)
def test_configuration_matches_its_fragments(board):
    """savedefconfig writes a minimal, sorted file. This test checks that the file was regenerated after a change."""
    own = (TREE / f"board/{board}/board.config").read_text()
    shared = own.splitlines()[0].removeprefix("# with: ").split()
    assert shared[0] == "common"
    text = "\n".join([(TREE / f"board/common/{name}.config").read_text() for name in shared] + [own])
    made = (TREE / f"configs/berrymse_{board}_defconfig").read_text()
    assert settings(text) == settings(made), "run ci/image/buildroot configs"
    assert len(settings(made)) == len(made.splitlines())
    for file in re.findall(r"\$\(BR2_EXTERNAL_BERRYMSE_PATH\)/([\w./-]+)", made):
        assert (TREE / file).exists(), file


def test_kernel_has_all_symbols_in_the_fragments():
    lines = (TREE / "board/common/linux.symbols").read_text().splitlines()
    known = {line.split()[0] for line in lines if not line.startswith("#")}
    for file in TREE.glob("board/*/linux*"):
        if file.suffix in (".fragment", ".config"):
            asked = settings(file.read_text())
            names = {re.search(r"CONFIG_(\w+)", line)[1] for line in asked}
            assert names <= known, (file, names - known, "ci/image/buildroot symbols")


def test_images_with_wifi_contain_iw():
    assert "@iw dev" in (ROOT / "appliance/root/etc/mdev.conf").read_text()
    for board in BOARDS:
        made = (TREE / f"configs/berrymse_{board}_defconfig").read_text().splitlines()
        assert ("BR2_PACKAGE_IW=y" in made) == ("BR2_PACKAGE_WPA_SUPPLICANT=y" in made), board
    recipe = (ROOT / "meta-berrymse/recipes-core/images/berrymse-image.bb").read_text()
    assert re.search(r"^    iw \\$", recipe, re.M)


def environment(tmp_path, config=""):
    """Returns the environment of Buildroot's scripts."""
    (tmp_path / "config").write_text(config)
    (tmp_path / "host/bin").mkdir(parents=True, exist_ok=True)
    base = {
        "HOST_DIR": tmp_path / "host",
        "BASE_DIR": tmp_path,
        "BINARIES_DIR": tmp_path / "images",
        "TARGET_DIR": tmp_path / "target",
        "BR2_CONFIG": tmp_path / "config",
        "SOURCE_DATE_EPOCH": "1750000000",
    }
    return os.environ | {name: str(value) for name, value in base.items()}


def test_root_contains_all_files_of_the_appliance(tmp_path):
    target = tmp_path / "target"
    # The state in which Buildroot leaves the directory.
    for folder in ("etc/init.d", "etc/dbus-1/system.d", "usr/share/dbus-1", "usr/lib/modules/6.12.61", "tmp", "run"):
        (target / folder).mkdir(parents=True)
    (target / "usr/lib/modules/6.12.61/modules.dep").write_text("kernel/uvcvideo.ko:\n")
    (target / "etc/init.d/S01syslogd").write_text("")
    (target / "etc/resolv.conf").symlink_to("../tmp/resolv.conf")
    (target / "etc/dropbear").symlink_to("../var/run/dropbear")
    script = TREE / "board/common/post-build.sh"
    run(script, target, "rpi4_64", env=environment(tmp_path))
    promised = [file for file in (ROOT / "appliance/root").rglob("*") if file.is_file()]
    assert len(promised) > 10
    for file in promised:
        there = target / file.relative_to(ROOT / "appliance/root")
        assert there.is_file(), there
        assert os.access(there, os.X_OK) == os.access(file, os.X_OK), there
        assert not re.search(r"@[A-Z_0-9]+@", there.read_text()), there
    assert "compatible=berrymse-rpi4-64" in (target / "etc/rauc/system.conf").read_text()
    assert (target / "etc/rauc/keyring.pem").read_text() == (tmp_path / "keys/ca.pem").read_text()
    assert (target / "etc/berrymse-development").exists(), "the keys are in a build directory"
    assert not (target / "etc/init.d/S01syslogd").exists()
    assert not (target / "etc/resolv.conf").is_symlink()

    # With the user's own keys, it is not a development image.
    own = environment(tmp_path, f'BR2_PACKAGE_BERRYMSE_KEYRING="{tmp_path}/keys/stranger.pem"\n')
    run(script, target, "rpi4_64", env=own)
    assert (target / "etc/rauc/keyring.pem").read_text() == (tmp_path / "keys/stranger.pem").read_text()
    assert not (target / "etc/berrymse-development").exists()


def checked(root):
    """Returns the error message of `assemble check` for a root file system."""
    return subprocess.run([ASSEMBLE, "check", root], capture_output=True, text=True).stderr


def test_rejects_root_whose_drivers_cannot_load(tmp_path):
    modules = tmp_path / "usr/lib/modules/6.12.61"
    assert "contains no kernel modules" in checked(tmp_path)
    (modules / "kernel").mkdir(parents=True)
    assert "modules.dep is empty or missing" in checked(tmp_path)
    (modules / "modules.dep").write_text("")
    assert "modules.dep is empty or missing" in checked(tmp_path)
    (modules / "modules.dep").write_text("kernel/uvcvideo.ko:\n")
    assert checked(tmp_path) == ""
    (modules / "kernel/uvcvideo.ko.xz").write_text("compressed")
    assert "compressed modules" in checked(tmp_path)


def test_rejects_root_without_a_driver_of_the_board(tmp_path):
    modules = tmp_path / "usr/lib/modules/6.12.61"
    modules.mkdir(parents=True)
    here = [part for part in parts() if "rpi4_64" in part.boards and part.value == "m"]
    dep = {f"kernel/drivers/{part.driver}.ko:\n" for part in here}
    alias = {f"alias {part.device.replace('of:', 'of:N*T*C')} {part.driver.replace('-', '_')}\n" for part in here if part.device != "-"}

    def said(dep, alias, board="rpi4_64"):
        (modules / "modules.dep").write_text("".join(dep))
        (modules / "modules.alias").write_text("".join(alias))
        return subprocess.run([ASSEMBLE, "check", tmp_path, board], capture_output=True, text=True).stderr

    assert said(dep, alias) == ""
    unicam = "kernel/drivers/bcm2835-unicam-legacy.ko:\n"
    assert "CONFIG_VIDEO_BCM2835_UNICAM_LEGACY=m" in said(dep - {unicam}, alias)
    isp = "alias vchiq:bcm2835-isp bcm2835_isp\n"
    assert "does not map vchiq:bcm2835-isp to the module bcm2835-isp" in said(dep, alias - {isp})
    # A built-in driver needs no module.
    (modules / "modules.builtin").write_text("kernel/drivers/bcm2835-unicam-legacy.ko\n")
    assert said(dep - {unicam}, alias) == ""
    assert "board rpi9 not found in" in said(dep, alias, "rpi9")


def test_both_trees_check_the_drivers_of_their_boards(tmp_path):
    target = tmp_path / "target"
    (target / "usr/lib/modules/6.12.61").mkdir(parents=True)
    (target / "usr/lib/modules/6.12.61/modules.dep").write_text("kernel/uvcvideo.ko:\n")
    (target / "etc/init.d").mkdir(parents=True)
    env = environment(tmp_path, 'BR2_LINUX_KERNEL_DEFCONFIG="bcm2711"\n')
    done = subprocess.run([TREE / "board/common/post-build.sh", target, "rpi4_64"], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "is missing from" in done.stderr
    recipe = (ROOT / "meta-berrymse/recipes-core/images/berrymse-image.bb").read_text()
    assert "assemble check ${IMAGE_ROOTFS} ${BERRYMSE_PARTS}" in recipe
    asked = dict(re.findall(r'^BERRYMSE_PARTS:([\w-]+) \?= "(\w+)"$', recipe, re.M))
    assert set(asked) == {"raspberrypi0-wifi", "raspberrypi3-64", "raspberrypi4-64", "raspberrypi5"}
    assert set(asked.values()) <= {*BOARDS, *YOCTO_BOARDS}


def test_rejects_root_whose_libcamera_finds_no_camera(tmp_path):
    (tmp_path / "usr/lib/modules/6.12.61").mkdir(parents=True)
    (tmp_path / "usr/lib/modules/6.12.61/modules.dep").write_text("kernel/uvcvideo.ko:\n")
    (tmp_path / "usr/lib/libcamera.so.0.7.0").write_bytes(b"\x7fELF\0libc.so.6\0")
    assert checked(tmp_path) == ""
    (tmp_path / "usr/lib/libcamera.so.0.7.0").write_bytes(b"\x7fELF\0libc.so.6\0libudev.so.1\0")
    assert "libcamera is built with udev" in checked(tmp_path)
    (tmp_path / "usr/sbin").mkdir()
    (tmp_path / "usr/sbin/udevd").touch()
    assert checked(tmp_path) == ""


def test_no_image_with_libcamera_has_udev():
    """Buildroot builds libcamera with udev support if and only if the image contains udev."""
    for board in BOARDS:
        made = (TREE / f"configs/berrymse_{board}_defconfig").read_text()
        if "LIBCAMERA" in made:
            assert "BR2_ROOTFS_DEVICE_CREATION_DYNAMIC_MDEV=y" in made
            assert not re.search("BR2_PACKAGE_(EUDEV|SYSTEMD|HAS_UDEV)", made)


def test_both_trees_reject_root_without_modules(tmp_path):
    """Buildroot runs depmod before post-build.sh; OpenEmbedded runs it after ROOTFS_POSTPROCESS_COMMAND."""
    (tmp_path / "target/etc/init.d").mkdir(parents=True)
    script = TREE / "board/common/post-build.sh"
    done = subprocess.run([script, tmp_path / "target", "rpi4_64"], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode != 0 and "no driver would load" in done.stderr
    recipe = (ROOT / "meta-berrymse/recipes-core/images/berrymse-image.bb").read_text()
    assert 'IMAGE_PREPROCESS_COMMAND += "berrymse_check"' in recipe


def test_kernel_modules_are_not_compressed():
    for file in (TREE / "board/common/linux.fragment", ROOT / "meta-berrymse/recipes-kernel/linux/files/berrymse.cfg"):
        assert "# CONFIG_MODULE_COMPRESS is not set" in settings(file.read_text()), file


def overlays():
    return [name for name in (ROOT / "appliance/overlays").read_text().splitlines() if name[0] != "#"]


def image(board, at):
    """Runs post-image.sh with placeholders for firmware, kernel and root. Returns (card, slot.txt, config.txt)."""
    images = at / "images"
    (images / "rpi-firmware/overlays").mkdir(parents=True)
    for name in overlays():
        (images / f"rpi-firmware/overlays/{name}.dtbo").write_text("overlay")
    kernel = "Image.gz" if "BR2_aarch64=y" in (TREE / f"board/{board}/board.config").read_text() else "zImage"
    for name in ("rpi-firmware/start.elf", "u-boot.bin", "bcm2710-rpi-3-b.dtb", kernel):
        (images / name).write_text(name)
    (images / "rootfs.squashfs").write_bytes(b"hsqs" * 2000)
    env = environment(at)
    for tool in ("bmaptool", "xz"):
        (at / f"host/bin/{tool}").write_text("#!/bin/sh\n")
        (at / f"host/bin/{tool}").chmod(0o755)
    # Without a signer, no bundle is created, so RAUC is not needed.
    wide = "BR2_aarch64=y\n" if kernel == "Image.gz" else ""
    (at / "config").write_text(f'{wide}BR2_PACKAGE_BERRYMSE_KEYRING="{at}/ca.pem"\n')
    (at / "ca.pem").write_text("a certificate")
    modules = at / "target/usr/lib/modules/6.12"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("a.ko:\n")
    (at / "target/etc").mkdir()
    run(TREE / "board/common/post-build.sh", at / "target", board, env=env)
    run(TREE / "board/common/post-image.sh", images, board, env=env)
    card = images / "sdcard.img"
    slot = run("mtype", "-i", images / "slot.img", "::slot.txt")
    config = run("mtype", "-i", f"{card}@@{layout()['boot'][0] * MIB}", "::config.txt")
    return card, dict(line.split("=", 1) for line in slot.splitlines()), config.splitlines()


PIS = [board for board in BOARDS if board != "qemu_aarch64"]


@pytest.mark.parametrize("board", PIS)
def test_raspberry_pi_slots_contain_the_kernel_arguments(board, tmp_path):
    """The arguments are in the slot, which is part of every update, and not in cmdline.txt, which is not."""
    _, slot, _ = image(board, tmp_path)
    assert slot["arguments"] == (ROOT / "appliance/raspberrypi/arguments").read_text().strip()


@pytest.mark.parametrize("board", PIS)
def test_config_txt_matches_the_camera_of_the_board(board, tmp_path):
    card, slot, config = image(board, tmp_path)
    wide = "BR2_aarch64=y" in (TREE / f"board/{board}/board.config").read_text()
    for line in ("arm_64bit=1", "camera_auto_detect=1", "dtoverlay=cma,cma-128"):
        assert (line in config) == wide, line
    for line in ("arm_64bit=0", "camera_auto_detect=0", "start_x=1", "gpu_mem=128"):
        assert (line in config) != wide, line
    # Each setting occurs only once, because the firmware uses the last one.
    names = [line.split("=")[0] for line in config if line and line[0] not in "#[" and not line.startswith("dtoverlay=")]
    assert len(set(names)) == len(names), config
    assert "enable_uart=1" in config and "dtoverlay=disable-bt" in config
    # This setting is for the Compute Module 4 only; all settings after it are for all boards.
    start = config.index("[cm4]")
    assert config[start + 1 : start + 3] == ["dtoverlay=dwc2,dr_mode=host", "[all]"]
    assert [line for line in config if line.startswith("[")] == ["[cm4]", "[all]", "[all]"]
    # The user's lines follow, and apply to all boards.
    assert config[-2:] == ["[all]", "# Your own lines go below this one: updates keep them."]
    # cma= would rename the heap to "reserved", which rpicam-vid does not recognize.
    cmdline = run("mtype", "-i", f"{card}@@{layout()['boot'][0] * MIB}", "::cmdline.txt")
    assert "cma=" not in cmdline + slot["arguments"]


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return make_card(tmp_path_factory.mktemp("card"))


def make_card(at, kernel=gzip.compress(b"no kernel" * 1000, mtime=0), slot="kernel=image.gz\narguments=quiet\n"):
    """Creates a card with a dummy root file system and, by default, a dummy kernel."""
    (at / "slot").mkdir(exist_ok=True)
    (at / "slot/image.gz").write_bytes(kernel)
    (at / "slot/slot.txt").write_text(slot)
    (at / "root.img").write_bytes(b"hsqs" + b"root" * 5000)
    epoch = os.environ | {"SOURCE_DATE_EPOCH": "1750000000", "TZ": "UTC"}
    run(ASSEMBLE, "boot", at / "boot", env=epoch)
    run(ASSEMBLE, "set", at / "boot", env=epoch)
    for file in [*at.glob("slot/*"), *at.glob("boot/*")]:
        os.utime(file, (1750000000, 1750000000))
    run(ASSEMBLE, "slot", at / "slot.img", at / "slot", env=epoch)
    run(ASSEMBLE, "card", at / "card.img", at / "boot", at / "slot.img", at / "root.img", env=epoch)
    return at / "card.img"


def test_card_matches_the_layout(card):
    places = layout()
    with card.open("rb") as file:

        def at(name, length):
            file.seek(places[name][0] * MIB)
            return file.read(length)

        file.seek(510)
        assert file.read(2) == b"\x55\xaa"
        assert at("root-a", 8) == b"hsqsroot"
        assert at("boot", 512)[510:] == at("boot-a", 512)[510:] == b"\x55\xaa"
        assert b"BOOT_ORDER=A B\0" in at("env-1", 200)
        # ext4's magic number, in its superblock.
        assert at("data", 2048)[1024 + 56 : 1024 + 58] == b"\x53\xef"
    end = max(start + size for start, size in places.values())
    assert card.stat().st_size == end * MIB


def test_rejects_card_without_an_overlay(card, tmp_path):
    """The firmware would silently ignore a missing overlay, and the camera would not work."""
    boot = tmp_path / "boot"
    run(ASSEMBLE, "boot", boot)
    run(ASSEMBLE, "set", boot)
    (boot / "start4.elf").write_text("firmware")
    (boot / "overlays").mkdir()
    for name in overlays():
        (boot / f"overlays/{name}.dtbo").write_text("overlay")

    def made():
        files = [card.parent / name for name in ("slot.img", "root.img")]
        return subprocess.run([ASSEMBLE, "card", tmp_path / "card.img", boot, *files], capture_output=True, text=True).stderr

    assert made() == ""
    with (boot / "config.txt").open("a") as file:
        file.write("dtoverlay=i2c-rtc,ds3231\n")
    assert "overlays/i2c-rtc.dtbo is missing" in made()
    (boot / "overlays/i2c-rtc.dtbo").write_text("overlay")
    (boot / "overlays/imx708.dtbo").unlink()
    assert "overlays/imx708.dtbo is missing" in made()


def test_rejects_card_whose_serial_line_is_unknown_to_u_boot(card, tmp_path):
    boot = tmp_path / "boot"
    run(ASSEMBLE, "boot", boot)

    def made(compatible):
        source = f'/dts-v1/; / {{ soc {{ serial@7e201000 {{ compatible = {compatible}; }}; }}; }};'
        run("dtc", "-q", "-o", boot / "bcm2710-rpi-3-b.dtb", input=source)
        run(ASSEMBLE, "set", boot)
        files = [card.parent / name for name in ("slot.img", "root.img")]
        return subprocess.run([ASSEMBLE, "card", tmp_path / "card.img", boot, *files], capture_output=True, text=True).stderr

    assert "U-Boot would not start with bcm2710-rpi-3-b.dtb" in made('"arm,pl011-axi"')
    assert made('"arm,pl011-axi", "arm,pl011", "arm,primecell"') == ""
    assert made('"arm,pl011", "arm,primecell"') == ""


def test_card_is_reproducible(card, tmp_path):
    again = make_card(tmp_path)
    assert subprocess.run(["cmp", card, again]).returncode == 0


def u_boot(machine, card, at, until):
    """Starts U-Boot on QEMU's machine virt and returns its output on the serial port, up to a pattern."""
    copy = at / "copy.img"
    run("cp", "--sparse=always", card, copy)
    qemu, processor = {"qemu_arm64": ("aarch64", "cortex-a53"), "qemu_arm": ("arm", "cortex-a15")}[machine]
    options = [
        f"qemu-system-{qemu}", "-M", "virt", "-cpu", processor, "-m", "512", "-bios", f"/usr/lib/u-boot/{machine}/u-boot.bin",
        "-drive", f"file={copy},format=raw,if=none,id=card", "-device", "virtio-blk-pci,drive=card",
    ]  # fmt: skip
    return emulate(options, at, until)


def emulate(command, at, until):
    """Starts QEMU and returns the output on the first serial port, up to a pattern."""
    console = at / "console"
    process = subprocess.Popen(
        [*command, "-display", "none", "-monitor", "none", "-nic", "none", "-serial", f"file:{console}"],
        stdin=subprocess.DEVNULL,
    )
    try:
        text = ""
        for _ in range(600):
            assert process.poll() is None, "QEMU has exited"
            text = console.read_text(errors="replace") if console.exists() else ""
            if re.search(until, text, re.S):
                break
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                pass
    finally:
        process.kill()
        process.wait()
    for mistake in ("Unknown command", "syntax error", "Usage:", "copies of the boot state are invalid"):
        assert mistake not in text, text
    return text


def test_boot_script_runs_in_u_boot(card, tmp_path):
    """Runs all but the last lines, because the kernel is a dummy. The attempts of slot A are counted down to 0. Slot B
    has none, so the script resets both counters."""
    text = u_boot("qemu_arm64", card, tmp_path, "(more attempts.*){4}")
    assert re.findall(r"BerryMSE: slot (\w), (\w) more attempts", text)[:4] == [("A", "2"), ("A", "1"), ("A", "0"), ("A", "2")], text
    assert "no attempts left in either slot" in text
    assert "failed to start the kernel in slot A" in text or "Bad Linux ARM64 Image magic" in text, text


HALVES = ("6000", "16000")


def trial(card, at, left, half=HALVES[1], change=lambda card: None):
    """A card whose boot partition is the second half, with the boot state of a trial and a copy of the former sector 0."""
    made = at / "trial.img"
    run("cp", "--sparse=always", card, made)
    places = {name: start * MIB for name, (start, _) in layout().items()}
    with made.open("r+b") as file:
        former = file.read(512)
        file.seek(places["boot"])
        boot = file.read(layout()["boot"][1] * MIB)
        for place, content in (
            (places["boot-2"], boot),
            (places["former"], former + struct.pack("<II", zlib.crc32(former), 512)),
            (0, former[:454] + int(HALVES[1], 16).to_bytes(4, "little") + former[458:]),
        ):
            file.seek(place)
            file.write(content)
        variables = f"BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=0\nBOOT_FILES={half}\nBOOT_FILES_LEFT={left}\n"
        (at / "env.txt").write_text(variables)
        run("mkenvimage", "-r", "-s", "8192", "-o", at / "env", at / "env.txt")
        file.seek(places["env-1"])
        file.write((at / "env").read_bytes())
        change(file)
    return made, former


def sector_0(at):
    """Sector 0 after U-Boot has run."""
    with (at / "copy.img").open("rb") as file:
        return file.read(512)


def test_boot_script_counts_the_attempts_of_new_boot_files(card, tmp_path):
    made, former = trial(card, tmp_path, left=3)
    text = u_boot("qemu_arm64", made, tmp_path, "returning.*(more attempts.*){2}")
    assert re.findall(r"boot files on trial, (\w) more", text) == ["2", "1", "0"], text
    # The slot loses no attempt to them. With the former ones, its attempts count again.
    assert re.findall(r"slot (\w), (\w) more attempts", text)[:5] == [("A", "3")] * 3 + [("A", "2"), ("A", "1")], text
    assert "returning to the former ones" in text
    assert sector_0(tmp_path) == former


def damage_copy(file):
    file.seek(layout()["former"][0] * MIB + 100)
    file.write(b"x")


def another_card(file):
    """A valid copy, but with another disk signature."""
    file.seek(0)
    sector = file.read(512)
    other = sector[:440] + b"abcd" + sector[444:]
    file.seek(layout()["former"][0] * MIB)
    file.write(other + struct.pack("<II", zlib.crc32(other), 512))


@pytest.mark.parametrize("change", (damage_copy, another_card))
def test_boot_script_does_not_return_without_a_valid_copy(card, tmp_path, change):
    made, former = trial(card, tmp_path, left=0, change=change)
    text = u_boot("qemu_arm64", made, tmp_path, "(slot A, .*){3}")
    assert "the former ones are not available" in text
    assert "returning" not in text and text.count("on trial") == 0
    assert re.findall(r"slot (\w), (\w) more attempts", text)[:3] == [("A", "2"), ("A", "1"), ("A", "0")], text
    assert sector_0(tmp_path) != former


def test_boot_script_ignores_a_trial_of_the_other_half(card, tmp_path):
    made, former = trial(card, tmp_path, left=0, half=HALVES[0])
    text = u_boot("qemu_arm64", made, tmp_path, "(slot A, .*){2}")
    assert "on trial" not in text and "boot files" not in text.replace("boot-files.txt", "")
    assert sector_0(tmp_path) != former


def test_bootz_starts_a_32_bit_kernel_in_the_first_128_mib(tmp_path):
    """A zImage decompresses itself to the start of the 128 MiB block in which it lies, and Linux does not use the
    memory below that block. On the virtual machine's serial port, this kernel prints whether it was started in the
    first block. Memory starts at 0x40000000."""
    instructions = [0xEA00000E]  # b 0x40
    instructions += [0xE1A00000] * 8 + [0x016F2818, 0, 0x1000] + [0xE1A00000] * 4  # header: magic, start, end
    instructions += [
        0xE1A0000F,  # mov r0, pc
        0xE3A01409,  # mov r1, #0x09000000
        0xE3100302,  # tst r0, #0x08000000: bit 27, set in the second 128 MiB
        0x03A0206C,  # moveq r2, #'l'
        0x13A02068,  # movne r2, #'h'
        0xE5C12000,  # strb r2, [r1]
        0xEAFFFFFE,  # b .
    ]
    kernel = struct.pack(f"<{len(instructions)}I", *instructions).ljust(0x1000, b"\0")
    card = make_card(tmp_path, kernel, "kernel=image.gz\nstart=bootz\n")
    text = u_boot("qemu_arm", card, tmp_path, r"Starting kernel \.\.\.\s+[lh]|attempts.*attempts")
    assert re.search(r"Starting kernel \.\.\.\s+l", text), text


# The commands that boot.cmd uses, and the symbols that provide them. None: part of the shell, always present.
COMMANDS = {
    "booti": "CMD_BOOTI", "bootz": "CMD_BOOTZ", "cp.b": "CMD_MEMORY", "crc32": "CMD_CRC32", "echo": None, "env": None,
    "env export": "CMD_EXPORTENV", "env import": "CMD_IMPORTENV", "fdt": "CMD_FDT", "itest": "CMD_ITEST", "itest.l": "CMD_ITEST",
    "load": "CMD_FS_GENERIC", "mw.b": "CMD_MEMORY", "part": "CMD_PART", "reset": None, "run": None, "setenv": None,
    "setexpr": "CMD_SETEXPR", "setexpr.b": "CMD_SETEXPR", "test": None, "for": None, "done": None, "fi": None,
    # Variables: the command to decompress a kernel, and mmc or virtio.
    "${decompress}": "CMD_UNZIP", "${devtype}": None,
}
# Defaults of the architecture, which no configuration disables.
ALWAYS = {"CMD_BOOTI", "CMD_BOOTZ"}


def commands(script):
    """The commands in a script for U-Boot."""
    script = re.sub(r"^\s*#.*$", "", script, flags=re.M).replace("'", ";")
    found = set()
    for statement in re.split(r";|&&|\|\||\n", re.sub(r'"[^"]*"', '""', script)):
        words = statement.split()
        while words and words[0] in ("if", "then", "else", "do"):
            words.pop(0)
        if words:
            found.add(words[0])
            if words[0] == "env":
                found.add(" ".join(words[:2]))
    return found


def test_u_boot_has_the_commands_of_the_boot_script():
    """Updates of the boot files replace boot.scr, but keep U-Boot: a new command would not exist in the field."""
    used = commands((ROOT / "appliance/boot.cmd").read_text())
    assert used == set(COMMANDS), "a command that U-Boot on existing cards may not have"
    fragment = settings((TREE / "board/common/uboot.fragment").read_text())
    for symbol in {COMMANDS[name] for name in used} - {None} - ALWAYS:
        assert f"CONFIG_{symbol}=y" in fragment, symbol
    for file in (TREE / "board/common/uboot-raspberrypi.fragment", ROOT / "meta-berrymse/recipes-bsp/u-boot/files/berrymse-rpi.cfg"):
        assert "CONFIG_CMD_MMC=y" in settings(file.read_text()), file


def test_boot_files_are_complete_and_listed(tmp_path):
    boot, root = tmp_path / "boot", tmp_path / "root"
    run(ASSEMBLE, "boot", boot, "64")
    (boot / "overlays").mkdir()
    for name in ("bootcode.bin", "start4.elf", "fixup4.dat", "u-boot.bin", "overlays/start.elf"):
        (boot / name).write_text(name)
    run(ASSEMBLE, "set", boot, root)
    copy = root / "usr/share/berrymse/boot"
    lines = (copy / "boot-files.txt").read_text().splitlines()
    # U-Boot reads the first line only.
    assert re.fullmatch("identity=[0-9a-f]{16}", lines[0])
    listed = dict(reversed(line.removeprefix("file=").split(" ", 1)) for line in lines if line.startswith("file="))
    present = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    # The configuration is the user's.
    assert set(listed) == present - {"boot-files.txt"} and "berrymse.toml" not in present
    for name, digest in listed.items():
        assert hashlib.sha256((copy / name).read_bytes()).hexdigest() == digest
    firmware = "".join(f"{listed[name]}  {name}\n" for name in ("bootcode.bin", "fixup4.dat", "start4.elf", "u-boot.bin"))
    assert f"firmware={hashlib.sha256(firmware.encode()).hexdigest()[:16]}" in lines

    # The same files have the same identity, others do not.
    def identity():
        run(ASSEMBLE, "set", boot)
        return (boot / "boot-files.txt").read_text().splitlines()[0]

    assert identity() == lines[0]
    (boot / "overlays/start.elf").write_text("another overlay")
    assert identity() != lines[0]

    for name in ("RECOVERY.BIN", "pieeprom.upd", "pieeprom.sig"):
        (boot / name).write_text("")
        done = subprocess.run([ASSEMBLE, "set", boot], capture_output=True, text=True)
        assert done.returncode and f"{name} must not be" in done.stderr
        (boot / name).unlink()
    with (boot / "start.elf").open("wb") as file:
        file.truncate(25 << 20)
    done = subprocess.run([ASSEMBLE, "set", boot], capture_output=True, text=True)
    assert done.returncode and "leave out firmware" in done.stderr


def test_card_refuses_boot_files_without_a_list(card, tmp_path):
    run(ASSEMBLE, "boot", tmp_path / "boot")
    files = [card.parent / name for name in ("slot.img", "root.img")]
    done = subprocess.run([ASSEMBLE, "card", tmp_path / "card.img", tmp_path / "boot", *files], capture_output=True, text=True)
    assert "no boot-files.txt" in done.stderr


def test_halves_of_the_boot_partition_are_free(card):
    """Entry 1 is the first on the card and a primary FAT partition; nothing else lies in either half."""
    places = layout()
    first, second = places["boot"], places["boot-2"]
    assert first[1] == second[1] and second[0] >= first[0] + first[1]
    for name, (start, size) in places.items():
        if name not in ("boot", "boot-2"):
            assert start + size <= first[0] or start >= second[0] + second[1], name
    with card.open("rb") as file:
        sector = file.read(512)
    assert sector[450] == 0x0C
    starts = [int.from_bytes(sector[454 + 16 * n : 458 + 16 * n], "little") for n in range(3)]
    assert starts == sorted(starts)


def test_firmware_is_replaced_only_where_it_was_started():
    lines = [line for line in (ROOT / "appliance/raspberrypi/started-on").read_text().splitlines() if not line.startswith("#")]
    log = (ROOT / "docs/hardware.md").read_text()
    for line in lines:
        firmware, model = line.split("\t")
        assert re.fullmatch("[0-9a-f]{16}", firmware) and firmware in log and model in log, line

"""Checks of the Yocto layer that take seconds and need no build. docs/yocto.md describes the others."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import jsonschema
import kas.configschema
import pytest
import recipes
import yaml
from recipes import LAYER, ROOT

VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
RECIPES = sorted(LAYER.rglob("*.bb"))
APPENDS = sorted(LAYER.rglob("*.bbappend"))
MACHINES = {"raspberrypi0-wifi", "raspberrypi3-64", "raspberrypi4-64", "raspberrypi5", "qemuarm64"}
KAS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((LAYER / "kas").glob("*.yml"))}


def run(*command, **more):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def files_of(d):
    """Returns the files of this repository in SRC_URI, each with its path."""
    folders = [pathlib.Path(folder) for folder in d.getVar("FILESPATH").split(":") if folder]
    for uri in d.getVar("SRC_URI").split():
        if uri.startswith("file://"):
            name = uri.removeprefix("file://")
            yield name, next((folder / name for folder in folders if (folder / name).exists()), None)


def test_crates_and_version_match_cargo_lock():
    run(ROOT / "ci/generate/yocto-crates", "--check")


# The linter.


def test_oelint():
    # The file explains why each rule is disabled.
    rules = (ROOT / "tests/layers/oelint.suppress").read_text()
    off = [line for line in rules.splitlines() if line and not line.startswith("#")]
    command = [pathlib.Path(sys.executable).parent / "oelint-adv", "--release", "wrynose", "--quiet", "--exit-zero"]
    for rule in off:
        command += ["--suppress", rule]
    done = subprocess.run([*map(str, command), *map(str, RECIPES + APPENDS)], capture_output=True, text=True)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r":(error|warning|info):", line)]
    assert done.returncode == 0 and not complaints, "\n".join(complaints) or done.stderr


# kas files.


@pytest.mark.parametrize("name", KAS)
def test_kas_files_follow_the_schema(name):
    jsonschema.validate(KAS[name], kas.configschema.CONFIGSCHEMA)
    for include in KAS[name]["header"].get("includes", []):
        assert (ROOT / include).is_file(), include


def with_includes(name):
    for include in KAS[name]["header"].get("includes", []):
        yield from with_includes(pathlib.Path(include).stem)
    yield KAS[name]
    # kas reads the lock file next to each file.
    yield KAS.get(f"{name}.lock", {})


def test_every_machine_has_a_file_and_every_repository_a_commit():
    assert {name for name in KAS if "machine" in KAS[name]} == MACHINES
    for machine in MACHINES:
        repos, commits = {}, {}
        for file in with_includes(machine):
            repos.update(file.get("repos", {}))
            commits.update(file.get("overrides", {}).get("repos", {}))
        assert KAS[machine]["machine"] == machine
        assert {"bitbake", "openembedded-core", "meta-rauc", "berrymse"} <= set(repos)
        for name in set(repos) - {"berrymse"}:
            assert re.fullmatch("[0-9a-f]{40}", commits[name]["commit"]), f"{machine}: {name} has no commit"
        assert set(commits) <= set(repos), "a lock file pins an unknown repository"


# Documents and metadata of the layer.


def test_layer_has_documents_and_metadata():
    for name in ("README.md", "SECURITY.md", "COPYING"):
        assert (LAYER / name).stat().st_size > 200, name
    conf = (LAYER / "conf/layer.conf").read_text()
    assert 'LAYERSERIES_COMPAT_berrymse = "wrynose"' in conf
    # A distribution with the name of a recipe would make that name an override.
    names = {path.name.split("_")[0].removesuffix(".bb") for path in RECIPES}
    assert not names & {path.stem for path in (LAYER / "conf/distro").glob("*.conf")}


# Recipes, read by BitBake's own library.


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse(path, tmp_path):
    keys = dict(BERRYMSE_KEYRING="ca.pem", RAUC_CERT_FILE="signer.pem", RAUC_KEY_FILE="signer.key")
    variants = recipes.read(path, recipes.config(tmp_path, **keys))
    assert set(variants) == ({"", "native"} if path.stem == "berrymse" else {""})
    for d in variants.values():
        assert not d.getVar("__SKIPPED")
        assert d.getVar("SUMMARY") and d.getVar("LICENSE")
        if path.stem.startswith("berrymse") and d.getVar("BERRYMSE_VERSION"):
            assert d.getVar("PV") == VERSION


@pytest.mark.parametrize("name", ("images/berrymse-image", "bundles/berrymse-bundle"))
def test_recipes_without_keys_are_skipped_with_an_explanation(name, tmp_path):
    d = recipes.read(LAYER / f"recipes-core/{name}.bb", recipes.config(tmp_path))[""]
    assert "development-keys.yml" in d.getVar("__SKIPPED")


def berrymse(folder, **values):
    return recipes.read(LAYER / "recipes-berrymse/berrymse/berrymse.bb", recipes.config(folder, **values))[""]


def test_all_files_in_src_uri_exist(tmp_path):
    found = dict(files_of(berrymse(tmp_path)))
    assert all(found.values()), found
    # The layer contains no copies of these.
    for name in ("Cargo.lock", "src", "appliance/berrymse.toml", "berrymse.service"):
        assert LAYER not in found[name].parents
    assert found["berrymse.service"] == ROOT / "appliance/systemd/berrymse.service"


def test_licence_checksums_match_the_files(tmp_path):
    for entry in berrymse(tmp_path).getVar("LIC_FILES_CHKSUM").split():
        name, digest = re.fullmatch(r"file://(.*);md5=([0-9a-f]{32})", entry).groups()
        assert hashlib.md5((ROOT / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("path", APPENDS, ids=lambda path: path.name)
def test_appends_change_only_our_distribution(path, tmp_path):
    def after(overrides):
        d = recipes.config(tmp_path, overrides, FILESEXTRAPATHS="")
        for name in names:
            d.setVar(name, "as it was")
        recipes.append(path, d)
        d.setVar("PN", "rauc")
        return {name: d.getVar(name) for name in (*names, "FILESEXTRAPATHS")}, list(files_of(d))

    names = ("SRC_URI", "PACKAGECONFIG", "RRECOMMENDS:rauc", "DEPENDS", "EXTRA_OEMESON")
    before = {name: "as it was" for name in names}
    unchanged, _ = after("linux:aarch64:rpi:qemuarm64")
    assert unchanged == {**before, "FILESEXTRAPATHS": ""}
    for machine in ("rpi", "qemuarm64"):
        changed, files = after(f"linux:aarch64:{machine}:berrymse-os")
        assert changed != unchanged
        assert all(where for _, where in files), files


def test_libcamera_is_built_without_udev(tmp_path):
    """The images use mdev instead of udev, as in Buildroot."""
    d = recipes.config(tmp_path, "rpi:berrymse-os", DEPENDS="udev gnutls", EXTRA_OEMESON="-Dcam=enabled")
    recipes.append(LAYER / "dynamic-layers/multimedia-layer/recipes-multimedia/libcamera/libcamera_%.bbappend", d)
    assert d.getVar("DEPENDS").split() == ["gnutls"]
    assert d.getVar("EXTRA_OEMESON").split() == ["-Dcam=enabled", "-Dudev=disabled"]
    layer = (LAYER / "conf/layer.conf").read_text()
    assert "multimedia-layer:${LAYERDIR}/dynamic-layers/multimedia-layer/recipes-*/*/*.bbappend" in layer


def test_files_that_bitbake_checksums_exist(tmp_path):
    """A change to one of these files makes BitBake run the task again. BitBake warns about broken links."""
    d = recipes.config(tmp_path, BERRYMSE_KEYRING="ca.pem")
    image = recipes.read(LAYER / "recipes-core/images/berrymse-image.bb", d)[""]
    recipes.append(LAYER / "classes-recipe/image_types_berrymse.bbclass", image)
    watched = image.getVarFlag("do_rootfs", "file-checksums") + image.getVarFlag("do_image_card", "file-checksums")
    for entry in watched.split():
        path = pathlib.Path(entry.removesuffix(":True"))
        for file in [path, *path.rglob("*")]:
            assert file.exists(), file


def options(path):
    found = re.findall(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", path.read_text(), re.M)
    return {name or off: value if name else "n" for name, value, off in found}


@pytest.mark.parametrize("theirs, ours", (
    ("busybox.fragment", "recipes-core/busybox/files/berrymse.cfg"),
    ("linux.fragment", "recipes-kernel/linux/files/berrymse.cfg"),
    ("linux-raspberrypi.fragment", "dynamic-layers/raspberrypi/recipes-kernel/linux/files/berrymse-rpi.cfg"),
    ("uboot.fragment", "recipes-bsp/u-boot/files/berrymse.cfg"),
    ("uboot-raspberrypi.fragment", "recipes-bsp/u-boot/files/berrymse-rpi.cfg"),
))
def test_enables_all_options_that_buildroot_enables(theirs, ours):
    """Options that Buildroot disables may differ."""
    wanted = options(ROOT / "buildroot-external/board/common" / theirs)
    have = options(LAYER / ours)
    assert wanted
    assert {name: value for name, value in wanted.items() if value != "n" and have.get(name) != value} == {}


# Shell functions of the recipes, run with the appliance's files.


def shell(d, name, **more):
    """Runs a shell function of a recipe, as expanded by BitBake."""
    log = "bbnote() { :; }; bbwarn() { echo \"$@\"; }; bbfatal() { echo \"$@\"; exit 1; }"
    return run("bash", "-c", f"set -e; {log}\n{d.getVar(name)}", **more)


@pytest.fixture(scope="module")
def tools():
    needed = ("mkimage", "mkenvimage", "mkfs.vfat", "mkfs.ext4", "mcopy", "sfdisk")
    missing = [name for name in needed if subprocess.run(["which", name], capture_output=True).returncode]
    assert not missing, f"{missing}: ./ci/test layers installs them"


def test_development_keys_are_created_once_with_a_warning(tmp_path):
    keys = tmp_path / "keys"
    path = LAYER / "recipes-core/berrymse-development-keys/berrymse-development-keys.bb"
    d = recipes.read(path, recipes.config(tmp_path, BERRYMSE_DEVELOPMENT_KEYS=str(keys)))[""]
    assert "DEVELOPMENT KEYS" in shell(d, "do_keys")
    run("openssl", "verify", "-CAfile", keys / "ca.pem", keys / "signer.pem")
    before = (keys / "signer.key").read_bytes()
    assert "DEVELOPMENT KEYS" in shell(d, "do_keys")
    assert (keys / "signer.key").read_bytes() == before


def slot(folder, machine, kernel, overrides):
    deploy = folder / "deploy"
    deploy.mkdir(exist_ok=True)
    (deploy / kernel).write_bytes(b"a kernel")
    values = dict(DEPLOY_DIR_IMAGE=str(deploy), DEPLOYDIR=str(deploy), B=str(folder), KERNEL_IMAGETYPE=kernel)
    d = recipes.config(folder, overrides, MACHINE=machine, SOURCE_DATE_EPOCH="1700000000", **values)
    d = recipes.read(LAYER / "recipes-core/berrymse-slot/berrymse-slot.bb", d)[""]
    shell(d, "do_compile")
    shell(d, "do_deploy")
    image = deploy / f"berrymse-slot-{machine}.img"
    return dict(line.split("=", 1) for line in run("mtype", "-i", image, "::slot.txt").splitlines())


def test_slot_txt_sets_only_variables_that_boot_cmd_reads(tmp_path, tools):
    asked = re.search(r"env import -t \$\{text\} \$\{filesize\} (.*)", (ROOT / "appliance/boot.cmd").read_text())[1].split()
    virtual = slot(tmp_path, "qemuarm64", "Image", "qemuarm64")
    assert virtual == {"kernel": "kernel.gz", "arguments": (ROOT / "appliance/virt/arguments").read_text().strip()}
    arguments = (ROOT / "appliance/raspberrypi/arguments").read_text().strip()
    assert slot(tmp_path, "raspberrypi4-64", "Image", "rpi") == {"kernel": "kernel.gz", "arguments": arguments}
    zero = slot(tmp_path, "raspberrypi0-wifi", "zImage", "rpi:raspberrypi0-wifi")
    assert zero == {"kernel": "zimage", "start": "bootz", "arguments": arguments}
    assert set(virtual) | set(zero) <= set(asked)


def partitions(image):
    table = json.loads(run("sfdisk", "--json", image))["partitiontable"]
    return {part["node"].removeprefix(str(image)): part for part in table["partitions"]}


@pytest.mark.parametrize("machine, bits", (("raspberrypi0-wifi", 32), ("raspberrypi4-64", 64)))
def test_card_has_the_layout_of_the_appliance(machine, bits, tmp_path, tools):
    # In OpenEmbedded's order: the processor precedes the machine.
    overrides = f"{'aarch64' if bits == 64 else 'arm'}:rpi:{machine}"
    slot(tmp_path, machine, "Image", overrides)
    deploy = tmp_path / "deploy"
    overlays = [f"{name}.dtbo" for name in (ROOT / "appliance/overlays").read_text().splitlines() if name[0] != "#"]
    for name in ("bootfiles/start.elf", "bootfiles/start_cd.elf", "bootfiles/fixup.dat", "bootfiles/bootcode.bin", "bootfiles/config.txt", "u-boot.bin", "bcm2711-rpi-4-b.dtb", *overlays):
        (deploy / name).parent.mkdir(exist_ok=True)
        (deploy / name).write_text(name)
    (deploy / "image.squashfs-zst").write_bytes(b"a root" * 1000)
    d = recipes.config(
        tmp_path, overrides, MACHINE=machine, WORKDIR=str(tmp_path), IMGDEPLOYDIR=str(deploy), IMAGE_NAME="image",
        DEPLOY_DIR_IMAGE=str(deploy), BOOTFILES_DIR_NAME="bootfiles", REPRODUCIBLE_TIMESTAMP_ROOTFS="1700000000",
        IMAGE_ROOTFS=str(tmp_path / "rootfs"),
    )
    recipes.append(LAYER / "classes-recipe/image_types_berrymse.bbclass", d)
    # The entries that meta-raspberrypi generates for the kernel's device trees.
    trees = " ".join(["bcm2711-rpi-4-b.dtb", *(f"{name};overlays/{name}" for name in overlays)])
    files = d.getVar("BERRYMSE_BOOT_FILES:rpi", False).replace("${@make_dtb_boot_files(d)}", trees)
    assert trees in files
    d.setVar("BERRYMSE_BOOT_FILES:rpi", files)
    (tmp_path / "rootfs").mkdir()
    shell(d, "berrymse_boot_files")
    shell(d, "IMAGE_CMD:card")
    card = deploy / "image.card"

    mib = 2048
    found = partitions(card)
    expected = {}
    for line in (ROOT / "appliance/layout").read_text().splitlines():
        if line and not line.startswith("#"):
            name, number, kind, start, size = line.split()
            if number != "-":
                expected[number] = (kind, int(start) * mib, int(size) * mib)
    assert {number: (part["type"], part["start"], part["size"]) for number, part in found.items()} == expected

    boot = f"{card}@@{found['1']['start'] * 512}"
    listed = run("mdir", "-b", "-/", "-i", boot, "::").split()
    for name in ("boot.scr", "berrymse.toml", "config.txt", "cmdline.txt", "start.elf", "u-boot.bin",
                 "bcm2711-rpi-4-b.dtb", "overlays/imx708.dtbo"):
        assert f"::/{name}" in listed, listed
    assert "::/start_cd.elf" not in listed
    # The root file system contains the same files, for updates.
    update = tmp_path / "rootfs/usr/share/berrymse/boot"
    files = {f"::/{file.relative_to(update)}" for file in update.rglob("*") if file.is_file()}
    assert files == {name for name in listed if not name.endswith("/")} - {"::/berrymse.toml"}
    text = run("mtype", "-i", boot, "::config.txt")
    files = (ROOT / "appliance/config.txt", ROOT / f"appliance/raspberrypi/config-{bits}.txt")
    end = "[all]\n# Your own lines go below this one: updates keep them.\n"
    assert text == "".join(file.read_text() for file in files) + end
    with open(card, "rb") as file:
        file.seek(found["7"]["start"] * 512)
        assert file.read(6000) == b"a root" * 1000


def test_kernel_builds_the_overlays_of_all_camera_modules(tmp_path):
    # From meta-raspberrypi, at the commit in kas/raspberrypi.lock.yml.
    theirs = "overlays/imx219.dtbo overlays/imx477.dtbo overlays/imx708.dtbo overlays/disable-bt.dtbo overlays/dwc2.dtbo"
    d = recipes.config(tmp_path, "rpi:raspberrypi4-64", RPI_KERNEL_DEVICETREE_OVERLAYS=theirs)
    recipes.append(LAYER / "conf/distro/berrymse-os.conf", d)
    made = d.getVar("RPI_KERNEL_DEVICETREE_OVERLAYS").split()
    needed = [name for name in (ROOT / "appliance/overlays").read_text().splitlines() if name[0] != "#"]
    assert len(needed) > 10
    assert sorted(made) == sorted(f"overlays/{name}.dtbo" for name in needed)


def test_root_contains_the_files_of_the_appliance(tmp_path):
    root = tmp_path / "rootfs"
    for name in ("etc/init.d/rcS", "etc/rc5.d/S01x", "etc/dbus-1/system.conf", "etc/fstab", "usr/share/dbus-1/system.conf"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("OpenEmbedded's")
    (root / "var").mkdir()
    (root / "var/run").symlink_to("../run")
    (tmp_path / "ca.pem").write_text("a certificate")
    d = recipes.config(
        tmp_path, WORKDIR=str(tmp_path), IMAGE_ROOTFS=str(root), BERRYMSE_KEYRING=str(tmp_path / "ca.pem"),
        BERRYMSE_DEVELOPMENT_KEYS=str(tmp_path), BERRYMSE_COMPATIBLE="berrymse-qemuarm64",
    )
    d = recipes.read(LAYER / "recipes-core/images/berrymse-image.bb", d)[""]
    body = d.getVar("berrymse_appliance")
    run(*([] if os.geteuid() == 0 else ["unshare", "-r"]), "bash", "-c", f"set -e\n{body}")
    assert not (root / "etc/rc5.d").exists() and not (root / "etc/fstab").exists()
    assert not (root / "usr/share/dbus-1").exists()
    filled_in = {"etc/rauc/system.conf", "etc/fw_env.config"}
    for file in (ROOT / "appliance/root").rglob("*"):
        name = str(file.relative_to(ROOT / "appliance/root"))
        if file.is_file() and name not in filled_in:
            assert (root / name).read_bytes() == file.read_bytes(), name
            assert bool((root / name).stat().st_mode & 0o111) == bool(file.stat().st_mode & 0o111), name
    assert "compatible=berrymse-qemuarm64\n" in (root / "etc/rauc/system.conf").read_text()
    assert f"IMAGE_VERSION={VERSION}\n" in (root / "etc/os-release").read_text()
    assert (root / "etc/rauc/keyring.pem").read_text() == "a certificate"
    assert (root / "etc/berrymse-development").exists()
    assert (tmp_path / "squashfs.sort").read_text() == "usr/bin/berrymse -1\n"
    # The device's clock must not start before the build time of this system.
    made = int(d.getVar("REPRODUCIBLE_TIMESTAMP_ROOTFS"))
    assert made > 1763000000


# Other init managers.


@pytest.mark.parametrize("feature", ("systemd", "sysvinit", ""))
def test_unit_and_script_are_installed_only_for_their_init_manager(feature, tmp_path):
    source = tmp_path / "source"
    d = berrymse(tmp_path, OVERRIDES="class-target", DISTRO_FEATURES=feature, UNPACKDIR=str(source), D=str(tmp_path / "D"),
                 systemd_system_unitdir="/usr/lib/systemd/system", localstatedir="/var", do_install="true")
    for name, where in files_of(d):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).symlink_to(where)
    # The user exists only during a build.
    body = d.getVar("do_install").replace("chown root:berrymse", "true")
    run("bash", "-c", f"set -e\n{body}")
    installed = {str(path.relative_to(tmp_path / "D")) for path in (tmp_path / "D").rglob("*") if path.is_file()}
    assert installed == {
        "systemd": {"etc/berrymse.toml", "usr/lib/systemd/system/berrymse.service"},
        "sysvinit": {"etc/berrymse.toml", "etc/init.d/berrymse"},
        "": set(),
    }[feature]


def test_unit_is_valid_and_restricted(tmp_path):
    unit = ROOT / "appliance/systemd/berrymse.service"
    # In a separate root, because the executable is not installed on this machine.
    root = tmp_path / "root"
    for name in ("usr/bin/berrymse",):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("#!/bin/sh\n")
        (root / name).chmod(0o755)
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/systemd/system/berrymse.service").write_text(unit.read_text())
    (root / "usr/lib").mkdir(exist_ok=True)
    (root / "usr/lib/systemd").symlink_to("/usr/lib/systemd")
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", "berrymse.service"],
        capture_output=True, text=True,
    )
    ours = [line for line in said.stderr.splitlines() if "berrymse" in line]
    assert said.returncode == 0 and not ours, said.stderr
    # The exposure level is 1.8 with the systemd of Debian 12.
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit)
    print(said.splitlines()[-1])

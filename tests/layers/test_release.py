"""The list of images for Raspberry Pi Imager (ci/generate/imager), from made-up images."""

import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BOARDS = sorted(file.parent.name for file in ROOT.glob("buildroot-external/board/*/board.config"))
URL = "https://github.com/someone/berrymse/releases/download/v1.0.0"

# What Imager 2 requires of each image, and the values it accepts (doc/json-schema/os-list-schema.json in
# github.com/raspberrypi/rpi-imager, 2.0.11).
REQUIRED = {
    "name": str, "description": str, "icon": str, "url": str, "extract_size": int, "extract_sha256": str,
    "image_download_size": int, "release_date": str, "devices": list,
}
TAGS = {f"pi{model}-{bits}bit" for model in "12345" for bits in (32, 64)}


@pytest.fixture
def images(tmp_path):
    """Images of all boards: compressed in several streams, with a run of zeros, one of them with a block map."""
    contents = {}
    for number, board in enumerate(BOARDS):
        content = bytes([number]) * 100_001 + bytes(3_000_000)
        packed = lzma.compress(content[:50_000]) + lzma.compress(content[50_000:])
        (tmp_path / f"berrymse-{board}.img.xz").write_bytes(packed)
        contents[board] = (content, packed)
    (tmp_path / "berrymse-rpi4_64.img.bmap").write_text("<bmap/>")
    return tmp_path, contents


def generate(folder, url=URL, **environment):
    command = [ROOT / "ci/generate/imager", url, folder]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    return done.returncode, done.stdout + done.stderr


def listed(folder, **options):
    status, text = generate(folder, **options)
    assert status == 0, text
    return json.loads((folder / "berrymse.rpi-imager-manifest").read_text())


def test_lists_each_image_with_its_sizes_and_checksums(images):
    folder, contents = images
    entries = listed(folder, SOURCE_DATE_EPOCH="1700000000")["os_list"]
    by_url = {entry["url"]: entry for entry in entries}
    expected = {f"{URL}/berrymse-{board}.img.xz": board for board in BOARDS if board != "qemu_aarch64"}
    assert by_url.keys() == expected.keys() and len(entries) == len(expected)
    for url, board in expected.items():
        content, packed = contents[board]
        entry = by_url[url]
        assert entry["extract_size"] == len(content)
        assert entry["extract_sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["image_download_size"] == len(packed)
        assert entry["image_download_sha256"] == hashlib.sha256(packed).hexdigest()
        assert entry["release_date"] == "2023-11-14"
        assert entry["website"] == "https://github.com/someone/berrymse"
        assert entry.get("bmap_url") == (f"{URL}/berrymse-{board}.img.bmap" if board == "rpi4_64" else None)
    assert len({entry["name"] for entry in entries}) == len(entries), "the names must differ"
    # The icon is published beside the images.
    assert entries[0]["icon"] == f"{URL}/berrymse-icon.svg"
    assert (folder / "berrymse-icon.svg").read_bytes() == (ROOT / "web/icon.svg").read_bytes()


def test_is_what_imager_reads(images):
    folder, _ = images
    content = listed(folder)
    assert content.keys() == {"imager", "os_list"} and content["imager"].keys() == {"devices"}
    offered = set()
    for device in content["imager"]["devices"]:
        assert {"name", "description", "tags"} <= device.keys()
        assert device["tags"] and TAGS.issuperset(device["tags"])
        offered.update(device["tags"])
    for entry in content["os_list"]:
        for key, kind in REQUIRED.items():
            assert isinstance(entry[key], kind) and entry[key], key
        assert entry["init_format"] == "rpi-preseed" and entry["architecture"] in ("armhf", "armv8")
        assert set(entry["devices"]) <= offered, "Imager shows an image only for a device that it offers"
        # Capabilities would offer settings that have no effect, such as Raspberry Pi Connect.
        assert not entry.get("capabilities")


def test_tags_match_the_boards(images):
    folder, _ = images
    for entry in listed(folder)["os_list"]:
        board = re.search("berrymse-(.*).img.xz", entry["url"])[1]
        config = (ROOT / f"buildroot-external/board/{board}/board.config").read_text()
        is_64 = "BR2_aarch64=y" in config
        assert (entry["architecture"] == "armv8") == is_64
        assert [tag.endswith("64bit") for tag in entry["devices"]] == [is_64]
        assert ("4B" in entry["description"]) == (entry["devices"][0].startswith("pi4"))
        assert ("(64-bit)" in entry["name"]) == is_64


@pytest.mark.skipif("IMAGER_SCHEMA" not in os.environ, reason="IMAGER_SCHEMA names Imager's os-list-schema.json")
def test_is_valid_for_the_schema_of_imager(images):
    import jsonschema  # kas requires it
    folder, _ = images
    schema = json.loads(pathlib.Path(os.environ["IMAGER_SCHEMA"]).read_text())
    content = listed(folder)
    jsonschema.validate(content, schema)
    del content["os_list"][0]["extract_sha256"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_says_what_is_wrong(images):
    folder, _ = images
    status, text = generate(folder, "example.org")
    assert status == 1 and "must start with https://" in text, text
    image = folder / "berrymse-rpi4.img.xz"
    packed = image.read_bytes()
    image.write_bytes(packed[:-40])
    status, text = generate(folder)
    assert status == 1 and str(image) in text and "again" in text, text
    image.write_bytes(packed)
    image.rename(folder / "berrymse-pi4.img.xz")
    status, text = generate(folder)
    assert status == 1 and "no board 'pi4'" in text, text
    for file in folder.iterdir():
        file.unlink()
    status, text = generate(folder)
    assert status == 1 and "no image named" in text, text
    assert not list(folder.iterdir())


def test_release_writes_the_list_before_the_checksums(images, tmp_path_factory):
    """In a copy of the scripts, because dist/ may contain a release."""
    folder, _ = images
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(ROOT / "ci", root / "ci")
    for name in ("buildroot-external", "web", "Cargo.toml"):
        (root / name).symlink_to(ROOT / name)
    folder.rename(root / "dist")
    git = ["git", "-C", root, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    done = subprocess.run([root / "ci/release", "--sums", URL], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sums = (root / "dist/SHA256SUMS").read_text()
    for name in ("berrymse.rpi-imager-manifest", "berrymse-icon.svg", "berrymse-rpi4_64.img.xz"):
        digest = hashlib.sha256((root / "dist" / name).read_bytes()).hexdigest()
        assert f"{digest}  {name}\n" in sums, sums

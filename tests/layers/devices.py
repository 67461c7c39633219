"""Reads appliance/raspberrypi/devices.tsv: the components of the boards and the kernel options they require."""

import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
LAYER = ROOT / "meta-berrymse"
TREE = ROOT / "buildroot-external"


class Part(NamedTuple):
    boards: list[str]
    name: str
    device: str
    symbol: str
    value: str
    driver: str


def settings(*files):
    """Returns the settings in files with Kconfig syntax: {"USB": "y"}. "# CONFIG_USB is not set" is "n"."""
    found = {}
    for file in files:
        for name, value, off in re.findall(r"^(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)$", file.read_text(), re.M):
            found[name or off] = value if name else "n"
    return found


# The Raspberry Pi boards and their Buildroot configurations.
BOARDS = {
    file.parent.name: file.read_text()
    for file in sorted(TREE.glob("board/*/board.config"))
    if "raspberrypi" in file.read_text().splitlines()[0].split()
}

# Boards for which only the Yocto layer has an image, with their additional fragment.
YOCTO_BOARDS = {"rpi5": LAYER / "dynamic-layers/raspberrypi/recipes-kernel/linux/files/berrymse-rpi5.cfg"}

# The fragments that each tree merges into the kernel's default configuration.
FRAGMENTS = {
    "buildroot": [TREE / "board/common/linux.fragment", TREE / "board/common/linux-raspberrypi.fragment"],
    "yocto": [
        LAYER / "recipes-kernel/linux/files/berrymse.cfg",
        LAYER / "dynamic-layers/raspberrypi/recipes-kernel/linux/files/berrymse-rpi.cfg",
    ],
}


def fragments(tree, board):
    """The fragments that a tree merges for a board."""
    return [*FRAGMENTS[tree], *([YOCTO_BOARDS[board]] if board in YOCTO_BOARDS else [])]


def parts():
    table = []
    for line in (ROOT / "appliance/raspberrypi/devices.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            boards, *rest = line.split("\t")
            table.append(Part([*BOARDS, *YOCTO_BOARDS] if boards == "all" else boards.split(","), *rest))
    return table

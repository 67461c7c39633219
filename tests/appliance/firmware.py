"""A model of the Raspberry Pi firmware: which files start a machine from this card?

By the documented rules: sector 0 holds the partition table, the first entry is a FAT partition (type 0x0c),
config.txt names further files. The list of the boot files on the card tells which release they belong to. After a power
cut at any moment, there must be exactly one complete set.
"""

import hashlib
import re
import struct

SECTOR = 512
# Run before boot.scr. An update keeps those of the card.
FIRMWARE = re.compile(r"(bootcode\.bin|u-boot\.bin|start[^/]*\.elf|fixup[^/]*\.dat)")
MARKER = b"# Your own lines go below this one: updates keep them."


class Fat:
    """The FAT16 file system at `start`."""

    def __init__(self, card, start):
        card.seek(start)
        boot = card.read(SECTOR)
        assert boot[510:] == b"\x55\xaa", "no file system"
        sector, self.per_cluster, reserved, tables, entries = struct.unpack_from("<HBHBH", boot, 11)
        (table,) = struct.unpack_from("<H", boot, 22)
        assert sector == SECTOR and self.per_cluster and tables and entries and table, "damaged boot sector"
        card.seek(start + reserved * SECTOR)
        self.table = struct.unpack(f"<{table * 256}H", card.read(table * SECTOR))
        root = start + (reserved + tables * table) * SECTOR
        self.data = root + entries * 32
        self.card = card
        card.seek(root)
        self.files = dict(self._walk(card.read(entries * 32), ""))

    def _read(self, cluster, size=None):
        parts = []
        while 2 <= cluster < 0xFFF8 and (size is None or len(parts) * self.per_cluster * SECTOR < size):
            assert len(parts) < len(self.table), "endless chain"
            self.card.seek(self.data + (cluster - 2) * self.per_cluster * SECTOR)
            parts.append(self.card.read(self.per_cluster * SECTOR))
            cluster = self.table[cluster]
        content = b"".join(parts)
        assert size is None or len(content) >= size, "truncated chain"
        return content[:size]

    def _walk(self, folder, path):
        long = ""
        for at in range(0, len(folder), 32):
            entry = folder[at : at + 32]
            if entry[0] == 0:
                return
            if entry[0] == 0xE5:
                continue
            if entry[11] == 0x0F:
                part = (entry[1:11] + entry[14:26] + entry[28:32]).decode("utf-16-le")
                long = part.split("\0")[0] + long
                continue
            base, extension = entry[:8].decode("cp437").rstrip(), entry[8:11].decode("cp437").rstrip()
            name = (long or (f"{base}.{extension}" if extension else base)).lower()
            long = ""
            cluster, size = struct.unpack_from("<HI", entry, 26)
            if entry[11] & 0x08 or name in (".", ".."):
                continue
            if entry[11] & 0x10:
                yield from self._walk(self._read(cluster), f"{path}{name}/")
            else:
                yield path + name, self._read(cluster, size)


def boot_partition(card):
    """Returns start and size of the boot partition, in bytes."""
    card.seek(0)
    sector = card.read(SECTOR)
    assert sector[510:] == b"\x55\xaa", "no partition table"
    kind, start, size = sector[450], *struct.unpack_from("<II", sector, 454)
    assert kind == 0x0C, f"first partition of type {kind:#x}"
    # All others lie behind it, none overlaps it.
    for number in range(1, 4):
        if sector[450 + 16 * number]:
            (other,) = struct.unpack_from("<I", sector, 454 + 16 * number)
            assert other >= start + size, "partitions overlap"
    return start * SECTOR, size * SECTOR


def boot_files(path):
    """Returns the files on the boot partition of the card image, by their path in lower case."""
    with open(path, "rb") as card:
        return Fat(card, boot_partition(card)[0]).files


def identity(path):
    """Returns the identity of the set that starts a machine from this card; None for a release without a list.
    Raises AssertionError unless the set is complete."""
    files = boot_files(path)
    config = files["config.txt"].decode(errors="replace")
    for line in config.splitlines():
        name, _, value = line.strip().partition("=")
        # U-Boot is the virtual machine's firmware, so its card has no kernel= file.
        if name in ("kernel", "start_file", "fixup_file", "device_tree", "ramfsfile") and any(map(FIRMWARE.fullmatch, files)):
            assert value in files, f"config.txt names {value}"
    if "boot-files.txt" not in files:
        assert "boot.scr" in files
        return None
    lines = files["boot-files.txt"].decode().splitlines()
    for line in lines:
        if line.startswith("file="):
            digest, name = line.removeprefix("file=").split(" ", 1)
            name = name.lower()
            if FIRMWARE.fullmatch(name) or name == "cmdline.txt":
                continue
            content = files[name]
            if name == "config.txt":
                # The user's lines follow.
                content = content[: content.index(MARKER) + len(MARKER) + 1]
            assert hashlib.sha256(content).hexdigest() == digest, f"{name} is of another release"
    return lines[0].removeprefix("identity=")

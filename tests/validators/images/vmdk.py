"""VMDK images made by hand: monolithicSparse and streamOptimized, of one disk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from .parts import SECTOR, noise, padded, words

VMDK_CAPACITY = 3 * 65536 + 128 + 5  # three whole grain tables, one grain and 5 sectors
VMDK_TEXT = """# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=1234abcd
parentCID=ffffffff
createType="{kind}"

# Extent description
RW {capacity} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "0123456789abcdef012345671234abcd"
ddb.toolsInstallType = "4"
ddb.toolsVersion = "2147483647"
ddb.uuid.image = "01234567-89ab-cdef-0123-456789abcdef"
ddb.uuid.parent = "00000000-0000-0000-0000-000000000000"
"""


def vmdk_text(kind: str, capacity: int = VMDK_CAPACITY) -> str:
    return VMDK_TEXT.format(kind=kind, capacity=capacity, cylinders=-(-capacity // 16065))


def vmdk_header(version: int, flags: int, rgd: int, gd: int, overhead: int) -> bytes:
    raw = struct.pack("<4sII", b"KDMV", version, flags)
    raw += struct.pack("<QQQQ", VMDK_CAPACITY, 128, 1, 20)
    raw += struct.pack("<IQQQ", 512, rgd, gd, overhead)
    raw += b"\0\n \r\n" + struct.pack("<H", flags >> 16 & 1)
    return raw.ljust(512, b"\0")


RGD, RGTS, GD, GTS = 21, 22, 38, 39
GRAINS = {0: 128, 1: 256, 511: 384, 512: 512, 1537: 640}


def vmdk_sparse(text: str | None = None) -> bytes:
    """Grains 0, 1 and 511 of table 0, the first of table 1, and the last one of the disk."""
    head = vmdk_header(1, 3, RGD, GD, 128)
    head += padded((text or vmdk_text("monolithicSparse")).encode(), 20 * SECTOR)
    tables = b"".join(
        words([GRAINS.get(512 * table + entry, 0) for entry in range(512)], 2048)
        for table in range(4)
    )
    for first in (RGTS, GTS):
        head += words([first + 4 * table for table in range(4)], 512) + tables
    data = b"".join(noise(grain, 128 * SECTOR) for grain in sorted(GRAINS)[:-1])
    data += padded(noise(9, 5 * SECTOR), 128 * SECTOR)
    return padded(head, 128 * SECTOR) + data


def vmdk_grain(lba: int, data: bytes) -> bytes:
    packed = zlib.compress(data)
    raw = struct.pack("<QI", lba, len(packed)) + packed
    return raw + bytes(-len(raw) % SECTOR)


def vmdk_marker(sectors: int, kind: int) -> bytes:
    return padded(struct.pack("<QII", sectors, 0, kind), SECTOR)


@dataclass
class Stream:
    """A streamOptimized image, and where each of its parts begins."""

    data: bytes
    parts: dict[str, int]


def vmdk_stream(
    last: bytes = noise(9, 5 * SECTOR),
    edit: Callable[[list[tuple[str, bytes]]], None] = lambda parts: None,
) -> Stream:
    """The grains of `vmdk_sparse`; `edit` may change the list of parts before tables."""
    header = vmdk_header(3, 0x30001, 0, (1 << 64) - 1, 128)
    head = header + padded(vmdk_text("streamOptimized").encode(), 20 * SECTOR)
    order = [(f"grain {g}", vmdk_grain(128 * g, noise(g, 65536))) for g in (0, 1, 511)]
    order += [("table 0", b""), ("grain 512", vmdk_grain(65536, noise(512, 65536)))]
    order += [("table 1", b""), ("grain 1537", vmdk_grain(128 * 1537, last))]
    order += [("table 3", b""), ("directory", b""), ("footer", b""), ("end", b"")]
    edit(order)
    data, parts = padded(head, 128 * SECTOR), {}
    tables: dict[int, list[int]] = {}
    directory = [0] * 4
    for name, raw in order:
        parts[name] = len(data)
        kind, _, number = name.partition(" ")
        if kind == "grain":
            tables.setdefault(int(number) // 512, [0] * 512)[int(number) % 512] = (
                len(data) // SECTOR
            )
        elif kind == "table":
            entries = tables.get(int(number), [0] * 512)
            raw = raw or vmdk_marker(4, 1) + words(entries, 2048)
            directory[int(number)] = len(data) // SECTOR + 1
        elif kind == "directory":
            raw = raw or vmdk_marker(1, 2) + words(directory, 512)
        elif kind == "footer":
            place = struct.pack("<Q", parts.get("directory", 0) // SECTOR + 1)
            raw = raw or vmdk_marker(1, 3) + header[:56] + place + header[64:]
        elif kind == "end":
            raw = raw or bytes(512)
        data += raw
    return Stream(data, parts)


def drop(name: str) -> Callable[[list[tuple[str, bytes]]], None]:
    def edit(parts: list[tuple[str, bytes]]) -> None:
        parts[:] = [part for part in parts if part[0] != name]

    return edit


def move(name: str, before: str) -> Callable[[list[tuple[str, bytes]]], None]:
    def edit(parts: list[tuple[str, bytes]]) -> None:
        names = [part[0] for part in parts]
        part = parts.pop(names.index(name))
        names = [part[0] for part in parts]
        parts.insert(names.index(before), part)

    return edit


def replace_part(name: str, raw: bytes) -> Callable[[list[tuple[str, bytes]]], None]:
    def edit(parts: list[tuple[str, bytes]]) -> None:
        parts[[part[0] for part in parts].index(name)] = (name, raw)

    return edit


def vmdk_content() -> bytes:
    """The disk that both hand-made images hold."""
    disk = bytearray(VMDK_CAPACITY * SECTOR)
    for grain in GRAINS:
        data = noise(grain, 65536) if grain != 1537 else noise(9, 5 * SECTOR)
        disk[grain * 65536 : grain * 65536 + len(data)] = data
    return bytes(disk)


def without_cid(texts: list[str]) -> list[str]:
    """qemu picks a random CID and writes less than 8 digits when the first are 0."""
    return [text for text in texts if "field CID" not in text]

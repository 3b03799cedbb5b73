"""Rules of VHDX files, dynamic and fixed, that were closed properly ([MS-VHDX])."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import crc32c

from .common import SECTOR, TIB, Findings, Image, check_fill, check_single_format
from .vhdx_table import Places, Table, check_table

_KIB = 1 << 10
_MIB = 1 << 20
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ4016s")
_REGION = struct.Struct("<16sQII")
_ITEM = struct.Struct("<16sIIII")
_HEADERS_AT = (64 * _KIB, 128 * _KIB)
_REGIONS_AT = (192 * _KIB, 256 * _KIB)
_TABLE = 64 * _KIB
_MOST = 2047
_NULL = bytes(16)


def _guid(text: str) -> bytes:
    a, b, c, d, e = (bytes.fromhex(part) for part in text.split("-"))
    return a[::-1] + b[::-1] + c[::-1] + d + e


_BAT = _guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
_METADATA = _guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
_ITEMS = {
    # id: name, bytes, flags (2 of the disk, 4 required)
    _guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B"): ("file parameters", 8, 4),
    _guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8"): ("disk size", 8, 6),
    _guid("BECA12AB-B2E6-4523-93EF-C309E000C746"): ("disk id", 16, 6),
    _guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F"): ("logical sector size", 4, 6),
    _guid("CDA348C7-445D-4471-9CC9-E9885251C556"): ("physical sector size", 4, 6),
}


def problems(path: str | os.PathLike[str]) -> list[str]:
    """Return the broken rules of a VHDX."""
    with Image(path) as image:
        findings = Findings()
        if findings.check(
            image.length >= 4 * _MIB and image.length % _MIB == 0,
            f"the file has {image.length} bytes, not a number of MiB that holds all parts",
        ):
            _Vhdx(image, findings).check()
        return findings.items


def _checksum(raw: bytes) -> int:
    """CRC-32C, the field itself, at byte 4, taken as zero."""
    return crc32c.crc32c(raw[:4] + bytes(4) + raw[8:])


@dataclass
class _Region:
    name: str
    start: int
    end: int


class _Vhdx:
    def __init__(self, image: Image, findings: Findings) -> None:
        self.image = image
        self.findings = findings
        self.regions: list[_Region] = [_Region("the first MiB", 0, _MIB)]

    def check(self) -> None:
        findings = self.findings
        if not findings.equal("signature", 0, self.image.read(0, 8), b"vhdxfile"):
            return
        self._check_creator()
        check_single_format(self.image, findings, "vhdx")
        self._check_gaps()
        self._check_headers()
        bat, metadata = self._check_regions()
        self._check_overlaps()
        if metadata is None or bat is None:
            return
        values = self._check_metadata(metadata)
        table = self._check_values(values, bat)
        if table is not None:
            places = Places(bat.start, bat.end, [(r.start, r.end) for r in self.regions])
            check_table(self.image, findings, table, places)

    def _check_creator(self) -> None:
        """Text in UTF-16, at the end of which are zeros only."""
        try:
            text = self.image.read(8, 512).decode("utf-16-le")
        except UnicodeDecodeError:
            self.findings.add("the creator at 8 is not UTF-16")
            return
        self.findings.check(
            not text.partition("\0")[2].strip("\0"), "the creator at 8 goes on after its NUL"
        )

    def _check_gaps(self) -> None:
        """6.1: what lies between the fixed places is reserved."""
        for start, end in (
            (520, 64 * _KIB),
            (68 * _KIB, 128 * _KIB),
            (132 * _KIB, 192 * _KIB),
            (320 * _KIB, _MIB),
        ):
            check_fill(self.image, self.findings, "a reserved area", (start, end))

    def _check_headers(self) -> None:
        """6.1: two valid headers that differ in sequence and checksum, and no log in use."""
        found = []
        for at in _HEADERS_AT:
            raw = self.image.read(at, _HEADER.size)
            f = _HEADER.unpack(raw)
            found.append(f)
            equal, check = self.findings.equal, self.findings.check
            equal("header signature", at, f[0], b"head")
            equal("header checksum", at + 4, f[1], _checksum(raw))
            check(f[3] != _NULL, f"file write id at {at + 16} is null")
            check(f[4] != _NULL, f"data write id at {at + 32} is null")
            equal("log id (there is a log to be replayed)", at + 48, f[5], _NULL)
            equal("log version", at + 64, f[6], 0)
            equal("version", at + 66, f[7], 1)
            check(not any(f[10]), f"reserved bytes from {at + 80} are not zero")
        first, second = found
        self.findings.check(
            first[2] != second[2], f"both headers have the sequence number {first[2]}"
        )
        self.findings.check(first[3:] == second[3:], "the headers do not say the same")
        self._add_region("log", _HEADERS_AT[0] + 68, first[9], first[8])

    def _add_region(self, name: str, at: int, start: int, length: int) -> bool:
        right = self.findings.check(
            start >= _MIB and start % _MIB == 0 and length > 0 and length % _MIB == 0,
            f"the {name} at {start} of {length} bytes, told at {at}, is not of whole MiB",
        )
        right &= self.findings.check(
            start + length <= self.image.length,
            f"the {name} at {start} of {length} bytes, told at {at}, ends after the file",
        )
        if right:
            self.regions.append(_Region(name, start, start + length))
        return right

    def _check_regions(self) -> tuple[_Region | None, _Region | None]:
        """6.1: two tables of the same content, the two known regions, each once, required."""
        tables = [self.image.read(at, _TABLE) for at in _REGIONS_AT]
        self.findings.check(
            tables[0] == tables[1],
            f"the region tables at {_REGIONS_AT[0]} and {_REGIONS_AT[1]} differ",
        )
        for at, raw in zip(_REGIONS_AT, tables, strict=True):
            self.findings.equal("region signature", at, raw[:4], b"regi")
            found = struct.unpack_from("<I", raw, 4)[0]
            self.findings.equal("region checksum", at + 4, found, _checksum(raw))
        at, raw = _REGIONS_AT[0], tables[0]
        count, reserved = struct.unpack_from("<II", raw, 8)
        self.findings.equal("reserved field of the region table", at + 12, reserved, 0)
        if not self.findings.check(count <= _MOST, f"number of regions at {at + 8} is {count}"):
            return None, None
        end = 16 + count * _REGION.size
        self.findings.check(not any(raw[end:]), f"bytes after the regions, {at + end}")
        known = {_BAT: "block table", _METADATA: "metadata"}
        found_regions: dict[bytes, _Region] = {}
        for number in range(count):
            entry = at + 16 + number * _REGION.size
            kind, start, length, required = _REGION.unpack_from(raw, entry - at)
            name = known.get(kind, f"unknown region {kind.hex()}")
            self.findings.check(kind in known, f"{name} is listed at {entry}")
            self.findings.check(kind not in found_regions, f"the {name} is listed twice")
            self.findings.equal(f"required bit of the {name}", entry + 28, required, 1)
            if self._add_region(name, entry + 16, start, length):
                found_regions[kind] = self.regions[-1]
        for kind, name in known.items():
            self.findings.check(kind in found_regions, f"there is no region of the {name}")
        return found_regions.get(_BAT), found_regions.get(_METADATA)

    def _check_overlaps(self) -> None:
        ordered = sorted(self.regions, key=lambda region: region.start)
        for first, second in pairwise(ordered):
            self.findings.check(
                first.end <= second.start,
                f"{first.name} and {second.name} overlap at {second.start}",
            )

    def _check_metadata(self, region: _Region) -> dict[str, bytes]:
        """6.1: the five items of a disk without a parent, each once."""
        at = region.start
        raw = self.image.read(at, _TABLE)
        signature, reserved, count, rest = struct.unpack_from("<8sHH20s", raw)
        if not self.findings.equal("metadata signature", at, signature, b"metadata"):
            return {}
        self.findings.equal("reserved field of the metadata", at + 8, reserved, 0)
        self.findings.check(not any(rest), f"reserved bytes from {at + 12} are not zero")
        if not self.findings.check(count <= _MOST, f"number of items at {at + 10} is {count}"):
            return {}
        end = 32 + count * _ITEM.size
        self.findings.check(not any(raw[end:]), f"bytes after the metadata's items, {at + end}")
        values = dict(self._items(region, raw, count))
        for name, _, _ in _ITEMS.values():
            self.findings.check(name in values, f"there is no item {name}")
        return values

    def _items(self, region: _Region, raw: bytes, count: int) -> Iterator[tuple[str, bytes]]:
        taken: list[tuple[int, int, str]] = []
        for number in range(count):
            at = 32 + number * _ITEM.size
            kind, offset, length, flags, reserved = _ITEM.unpack_from(raw, at)
            at += region.start
            if not self.findings.check(
                kind in _ITEMS, f"an item of unknown kind {kind.hex()} is listed at {at}"
            ):
                continue
            name, wanted, wanted_flags = _ITEMS[kind]
            self.findings.equal(f"flags of the {name}", at + 24, flags, wanted_flags)
            self.findings.equal(f"reserved field of the {name}", at + 28, reserved, 0)
            self.findings.equal(f"length of the {name}", at + 20, length, wanted)
            inside = self.findings.check(
                _TABLE <= offset <= region.end - region.start - length,
                f"the {name} at {offset} is not in the metadata",
            )
            if inside and length == wanted:
                taken.append((offset, offset + length, name))
                yield name, self.image.read(region.start + offset, length)
        for (_, end, name), (start, _, other) in pairwise(sorted(taken)):
            self.findings.check(end <= start, f"the {name} and the {other} overlap")

    def _check_values(self, values: dict[str, bytes], bat: _Region) -> Table | None:
        """What the items say must be possible, and fit into the block table."""
        if len(values) < len(_ITEMS):
            return None
        check = self.findings.check
        block, flags = struct.unpack("<II", values["file parameters"])
        size = int.from_bytes(values["disk size"], "little")
        logical = int.from_bytes(values["logical sector size"], "little")
        physical = int.from_bytes(values["physical sector size"], "little")
        check(values["disk id"] != _NULL, "the disk id is null")
        check(physical in (SECTOR, 4096), f"physical sectors are of {physical} bytes")
        check(flags & ~1 == 0, f"the file parameters have the flags {flags:#x} (a parent?)")
        right = check(logical == SECTOR, f"logical sectors are of {logical} bytes (qemu: 512)")
        right &= check(
            _MIB <= block <= 256 * _MIB and block & (block - 1) == 0,
            f"blocks are of {block} bytes, no power of two from 1 MiB to 256 MiB",
        )
        right &= check(
            0 < size <= 64 * TIB and size % SECTOR == 0,
            f"the disk has {size} bytes, not a positive multiple of 512 up to 64 TiB",
        )
        if not right:
            return None
        table = Table(size, block, bool(flags & 1))
        room = bat.end - bat.start
        fits = check(
            8 * table.entries <= room,
            f"the block table has {room} bytes, too few for {table.entries} entries",
        )
        return table if fits else None

"""Rules of VDI files, dynamic and fixed."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .common import (
    PIECE,
    SECTOR,
    Findings,
    Image,
    Ints,
    ceil_div,
    check_fill,
    check_single_format,
    table_from,
    where,
)

_HEADER = struct.Struct("<64sIIIII256sIIIIIIIQIIII16s16s16s16sIIII")
_HEADER_END = 72 + 400
_MIB = 1 << 20
_FREE = 0xFFFFFFFF
_ZERO = 0xFFFFFFFE
_DYNAMIC = 1
_FIXED = 2

MAX_BLOCKS = 0x1FFFFF80
"""The limit of qemu, about 512 TiB."""


def problems(path: str | os.PathLike[str]) -> list[str]:
    """Return the broken rules of a VDI."""
    with Image(path) as image:
        findings = Findings()
        raw = image.read(0, _HEADER_END)
        if findings.check(
            len(raw) == _HEADER_END, f"the file has {image.length} bytes, less than a header"
        ):
            _Vdi(image, findings, _Header.parse(raw)).check()
        return findings.items


@dataclass
class _Header:
    text: bytes
    signature: int
    version: int
    header_size: int
    kind: int
    flags: int
    comment: bytes
    map_at: int
    data_at: int
    legacy_geometry: tuple[int, int, int]
    sector_size: int
    unused: int
    size: int
    block_size: int
    block_extra: int
    blocks: int
    allocated: int
    uuids: tuple[bytes, bytes, bytes, bytes]
    geometry: tuple[int, int, int, int]

    @classmethod
    def parse(cls, raw: bytes) -> _Header:
        f = _HEADER.unpack(raw)
        return cls(
            text=f[0],
            signature=f[1],
            version=f[2],
            header_size=f[3],
            kind=f[4],
            flags=f[5],
            comment=f[6],
            map_at=f[7],
            data_at=f[8],
            legacy_geometry=f[9:12],
            sector_size=f[12],
            unused=f[13],
            size=f[14],
            block_size=f[15],
            block_extra=f[16],
            blocks=f[17],
            allocated=f[18],
            uuids=f[19:23],
            geometry=f[23:27],
        )


class _Vdi:
    def __init__(self, image: Image, findings: Findings, header: _Header) -> None:
        self.image = image
        self.findings = findings
        self.header = header

    def check(self) -> None:
        findings, header = self.findings, self.header
        if not findings.equal("signature", 0x40, header.signature, 0xBEDA107F):
            return
        self._check_constants()
        self._check_texts()
        self._check_uuids()
        check_single_format(self.image, findings, "vdi")
        if self._check_sizes() and self._check_places():
            self._check_length()
            self._check_map()

    def _check_constants(self) -> None:
        """5.1: fields with one right value in an image of VirtualBox 1.1 and later."""
        h = self.header
        for name, offset, found, wanted in (
            ("version (qemu takes no other)", 0x44, h.version, 0x00010001),
            ("header size", 0x48, h.header_size, 400),
            ("flags", 0x50, h.flags, 0),
            ("legacy geometry", 0x15C, h.legacy_geometry, (0, 0, 0)),
            ("sector size (qemu takes no other)", 0x168, h.sector_size, SECTOR),
            ("unused field", 0x16C, h.unused, 0),
            ("block size (qemu takes no other)", 0x178, h.block_size, _MIB),
            ("block extra (qemu ignores it)", 0x17C, h.block_extra, 0),
            ("logical geometry (VirtualBox)", 0x1C8, h.geometry, (0, 0, 0, SECTOR)),
        ):
            self.findings.equal(name, offset, found, wanted)
        self.findings.check(
            h.kind in (_DYNAMIC, _FIXED),
            f"type at {0x4C} is {h.kind}, not 1 (dynamic) or 2 (fixed)",
        )

    def _check_texts(self) -> None:
        """5.1: the texts end with NUL, and only NULs follow."""
        for name, offset, raw in (
            ("text", 0, self.header.text),
            ("comment", 0x54, self.header.comment),
        ):
            text, nul, rest = raw.partition(b"\0")
            self.findings.check(bool(nul), f"the {name} at {offset} has no NUL at its end")
            self.findings.check(
                not any(rest), f"the {name} at {offset} has bytes after its NUL"
            )
            try:
                text.decode("utf-8")
            except UnicodeDecodeError:
                self.findings.add(f"the {name} at {offset} is not UTF-8: {text!r}")

    def _check_uuids(self) -> None:
        """VirtualBox refuses null ids of image and change, qemu any id of a parent."""
        image, change, link, parent_change = self.header.uuids
        check = self.findings.check
        check(any(image), f"UUID of the image at {0x188} is null (VirtualBox)")
        check(any(change), f"UUID of the last change at {0x198} is null (VirtualBox)")
        check(not any(link), f"UUID of the parent at {0x1A8} is not null (qemu)")
        check(not any(parent_change), f"UUID of the parent's change at {0x1B8} is not null")

    def _check_sizes(self) -> bool:
        h = self.header
        right = self.findings.check(
            h.size > 0 and h.size % SECTOR == 0,
            f"disk size at {0x170} is {h.size}, not a positive multiple of 512",
        )
        right &= self.findings.equal(
            "number of blocks", 0x180, h.blocks, ceil_div(h.size, _MIB)
        )
        right &= self.findings.check(
            h.blocks <= MAX_BLOCKS,
            f"number of blocks at {0x180} is {h.blocks}, above {MAX_BLOCKS} (qemu)",
        )
        self.findings.check(
            h.allocated <= h.blocks,
            f"allocated blocks at {0x184} are {h.allocated}, more than {h.blocks} (VirtualBox)",
        )
        return right

    def _check_places(self) -> bool:
        """5.2: map and data at multiples of 1 MiB, in this order, in the file."""
        h = self.header
        map_end = h.map_at + 4 * h.blocks
        check = self.findings.check
        right = check(
            h.map_at % _MIB == 0 and h.map_at >= _HEADER_END,
            f"map offset at {0x154} is {h.map_at}, not a positive multiple of 1 MiB",
        )
        right &= check(
            h.data_at % _MIB == 0,
            f"data offset at {0x158} is {h.data_at}, not a multiple of 1 MiB",
        )
        right &= check(
            h.data_at >= map_end,
            f"data offset at {0x158} is {h.data_at}, before the map's end {map_end}"
            " (VirtualBox)",
        )
        right &= check(
            self.image.length >= h.data_at,
            f"the file has {self.image.length} bytes and ends before the data at {h.data_at}",
        )
        if right:
            gap = (_HEADER_END, h.map_at)
            check_fill(self.image, self.findings, "the gap after the header", gap)
            padding = (map_end, h.data_at)
            check_fill(self.image, self.findings, "the padding of the map", padding)
        return right

    def _check_length(self) -> None:
        """The last block is stored whole and nothing follows it."""
        wanted = self.header.data_at + self.header.allocated * _MIB
        self.findings.check(
            self.image.length == wanted,
            f"the file has {self.image.length} bytes; with {self.header.allocated} allocated"
            f" blocks it must have {wanted}",
        )

    def _pieces(self) -> Iterator[tuple[int, Ints]]:
        """Yield (first block, entries) of the pieces of the map."""
        per_piece = PIECE // 4
        for first in range(0, self.header.blocks, per_piece):
            count = min(per_piece, self.header.blocks - first)
            raw = self.image.read(self.header.map_at + 4 * first, 4 * count)
            yield first, table_from(raw, "<u4")

    def _check_map(self) -> None:
        """5.2: dense unique indices in guest order, as many as the counter says."""
        stored = (self.image.length - self.header.data_at) // _MIB
        seen = np.zeros(max(stored, 0), dtype=bool)
        used = 0
        previous = -1
        last = _FREE
        for first, entries in self._pieces():
            blocks = np.flatnonzero(entries < _ZERO)
            indices = entries[blocks]
            self._check_indices(first + blocks, indices, seen)
            self._check_order(first + blocks, indices, previous)
            used += len(blocks)
            previous = int(indices[-1]) if len(indices) else previous
            last = int(entries[-1])
        self.findings.equal(
            "allocated blocks (the map has others)", 0x184, self.header.allocated, used
        )
        self._check_dense(seen, used)
        self._check_kind(used)
        self._check_tail(last)

    def _name(self, blocks: Ints, indices: Ints, at: int) -> str:
        return (
            f"map entry {blocks[at]} at {self.header.map_at + 4 * int(blocks[at])}"
            f" = {indices[at]}"
        )

    def _check_indices(self, blocks: Ints, indices: Ints, seen: np.ndarray) -> None:
        """VirtualBox: index below the counter. qemu: no index twice. All: in the file."""
        for rule, wrong in (
            ("an index is not below the allocated blocks", indices >= self.header.allocated),
            ("a block ends after the end of the file", indices >= len(seen)),
        ):
            names = (self._name(blocks, indices, i) for i in where(wrong))
            self.findings.several(rule, names, int(wrong.sum()))
        inside = np.flatnonzero(indices < len(seen))
        places = indices[inside]
        twice = seen[places]
        _, first_at = np.unique(places, return_index=True)
        once = np.zeros(len(places), dtype=bool)
        once[first_at] = True
        twice = twice | ~once
        seen[places] = True
        names = (self._name(blocks, indices, inside[i]) for i in where(twice))
        self.findings.several("an index is in the map twice", names, int(twice.sum()))

    def _check_order(self, blocks: Ints, indices: Ints, previous: int) -> None:
        """8.2: blocks are stored in guest order."""
        falling = np.diff(indices, prepend=previous) <= 0
        names = (self._name(blocks, indices, i) for i in where(falling))
        self.findings.several("blocks are not in guest order", names, int(falling.sum()))

    def _check_dense(self, seen: np.ndarray, used: int) -> None:
        """VirtualBox takes no gap: the indices are 0 to the counter less one."""
        gaps = ~seen[:used]
        names = (f"index {i}" for i in where(gaps))
        self.findings.several("an index is not in the map", names, int(gaps.sum()))

    def _check_kind(self, used: int) -> None:
        """A fixed disk has all blocks; dense and in guest order, each is at its place."""
        if self.header.kind == _FIXED:
            self.findings.check(
                used == self.header.blocks,
                f"the map of a fixed disk has {used} blocks of {self.header.blocks}",
            )

    def _check_tail(self, last: int) -> None:
        """The part of the last block that lies beyond the disk is zero."""
        part = self.header.size % _MIB
        if part and last < _ZERO:
            block = self.header.data_at + last * _MIB
            span = (block + part, block + _MIB)
            check_fill(self.image, self.findings, "the last block beyond the disk", span)

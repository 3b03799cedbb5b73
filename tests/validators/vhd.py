"""Rules of VHD (vpc) files, dynamic and fixed."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .common import (
    SECTOR,
    TIB,
    Findings,
    Image,
    Ints,
    ceil_div,
    check_fill,
    check_single_format,
    round_up,
    table_from,
    where,
)

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427s")
_HEADER = struct.Struct(">8sQQIIII16sII512s192s256s")
_ALL_ONES = 0xFFFFFFFFFFFFFFFF
_ABSENT = 0xFFFFFFFF
_MIB = 1 << 20
_FIXED = 2
_DYNAMIC = 3

MAX_DYNAMIC = 0xFF000000 * SECTOR
"""2040 GiB, the limit of qemu and XenServer."""
MAX_FIXED = 32 * TIB
"""The limit of Azure; qemu opens no VHD of more than 2040 GiB."""
AZURE_LENGTHS = (20 * _MIB + SECTOR, MAX_FIXED + SECTOR)

_MAX_GEOMETRY = (65535, 16, 255)
_CURRENT_SIZE_CREATORS = (b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0")
"""The creators for which qemu up to 9.x believes the current size, not C*H*S."""


def problems(path: str | os.PathLike[str]) -> list[str]:
    """Return the broken rules of a VHD, except those that only Azure has."""
    with Image(path) as image:
        findings = Findings()
        _check(image, findings)
        return findings.items


def azure_problems(path: str | os.PathLike[str]) -> list[str]:
    """Return all broken rules of a VHD for Azure: fixed, whole MiB, 20 MiB to 32 TiB."""
    with Image(path) as image:
        findings = Findings()
        footer = _check(image, findings)
        low, high = AZURE_LENGTHS
        findings.check(
            low <= image.length <= high,
            f"the file has {image.length} bytes; Azure takes {low} to {high}",
        )
        findings.check(
            image.length % _MIB == SECTOR,
            f"the file has {image.length} bytes, not a whole number of MiB and 512 (Azure)",
        )
        if footer is not None:
            findings.equal("disk type (Azure takes fixed only)", 60, footer.kind, _FIXED)
            findings.check(
                footer.size % _MIB == 0,
                f"current size {footer.size} is not a whole number of MiB (Azure)",
            )
        return findings.items


@dataclass
class _Footer:
    raw: bytes
    cookie: bytes
    features: int
    version: int
    data_offset: int
    creator: bytes
    creator_os: bytes
    original_size: int
    size: int
    geometry: tuple[int, int, int]
    kind: int
    checksum: int
    uuid: bytes
    saved_state: int
    reserved: bytes

    @classmethod
    def parse(cls, raw: bytes) -> _Footer:
        f = _FOOTER.unpack(raw)
        return cls(
            raw=raw,
            cookie=f[0],
            features=f[1],
            version=f[2],
            data_offset=f[3],
            creator=f[5],
            creator_os=f[7],
            original_size=f[8],
            size=f[9],
            geometry=(f[10], f[11], f[12]),
            kind=f[13],
            checksum=f[14],
            uuid=f[15],
            saved_state=f[16],
            reserved=f[17],
        )


def checksum(raw: bytes, field: int) -> int:
    """Return the one's complement of the sum of the bytes, the field taken as zero."""
    return ~(sum(raw) - sum(raw[field : field + 4])) & 0xFFFFFFFF


def geometry(sectors: int, *, like_qemu: bool = False) -> tuple[int, int, int]:
    """Return the cylinders, heads and sectors that the VHD specification computes."""
    total = min(sectors, 65535 * 16 * 255)
    edge = 65535 * 16 * 63
    if total > edge or (total == edge and not like_qemu):
        return total // 255 // 16, 16, 255
    per_track = 17
    tracks = total // per_track
    heads = max(4, ceil_div(tracks, 1024))
    if tracks >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
        tracks = total // per_track
    if tracks >= heads * 1024:
        per_track, heads = 63, 16
        tracks = total // per_track
    return tracks // heads, heads, per_track


def _check(image: Image, findings: Findings) -> _Footer | None:
    footer_at = image.length - SECTOR
    if not findings.check(
        footer_at >= 0, f"the file has {image.length} bytes, too few for a footer"
    ):
        return None
    findings.check(
        image.length % SECTOR == 0,
        f"the file length {image.length} is not a multiple of 512",
    )
    footer = _Footer.parse(image.read(footer_at, SECTOR))
    if not findings.equal("footer cookie", footer_at, footer.cookie, b"conectix"):
        return None
    _check_footer(findings, footer, footer_at)
    if footer.kind == _FIXED:
        _check_fixed(image, findings, footer)
    elif footer.kind == _DYNAMIC:
        _Dynamic(image, findings, footer).check()
    else:
        findings.add(
            f"disk type at {footer_at + 60} is {footer.kind}, not 2 (fixed) or 3 (dynamic)"
        )
    return footer


def _check_footer(findings: Findings, footer: _Footer, at: int) -> None:
    """2.1: the fields of the footer that every consumer reads."""
    findings.equal("footer features", at + 8, footer.features, 2)
    findings.equal("footer version", at + 12, footer.version, 0x10000)
    findings.check(
        footer.creator_os in (b"Wi2k", b"Mac "),
        f"creator OS at {at + 36} is {footer.creator_os!r}, not b'Wi2k' or b'Mac '",
    )
    findings.equal("footer checksum", at + 64, footer.checksum, checksum(footer.raw, field=64))
    findings.check(any(footer.uuid), f"unique id at {at + 68} is null (VirtualBox refuses it)")
    findings.equal("saved state", at + 84, footer.saved_state, 0)
    findings.check(not any(footer.reserved), f"reserved bytes from {at + 85} are not zero")
    findings.check(
        footer.size > 0 and footer.size % SECTOR == 0,
        f"current size at {at + 48} is {footer.size}, not a positive multiple of 512",
    )
    findings.equal("original size", at + 40, footer.original_size, footer.size)
    _check_geometry(findings, footer, at)


def _check_geometry(findings: Findings, footer: _Footer, at: int) -> None:
    """2.3 and 2.4: the geometry is the computed one, and no reader believes it."""
    sectors = footer.size // SECTOR
    right = {geometry(sectors), geometry(sectors, like_qemu=True), _MAX_GEOMETRY}
    findings.check(
        footer.geometry in right,
        f"geometry at {at + 56} is {footer.geometry}, not one of {sorted(right)}",
    )
    findings.check(
        footer.creator in _CURRENT_SIZE_CREATORS or footer.geometry == _MAX_GEOMETRY,
        f"creator at {at + 28} is {footer.creator!r}: some qemu takes the size from the"
        f" geometry {footer.geometry}, not the current size {footer.size}",
    )


def _check_fixed(image: Image, findings: Findings, footer: _Footer) -> None:
    """2.1 and 2.5: a fixed disk is the plain data and then the footer."""
    at = image.length - SECTOR
    findings.equal("data offset of a fixed disk", at + 16, footer.data_offset, _ALL_ONES)
    findings.check(
        image.length == footer.size + SECTOR,
        f"the file has {image.length} bytes, not current size + 512 = {footer.size + SECTOR}",
    )
    findings.check(
        footer.size <= MAX_FIXED, f"current size {footer.size} is above {MAX_FIXED} (Azure)"
    )
    findings.check(
        at == 0 or image.read(0, 8) != b"conectix",
        "the data of the fixed disk begins with the cookie: qemu takes it for a dynamic one",
    )


class _Dynamic:
    """The rules of a dynamic disk: front copy, header, table, blocks, footer."""

    def __init__(self, image: Image, findings: Findings, footer: _Footer) -> None:
        self.image = image
        self.findings = findings
        self.footer = footer
        self.footer_at = image.length - SECTOR
        self.block_size = 0
        self.entries = 0
        self.table_at = 0
        self.table_end = 0

    @property
    def bitmap_size(self) -> int:
        return round_up(ceil_div(self.block_size // SECTOR, 8), SECTOR)

    def check(self) -> None:
        self._check_front()
        check_single_format(self.image, self.findings, "vhd")
        self.findings.check(
            self.footer.size <= MAX_DYNAMIC,
            f"current size {self.footer.size} is above 2040 GiB (qemu, XenServer)",
        )
        if self._check_header() and self._check_table_place():
            self._check_table()

    def _check_front(self) -> None:
        """qemu reads the copy at 0, everyone else the footer: they must not differ."""
        front = self.image.read(0, SECTOR)
        if front != self.footer.raw:
            pairs = zip(front, self.footer.raw, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(front))
            self.findings.add(f"the copy of the footer at 0 differs from it in byte {at}")
        self.findings.check(
            self.footer_at >= SECTOR, "the footer and its copy at 0 are one sector"
        )

    def _check_header(self) -> bool:
        """2.2: the dynamic header. Only XenServer and VirtualBox verify its checksum."""
        at = self.footer.data_offset
        if not self.findings.check(
            at % SECTOR == 0 and SECTOR <= at <= self.footer_at - _HEADER.size,
            f"data offset {at} is no sector between the front copy and the footer",
        ):
            return False
        raw = self.image.read(at, _HEADER.size)
        f = _HEADER.unpack(raw)
        equal = self.findings.equal
        if not equal("dynamic header cookie", at, f[0], b"cxsparse"):
            return False
        equal("dynamic header data offset", at + 8, f[1], _ALL_ONES)
        equal("dynamic header version", at + 24, f[3], 0x10000)
        equal("dynamic header checksum", at + 36, f[6], checksum(raw, field=36))
        for name, offset, value in (
            ("parent UUID", 40, any(f[7])),
            ("parent timestamp", 56, f[8]),
            ("reserved field", 60, f[9]),
            ("parent name", 64, any(f[10])),
            ("parent locators", 576, any(f[11])),
            ("reserved bytes", 768, any(f[12])),
        ):
            self.findings.check(not value, f"{name} at {at + offset} is not zero")
        self.table_at, self.entries, self.block_size = f[2], f[4], f[5]
        return self._check_block_size(at)

    def _check_block_size(self, at: int) -> bool:
        """Hyper-V takes blocks of 2 MiB or 512 KiB only."""
        return self.findings.check(
            self.block_size in (2 * _MIB, _MIB // 2),
            f"block size at {at + 32} is {self.block_size}, not 2 MiB or 512 KiB (Hyper-V)",
        )

    def _check_table_place(self) -> bool:
        """XenServer reads a stream: header, then table, then blocks, forward only."""
        header_end = self.footer.data_offset + _HEADER.size
        needed = ceil_div(self.footer.size, self.block_size)
        field = self.footer.data_offset + 28
        self.table_end = self.table_at + round_up(4 * self.entries, SECTOR)
        right = self.findings.equal("max table entries", field, self.entries, needed)
        right &= self.findings.check(
            self.table_at % SECTOR == 0 and self.table_at >= header_end,
            f"BAT offset {self.table_at} is no sector after the header, which ends at"
            f" {header_end} (XenServer)",
        )
        right &= self.findings.check(
            self.table_end <= self.footer_at,
            f"the BAT ends at {self.table_end}, after the footer's start {self.footer_at}",
        )
        if right:
            gaps = ((SECTOR, self.footer.data_offset), (header_end, self.table_at))
            for span in gaps:
                check_fill(self.image, self.findings, "the gap before the BAT", span)
            padding = (self.table_at + 4 * self.entries, self.table_end)
            check_fill(self.image, self.findings, "the padding of the BAT", padding, 0xFF)
        return right

    def _check_table(self) -> None:
        table: Ints = table_from(self.image.read(self.table_at, 4 * self.entries), ">u4")
        blocks = np.flatnonzero(table != _ABSENT)
        starts = table[blocks] * SECTOR
        inside = self._check_bounds(blocks, starts)
        self._check_order(blocks, starts)
        self._check_alignment(blocks, starts)
        self._check_end(starts)
        ordered = np.sort(starts[inside])
        self._check_gaps_and_bitmaps(ordered)
        self._check_tail(table)

    def _name(self, blocks: Ints, starts: Ints, at: int) -> str:
        entry = self.table_at + 4 * int(blocks[at])
        return f"BAT entry {blocks[at]} at {entry} = byte {starts[at]}"

    def _check_bounds(self, blocks: Ints, starts: Ints) -> np.ndarray:
        """2.5, 2.6: a whole block with its bitmap lies between the BAT and the footer."""
        size = self.bitmap_size + self.block_size
        low = starts < self.table_end
        high = starts + size > self.footer_at
        self.findings.several(
            f"blocks start before the end of the BAT at {self.table_end}",
            (self._name(blocks, starts, i) for i in where(low)),
            int(low.sum()),
        )
        self.findings.several(
            f"blocks end after the start of the footer at {self.footer_at}",
            (self._name(blocks, starts, i) for i in where(high)),
            int(high.sum()),
        )
        return ~(low | high)

    def _check_order(self, blocks: Ints, starts: Ints) -> None:
        """XenServer wants ascending file order; blocks must not overlap anywhere."""
        falling = np.diff(starts) <= 0
        self.findings.several(
            "blocks are not in ascending file order (XenServer)",
            (self._name(blocks, starts, i + 1) for i in where(falling)),
            int(falling.sum()),
        )
        order = np.argsort(starts, kind="stable")
        sizes = self.bitmap_size + self.block_size
        overlaps = np.diff(starts[order]) < sizes
        self.findings.several(
            "blocks overlap",
            (
                f"{self._name(blocks, starts, order[i])} and block {blocks[order[i + 1]]}"
                for i in where(overlaps)
            ),
            int(overlaps.sum()),
        )

    def _check_alignment(self, blocks: Ints, starts: Ints) -> None:
        """Hyper-V on 4K-native hosts wants the data of a block at a multiple of 4 KiB."""
        off = (starts + self.bitmap_size) % 4096 != 0
        self.findings.several(
            "block data is not 4 KiB aligned (Hyper-V)",
            (self._name(blocks, starts, i) for i in where(off)),
            int(off.sum()),
        )

    def _check_end(self, starts: Ints) -> None:
        """XenServer expects the footer immediately after the last block."""
        end = self.table_end
        if len(starts):
            end = int(starts.max()) + self.bitmap_size + self.block_size
        self.findings.check(
            end == self.footer_at,
            f"the footer is at {self.footer_at}, not right after the last block or the BAT"
            f" at {end} (XenServer)",
        )

    def _gaps(self, ordered: Ints) -> Iterator[tuple[int, int]]:
        """Yield (end of what lies before, start) of each block in file order."""
        size = self.bitmap_size + self.block_size
        before = self.table_end
        for start in ordered.tolist():
            yield min(before, start), start
            before = start + size

    def _check_gaps_and_bitmaps(self, ordered: Ints) -> None:
        """Gaps only align and are zero; bitmaps are all ones (XenServer, VirtualBox).

        The gap before the first block may be wider: it is the end of the head.
        """
        ones = b"\xff" * self.bitmap_size
        wide: list[str] = []
        dirty: list[str] = []
        cleared: list[str] = []
        for number, (before, start) in enumerate(self._gaps(ordered)):
            gap = start - before
            if gap >= 4096 and number:
                wide.append(f"{gap} bytes before {start}")
            if self.image.first_unlike(before, start, 0) is not None:
                dirty.append(f"between {before} and {start}")
            if self.image.read(start, self.bitmap_size) != ones:
                cleared.append(f"bitmap at {start}")
        self.findings.several("a gap between blocks does not only align", wide, len(wide))
        self.findings.several("the gap before a block is not zero", dirty, len(dirty))
        self.findings.several(
            "a bitmap is not all ones (XenServer drops its data)", cleared, len(cleared)
        )

    def _check_tail(self, table: Ints) -> None:
        """The part of the last block that lies beyond the disk is zero."""
        used = self.footer.size % self.block_size
        if used and len(table) and table[-1] != _ABSENT:
            data = int(table[-1]) * SECTOR + self.bitmap_size
            span = (data + used, data + self.block_size)
            check_fill(self.image, self.findings, "the last block beyond the disk", span)

"""Rules of VMDK files, monolithicSparse and streamOptimized with the tables at the end."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np

from .common import (
    SECTOR,
    Findings,
    Image,
    Ints,
    ceil_div,
    check_fill,
    check_single_format,
    is_all,
    table_from,
    where,
)
from .vmdk_descriptor import check_descriptor

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433s")
_GD_AT_END = 0xFFFFFFFFFFFFFFFF
_SPARSE_FLAGS = 3
_STREAM_FLAGS = 0x30001
_DESCRIPTOR = (1, 20)
_GTES = 512
_GT_BYTES = 4 * _GTES
_GT_SECTORS = _GT_BYTES // SECTOR
_MARKER = struct.Struct("<QII")
_EOS, _GT, _GD, _FOOTER = range(4)
_MAX_GRAIN_SECTORS = 129


def problems(path: str | os.PathLike[str]) -> list[str]:
    """Return the broken rules of a VMDK."""
    with Image(path) as image:
        findings = Findings()
        raw = image.read(0, SECTOR)
        if findings.check(
            len(raw) == SECTOR, f"the file has {image.length} bytes, less than a header"
        ):
            _check(image, findings, _Header.parse(raw))
        return findings.items


@dataclass(frozen=True)
class _Header:
    magic: bytes
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor_at: int
    descriptor_size: int
    gtes: int
    rgd_at: int
    gd_at: int
    overhead: int
    unclean: int
    newlines: bytes
    compression: int
    padding: bytes

    @classmethod
    def parse(cls, raw: bytes) -> _Header:
        return cls(*_HEADER.unpack(raw))

    @property
    def tables(self) -> int:
        return ceil_div(self.capacity, self.grain * _GTES)

    @property
    def directory_sectors(self) -> int:
        return ceil_div(4 * self.tables, SECTOR)


def _check(image: Image, findings: Findings, header: _Header) -> None:
    if not findings.equal("magic", 0, header.magic, b"KDMV"):
        return
    usable = _check_header(findings, header)
    check_single_format(image, findings, "vmdk")
    findings.check(
        image.length % SECTOR == 0,
        f"the file length {image.length} is not a multiple of 512",
    )
    findings.check(
        image.length < 1 << 41, f"the file has {image.length} bytes; sectors are of 32 bits"
    )
    stream = bool(header.flags & 0x30000)
    create_type = "streamOptimized" if stream else "monolithicSparse"
    start, count = (SECTOR * n for n in _DESCRIPTOR)
    check_descriptor(image.read(start, count), findings, header.capacity, create_type)
    if usable:
        checker = _Stream if stream else _Sparse
        checker(image, findings, header).check()


def _check_header(findings: Findings, header: _Header) -> bool:
    """4.1: fields that both kinds share; return whether the rest can be checked."""
    right = findings.check(header.capacity > 0, "capacity at 12 is 0 (7.2: a security trap)")
    right &= findings.check(
        header.grain in (8, 16, 32, 64, 128),
        f"grain size at 20 is {header.grain} sectors, not a power of two from 8 to 128"
        " (VMware)",
    )
    right &= findings.equal("GTEs per GT", 44, header.gtes, _GTES)
    for name, offset, found, wanted in (
        ("descriptor offset (OpenStack)", 28, header.descriptor_at, _DESCRIPTOR[0]),
        ("descriptor size", 36, header.descriptor_size, _DESCRIPTOR[1]),
        ("unclean shutdown", 72, header.unclean, 0),
        ("newline test", 73, header.newlines, b"\n \r\n"),
    ):
        findings.equal(name, offset, found, wanted)
    findings.check(not any(header.padding), "the padding of the header from 79 is not zero")
    return right


class _Sparse:
    """4.2: header, descriptor, redundant and main directory with all tables, grains."""

    def __init__(self, image: Image, findings: Findings, header: _Header) -> None:
        self.image = image
        self.findings = findings
        self.header = header

    def check(self) -> None:
        h, findings = self.header, self.findings
        findings.equal("version (VirtualBox: not 2; qemu: not 3)", 4, h.version, 1)
        findings.equal("flags", 8, h.flags, _SPARSE_FLAGS)
        findings.equal("compression", 77, h.compression, 0)
        if not findings.check(
            h.capacity < 1 << 32, f"capacity at 12 is {h.capacity} sectors, not below 2^32"
        ):
            return
        end = self.image.length // SECTOR
        right = findings.check(
            h.overhead % h.grain == 0,
            f"overhead at 64 is {h.overhead}, not a multiple of the grain of {h.grain} sectors",
        )
        right &= findings.check(
            h.overhead <= end, f"overhead at 64 is {h.overhead}, after the file's end at {end}"
        )
        for name, offset, at in (("RGD", 48, h.rgd_at), ("GD", 56, h.gd_at)):
            right &= findings.check(
                sum(_DESCRIPTOR) <= at <= h.overhead - h.directory_sectors,
                f"{name} offset at {offset} is {at}, not between descriptor and overhead",
            )
        if right:
            self._check_tables()

    def _directory(self, name: str, at: int) -> Ints:
        """Return a directory; all its tables exist (VMware) and lie before the grains."""
        h = self.header
        directory: Ints = table_from(self.image.read(at * SECTOR, 4 * h.tables), "<u4")
        span = (at * SECTOR + 4 * h.tables, (at + h.directory_sectors) * SECTOR)
        check_fill(self.image, self.findings, f"the padding of the {name}", span)
        missing = directory == 0
        self.findings.several(
            f"a table of the {name} at sector {at} is not preallocated (VMware)",
            (f"entry {i}" for i in where(missing)),
            int(missing.sum()),
        )
        late = directory > h.overhead - _GT_SECTORS
        self.findings.several(
            f"a table of the {name} is not before the grains at sector {h.overhead}",
            (f"entry {i} = {directory[i]}" for i in where(late)),
            int(late.sum()),
        )
        return directory

    def _check_tables(self) -> None:
        h = self.header
        redundant = self._directory("RGD", h.rgd_at)
        main = self._directory("GD", h.gd_at)
        self._check_layout(redundant, main)
        wrong = (main == 0) | (main > h.overhead - _GT_SECTORS)
        if wrong.any():
            return
        grains = _Grains(self.image, self.findings, h)
        differ: list[str] = []
        count = 0
        for first in range(0, h.tables, 1024):
            step = slice(first, first + 1024)
            tables = self.image.gather((main[step] * SECTOR).tolist(), _GT_BYTES)
            twins = self.image.gather((redundant[step] * SECTOR).tolist(), _GT_BYTES)
            if tables != twins:
                a, b = (np.frombuffer(raw, "<u4").reshape(-1, _GTES) for raw in (tables, twins))
                unlike = (a != b).any(axis=1)
                count += int(unlike.sum())
                differ += [f"table {first + i}" for i in where(unlike)]
            grains.add(first * _GTES, table_from(tables, "<u4"))
        self.findings.several(
            "a table of the RGD is unlike its twin (VirtualBox)", differ, count
        )
        grains.finish()

    def _check_layout(self, redundant: Ints, main: Ints) -> None:
        """Nothing of the metadata overlaps, and what lies between is zero."""
        h = self.header
        starts = np.concatenate(([0, 1, h.rgd_at, h.gd_at], redundant, main))
        fixed = [1, _DESCRIPTOR[1], h.directory_sectors, h.directory_sectors]
        lengths = np.concatenate((fixed, np.full(2 * h.tables, _GT_SECTORS)))
        starts[4:][starts[4:] == 0] = h.overhead
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], (starts + lengths)[order]
        overlap = (starts[1:] < ends[:-1]) & (starts[1:] < h.overhead)
        self.findings.several(
            "parts of the metadata overlap (VirtualBox)",
            (f"at sector {starts[i + 1]}" for i in where(overlap)),
            int(overlap.sum()),
        )
        for i in np.flatnonzero(starts[1:] > ends[:-1]).tolist():
            self._check_gap(int(ends[i]), int(starts[i + 1]))
        self._check_gap(int(ends.max()), h.overhead)

    def _check_gap(self, start: int, end: int) -> None:
        span = (start * SECTOR, end * SECTOR)
        check_fill(self.image, self.findings, "a gap in the metadata", span)


class _Grains:
    """The grains of a monolithicSparse image: aligned, ascending, dense, in the file."""

    def __init__(self, image: Image, findings: Findings, header: _Header) -> None:
        self.image = image
        self.findings = findings
        self.header = header
        self.previous = 0
        self.count = 0
        self.end = header.overhead
        self.last = 0
        self.sectors: list[np.ndarray] = []
        self.ascending = True

    def add(self, first: int, entries: Ints) -> None:
        """Check the entries of tables, the first being that of the grain `first`."""
        h = self.header
        places = np.flatnonzero(entries)
        sectors = entries[places]
        if not len(sectors):
            return
        disk_grains = ceil_div(h.capacity, h.grain)
        falling = np.diff(sectors, prepend=self.previous) <= 0
        for rule, wrong in (
            ("a grain is past the capacity", first + places >= disk_grains),
            ("a grain is before the overhead", sectors < h.overhead),
            ("a grain is not grain aligned", sectors % h.grain != 0),
            (
                "a grain ends after the end of the file",
                (sectors + h.grain) * SECTOR > self.image.length,
            ),
            ("grains are not in ascending guest order", falling),
        ):
            texts = (f"grain {first + places[i]} at sector {sectors[i]}" for i in where(wrong))
            self.findings.several(rule, texts, int(wrong.sum()))
        self.ascending &= not falling.any()
        self.sectors.append(sectors.astype(np.uint32))
        self.previous = int(sectors[-1])
        self.count += len(sectors)
        self.end = max(self.end, int(sectors.max()) + h.grain)
        at = disk_grains - 1 - first
        if 0 <= at < len(entries):
            self.last = int(entries[at])

    def finish(self) -> None:
        h = self.header
        if not self.ascending:
            ordered = np.sort(np.concatenate(self.sectors))
            shared = np.diff(ordered.astype(np.int64)) < h.grain
            texts = (f"at sector {ordered[i]}" for i in where(shared))
            self.findings.several("grains overlap", texts, int(shared.sum()))
        self.findings.check(
            self.image.length == self.end * SECTOR,
            f"the file has {self.image.length} bytes, but the grains end at"
            f" {self.end * SECTOR}",
        )
        self.findings.check(
            self.end - h.overhead == self.count * h.grain,
            f"between the overhead at sector {h.overhead} and the end of the grains at"
            f" {self.end} there is room that no grain uses ({self.count} grains)",
        )
        used = h.capacity % h.grain
        if used and self.last:
            span = (self.last + used) * SECTOR, (self.last + h.grain) * SECTOR
            check_fill(self.image, self.findings, "the last grain beyond the disk", span)


class _Broken(Exception):
    """The stream cannot be followed any further."""


class _Stream:
    """4.3: a stream read front to back, as an importer of OVA files does."""

    def __init__(self, image: Image, findings: Findings, header: _Header) -> None:
        self.image = image
        self.findings = findings
        self.header = header
        self.at = header.overhead
        self.previous = -1
        self.pending = np.zeros(_GTES, dtype=np.int64)
        self.pending_table: int | None = None
        self.directory = np.zeros(0, dtype=np.int64)
        self.empty_tables: list[int] = []
        self.directory_at: int | None = None
        self.footer_at: int | None = None

    def check(self) -> None:
        h, findings = self.header, self.findings
        self._check_header()
        findings.check(
            self.image.length >= (h.overhead + 3) * SECTOR,
            f"the file has {self.image.length} bytes, too few for a footer after the overhead",
        )
        if not findings.check(
            h.overhead >= sum(_DESCRIPTOR),
            f"overhead at 64 is {h.overhead}, before the end of the descriptor",
        ):
            return
        if not findings.check(
            4 * h.tables <= self.image.length,
            f"the file has {self.image.length} bytes, too few for the {h.tables} tables of"
            f" the capacity {h.capacity} at 12",
        ):
            return
        self.directory = np.zeros(h.tables, dtype=np.int64)
        span = (sum(_DESCRIPTOR) * SECTOR, h.overhead * SECTOR)
        check_fill(self.image, findings, "the gap between descriptor and overhead", span)
        try:
            while self._step():
                pass
        except _Broken as broken:
            findings.add(str(broken))

    def _check_header(self) -> None:
        """Modern ESXi wants version 3; the directory is at the end, no redundant one."""
        h = self.header
        for name, offset, found, wanted in (
            ("version (ESXi)", 4, h.version, 3),
            ("flags", 8, h.flags, _STREAM_FLAGS),
            ("grain size", 20, h.grain, 128),
            ("RGD offset", 48, h.rgd_at, 0),
            ("GD offset", 56, h.gd_at, _GD_AT_END),
            ("compression", 77, h.compression, 1),
        ):
            self.findings.equal(name, offset, found, wanted)

    def _step(self) -> bool:
        """Read one marker and what follows it; return False after the end of stream."""
        at = self.at * SECTOR
        raw = self.image.read(at, SECTOR)
        if len(raw) < SECTOR:
            raise _Broken(f"the stream ends at {at} without an end-of-stream marker")
        value, size, kind = _MARKER.unpack_from(raw)
        if size:
            self._grain(value, size)
            return True
        self.findings.check(
            is_all(raw[_MARKER.size :]), f"the marker at {at} has bytes that are not zero"
        )
        self.at += 1
        if kind == _EOS:
            self._end_of_stream(at, value)
            return False
        steps = {_GT: self._table, _GD: self._grain_directory, _FOOTER: self._footer}
        if kind not in steps:
            raise _Broken(f"the marker at {at} has the unknown type {kind}")
        steps[kind](value)
        return True

    def _grain(self, lba: int, size: int) -> None:
        """A grain: in ascending order, in few enough sectors, not empty, zero padded."""
        h, at = self.header, self.at * SECTOR
        sectors = ceil_div(12 + size, SECTOR)
        name = f"the grain marker at {at} (LBA {lba}, {size} bytes)"
        if sectors > _MAX_GRAIN_SECTORS:
            raise _Broken(f"{name} is longer than 129 sectors (VirtualBox, VMware)")
        self.findings.check(
            self.directory_at is None, f"{name} comes after the grain directory"
        )
        if lba % h.grain or lba >= h.capacity:
            raise _Broken(f"{name} has an LBA that is no grain of the disk")
        self.findings.check(
            lba > self.previous,
            f"{name} is not after LBA {self.previous} (VirtualBox, vSphere: ascending)",
        )
        self.previous = lba
        raw = self.image.read(at, sectors * SECTOR)
        if len(raw) < sectors * SECTOR:
            raise _Broken(f"{name} ends after the end of the file at {self.image.length}")
        self.findings.check(is_all(raw[12 + size :]), f"{name} is not padded with zeros")
        self._check_data(name, raw[12 : 12 + size], lba)
        self._remember(name, lba)
        self.at += sectors

    def _check_data(self, name: str, data: bytes, lba: int) -> None:
        """A zlib stream that gives one grain; the last may give just the disk's part."""
        whole = self.header.grain * SECTOR
        valid = min(whole, (self.header.capacity - lba) * SECTOR)
        inflate = zlib.decompressobj()
        try:
            plain = inflate.decompress(data, whole + 1)
        except zlib.error as error:
            self.findings.add(f"{name} is no zlib stream: {error}")
            return
        self.findings.check(inflate.eof, f"{name} has a zlib stream that does not end")
        self.findings.check(not inflate.unused_data, f"{name} has bytes after the zlib stream")
        self.findings.check(
            len(plain) in (whole, valid), f"{name} inflates to {len(plain)}, not {valid} bytes"
        )
        self.findings.check(not is_all(plain), f"{name} is all zeros and had to be left out")
        self.findings.check(is_all(plain[valid:]), f"{name} has data beyond the disk")

    def _remember(self, name: str, lba: int) -> None:
        """Keep where a grain is until its table comes."""
        table, entry = divmod(lba // self.header.grain, _GTES)
        if self.pending_table not in (None, table):
            missing = f"the table of the grains of table {self.pending_table}"
            self.findings.add(f"{name} comes before {missing}")
            self.pending[:] = 0
        self.findings.check(
            self.directory[table] == 0, f"{name} comes after its grain table {table}"
        )
        self.pending_table = table
        self.pending[entry] = self.at

    def _table(self, sectors: int) -> None:
        """A grain table comes after its grains and says exactly where they are."""
        at = self.at * SECTOR
        name = f"the grain table at {at}"
        if sectors != _GT_SECTORS:
            raise _Broken(f"{name} has {sectors} sectors in its marker, not {_GT_SECTORS}")
        raw = self.image.read(at, _GT_BYTES).ljust(_GT_BYTES, b"\0")
        entries: Ints = table_from(raw, "<u4")
        self.findings.check(
            self.directory_at is None, f"{name} comes after the grain directory"
        )
        unlike = entries != self.pending
        texts = (
            f"entry {i} at {at + 4 * i} = {entries[i]}, not {self.pending[i]}"
            for i in where(unlike)
        )
        self.findings.several(
            f"{name} does not match the grains before it", texts, int(unlike.sum())
        )
        if self.pending_table is None:
            self.empty_tables.append(self.at)
        else:
            self.directory[self.pending_table] = self.at
        self.pending_table = None
        self.pending[:] = 0
        self.at += _GT_SECTORS

    def _grain_directory(self, sectors: int) -> None:
        """The directory has each table; a range with no grain has 0 or an empty table."""
        h, at = self.header, self.at * SECTOR
        name = f"the grain directory at {at}"
        self.findings.check(self.directory_at is None, f"{name} is the second one")
        self.findings.check(
            self.pending_table is None,
            f"{name} comes before the table of the grains of table {self.pending_table}",
        )
        if sectors != h.directory_sectors:
            raise _Broken(
                f"{name} has {sectors} sectors in its marker, not {h.directory_sectors}"
            )
        raw = self.image.read(at, 4 * h.tables)
        if len(raw) < 4 * h.tables:
            raise _Broken(f"{name} ends after the end of the file at {self.image.length}")
        entries: Ints = table_from(raw, "<u4")
        empty = (self.directory == 0) & np.isin(entries, self.empty_tables)
        unlike = (entries != self.directory) & ~empty
        texts = (
            f"entry {i} at {at + 4 * i} = {entries[i]}, not {self.directory[i]}"
            for i in where(unlike)
        )
        self.findings.several(f"{name} does not match the tables", texts, int(unlike.sum()))
        self.findings.check(
            int(empty.sum()) == len(self.empty_tables),
            f"{name} does not have each of the {len(self.empty_tables)} empty tables once",
        )
        span = (at + 4 * h.tables, at + sectors * SECTOR)
        check_fill(self.image, self.findings, "the padding of the grain directory", span)
        self.directory_at = self.at
        self.at += sectors

    def _footer(self, sectors: int) -> None:
        """qemu, OpenStack: the footer is the header with the place of the directory."""
        at = self.at * SECTOR
        self.findings.check(
            sectors == 1, f"the footer marker at {at - SECTOR} has {sectors} sectors"
        )
        self.findings.check(self.footer_at is None, f"the footer at {at} is the second one")
        self.findings.check(
            at == self.image.length - 2 * SECTOR,
            f"the footer is at {at}, not 1024 bytes before the end {self.image.length}",
        )
        raw = self.image.read(at, SECTOR)
        if len(raw) < SECTOR:
            raise _Broken(f"the footer at {at} ends after the end of the file")
        wanted = self.directory_at
        self.findings.check(
            wanted is not None, f"the footer at {at} comes before the directory"
        )
        found = _Header.parse(raw)
        if wanted is not None:
            self.findings.equal("GD offset of the footer", at + 56, found.gd_at, wanted)
        self.findings.check(
            replace(found, gd_at=self.header.gd_at) == self.header,
            f"the footer at {at} differs from the header in more than the GD offset",
        )
        self.footer_at = self.at
        self.at += 1

    def _end_of_stream(self, at: int, value: int) -> None:
        self.findings.check(
            value == 0, f"the end-of-stream marker at {at} has the value {value}"
        )
        self.findings.check(
            self.footer_at is not None, f"the stream ends at {at} without a footer"
        )
        self.findings.check(
            at + SECTOR == self.image.length,
            f"the stream ends at {at + SECTOR}, the file at {self.image.length}",
        )

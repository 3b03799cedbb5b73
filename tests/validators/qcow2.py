"""Rules of QCOW2 files, versions 2 and 3, without compression, backing or snapshots."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .common import (
    PIECE,
    SECTOR,
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

_MAGIC = 0x514649FB
_V2 = struct.Struct(">IIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_END_OF_EXTENSIONS = 0
_FEATURE_NAMES = 0x6803F857

MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
_COPIED = np.uint64(1 << 63)
_COMPRESSED = np.uint64(1 << 62)
_ZERO_FLAG = np.uint64(1)
_OFFSET = np.uint64(0x00FFFFFFFFFFFE00)
_L1_RESERVED = np.uint64(0x7F000000000001FF)
_L2_RESERVED = np.uint64(0x3F000000000001FE)
_BLOCK_RESERVED = np.uint64(0x1FF)


def problems(path: str | os.PathLike[str]) -> list[str]:
    """Return the broken rules of a QCOW2, among them all of `qemu-img check`."""
    with Image(path) as image:
        findings = Findings()
        header = _read_header(image, findings)
        if header is not None:
            _check_extensions(image, findings, header)
            check_single_format(image, findings, "qcow2")
            if _check_places(image, findings, header):
                _Clusters(image, findings, header).check()
        return findings.items


@dataclass
class _Header:
    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_at: int
    refcounts_at: int
    refcounts_clusters: int
    snapshots: int
    snapshots_at: int
    refcount_order: int = 4
    length: int = 72

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        return self.cluster_size // 8

    @property
    def refcounts_per_block(self) -> int:
        return self.cluster_size * 8 >> self.refcount_order


def _read_header(image: Image, findings: Findings) -> _Header | None:
    """3.1: the fixed part of the header; None when nothing more can be checked."""
    raw = image.read(0, 112).ljust(112, b"\0")
    magic, *fields = _V2.unpack(raw[:72])
    if not findings.equal("magic", 0, magic, _MAGIC):
        return None
    header = _Header(*fields)
    right = findings.check(
        header.version in (2, 3), f"version at 4 is {header.version}, not 2 or 3"
    )
    right &= findings.check(
        9 <= header.cluster_bits <= 21,
        f"cluster_bits at 20 is {header.cluster_bits}, not 9 to 21 (qemu)",
    )
    findings.check(
        header.size % SECTOR == 0, f"size at 24 is {header.size}, not a multiple of 512"
    )
    for name, offset, value in (
        ("backing_file_offset (OpenStack refuses it)", 8, header.backing_offset),
        ("backing_file_size", 16, header.backing_size),
        ("crypt_method", 32, header.crypt_method),
        ("nb_snapshots", 60, header.snapshots),
        ("snapshots_offset", 64, header.snapshots_at),
    ):
        findings.equal(name, offset, value, 0)
    if right and header.version == 3:
        right = _read_version_3(raw, findings, header)
    return header if right else None


def _read_version_3(raw: bytes, findings: Findings, header: _Header) -> bool:
    """3.1, 3.5: the fields of version 3; no feature bit is needed without compression."""
    incompatible, compatible, autoclear, order, length = _V3.unpack(raw[72:104])
    findings.equal("incompatible_features", 72, incompatible, 0)
    findings.equal("compatible_features", 80, compatible, 0)
    findings.equal("autoclear_features", 88, autoclear, 0)
    right = findings.check(order <= 6, f"refcount_order at 96 is {order}, not 0 to 6")
    right &= findings.check(
        length in (104, 112), f"header_length at 100 is {length}, not 104 or 112"
    )
    if right and length == 112:
        findings.equal("compression_type", 104, raw[104], 0)
        findings.check(not any(raw[105:112]), "the padding of the header at 105 is not zero")
    header.refcount_order, header.length = order, length
    return right


def _check_extensions(image: Image, findings: Findings, header: _Header) -> None:
    """3.1: only a feature name table, an end mark, and then zeros up to cluster 1."""
    raw = image.read(0, header.cluster_size)
    at = header.length
    while at + _EXTENSION.size <= len(raw):
        kind, length = _EXTENSION.unpack_from(raw, at)
        data = at + _EXTENSION.size
        if kind == _END_OF_EXTENSIONS:
            findings.equal("length of the end of the header extensions", at + 4, length, 0)
            break
        if not findings.check(
            length <= len(raw) - data, f"header extension at {at} runs out of cluster 0"
        ):
            return
        if kind == _FEATURE_NAMES:
            _check_feature_names(findings, raw[data : data + length], data)
        else:
            findings.add(f"header extension at {at} has the type {kind:#x}, not needed here")
        padding = raw[data + length : round_up(data + length, 8)]
        findings.check(not any(padding), f"padding of the extension at {at} is not zero")
        at = round_up(data + length, 8)
    else:
        findings.add(f"the header extensions have no end mark; cluster 0 is full at {at}")
        return
    span = (at + _EXTENSION.size, min(header.cluster_size, image.length))
    check_fill(image, findings, "cluster 0 after the header", span)


def _check_feature_names(findings: Findings, table: bytes, at: int) -> None:
    findings.check(
        len(table) % 48 == 0, f"feature name table at {at} has {len(table)} bytes, not n * 48"
    )
    for start in range(0, len(table) - 47, 48):
        kind, bit = table[start], table[start + 1]
        name = table[start + 2 : start + 48].rstrip(b"\0")
        findings.check(
            kind <= 2 and bit < 64 and name.isascii() and name.decode("latin1").isprintable(),
            f"feature name at {at + start} is damaged: kind {kind}, bit {bit}, {name!r}",
        )


def _check_places(image: Image, findings: Findings, header: _Header) -> bool:
    """3.5, 3.6: file length, and place and size of the L1 table and refcount table."""
    size = header.cluster_size
    findings.check(
        image.length % size == 0,
        f"the file length {image.length} is not a multiple of the cluster size {size}",
    )
    wanted = ceil_div(header.size, size * header.l2_entries)
    right = findings.equal("l1_size", 36, header.l1_size, wanted)
    right &= findings.check(
        8 * header.l1_size <= MAX_L1_BYTES,
        f"l1_size at 36 is {header.l1_size}: the table is above 32 MiB (qemu)",
    )
    right &= findings.check(
        1 <= header.refcounts_clusters <= MAX_REFCOUNT_TABLE_BYTES // size,
        f"refcount_table_clusters at 56 is {header.refcounts_clusters}: the table is empty"
        " or above 8 MiB (qemu)",
    )
    for name, offset, start, length in (
        ("l1_table_offset", 40, header.l1_at, round_up(8 * header.l1_size, size)),
        ("refcount_table_offset", 48, header.refcounts_at, header.refcounts_clusters * size),
    ):
        if length:
            right &= findings.check(
                start % size == 0 and start > 0,
                f"{name} at {offset} is {start}, not a cluster after the header",
            )
            right &= findings.check(
                start + length <= image.length,
                f"{name} at {offset} is {start}: the table of {length} bytes ends after the"
                f" end of the file at {image.length}",
            )
    return right


_REFCOUNT_RULES = (
    "a refcount is too low (corruption)",
    "a refcount is too high (leak)",
    "a refcount is set for a cluster past the end of the file",
)


class _Refcounts:
    """The clusters whose stored refcount breaks one rule: how many, and the first few."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.count = 0
        self.cases: list[tuple[int, int]] = []

    def add(self, first: int, stored: npt.NDArray[Any], wrong: Mask) -> None:
        self.count += int(wrong.sum())
        self.cases += [(first + at, int(stored[at])) for at in where(wrong)]


class _Clusters:
    """Who refers to each cluster of the file, and what the stored refcounts say."""

    def __init__(self, image: Image, findings: Findings, header: _Header) -> None:
        self.image = image
        self.findings = findings
        self.header = header
        self.size = header.cluster_size
        self.count = ceil_div(image.length, self.size)
        wide = self.count <= 1 << 25
        kind = np.uint32 if wide else np.uint8
        self.references: npt.NDArray[Any] = np.zeros(self.count, dtype=kind)
        self.referred = 0

    def check(self) -> None:
        header = self.header
        self._refer(np.zeros(1, dtype=np.int64))
        self._refer_range(header.refcounts_at, header.refcounts_clusters)
        self._refer_range(header.l1_at, ceil_div(8 * header.l1_size, self.size))
        blocks = self._refcount_blocks()
        l1 = self._l1_table()
        usable = self._check_l1(l1)
        for first, entries in self._l2_pieces(usable):
            self._check_l2(first, entries)
        self._check_counts()
        self._check_refcounts(blocks)
        self._check_copied(usable)
        self._check_unused()
        self._check_tail(usable)

    def _refer(self, clusters: Ints) -> None:
        np.add.at(self.references, clusters, 1)
        self.referred += len(clusters)

    def _refer_range(self, start: int, clusters: int) -> None:
        first = start // self.size
        self.references[first : first + clusters] += 1
        self.referred += clusters

    def _offsets(self, entries: Words) -> Ints:
        return (entries & _OFFSET).astype(np.int64)

    def _check_offsets(self, what: str, numbers: Ints, entries: Words) -> Ints:
        """3.5: offsets are cluster aligned and whole clusters lie in the file.

        Return the places of the entries that point to a usable cluster.
        """
        offsets = self._offsets(entries)
        odd = (offsets & (self.size - 1)) != 0
        beyond = offsets > self.image.length - self.size
        self._report(f"{what} has an offset that is not cluster aligned", numbers, entries, odd)
        rule = f"{what} has an offset beyond the end of the file at {self.image.length}"
        self._report(rule, numbers, entries, beyond)
        usable: Ints = np.flatnonzero(~odd & ~beyond & (offsets != 0))
        return usable

    def _check_bits(self, what: str, numbers: Ints, entries: Words, bits: np.uint64) -> None:
        self._report(f"{what} has reserved bits set", numbers, entries, (entries & bits) != 0)

    def _report(self, rule: str, numbers: Ints, entries: Words, wrong: Mask) -> None:
        texts = (f"entry {numbers[i]} = {int(entries[i]):#x}" for i in where(wrong))
        self.findings.several(rule, texts, int(wrong.sum()))

    def _refcount_blocks(self) -> Ints:
        """3.3: the refcount table; return the offset of each block, 0 where it is absent."""
        at, length = self.header.refcounts_at, self.header.refcounts_clusters * self.size
        table: Words = table_from(self.image.read(at, length), ">u8")
        numbers: Ints = np.arange(len(table))
        self._check_bits("the refcount table", numbers, table, _BLOCK_RESERVED)
        needed = ceil_div(self.count, self.header.refcounts_per_block)
        self.findings.check(
            not table[needed:].any(),
            f"the refcount table at {at} has entries for clusters past the end of the file,"
            f" from entry {needed}",
        )
        high = (table >> np.uint64(56)) != 0
        self.findings.check(
            not high.any(), f"the refcount table at {at} has offsets above 2^56"
        )
        usable = np.where(high, np.uint64(0), table)
        places = self._check_offsets("the refcount table", numbers, usable)
        blocks = np.zeros(max(len(table), needed), dtype=np.int64)
        blocks[places] = self._offsets(usable)[places]
        self._refer(blocks[places] // self.size)
        return blocks

    def _l1_table(self) -> Words:
        at, used = self.header.l1_at, 8 * self.header.l1_size
        span = (at + used, at + round_up(used, self.size))
        check_fill(self.image, self.findings, "the padding of the L1 table", span)
        table: Words = table_from(self.image.read(at, used), ">u8")
        return table

    def _check_l1(self, l1: Words) -> Words:
        """3.2: bits and offsets of the L1 table; return it without unusable entries."""
        numbers: Ints = np.arange(len(l1))
        self._check_bits("the L1 table", numbers, l1, _L1_RESERVED)
        empty = (l1 != 0) & ((l1 & _OFFSET) == 0)
        self._report("the L1 table has bits without an offset", numbers, l1, empty)
        places = self._check_offsets("the L1 table", numbers, l1)
        usable = np.zeros_like(l1)
        usable[places] = l1[places]
        self._refer(self._offsets(l1)[places] // self.size)
        return usable

    def _l2_pieces(self, l1: Words) -> Iterator[tuple[Ints, Words]]:
        """Yield (guest cluster of each entry, entries that are not zero) of the L2 tables."""
        tables = np.flatnonzero(l1)
        step = max(1, PIECE // self.size)
        per_table = self.header.l2_entries
        for start in range(0, len(tables), step):
            batch = tables[start : start + step]
            raw = self.image.gather(self._offsets(l1[batch]).tolist(), self.size)
            entries: Words = table_from(raw, ">u8")
            used = np.flatnonzero(entries)
            guests = batch[used // per_table] * per_table + used % per_table
            yield guests, entries[used]

    def _check_l2(self, guests: Ints, entries: Words) -> None:
        """3.2: every entry is standard, in the disk, with legal bits, and refers to data."""
        disk_clusters = ceil_div(self.header.size, self.size)
        version_2 = self.header.version == 2
        no_offset = (entries & _OFFSET) == 0
        bare = no_offset & ((entries & (_ZERO_FLAG | _COMPRESSED)) == 0)
        copied_zero = no_offset & ((entries & _COPIED) != 0)
        zero_flag = (entries & _ZERO_FLAG) != 0
        compressed = (entries & _COMPRESSED) != 0
        for rule, wrong in (
            ("is compressed", compressed),
            ("is past the end of the disk", guests >= disk_clusters),
            ("has the zero flag in version 2", zero_flag & version_2 & ~compressed),
            ("has COPIED or other bits but no offset", (bare | copied_zero) & ~compressed),
        ):
            self._report(f"an L2 table: guest cluster {rule}", guests, entries, wrong)
        guests, entries = guests[~compressed], entries[~compressed]
        self._check_bits("an L2 table", guests, entries, _L2_RESERVED)
        places = self._check_offsets("an L2 table", guests, entries)
        self._refer(self._offsets(entries)[places] // self.size)

    def _check_counts(self) -> None:
        """3.5: no cluster is referenced twice."""
        shared = self.references > 1
        texts = (
            f"cluster {i} at {i * self.size} {int(self.references[i])} times"
            for i in where(shared)
        )
        count = int(shared.sum())
        self.findings.several("a cluster is referenced more than once", texts, count)
        if not count and int(self.references.sum(dtype=np.int64)) != self.referred:
            self.findings.add("a cluster is referenced 256 times or a multiple of it")

    def _refcounts(self, raw: bytes) -> npt.NDArray[Any]:
        """3.3: the refcounts of blocks; narrow ones begin at the lowest bits of a byte."""
        bits = 1 << self.header.refcount_order
        if bits >= 8:
            return np.frombuffer(raw, dtype=np.dtype(f">u{bits // 8}"))
        packed = np.frombuffer(raw, dtype=np.uint8)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        values: npt.NDArray[Any] = (packed[:, None] >> shifts) & np.uint8((1 << bits) - 1)
        return values.reshape(-1)

    def _check_refcounts(self, blocks: Ints) -> None:
        """`qemu-img check`: each stored refcount is the number of references."""
        per_block = self.header.refcounts_per_block
        step = max(1, PIECE // (8 * per_block))
        reports = [_Refcounts(rule) for rule in _REFCOUNT_RULES]
        for start in range(0, len(blocks), step):
            batch = blocks[start : start + step]
            first = start * per_block
            if not batch.any() and first >= self.count:
                continue
            stored = self._refcounts(self.image.gather(batch.tolist(), self.size))
            real = self.references[first : first + len(stored)]
            inside = stored[: len(real)]
            reports[0].add(first, stored, inside < real)
            reports[1].add(first, stored, inside > real)
            past = stored > 0
            past[: len(real)] = False
            reports[2].add(first, stored, past)
        for report in reports:
            texts = (self._refcount_text(*case) for case in report.cases)
            self.findings.several(report.rule, texts, report.count)

    def _refcount_text(self, cluster: int, stored: int) -> str:
        real = int(self.references[cluster]) if cluster < self.count else 0
        return f"cluster {cluster} at {cluster * self.size} has {stored}, not {real}"

    def _check_copied(self, l1: Words) -> None:
        """3.3: COPIED is set exactly where the refcount is 1."""
        tables = np.flatnonzero(l1)
        self._check_copied_bits("the L1 table", tables, l1[tables])
        for guests, entries in self._l2_pieces(l1):
            standard = (entries & _COMPRESSED) == 0
            self._check_copied_bits("an L2 table", guests[standard], entries[standard])

    def _check_copied_bits(self, what: str, numbers: Ints, entries: Words) -> None:
        offsets = self._offsets(entries)
        known = (offsets > 0) & (offsets // self.size < self.count)
        numbers, entries, clusters = numbers[known], entries[known], offsets[known] // self.size
        copied = (entries & _COPIED) != 0
        once: Mask = self.references[clusters] == 1
        self._report(f"{what} lacks COPIED for refcount 1", numbers, entries, once & ~copied)
        rule = f"{what} has COPIED where the refcount is not 1"
        self._report(rule, numbers, entries, copied & ~once)

    def _check_unused(self) -> None:
        """No junk: an unused cluster holds zeros, and the last cluster is used."""
        unused = np.flatnonzero(self.references == 0)
        if len(unused) and unused[-1] == self.count - 1:
            self.findings.add(f"the last cluster of the file, {self.count - 1}, is not used")
        for cluster in unused.tolist():
            start = cluster * self.size
            found = self.image.first_unlike(start, start + self.size, 0)
            if found is not None:
                self.findings.add(f"an unused cluster holds data: byte at {found}")
                return

    def _check_tail(self, l1: Words) -> None:
        """The part of the last cluster that lies beyond the disk is zero."""
        used = self.header.size % self.size
        if not used or not len(l1) or not l1[-1]:
            return
        last = (self.header.size // self.size) % self.header.l2_entries
        table = int(self._offsets(l1[-1:])[0])
        entry: Words = table_from(self.image.read(table + 8 * last, 8), ">u8")
        offset = int(self._offsets(entry)[0])
        if offset and not entry[0] & (_COMPRESSED | _ZERO_FLAG):
            span = (offset + used, offset + self.size)
            check_fill(self.image, self.findings, "the last cluster beyond the disk", span)

"""Rules of QCOW2 files, versions 2 and 3, without backing, encryption or snapshots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .common import (
    PIECE,
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
from .qcow2_compressed import Streams, clusters_between
from .qcow2_header import (
    Header,
    check_compression_type,
    check_extensions,
    check_places,
    read_header,
)

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
        header = read_header(image, findings)
        if header is not None:
            check_extensions(image, findings, header)
            check_single_format(image, findings, "qcow2")
            compressed = False
            if check_places(image, findings, header):
                clusters = _Clusters(image, findings, header)
                clusters.check()
                compressed = clusters.streams.count > 0
            check_compression_type(findings, header, compressed)
        return findings.items


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

    def __init__(self, image: Image, findings: Findings, header: Header) -> None:
        self.image = image
        self.findings = findings
        self.header = header
        self.size = header.cluster_size
        self.count = ceil_div(image.length, self.size)
        wide = self.count <= 1 << 25
        kind = np.uint32 if wide else np.uint8
        self.references: npt.NDArray[Any] = np.zeros(self.count, dtype=kind)
        self.referred = 0
        self.packed: npt.NDArray[Any] | None = None
        self.streams = Streams(image, findings, header)

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
        self.streams.finish()
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

    def _refer_streams(self, first: Ints, last: Ints) -> None:
        """3.3: a descriptor adds 1 to each cluster that its sectors touch, shared or not."""
        if self.packed is None:
            if not len(first):
                return
            self.packed = np.zeros_like(self.references)
        for clusters in clusters_between(first, last):
            self._refer(clusters)
            np.add.at(self.packed, clusters, 1)

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
        """3.2: every entry is in the disk, has legal bits, and refers to data."""
        disk_clusters = ceil_div(self.header.size, self.size)
        version_2 = self.header.version == 2
        no_offset = (entries & _OFFSET) == 0
        bare = no_offset & ((entries & (_ZERO_FLAG | _COMPRESSED)) == 0)
        copied_zero = no_offset & ((entries & _COPIED) != 0)
        zero_flag = (entries & _ZERO_FLAG) != 0
        compressed = (entries & _COMPRESSED) != 0
        for rule, wrong in (
            ("is past the end of the disk", guests >= disk_clusters),
            ("has the zero flag in version 2", zero_flag & version_2 & ~compressed),
            ("has COPIED or other bits but no offset", (bare | copied_zero) & ~compressed),
        ):
            self._report(f"an L2 table: guest cluster {rule}", guests, entries, wrong)
        self._refer_streams(*self.streams.check(guests[compressed], entries[compressed]))
        guests, entries = guests[~compressed], entries[~compressed]
        self._check_bits("an L2 table", guests, entries, _L2_RESERVED)
        places = self._check_offsets("an L2 table", guests, entries)
        self._refer(self._offsets(entries)[places] // self.size)

    def _check_counts(self) -> None:
        """3.5: no cluster is referenced twice, but by compressed streams alone."""
        shared = self.references > 1
        if self.packed is not None:
            mixed = (self.packed > 0) & (self.packed < self.references)
            shared &= self.packed == 0
            self._report_shared("a compressed stream overlaps metadata or plain data", mixed)
        self._report_shared("a cluster is referenced more than once", shared)
        if not shared.any() and int(self.references.sum(dtype=np.int64)) != self.referred:
            self.findings.add("a cluster is referenced 256 times or a multiple of it")

    def _report_shared(self, rule: str, shared: Mask) -> None:
        texts = (
            f"cluster {i} at {i * self.size} {int(self.references[i])} times"
            for i in where(shared)
        )
        self.findings.several(rule, texts, int(shared.sum()))

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
        there = np.flatnonzero(blocks)
        needed = ceil_div(self.count, per_block)
        for start in range(0, max([needed, *(there[-1:] + 1)]), step):
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

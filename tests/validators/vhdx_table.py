"""Rules of the block table of a VHDX without a parent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .common import PIECE, Findings, Image, Ints, ceil_div, check_fill, table_from, where

_MIB = 1 << 20
_ZERO = 2
_PRESENT = 6


@dataclass
class Table:
    """What the table's shape follows from."""

    size: int
    block: int
    fixed: bool

    @property
    def blocks(self) -> int:
        return ceil_div(self.size, self.block)

    @property
    def ratio(self) -> int:
        """6.2: blocks between two entries of sector bitmaps, for sectors of 512 bytes."""
        return (1 << 23) * 512 // self.block

    @property
    def entries(self) -> int:
        return self.blocks + (self.blocks - 1) // self.ratio


@dataclass
class Places:
    """Where the table is, and what else is where."""

    start: int
    end: int
    taken: list[tuple[int, int]]


def check_table(image: Image, findings: Findings, table: Table, places: Places) -> None:
    """6.2: states, places, and the end of the file."""
    _Check(image, findings, table, places).check()


class _Check:
    def __init__(self, image: Image, findings: Findings, table: Table, places: Places) -> None:
        self.image = image
        self.findings = findings
        self.table = table
        self.places = places
        self.end = max(end for _, end in places.taken)
        self.previous = -1
        self.stored = 0
        self.last = 0

    def check(self) -> None:
        per_piece = PIECE // 8
        for first in range(0, self.table.entries, per_piece):
            count = min(per_piece, self.table.entries - first)
            raw = self.image.read(self.places.start + 8 * first, 8 * count)
            self._check_piece(first, table_from(raw, "<u8"))
        padding = (self.places.start + 8 * self.table.entries, self.places.end)
        check_fill(self.image, self.findings, "the padding of the block table", padding)
        if self.table.fixed:
            self.findings.check(
                self.stored == self.table.blocks,
                f"a fixed disk stores {self.stored} of {self.table.blocks} blocks",
            )
        self.findings.check(
            self.image.length == self.end,
            f"the file has {self.image.length} bytes, but its last part ends at {self.end}",
        )
        used = self.table.size % self.table.block
        if used and self.last:
            span = (self.last + used, self.last + self.table.block)
            check_fill(self.image, self.findings, "the last block beyond the disk", span)

    def _name(self, index: Ints, entry: Ints, at: int) -> str:
        offset = self.places.start + 8 * int(index[at])
        return f"entry {index[at]} at {offset} = {int(entry[at]):#x}"

    def _several(self, rule: str, index: Ints, entry: Ints, wrong: np.ndarray) -> None:
        names = (self._name(index, entry, i) for i in where(wrong))
        self.findings.several(rule, names, int(wrong.sum()))

    def _check_piece(self, first: int, entry: Ints) -> None:
        index = np.arange(first, first + len(entry))
        place = index % (self.table.ratio + 1)
        bitmap = place == self.table.ratio
        state = (entry & np.uint64(7)).astype(np.int64)
        reserved = (entry & np.uint64(0xFFFF8)) != 0
        several = self._several
        several("reserved bits are set", index, entry, reserved)
        several("a sector bitmap without a parent", index, entry, bitmap & (entry != 0))
        known = np.isin(state, (_ZERO, _PRESENT))
        several("a block is neither zero nor there", index, entry, ~bitmap & ~known)
        absent = ~bitmap & (state == _ZERO) & (entry != _ZERO)
        several("a block that is zero has a place", index, entry, absent)
        present = np.flatnonzero(~bitmap & (state == _PRESENT))
        self._check_places(index[present], entry[present])

    def _check_places(self, index: Ints, entry: Ints) -> None:
        """In guest order, apart, in the file, on nothing else."""
        start = (entry >> np.uint64(20)).astype(np.int64) * _MIB
        stop = start + self.table.block
        before = np.concatenate(([self.previous], stop[:-1]))[: len(start)]
        self._several("blocks are not in guest order, or overlap", index, entry, start < before)
        outside = stop > self.image.length
        self._several("a block ends after the end of the file", index, entry, outside)
        hit = np.zeros(len(start), dtype=bool)
        for low, high in self.places.taken:
            hit |= (start < high) & (stop > low)
        self._several("a block lies on metadata", index, entry, hit)
        self.stored += len(start)
        if len(start):
            self.previous = int(stop[-1])
            self.end = max(self.end, int(stop.max()))
            number = int(index[-1]) - int(index[-1]) // (self.table.ratio + 1)
            inside = number == self.table.blocks - 1 and not outside[-1]
            self.last = int(start[-1]) if inside else 0

"""QCOW2 with data clusters as they are, one after another in guest order."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from imgconv.formats.base import PlannedWriter
from imgconv.formats.body import packed
from imgconv.formats.qcow2_tables import Geometry, Qcow2Writer
from imgconv.formats.tables import PIECE, as_bytes, padding
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ranges import Ranges, firsts
from imgconv.segments import META, Meta, Segments


class PlainWriter(Qcow2Writer, PlannedWriter):
    """Places clusters, and the tables of a group when the next one begins."""

    def __init__(self, size: int, geometry: Geometry, version: int):
        super().__init__(size, geometry, version)
        self._group_runs: list[Ranges] = []  # the runs of the current group so far,
        self._group_data = 0  # and where in the file its data begin

    def place(self, runs: Ranges) -> Segments:
        """Append clusters, and the L2 tables of every group that they complete."""
        if not len(runs):
            return Segments.of(())
        geometry = self._geometry
        runs = runs.split(geometry.group_span)
        group = runs.start // geometry.group_span
        first = firsts(group)
        last = np.append(first[1:], len(runs))
        placed = []
        for low, high, number in zip(
            first.tolist(), last.tolist(), group[first].tolist(), strict=True
        ):
            if number != self._group or not self._group_runs:
                placed.append(self._flush_group())
                self._group, self._group_data = number, self._at
            part = runs.slice(low, high)
            body = packed(part, geometry.cluster)
            self._group_runs.append(part)
            self._advance(body.size)
            placed.append(body)
        return Segments.concat(placed)

    def _flush_group(self) -> Segments:
        """Write the touched L2 tables of the current group and enter them in the L1."""
        if not self._group_runs:
            return Segments.of(())
        geometry = self._geometry
        runs = Ranges.concat(self._group_runs).merged()
        self._group_runs = []
        touched = runs.split(geometry.l2_span).start // geometry.l2_span
        tables = touched[firsts(touched)]  # np.unique would load all of numpy.ma
        render = partial(_render_l2, runs, tables, self._group_data, geometry)
        return Segments.of([Meta(self._enter(tables), render)])

    def _refcounts(self, total: int, blocks: int) -> Iterator[Segments]:
        return _blocks_of_ones(total, blocks, self._geometry)


def _render_l2(
    runs: Ranges, tables: np.ndarray, data_offset: int, geometry: Geometry
) -> memoryview:
    """The L2 tables numbered `tables`, whose clusters lie back to back at data_offset."""
    clusters = runs.units(geometry.cluster)
    row = np.searchsorted(tables, clusters // geometry.l2_entries)
    entries = np.zeros(len(tables) * geometry.l2_entries, dtype=">u8")
    offsets = data_offset + geometry.cluster * np.arange(len(clusters), dtype=np.uint64)
    slot = row * geometry.l2_entries + clusters % geometry.l2_entries
    entries[slot] = offsets | np.uint64(ondisk.COPIED)
    return as_bytes(entries)


def _blocks_of_ones(total: int, blocks: int, geometry: Geometry) -> Iterator[Segments]:
    """Blocks that count `total` clusters once each."""
    full = total // geometry.refcounts_per_block
    per_piece = max(1, PIECE // geometry.cluster)
    piece = Meta(
        per_piece * geometry.cluster,
        partial(_render_ones, per_piece * geometry.refcounts_per_block, geometry.refcount_bits),
    )
    pieces, rest = divmod(full, per_piece)
    length = np.full(pieces, piece.length, dtype=np.int64)
    kind = np.full(pieces, META, dtype=np.uint8)
    yield Segments(kind, length, np.zeros_like(length), (piece,))
    counts = rest * geometry.refcounts_per_block + total % geometry.refcounts_per_block
    last = _render_ones(counts, geometry.refcount_bits)
    yield Segments.of([Meta.of(last)])
    yield padding(blocks * geometry.cluster - pieces * piece.length - len(last))


def _render_ones(count: int, bits: int) -> bytes:
    """`count` refcounts of one; widths below a byte fill it from the low end."""
    if bits >= 8:
        return (1).to_bytes(bits // 8, "big") * count
    per_byte = 8 // bits
    full = sum(1 << i * bits for i in range(per_byte))
    rest = sum(1 << i * bits for i in range(count % per_byte))
    return bytes([full]) * (count // per_byte) + bytes([rest] if rest else [])

"""QCOW2 with compressed clusters: streams back to back, what does not shrink as it is.

A stream may begin anywhere, and each one counts once in every cluster that it touches. A
cluster that does not shrink lies at a multiple of its size; the gap before it stays empty,
as nothing can be written behind. So those of 2 MiB of guest lie together, between the two
streams where the gap is smallest: of 32 places one is mostly near such a multiple. Deflate
is raw and has a history of 4 KiB: that is what readers keep who inflate piece by piece.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np

from imgconv.codecs import codec
from imgconv.errors import OutputTooLarge
from imgconv.formats.base import EncodingWriter
from imgconv.formats.qcow2_tables import Geometry, Qcow2Writer, refcount_clusters
from imgconv.formats.tables import as_bytes, padding, table
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ranges import Column, firsts
from imgconv.segments import DATA, ZEROS, Meta, Segments
from imgconv.units import SECTOR, MiB, div_ceil, round_up

SPAN = 2 * MiB  # of guest, whose clusters may change places


class CompressedWriter(Qcow2Writer, EncodingWriter):
    """Places streams and plain clusters, and the tables of a group when the next begins."""

    def __init__(self, size: int, geometry: Geometry, version: int, name: str, level: int):
        super().__init__(size, geometry, version)
        self._codec_number = ondisk.CODECS.index(name)
        self._compress = codec(name, level, geometry.cluster)
        cluster_bits = geometry.cluster.bit_length() - 1
        self._size_shift = 70 - cluster_bits  # of the sector count in an L2 entry
        self._entries = np.zeros(geometry.group_span // geometry.cluster, dtype=np.uint64)
        self._placed: list[tuple[Column, Column]] = []  # offsets, lengths in the group
        self._group_data = 0  # where in the file they begin
        # How often each cluster is referred to, the header first. 16 bits are enough, as a
        # cluster cannot shrink to less than a 65536th.
        self._count_type = np.dtype(f">u{geometry.refcount_bits // 8}")
        self._counts = [np.ones(1, dtype=self._count_type)]

    @property
    def span(self) -> int:
        """Guest bytes whose plain clusters lie together."""
        return max(SPAN, self.unit)

    def encode(self, start: int, content: memoryview) -> bytes | memoryview:
        """Return a stream, or the cluster itself if that is not longer."""
        short = self.unit - len(content)
        if short:
            content = memoryview(bytes(content) + bytes(short))
        stream = self._compress(content)
        return stream if len(stream) < self.unit else content

    def bound(self, count: int) -> int:
        """Return what `count` clusters need when gaps before plain ones are largest, which
        is half a cluster each, and each lies in a table of its own."""
        geometry = self._geometry
        tables = min(count, geometry.l1_entries)
        clusters = 2 + div_ceil(3 * count, 2) + 2 * tables
        clusters += len(self._l1) // geometry.l2_entries
        return (clusters + sum(refcount_clusters(clusters, geometry))) * self.unit

    def place(self, units: Column, lengths: Column, checks: Column) -> Segments:
        """Append clusters, and the L2 tables of every group that they complete."""
        group = units // self._geometry.group_span
        cuts = [*firsts(group).tolist(), len(units)]
        ends = np.cumsum(lengths)
        placed = []
        for low, high in pairwise(cuts):
            if int(group[low]) != self._group or not self._placed:
                placed.append(self._flush_group())
                self._group, self._group_data = int(group[low]), self._at
            refs = ends[low:high] - lengths[low:high]
            placed.append(self._place(units[low:high], lengths[low:high], refs))
        return Segments.concat(placed)

    def _place(self, units: Column, lengths: Column, refs: Column) -> Segments:
        """Append clusters of the current group that lie at `refs` in the payload."""
        order, offsets, at = self._arranged(units, lengths.tolist())
        units, lengths, refs = units[order], lengths[order], refs[order]
        gaps = offsets - np.concatenate(([self._at], offsets[:-1] + lengths[:-1]))
        self._advance(at - self._at)
        if (lengths < self.unit).any():  # else older readers need not be kept out
            self._compression = self._codec_number
        if at >> min(self._size_shift, 56):
            raise OutputTooLarge(
                f"qcow2 with cluster_size={self.unit} has no compressed clusters beyond "
                f"{1 << self._size_shift} bytes of file; choose smaller clusters"
            )
        self._enter_clusters(units, offsets, lengths)
        self._placed.append((offsets, lengths))
        kind = np.tile(np.array([ZEROS, DATA], dtype=np.uint8), len(refs))
        length = np.column_stack((gaps, lengths)).ravel()
        ref = np.column_stack((np.zeros_like(refs), refs)).ravel()
        keep = length > 0
        return Segments(kind[keep], length[keep], ref[keep])

    def _arranged(self, units: Column, lengths: list[int]) -> tuple[Column, Column, int]:
        """Return clusters by row in the order in which they lie, where, and the end."""
        at, order, offsets = self._at, list[int](), list[int]()
        cuts = [*firsts(units // self.span).tolist(), len(units)]
        for low, high in pairwise(cuts):
            for row in self._plain_together(range(low, high), lengths, at):
                if lengths[row] == self.unit:
                    at = round_up(at, self.unit)
                order.append(row)
                offsets.append(at)
                at += lengths[row]
        return np.array(order, dtype=np.int64), np.array(offsets, dtype=np.int64), at

    def _plain_together(self, rows: range, lengths: list[int], at: int) -> Sequence[int]:
        """Return rows of one span, which begins at `at`, with all plain clusters at once."""
        plain = [row for row in rows if lengths[row] == self.unit]
        if not plain:
            return rows
        streams = [row for row in rows if lengths[row] < self.unit]
        ends = accumulate((lengths[row] for row in streams), initial=at)
        gaps = [-end % self.unit for end in ends]
        before = gaps.index(min(gaps))  # how many streams the plain ones follow
        return streams[:before] + plain + streams[before:]

    def _enter_clusters(self, units: Column, offsets: Column, lengths: Column) -> None:
        more_sectors = (offsets % SECTOR + lengths - 1) // SECTOR
        streams = offsets | more_sectors << self._size_shift | ondisk.COMPRESSED
        plain = offsets.astype(np.uint64) | np.uint64(ondisk.COPIED)
        slots = units % self._geometry.group_span // self.unit
        self._entries[slots] = np.where(lengths == self.unit, plain, streams.astype(np.uint64))

    def _flush_group(self) -> Segments:
        if not self._placed:
            return Segments.of(())
        gap = -self._at % self.unit
        self._advance(gap)
        self._count_group()
        entries = self._entries.reshape(-1, self._geometry.l2_entries)
        touched = np.flatnonzero(entries.any(axis=1))
        content = bytes(as_bytes(entries[touched].astype(">u8").ravel()))
        self._entries[:] = 0
        self._enter(touched + self._group * self._geometry.tables_per_group)
        self._counts.append(np.ones(len(touched), dtype=self._count_type))
        return Segments.concat([padding(gap), Segments.of([Meta.of(content)])])

    def _count_group(self) -> None:
        """Count the clusters of the group's data; no other group touches them."""
        offsets, lengths = (
            np.concatenate(column) for column in zip(*self._placed, strict=True)
        )
        self._placed = []
        first = (offsets - self._group_data) // self.unit
        last = (offsets + lengths - 1 - self._group_data) // self.unit
        clusters = (self._at - self._group_data) // self.unit
        counts = np.bincount(first, minlength=clusters)
        counts += np.bincount(last[last > first], minlength=clusters)
        self._counts.append(counts.astype(self._count_type))

    def _refcounts(self, total: int, blocks: int) -> Iterator[Segments]:
        rest = total - sum(map(len, self._counts))
        ones = np.ones(rest, dtype=self._count_type)
        counts = np.concatenate([*self._counts, ones], dtype=self._count_type)
        self._counts = []
        yield from table(counts)
        yield padding(blocks * self.unit - counts.nbytes)

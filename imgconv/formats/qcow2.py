"""QCOW2 (QEMU, KVM, OpenStack): version 3 and version 2, uncompressed.

The head is the header cluster alone. Data clusters follow in guest order; the L2 tables
of a guest range follow its data, and L1, refcount blocks and refcount table end the
file. So memory holds one group of L2 tables and the L1, and the file needs no repair:
every cluster is referenced once and counted once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from imgconv.errors import OptionError, OutputTooLarge
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.formats.body import packed
from imgconv.formats.tables import PIECE, as_bytes, padding, table
from imgconv.ondisk import qcow2 as ondisk
from imgconv.options import (
    check_fields,
    choice_option,
    number_option,
    size_option,
)
from imgconv.ranges import Ranges, firsts
from imgconv.segments import META, Meta, Segments, Zeros
from imgconv.units import KiB, MiB, div_ceil, is_power_of_two, round_up

ENTRY = 8  # bytes of an L1, L2 or refcount table entry
GROUP_BYTES = MiB  # of L2 tables that are written together


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2:
    """QCOW2 output options."""

    name: ClassVar[str] = "qcow2"

    cluster_size: int = size_option(64 * KiB, "512..2M", "allocation unit, a power of two")
    refcount_bits: int = number_option(16, "1..64", "width of a refcount, a power of two")
    compat: str = choice_option(
        "1.1", ("1.1", "0.10", "v3", "v2"), "version 3 (QEMU 1.1) or 2 (older readers)"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        smallest, largest = 1 << ondisk.MIN_CLUSTER_BITS, 1 << ondisk.MAX_CLUSTER_BITS
        if not is_power_of_two(self.cluster_size) or not (
            smallest <= self.cluster_size <= largest
        ):
            raise OptionError(
                f"cluster_size={self.cluster_size}: must be a power of two from 512 to 2M"
            )
        if not is_power_of_two(self.refcount_bits) or self.refcount_bits > 64:
            raise OptionError(
                f"refcount_bits={self.refcount_bits}: must be a power of two from 1 to 64"
            )
        if self.version == 2 and self.refcount_bits != 16:
            raise OptionError(f"refcount_bits={self.refcount_bits}: compat=0.10 has only 16")

    @property
    def version(self) -> int:
        """Version number in the header, 2 or 3."""
        return 2 if self.compat in ("0.10", "v2") else 3

    @property
    def max_size(self) -> int:
        """What an L1 table of 32 MiB, QEMU's limit, can map."""
        l2_span = self.cluster_size // ENTRY * self.cluster_size
        return min(ondisk.MAX_L1_BYTES // ENTRY * l2_span, (1 << 63) - 512)

    def writer(self, disk: Disk) -> PlannedWriter:
        """Return a writer for one disk."""
        return Qcow2Writer(disk, self)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Every count that follows from the virtual size and the options."""

    cluster: int
    l2_entries: int
    l1_entries: int
    tables_per_group: int
    refcount_bits: int

    @classmethod
    def of(cls, size: int, options: Qcow2) -> "Geometry":
        """Compute the counts."""
        cluster = options.cluster_size
        l2_entries = cluster // ENTRY
        return cls(
            cluster=cluster,
            l2_entries=l2_entries,
            l1_entries=div_ceil(size, l2_entries * cluster),
            tables_per_group=max(1, GROUP_BYTES // cluster),
            refcount_bits=options.refcount_bits,
        )

    @property
    def l2_span(self) -> int:
        """Guest bytes that one L2 table maps."""
        return self.l2_entries * self.cluster

    @property
    def group_span(self) -> int:
        """Guest bytes whose L2 tables are written together."""
        return self.tables_per_group * self.l2_span

    @property
    def refcounts_per_block(self) -> int:
        """Clusters that one refcount block counts."""
        return self.cluster * 8 // self.refcount_bits

    @property
    def max_clusters(self) -> int:
        """Clusters that the largest refcount table can count."""
        return ondisk.MAX_REFCOUNT_TABLE_BYTES // ENTRY * self.refcounts_per_block


class Qcow2Writer(PlannedWriter):
    """Places clusters; see the module's docstring for the order."""

    def __init__(self, disk: Disk, options: Qcow2):
        self.size = disk.size
        self._options = options
        self._geometry = Geometry.of(disk.size, options)
        self.unit = self.head_size = self._geometry.cluster
        self._at = self.head_size
        self._l1 = np.zeros(
            round_up(self._geometry.l1_entries, self._geometry.l2_entries), dtype=">u8"
        )
        self._group = 0  # the group of L2 tables being collected,
        self._group_runs: list[Ranges] = []  # its runs so far,
        self._group_data = 0  # and where in the file its data begin
        self._l1_offset = self._table_offset = self._table_clusters = 0

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

    def _advance(self, length: int) -> None:
        self._at += length
        clusters = self._at // self._geometry.cluster
        if clusters > self._geometry.max_clusters or self._at > ondisk.MAX_HOST_OFFSET:
            raise OutputTooLarge(
                f"qcow2 with cluster_size={self._geometry.cluster} and refcount_bits="
                f"{self._geometry.refcount_bits} cannot count more than "
                f"{self._geometry.max_clusters} clusters; choose larger clusters"
            )

    def _flush_group(self) -> Segments:
        """Write the touched L2 tables of the current group and enter them in the L1."""
        if not self._group_runs:
            return Segments.of(())
        geometry = self._geometry
        runs = Ranges.concat(self._group_runs).merged()
        self._group_runs = []
        touched = runs.split(geometry.l2_span).start // geometry.l2_span
        tables = touched[firsts(touched)]  # np.unique would load all of numpy.ma
        offsets = self._at + geometry.cluster * np.arange(len(tables), dtype=np.uint64)
        self._l1[tables] = offsets | np.uint64(ondisk.COPIED)
        render = partial(_render_l2, runs, tables, self._group_data, geometry)
        meta = Meta(len(tables) * geometry.cluster, render)
        self._advance(meta.length)
        return Segments.of([meta])

    def finish(self) -> Iterator[Segments]:
        """Last L2 tables, L1, refcount blocks, refcount table."""
        geometry = self._geometry
        yield self._flush_group()
        self._l1_offset = self._at
        self._advance(self._l1.nbytes)
        yield from table(self._l1)

        counted = self._at // geometry.cluster
        blocks, tables = _refcount_clusters(counted, geometry)
        block_offset = self._at
        self._advance(blocks * geometry.cluster)
        yield from _refcount_blocks(counted + blocks + tables, blocks, geometry)

        self._table_offset, self._table_clusters = self._at, tables
        entries = np.zeros(tables * geometry.l2_entries, dtype=">u8")
        entries[:blocks] = block_offset + geometry.cluster * np.arange(blocks)
        self._advance(entries.nbytes)
        yield from table(entries)

    def head(self) -> Iterator[Segments]:
        """The header cluster."""
        options, geometry = self._options, self._geometry
        header = ondisk.HeaderV2(
            magic=ondisk.MAGIC,
            version=options.version,
            backing_file_offset=0,
            backing_file_size=0,
            cluster_bits=geometry.cluster.bit_length() - 1,
            size=self.size,
            crypt_method=0,
            l1_size=geometry.l1_entries,
            l1_table_offset=self._l1_offset,
            refcount_table_offset=self._table_offset,
            refcount_table_clusters=self._table_clusters,
            nb_snapshots=0,
            snapshots_offset=0,
        ).pack()
        if options.version == 3:
            header += ondisk.HeaderV3Tail(
                incompatible_features=0,
                compatible_features=0,
                autoclear_features=0,
                refcount_order=geometry.refcount_bits.bit_length() - 1,
                header_length=112,
                compression_type=0,
                padding=bytes(7),
            ).pack()
        header += ondisk.END_OF_EXTENSIONS
        yield Segments.of([Meta.of(header), Zeros(self.head_size - len(header))])


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


def _refcount_clusters(counted: int, geometry: Geometry) -> tuple[int, int]:
    """Refcount blocks and table clusters that count `counted` clusters and themselves."""
    blocks = tables = 1
    while True:
        need = div_ceil(counted + blocks + tables, geometry.refcounts_per_block)
        need_tables = div_ceil(need * ENTRY, geometry.cluster)
        if (need, need_tables) == (blocks, tables):
            return blocks, tables
        blocks, tables = need, need_tables  # never fewer than before, so this ends


def _refcount_blocks(total: int, blocks: int, geometry: Geometry) -> Iterator[Segments]:
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

"""What all QCOW2 files have: header cluster first, L1 and refcounts last.

Between them lie clusters of data and L2 tables, in groups: the tables of a guest range
follow its data. So memory holds one group of L2 tables and the L1, and the file needs no
repair: every cluster is counted as often as it is referred to.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imgconv.errors import OutputTooLarge
from imgconv.formats.base import BaseWriter
from imgconv.formats.tables import Table, table
from imgconv.ondisk import qcow2 as ondisk
from imgconv.segments import Meta, Segments, Zeros
from imgconv.units import MiB, div_ceil, round_up

ENTRY = 8  # bytes of an L1, L2 or refcount table entry
GROUP_BYTES = MiB  # of L2 tables that are written together


@dataclass(frozen=True, slots=True)
class Geometry:
    """Every count that follows from the virtual size and the options."""

    cluster: int
    l2_entries: int
    l1_entries: int
    tables_per_group: int
    refcount_bits: int

    @classmethod
    def of(cls, size: int, cluster: int, refcount_bits: int) -> "Geometry":
        """Compute the counts for a virtual size, a cluster size and a refcount width."""
        l2_entries = cluster // ENTRY
        return cls(
            cluster=cluster,
            l2_entries=l2_entries,
            l1_entries=div_ceil(size, l2_entries * cluster),
            tables_per_group=max(1, GROUP_BYTES // cluster),
            refcount_bits=refcount_bits,
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


class Qcow2Writer(BaseWriter):
    """Keeps account of clusters, and of the L2 tables in the L1."""

    def __init__(self, size: int, geometry: Geometry, version: int):
        self.size = size
        self._geometry, self._version = geometry, version
        self._compression = 0  # the number of the codec in the header: 0 deflate, 1 zstd
        self.unit = self.head_size = geometry.cluster
        self._at = self.head_size
        self._l1 = np.zeros(round_up(geometry.l1_entries, geometry.l2_entries), dtype=">u8")
        self._group = 0  # the group of L2 tables being collected
        self._l1_offset = self._table_offset = self._table_clusters = 0

    @abstractmethod
    def _flush_group(self) -> Segments:
        """Write the touched L2 tables of the current group, if any."""

    @abstractmethod
    def _refcounts(self, total: int, blocks: int) -> Iterator[Segments]:
        """Return the blocks that count `total` clusters; those not counted yet have one."""

    def _advance(self, length: int) -> None:
        self._at += length
        clusters = self._at // self._geometry.cluster
        if clusters > self._geometry.max_clusters or self._at > ondisk.MAX_HOST_OFFSET:
            raise OutputTooLarge(
                f"qcow2 with cluster_size={self._geometry.cluster} and refcount_bits="
                f"{self._geometry.refcount_bits} cannot count more than "
                f"{self._geometry.max_clusters} clusters; choose larger clusters"
            )

    def _enter(self, tables: Table) -> int:
        """Enter the L2 tables of these numbers, which come next, in the L1; return their
        length."""
        offsets = self._at + self.unit * np.arange(len(tables), dtype=np.uint64)
        self._l1[tables] = offsets | np.uint64(ondisk.COPIED)
        length = len(tables) * self.unit
        self._advance(length)
        return length

    def finish(self) -> Iterator[Segments]:
        """Last L2 tables, L1, refcount blocks, refcount table."""
        geometry = self._geometry
        yield self._flush_group()
        self._l1_offset = self._at
        self._advance(self._l1.nbytes)
        yield from table(self._l1)

        counted = self._at // geometry.cluster
        blocks, tables = refcount_clusters(counted, geometry)
        block_offset = self._at
        self._advance(blocks * geometry.cluster)
        yield from self._refcounts(counted + blocks + tables, blocks)

        self._table_offset, self._table_clusters = self._at, tables
        entries = np.zeros(tables * geometry.l2_entries, dtype=">u8")
        entries[:blocks] = block_offset + geometry.cluster * np.arange(blocks)
        self._advance(entries.nbytes)
        yield from table(entries)

    def head(self) -> Iterator[Segments]:
        """The header cluster."""
        geometry = self._geometry
        header = ondisk.HeaderV2(
            magic=ondisk.MAGIC,
            version=self._version,
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
        if self._version == 3:
            header += ondisk.HeaderV3Tail(
                incompatible_features=ondisk.COMPRESSION_TYPE if self._compression else 0,
                compatible_features=0,
                autoclear_features=0,
                refcount_order=geometry.refcount_bits.bit_length() - 1,
                header_length=112,
                compression_type=self._compression,
                padding=bytes(7),
            ).pack()
        header += ondisk.END_OF_EXTENSIONS
        yield Segments.of([Meta.of(header), Zeros(self.head_size - len(header))])


def refcount_clusters(counted: int, geometry: Geometry) -> tuple[int, int]:
    """Refcount blocks and table clusters that count `counted` clusters and themselves."""
    blocks = tables = 1
    while True:
        need = div_ceil(counted + blocks + tables, geometry.refcounts_per_block)
        need_tables = div_ceil(need * ENTRY, geometry.cluster)
        if (need, need_tables) == (blocks, tables):
            return blocks, tables
        blocks, tables = need, need_tables  # never fewer than before, so this ends

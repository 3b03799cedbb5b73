"""VMDK monolithicSparse: one file with all grain tables in front, twice.

VMware wants every grain table to exist, even an empty one, and VirtualBox wants the
redundant copy to equal the first, so the head holds header, descriptor, redundant
directory with its tables, directory with its tables; grains follow in guest order.
"""

from collections.abc import Iterator

import numpy as np

from imgconv.errors import OutputTooLarge
from imgconv.formats.base import PlannedWriter
from imgconv.formats.body import packed
from imgconv.formats.tables import padding, table
from imgconv.ondisk import vmdk as ondisk
from imgconv.ranges import Ranges
from imgconv.segments import Meta, Segments
from imgconv.units import SECTOR, TiB, div_ceil, round_up

GRAIN = ondisk.GRAIN_SIZE
MAX_SPARSE = 2 * TiB - SECTOR  # VMware: the capacity is below 2^32 sectors


class SparseWriter(PlannedWriter):
    """Grains in guest order behind both copies of the tables."""

    unit = GRAIN

    def __init__(self, size: int, descriptor: bytes):
        self.size = size
        self._descriptor = descriptor
        tables = div_ceil(size, ondisk.TABLE_SPAN)
        self._directory_size = round_up(4 * tables, SECTOR)
        self._copy_size = self._directory_size + tables * ondisk.TABLE_SIZE
        self._first_copy = (ondisk.DESCRIPTOR_SECTOR + ondisk.DESCRIPTOR_SECTORS) * SECTOR
        self.head_size = round_up(self._first_copy + 2 * self._copy_size, GRAIN)
        self._grains = np.zeros(tables * ondisk.TABLE_ENTRIES, dtype="<u4")
        self._at = self.head_size

    def place(self, runs: Ranges) -> Segments:
        """Append grains and enter them in their tables."""
        grains = runs.units(GRAIN)
        end = self._at + len(grains) * GRAIN
        if end > MAX_SPARSE:
            raise OutputTooLarge(
                "a monolithicSparse VMDK cannot hold data past 2 TiB of its own file; "
                "vmdk with subformat=streamOptimized, or qcow2, can hold this disk"
            )
        self._grains[grains] = np.arange(self._at // SECTOR, end // SECTOR, GRAIN // SECTOR)
        self._at = end
        return packed(runs, GRAIN)

    def finish(self) -> Iterator[Segments]:
        """Nothing follows the grains."""
        return iter(())

    def head(self) -> Iterator[Segments]:
        """Header, descriptor, both copies of directory and tables."""
        second_copy = self._first_copy + self._copy_size
        header = ondisk.SparseHeader(
            magic=ondisk.MAGIC,
            version=1,
            flags=ondisk.FLAG_NEWLINE_TEST | ondisk.FLAG_REDUNDANT_TABLE,
            capacity=self.size // SECTOR,
            grain_size=GRAIN // SECTOR,
            descriptor_offset=ondisk.DESCRIPTOR_SECTOR,
            descriptor_size=ondisk.DESCRIPTOR_SECTORS,
            table_entries=ondisk.TABLE_ENTRIES,
            redundant_directory_offset=self._first_copy // SECTOR,
            directory_offset=second_copy // SECTOR,
            overhead=self.head_size // SECTOR,
            unclean_shutdown=0,
            newline_test=ondisk.NEWLINE_TEST,
            compression=0,
            padding=bytes(433),
        )
        front = header.pack() + self._descriptor
        yield Segments.of([Meta.of(front)])
        yield padding(self._first_copy - len(front))
        tables = list(table(self._grains))
        for offset in (self._first_copy, second_copy):
            yield from self._directory(offset)
            yield from tables
        yield padding(self.head_size - second_copy - self._copy_size)

    def _directory(self, offset: int) -> Iterator[Segments]:
        """The directory at `offset`, which points at the tables right behind it."""
        tables = len(self._grains) // ondisk.TABLE_ENTRIES
        directory = np.zeros(self._directory_size // 4, dtype="<u4")
        first = (offset + self._directory_size) // SECTOR
        directory[:tables] = first + ondisk.TABLE_SIZE // SECTOR * np.arange(tables)
        yield from table(directory)

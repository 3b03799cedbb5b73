"""VMDK streamOptimized: compressed grains behind markers, everything known last at the end.

The shape that vSphere and VirtualBox export: header version 3 with the grain directory
"at end", grains in ascending order from the sector that the header calls overhead on,
each grain table after its grains, and the directory, the footer and an end marker as the
tail. Nothing needs to be patched, so it streams into a pipe as it is.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from imgconv.deflating import zlib_stream
from imgconv.errors import OutputTooLarge
from imgconv.formats.base import EncodingWriter
from imgconv.formats.tables import padding, table
from imgconv.ondisk import vmdk as ondisk
from imgconv.ranges import Column
from imgconv.segments import Meta, Segments, data
from imgconv.units import SECTOR, div_ceil, round_up

GRAIN = ondisk.GRAIN_SIZE
OVERHEAD = 128 * SECTOR
MAX_FILE = (1 << 32) * SECTOR
MAX_DEFLATED = GRAIN + (GRAIN >> 12) + (GRAIN >> 14) + 13  # zlib's compressBound
MAX_STORED = round_up(ondisk.GrainMarker.LAYOUT.size + MAX_DEFLATED, SECTOR)


def make_marker(sectors: int, marker_type: int) -> bytes:
    """Return the sector that announces `sectors` sectors of metadata."""
    marker = ondisk.MetadataMarker(
        sectors=sectors, zero=0, marker_type=marker_type, padding=bytes(496)
    )
    return marker.pack()


class StreamWriter(EncodingWriter):
    """Encoded grains, and a grain table whenever a 32 MiB range of the guest is over."""

    head_size = 0
    unit = GRAIN

    def __init__(self, size: int, descriptor: bytes, level: int):
        self.size = size
        self._deflate = zlib_stream(level)
        self._descriptor = descriptor
        tables = div_ceil(size, ondisk.TABLE_SPAN)
        self._directory = np.zeros(round_up(tables, SECTOR // 4), dtype="<u4")
        self._table = np.zeros(ondisk.TABLE_ENTRIES, dtype="<u4")
        self._number: int | None = None  # of the table being filled
        self._at = OVERHEAD

    def _header(self) -> ondisk.SparseHeader:
        return ondisk.SparseHeader(
            magic=ondisk.MAGIC,
            version=3,
            flags=ondisk.FLAG_NEWLINE_TEST | ondisk.FLAG_COMPRESSED | ondisk.FLAG_MARKERS,
            capacity=self.size // SECTOR,
            grain_size=GRAIN // SECTOR,
            descriptor_offset=ondisk.DESCRIPTOR_SECTOR,
            descriptor_size=ondisk.DESCRIPTOR_SECTORS,
            table_entries=ondisk.TABLE_ENTRIES,
            redundant_directory_offset=0,
            directory_offset=ondisk.DIRECTORY_AT_END,
            overhead=OVERHEAD // SECTOR,
            unclean_shutdown=0,
            newline_test=ondisk.NEWLINE_TEST,
            compression=ondisk.DEFLATE,
            padding=bytes(433),
        )

    def begin(self) -> Iterator[Segments]:
        """Header and descriptor, up to the first grain."""
        front = self._header().pack() + self._descriptor
        yield Segments.of([Meta.of(front)])
        yield padding(OVERHEAD - len(front))

    def encode(self, start: int, content: memoryview) -> bytes:
        """Return marker, zlib stream and padding of one grain."""
        deflated = self._deflate(content)
        marker = ondisk.GrainMarker(sector=start // SECTOR, length=len(deflated)).pack()
        stored = marker + deflated
        return stored + bytes(-len(stored) % SECTOR)

    def bound(self, count: int) -> int:
        """Return what `count` grains need that do not shrink, each in a table of its own."""
        tables = min(count, div_ceil(self.size, ondisk.TABLE_SPAN))
        tail = SECTOR + self._directory.nbytes + 3 * SECTOR
        return OVERHEAD + count * MAX_STORED + tables * (SECTOR + ondisk.TABLE_SIZE) + tail

    def place(self, units: Column, lengths: Column, checks: Column) -> Segments:
        """Append grains, and the tables of the ranges that they complete."""
        ends = np.cumsum(lengths)
        starts = ends - lengths
        number = units // ondisk.TABLE_SPAN
        cuts = np.flatnonzero(number[1:] != number[:-1]) + 1
        placed = []
        for rows in np.split(np.arange(len(units)), cuts):
            if not len(rows):
                continue
            if number[rows[0]] != self._number:
                placed.append(self._flush_table())
                self._number = int(number[rows[0]])
            offset = self._at + starts[rows] - starts[rows[0]]
            self._table[units[rows] // GRAIN % ondisk.TABLE_ENTRIES] = offset // SECTOR
            self._advance(int(lengths[rows].sum()))
            placed.append(data(starts[rows], lengths[rows]))
        return Segments.concat(placed)

    def _advance(self, length: int) -> None:
        self._at += length
        if self._at > MAX_FILE:
            raise OutputTooLarge("a streamOptimized VMDK cannot grow beyond 2 TiB of file")

    def _flush_table(self) -> Segments:
        """Write the current grain table and enter it in the directory."""
        if self._number is None:
            return Segments.of(())
        marker = make_marker(ondisk.TABLE_SIZE // SECTOR, ondisk.MARKER_TABLE)
        self._directory[self._number] = (self._at + SECTOR) // SECTOR
        content = marker + self._table.tobytes()
        self._table[:] = 0
        self._advance(len(content))
        return Segments.of([Meta.of(content)])

    def finish(self) -> Iterator[Segments]:
        """Last grain table, directory, footer, end of stream."""
        yield self._flush_table()
        directory_offset = self._at + SECTOR
        marker = make_marker(self._directory.nbytes // SECTOR, ondisk.MARKER_DIRECTORY)
        yield Segments.of([Meta.of(marker)])
        yield from table(self._directory)
        footer = replace(self._header(), directory_offset=directory_offset // SECTOR)
        tail = make_marker(1, ondisk.MARKER_FOOTER) + footer.pack() + ondisk.END_OF_STREAM
        yield Segments.of([Meta.of(tail)])
        self._advance(SECTOR + self._directory.nbytes + len(tail))

    def head(self) -> Iterator[Segments]:
        """Nothing is left for last."""
        return iter(())

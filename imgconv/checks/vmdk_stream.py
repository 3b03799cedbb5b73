"""Streamed extents: the walk from marker to marker, and whether it meets what tables say."""

from collections.abc import Iterator

import numpy as np

from imgconv.checks.inspection import Inspection
from imgconv.checks.placement import Placement
from imgconv.checks.report import CORRUPTION, LEAK
from imgconv.checks.streams import Streams, Try, decode_all
from imgconv.checks.vmdk_grains import Tables, walk
from imgconv.codecs import unzlib
from imgconv.native import is_zero
from imgconv.ondisk import vmdk as ondisk
from imgconv.ranges import Column, Ranges
from imgconv.units import SECTOR, MiB, round_up

_HEAD = ondisk.GrainMarker.LAYOUT.size
_BUFFER = MiB
_NONE = np.empty(0, dtype=np.int64)


def check_stream(
    inspection: Inspection, header: ondisk.SparseHeader, tables: Tables, taken: Ranges
) -> int:
    """Check the grains of a stream; return where it ends."""

    def pieces() -> Iterator[tuple[Column, Column]]:
        for found in walk(inspection, tables):
            yield found.start, found.said_at

    placement = Placement(inspection, pieces, SECTOR, taken, "a grain")
    markers = _Markers(inspection, header, tables)
    for starts in placement.windows():
        high = int(starts[-1]) + 1 if len(starts) else 0
        _compare(inspection, starts, markers.until(high))
    for starts in markers.rest():
        _compare(inspection, _NONE, starts)
    markers.check_tables()
    if inspection.data:
        inspection.tally.begin("check", inspection.size)
        decode_all(inspection, _streams(inspection, tables), _attempt(tables))
    return max(placement.end, markers.at)


def _compare(inspection: Inspection, told: Column, met: Column | None) -> None:
    """Compare grains that tables tell of with those that the walk met, None if it got lost."""
    if met is None:
        return
    lost = np.setdiff1d(told, met, assume_unique=True)
    everything = np.ones(len(lost), dtype=np.bool_)
    inspection.corruptions(
        "grain-off-stream", everything, lost, lambda _: "tables put a grain where none begins"
    )
    orphans = np.setdiff1d(met, told, assume_unique=True)
    if len(orphans):
        inspection.findings.add_all(
            LEAK, "unused", orphans, lambda _: "a grain that no table tells of"
        )


class _Markers:
    """Walks from the first marker to the end of the stream, as sequential readers do."""

    def __init__(self, inspection: Inspection, header: ondisk.SparseHeader, tables: Tables):
        self._inspection, self._tables = inspection, tables
        self._at_end = header.directory_offset == ondisk.DIRECTORY_AT_END
        self.at = header.overhead * SECTOR
        self._buffer, self._buffer_at = b"", 0
        self._ended = self._lost = False
        self._last = -1  # the sector of the grain before
        self._met = _NONE  # tables behind markers

    def until(self, high: int) -> Column | None:
        """Return where the grains are that begin before `high`; None when the walk got lost."""
        starts, tables = list[int](), list[int]()
        while not self._ended and self.at < min(high, self._inspection.size):
            if len(starts) % 1024 == 0:
                self._inspection.stop.check()
            self._step(starts, tables)
        self._met = np.concatenate((self._met, np.array(tables, dtype=np.int64)))
        return None if self._lost else np.array(starts, dtype=np.int64)

    def rest(self) -> Iterator[Column]:
        """Yield the grains that are left, some at a time."""
        size = self._inspection.size
        while not self._ended and self.at < size:
            met = self.until(self.at + 256 * MiB)
            if met is None:
                return
            yield met
        text = "no end-of-stream marker, which sequential readers wait for"
        whole = self._lost or self._ended
        self._inspection.advise(whole, "end-of-stream", size, text)

    def _step(self, starts: list[int], tables: list[int]) -> None:
        at, raw = self.at, self._read(self.at)
        marker = ondisk.GrainMarker.unpack(raw)
        if marker.length:
            self._grain(marker.sector, marker.length, starts)
            return
        kind = int.from_bytes(raw[12:16], "little")
        if kind == 0:
            self._end()
            return
        self.at = at + SECTOR + marker.sector * SECTOR
        if kind == ondisk.MARKER_TABLE:
            tables.append(at + SECTOR)
        if self.at > self._inspection.size:
            self._lose(at, f"a marker of {marker.sector} sectors")

    def _grain(self, sector: int, length: int, starts: list[int]) -> None:
        at, grain = self.at, self._tables.grain
        stop = at + round_up(_HEAD + length, SECTOR)
        possible = sector % (grain // SECTOR) == 0 and sector * SECTOR < self._tables.size
        if not possible or length > 2 * grain or stop > round_up(self._inspection.size, SECTOR):
            self._lose(at, f"a marker of sector {sector} with {length} bytes")
            return
        if sector <= self._last:
            text = f"the grain of sector {sector} follows that of {self._last}"
            self._inspection.warning("grain-order", at, text)
        self._last, self.at = sector, stop
        starts.append(at)

    def _end(self) -> None:
        self._ended, self.at = True, self.at + SECTOR
        more = self._inspection.size - self.at
        nothing = more == 0
        if not self._at_end:  # qemu leaves room for one more grain
            nothing = is_zero(self._inspection.read(self.at, min(more, _BUFFER)))
        text = f"{more} bytes behind the end of the stream"
        self._inspection.advise(nothing, "trailing-data", self.at, text)

    def _lose(self, at: int, text: str) -> None:
        self._inspection.corruption("marker", at, text)
        self._ended = self._lost = True

    def _read(self, at: int) -> bytes:
        """Return the first bytes of the sector at `at`."""
        if not self._buffer_at <= at <= self._buffer_at + len(self._buffer) - SECTOR:
            self._buffer, self._buffer_at = self._inspection.read(at, _BUFFER), at
        return self._buffer[at - self._buffer_at : at - self._buffer_at + 16]

    def check_tables(self) -> None:
        """Check that the tables are those behind markers, where the directory is at the end."""
        if not self._at_end or self._lost:
            return
        away = ~np.isin(self._tables.where, self._met)
        self._inspection.corruptions(
            "table-marker", away, self._tables.said_at, lambda _: "no marker before the table"
        )


def _streams(inspection: Inspection, tables: Tables) -> Iterator[Streams]:
    """Yield all grains, each with what it can have before the next one begins."""
    most = _HEAD + 2 * tables.grain
    for found in walk(inspection, tables):
        order = np.argsort(found.start, kind="stable")
        start = found.start[order]
        room = np.minimum(np.append(np.diff(start), most), inspection.size - start)
        room = np.where(room == 0, most, np.minimum(room, most))
        guest = found.number[order] * tables.grain
        yield Streams(start, room, found.said_at[order], guest)


def _attempt(tables: Tables) -> Try:
    """Return what decodes a grain behind its marker, which must be the one for its place."""

    def attempt(raw: memoryview, guest: int) -> tuple[str, str, str] | None:
        if len(raw) < _HEAD:
            return CORRUPTION, "stream", "a grain without data"
        marker = ondisk.GrainMarker.unpack(raw)
        if marker.sector * SECTOR != guest:
            text = f"a marker of sector {marker.sector} where {guest // SECTOR} is to be"
            return CORRUPTION, "grain-sector", text
        if not 0 < marker.length <= len(raw) - _HEAD:
            return CORRUPTION, "stream", f"a marker that tells of {marker.length} bytes"
        least = min(tables.grain, tables.size - guest)
        try:
            unzlib(raw[_HEAD : _HEAD + marker.length], least, tables.grain)
        except ValueError as error:
            return CORRUPTION, "stream", f"compressed data: {error}"
        return None

    return attempt

"""QCOW2: what `qemu-img check` checks, and what it leaves to whoever reads the image."""

import zlib
from collections.abc import Iterator

import numpy as np

from imgconv.checks.inspection import Inspection
from imgconv.checks.qcow2_entries import Entries, Runs, check_entries, walk
from imgconv.checks.qcow2_header import Shape, read_shape
from imgconv.checks.qcow2_metadata import Metadata, read_metadata
from imgconv.checks.qcow2_refcounts import WINDOW_BYTES, Window, counter
from imgconv.checks.report import CORRUPTION, WARNING, Usage
from imgconv.checks.streams import Streams, Try, decode_all
from imgconv.codecs import inflate, unzstd
from imgconv.ranges import firsts
from imgconv.units import SECTOR, GiB, div_ceil, round_up

MAX_CLUSTERS = 1 << 31  # that are counted, as qemu does
MAX_READ = 256 * GiB  # of tables, in all passes
_WINDOW_BITS, _HISTORY = 12, 4096
_TOO_FAR = "distance too far back"


def check_qcow2(inspection: Inspection) -> Usage:
    """Check a QCOW2; raises what reading the file raises."""
    shape = read_shape(inspection)
    if shape is None:
        return Usage()
    metadata = read_metadata(inspection, shape)
    inspection.tally.begin("check", len(metadata.tables.place) * shape.cluster)
    usage = _Usage()
    end = _check_refcounts(inspection, shape, metadata, usage)
    if usage.packed and inspection.data and not shape.front.crypt_method:
        inspection.tally.begin("check", usage.packed * shape.cluster)
        kind = shape.tail.compression_type
        attempt = _try_deflate(shape.cluster) if kind == 0 else _try_zstd(shape.cluster)
        decode_all(inspection, _streams(inspection, shape, metadata), attempt)
    return Usage(
        total_clusters=div_ceil(round_up(shape.front.size, SECTOR), shape.cluster),
        allocated_clusters=usage.allocated,
        compressed_clusters=usage.compressed,
        fragmented_clusters=usage.fragmented,
        image_end_offset=end * shape.cluster,
    )


class _Usage:
    """Counts what the active L1 table's clusters are, and all compressed ones."""

    def __init__(self) -> None:
        self.allocated = self.compressed = self.fragmented = self.packed = 0

    def add_runs(self, entries: Entries, runs: Runs) -> None:
        """Count clusters that are all plain."""
        self.allocated += len(entries.entry)
        self.fragmented += runs.fragments

    def add(self, entries: Entries) -> None:
        """Count clusters of all kinds."""
        packed, cluster = entries.packed, entries.shape.cluster
        active = entries.active
        plain = np.flatnonzero(entries.plain)
        self.packed += int(packed.sum())
        if entries.shape.external:
            packed = packed & False
        elif entries.bitmap is not None:
            packed = packed & (entries.bitmap == 0)
        compressed = int(active[packed].sum())
        place, table = entries.place[plain], entries.table[plain]
        apart = (np.diff(table) == 0) & (np.diff(place) != cluster)
        self.compressed += compressed
        self.allocated += compressed + int(active[plain].sum())
        self.fragmented += compressed + int(active[plain][1:][apart].sum())


def _check_refcounts(
    inspection: Inspection, shape: Shape, metadata: Metadata, usage: _Usage
) -> int:
    """Check entries, and refcounts window by window; return how many clusters are in use."""
    kind = counter(metadata, shape)
    size = WINDOW_BYTES // kind.itemsize
    count, end = min(shape.clusters, MAX_CLUSTERS), 0
    tables = len(metadata.tables.place) * shape.cluster
    windows = min(div_ceil(count, size), max(MAX_READ // max(tables, 1), 1))
    if windows * size < shape.clusters:
        text = f"{shape.clusters} clusters, of which {min(windows * size, count)} are counted"
        inspection.error("too-large", 0, text)
    for low in range(0, min(windows * size, count), size):
        inspection.stop.check()
        high = min(low + size, count)
        window = Window(inspection, shape, metadata, low, high, kind)
        window.refer_metadata()
        window.check_l1_copied()
        for entries in walk(inspection, shape, metadata.tables):
            _take(inspection, window, entries, usage if low == 0 else None)
        if not window.is_empty:
            window.compare()
            end = max(end, window.in_use)
    return end


def _take(
    inspection: Inspection, window: Window, entries: Entries, usage: _Usage | None
) -> None:
    """Count what entries refer to; with `usage`, it is the first time that they are seen."""
    runs = entries.runs()
    if runs is not None and window.are_single(runs):
        window.refer_runs(runs)
        if usage is not None:
            usage.add_runs(entries, runs)
        return
    if usage is not None:
        check_entries(inspection, entries)
        usage.add(entries)
    window.check_copied(entries)
    window.refer_entries(entries)


def _streams(inspection: Inspection, shape: Shape, metadata: Metadata) -> Iterator[Streams]:
    """Yield compressed data, each stream once within a few tables."""
    for entries in walk(inspection, shape, metadata.tables):
        packed = entries.where(entries.packed)
        where, length = packed.streams()
        order = np.lexsort((length, where))
        where, length, said_at = where[order], length[order], packed.at[order]
        length = np.minimum(length, shape.file_size - where)
        row = firsts(where)
        changed = np.flatnonzero(np.diff(length, prepend=-1))
        row = np.union1d(row, changed)
        row = row[length[row] > 0]
        yield Streams(where[row], length[row], said_at[row], where[row])


def _try_deflate(cluster: int) -> Try:
    """Return what decodes a stream in pieces, as readers with no more than the history do."""

    def attempt(stream: memoryview, _: int) -> tuple[str, str, str] | None:
        decoder, left, found = zlib.decompressobj(-_WINDOW_BITS), cluster, len(stream) > 0
        rest: bytes | memoryview = stream
        try:
            while found and left > 0 and not decoder.eof:
                piece = decoder.decompress(rest, min(left, _HISTORY))
                rest, found, left = decoder.unconsumed_tail, bool(piece), left - len(piece)
        except zlib.error as error:
            if _TOO_FAR not in str(error):
                return CORRUPTION, "stream", f"compressed data: {error}"
            return _try_whole(stream, cluster)
        if left:
            text = f"compressed data end after {cluster - left} of {cluster} bytes"
            return CORRUPTION, "stream", text
        return None

    return attempt


def _try_whole(stream: memoryview, cluster: int) -> tuple[str, str, str] | None:
    try:
        inflate(stream, cluster)
    except ValueError as error:
        return CORRUPTION, "stream", f"compressed data: {error}"
    text = "compressed data reach back further than 4 KiB, which some readers cannot"
    return WARNING, "stream-history", text


def _try_zstd(cluster: int) -> Try:
    def attempt(stream: memoryview, _: int) -> tuple[str, str, str] | None:
        try:
            unzstd(stream, cluster)
        except ValueError as error:
            return CORRUPTION, "stream", f"compressed data: {error}"
        return None

    return attempt

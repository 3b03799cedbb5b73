"""Rules of the compressed clusters of QCOW2 files: descriptors, streams, their places."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import zstandard

from .common import SECTOR, Findings, Image, Ints, ceil_div, is_all, round_up
from .qcow2_header import DEFLATE, ZSTD, Header

_COPIED = np.uint64(1 << 63)
_BELOW_FLAGS = np.uint64((1 << 62) - 1)
_WINDOW_BITS = 12
_FEED, _STEP = 1024, 64
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_LEAST_WINDOW = 1024


class BrokenStreamError(Exception):
    """A stream that is not one whole cluster in the form the header announces."""


def inflate(raw: bytes, size: int) -> tuple[bytes, int]:
    """3.4: decode raw deflate with a window of 4 KiB; return the data and the true length.

    zlib takes a distance beyond the window as long as it stays in the output of one call,
    so clusters larger than the window are decoded in many small steps.
    """
    decoder = zlib.decompressobj(wbits=-_WINDOW_BITS)
    if size <= 1 << _WINDOW_BITS:
        feed, step = len(raw), size + 1
    else:
        feed, step = _FEED, _STEP
    parts: list[bytes] = []
    fed = done = 0
    pending = b""
    try:
        while not decoder.eof and done <= size:
            if not pending:
                pending = raw[fed : fed + feed]
                fed += len(pending)
            part = decoder.decompress(pending, step)
            if not part and not pending:
                raise BrokenStreamError(f"it is cut after {done} bytes of data")
            pending = decoder.unconsumed_tail
            parts.append(part)
            done += len(part)
    except zlib.error as error:
        raise BrokenStreamError(f"after {done} bytes: {error}") from None
    if done > size:
        raise BrokenStreamError(f"it holds more than {size} bytes of data")
    return b"".join(parts), fed - len(decoder.unused_data)


def unpack_zstd(raw: bytes, size: int) -> tuple[bytes, int]:
    """3.4: decode one frame with content size, without dictionary, of a small window."""
    if not raw.startswith(_ZSTD_MAGIC):
        raise BrokenStreamError(f"it begins with {raw[:4].hex()}, not with a zstd frame")
    try:
        frame = zstandard.get_frame_parameters(raw)
        if frame.content_size != size:
            raise BrokenStreamError("its frame header lacks the content size, or has another")
        if frame.dict_id or frame.window_size > max(size, _ZSTD_LEAST_WINDOW):
            raise BrokenStreamError("it needs a dictionary or a window above the cluster size")
        decoder = zstandard.ZstdDecompressor().decompressobj()
        data = decoder.decompress(raw)
    except zstandard.ZstdError as error:
        raise BrokenStreamError(str(error)) from None
    if not decoder.eof:
        raise BrokenStreamError(f"it is cut after {len(data)} bytes of data")
    return data, len(raw) - len(decoder.unused_data)


_DECODERS = {DEFLATE: inflate, ZSTD: unpack_zstd}


def clusters_between(first: Ints, last: Ints) -> Iterator[Ints]:
    """Yield all cluster numbers of many ranges, each with its last one, in few arrays."""
    while len(first):
        yield first
        more = first < last
        first, last = first[more] + 1, last[more]


class _Cases:
    """How often each rule is broken, and the first few cases."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.texts: dict[str, list[str]] = {}

    def add(self, rule: str, text: str) -> None:
        self.counts[rule] = self.counts.get(rule, 0) + 1
        texts = self.texts.setdefault(rule, [])
        if len(texts) < Findings.EXAMPLES:
            texts.append(text)

    def report(self, findings: Findings) -> None:
        for rule, count in self.counts.items():
            findings.several(rule, self.texts[rule], count)


class Streams:
    """The compressed clusters of an image, each decoded once; their real extents."""

    def __init__(self, image: Image, findings: Findings, header: Header) -> None:
        self.image = image
        self.findings = findings
        self.size = header.cluster_size
        self.disk_size = header.size
        self.offset_bits = 70 - header.cluster_bits
        self.decode = _DECODERS.get(header.compression)
        self.count = 0
        self.whole = True
        self.cases = _Cases()
        self.starts: list[Ints] = [np.zeros(0, dtype=np.int64)]
        self.ends: list[Ints] = [np.zeros(0, dtype=np.int64)]

    def check(self, guests: Ints, entries: npt.NDArray[np.uint64]) -> tuple[Ints, Ints]:
        """Judge descriptors and streams; return the first and last host cluster of each."""
        self.count += len(guests)
        copied = (entries & _COPIED) != 0
        for guest in guests[copied].tolist():
            self.cases.add("COPIED is set on a compressed cluster", f"guest cluster {guest}")
        fields = entries & _BELOW_FLAGS
        offsets = (fields & np.uint64((1 << self.offset_bits) - 1)).astype(np.int64)
        sectors = (fields >> np.uint64(self.offset_bits)).astype(np.int64)
        inside = self._check_inside(guests, offsets, sectors)
        guests, offsets, sectors = guests[inside], offsets[inside], sectors[inside]
        self._check_streams(guests, offsets, sectors)
        last = (offsets // SECTOR + sectors) * SECTOR // self.size
        return offsets // self.size, last

    def _check_inside(self, guests: Ints, offsets: Ints, sectors: Ints) -> Ints:
        """3.2, 3.7: all sectors that a descriptor names are in the file; return which are."""
        beyond = (offsets // SECTOR + sectors + 1) > self.image.length // SECTOR
        rule = "the sectors of a compressed cluster end beyond the end of the file"
        for at in np.flatnonzero(beyond).tolist():
            text = f"guest cluster {guests[at]} at {offsets[at]}, {sectors[at]} more sectors"
            self.cases.add(rule, text)
            self.whole = False
        inside: Ints = np.flatnonzero(~beyond)
        return inside

    def _check_streams(self, guests: Ints, offsets: Ints, sectors: Ints) -> None:
        """3.2, 3.4: each stream decodes to one cluster, and its sectors are counted right."""
        lengths = np.zeros_like(offsets)
        listed = zip(guests.tolist(), offsets.tolist(), sectors.tolist(), strict=True)
        for number, (guest, offset, count) in enumerate(listed):
            length = self._check_stream(guest, offset)
            lengths[number] = length
            wanted = (offset % SECTOR + length - 1) // SECTOR
            if length and count != wanted:
                text = f"guest cluster {guest} at {offset} has {count}, not {wanted}"
                self.cases.add("the sector count of a compressed cluster is wrong", text)
        known = lengths > 0
        self.whole &= bool(known.all())
        self.starts.append(offsets[known])
        self.ends.append((offsets + lengths)[known])

    def _check_stream(self, guest: int, offset: int) -> int:
        """3.4: judge one stream and what it holds; return its length, 0 if not known."""
        if self.decode is None:
            return 0
        where = f"guest cluster {guest} at {offset}"
        raw = self.image.read(offset, self.size + self.size // 8 + SECTOR)
        try:
            data, length = self.decode(raw, self.size)
        except BrokenStreamError as error:
            self.cases.add("a compressed cluster does not decode", f"{where}: {error}")
            return 0
        if len(data) != self.size:
            rule = "a compressed cluster does not decode to a whole cluster"
            self.cases.add(rule, f"{where}: {len(data)} bytes")
        if length >= self.size:
            rule = "a compressed cluster is not smaller than a plain one"
            self.cases.add(rule, f"{where}: {length} bytes")
        if is_all(data):
            self.cases.add("a compressed cluster holds only zeros", where)
        tail = max(self.disk_size - guest * self.size, 0)
        if not is_all(data[tail:]):
            self.cases.add("a compressed cluster has data beyond the disk", where)
        return length

    def finish(self) -> None:
        """Report all that was found, and what the extents of all streams tell."""
        starts, ends = np.concatenate(self.starts), np.concatenate(self.ends)
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
        self._check_overlaps(starts, ends)
        if self.whole and len(starts):
            self._check_gaps(starts, ends)
        self.cases.report(self.findings)

    def _check_overlaps(self, starts: Ints, ends: Ints) -> None:
        """3.4: streams lie back to back at most; none begins inside another."""
        for at in np.flatnonzero(starts[1:] < np.maximum.accumulate(ends)[:-1]).tolist():
            text = f"one at {starts[at + 1]}, after the one at {starts[at]}"
            self.cases.add("compressed clusters overlap", text)

    def _check_gaps(self, starts: Ints, ends: Ints) -> None:
        """No junk: what no stream fills in a host cluster of streams is zero."""
        size = self.size
        before = int(starts[0]) // size * size
        befores = np.concatenate((np.array([before]), ends[:-1])).tolist()
        nexts = np.append(starts[1:], round_up(int(ends[-1]), size)).tolist()
        for last_end, start in zip(befores, starts.tolist(), strict=True):
            self._check_gap(max(last_end, start // size * size), start)
        for end, start in zip(ends.tolist(), nexts, strict=True):
            full = ceil_div(end, size) * size
            if start >= full:
                self._check_gap(end, full)

    def _check_gap(self, start: int, end: int) -> None:
        found = self.image.first_unlike(start, end, 0) if start < end else None
        if found is not None:
            rule = "the room between compressed clusters is not zero"
            self.cases.add(rule, f"byte at {found}")

"""From placed segments to calls on a sink: bytes where there are some, zeros elsewhere."""

from typing import TypeAlias

import numpy as np

from imgconv.native import data_runs
from imgconv.ranges import Ranges, overlaps
from imgconv.scan import Found
from imgconv.segments import DATA, META, Meta, Segments
from imgconv.sinks.base import Sink
from imgconv.units import KiB

PAGE = 4 * KiB  # long metadata is written by the page, so that empty tables stay holes

Pieces: TypeAlias = list[tuple[int, memoryview]]


def deliver(sink: Sink, offset: int, segments: Segments, found: Found | None) -> int:
    """Give the segments, placed at `offset`, to the sink; return the bytes written.

    `found` holds the bytes that Data segments refer to.
    """
    if not len(segments):
        return 0
    starts = offset + np.cumsum(segments.length) - segments.length
    pieces = _meta_pieces(segments, starts)
    if found is not None:
        pieces += _data_pieces(segments, starts, found)
        pieces.sort(key=lambda piece: piece[0])
    at, group = offset, list[memoryview]()
    for start, view in pieces:
        if start > at:
            _write(sink, at, group)
            sink.zeros(at, start - at)
            at, group = start, []
        group.append(view)
        at += len(view)
    _write(sink, at, group)
    if at < offset + segments.size:
        sink.zeros(at, offset + segments.size - at)
    return sum(len(view) for _, view in pieces)


def _write(sink: Sink, end: int, group: list[memoryview]) -> None:
    """Write the buffers, if any, that end at `end`."""
    if group:
        sink.write(end - sum(map(len, group)), group)


def _data_pieces(segments: Segments, starts: np.ndarray, found: Found) -> Pieces:
    """Where each stretch of found data goes."""
    rows = segments.kind == DATA
    wanted = Ranges(segments.ref[rows], segments.ref[rows] + segments.length[rows])
    in_found, in_wanted, shared = overlaps(found.data, wanted)
    target = starts[rows][in_wanted] + shared.start - wanted.start[in_wanted]
    low = found.where[in_found] + shared.start - found.data.start[in_found]
    high = low + shared.length
    return [
        (at, found.buffer[i:j])
        for at, i, j in zip(target.tolist(), low.tolist(), high.tolist(), strict=True)
    ]


def _meta_pieces(segments: Segments, starts: np.ndarray) -> Pieces:
    """Metadata, rendered once however often it is referred to, empty pages left out."""
    rows = segments.kind == META
    rendered: dict[int, Pieces] = {}
    pieces: Pieces = []
    for at, ref in zip(starts[rows].tolist(), segments.ref[rows].tolist(), strict=True):
        if ref not in rendered:
            rendered[ref] = _pages(segments.metas[ref])
        pieces += [(at + low, view) for low, view in rendered[ref]]
    return pieces


def _pages(meta: Meta) -> Pieces:
    content = memoryview(meta.render())
    assert len(content) == meta.length
    if meta.length <= PAGE:
        return [(0, content)]
    return [(low, content[low:high]) for low, high in data_runs(content, PAGE)]

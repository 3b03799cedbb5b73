"""From placed segments to a stretch for a sink: bytes where there are some, zeros elsewhere."""

from dataclasses import dataclass, field

import numpy as np

from imgconv.found import Found
from imgconv.native import data_runs
from imgconv.ranges import Column, Ranges, overlaps
from imgconv.segments import DATA, META, Segments
from imgconv.sinks.base import Sink
from imgconv.stretch import Stretch
from imgconv.units import SECTOR, KiB

PAGE = 4 * KiB  # metadata longer than one is written by the sector: empty tables stay holes


def deliver(sink: Sink, offset: int, segments: Segments, found: Found | None) -> int:
    """Give the segments, placed at `offset`, to the sink; return the bytes written.

    `found` holds the bytes that Data segments refer to.
    """
    if not len(segments):
        return 0
    starts = offset + segments.length.cumsum() - segments.length
    pieces = _Pieces()
    if found is not None:
        _add_data(pieces, segments, starts, found)
    if segments.metas:
        _add_metadata(pieces, segments, starts)
    stretch = pieces.stretch(offset, segments.size)
    sink.put(stretch)
    return stretch.written


@dataclass(slots=True)
class _Pieces:
    """Pieces as they are collected: columns, one set of them for each content."""

    contents: list[memoryview] = field(default_factory=list)
    columns: list[tuple[Column, Column, Column]] = field(default_factory=list)

    def add(self, content: memoryview, at: Column, size: Column, where: Column) -> None:
        """Add pieces of one content: where they go, their sizes, where they are in it."""
        self.contents.append(content)
        self.columns.append((at, size, where))

    def stretch(self, offset: int, length: int) -> Stretch:
        """Put the pieces in order."""
        if not self.contents:
            return Stretch.zeros(offset, length)
        counts = [len(at) for at, _, _ in self.columns]
        origin = np.arange(len(counts)).repeat(counts)
        at, size, where = (np.concatenate(column) for column in zip(*self.columns, strict=True))
        rows = at.argsort(kind="stable")
        columns = at[rows], size[rows], where[rows], origin[rows]
        return Stretch(offset, length, *columns, tuple(self.contents))


def _add_data(pieces: _Pieces, segments: Segments, starts: Column, found: Found) -> None:
    """Where each stretch of found data goes."""
    rows = np.flatnonzero(segments.kind == DATA)
    rows = rows[segments.ref[rows].argsort(kind="stable")]  # units come in any order
    wanted = Ranges(segments.ref[rows], segments.ref[rows] + segments.length[rows])
    if wanted.same(found.data):  # as in most batches
        pieces.add(found.buffer, starts[rows], wanted.length, found.where)
        return
    in_found, in_wanted, shared = overlaps(found.data, wanted)
    at = starts[rows][in_wanted] + shared.start - wanted.start[in_wanted]
    where = found.where[in_found] + shared.start - found.data.start[in_found]
    pieces.add(found.buffer, at, shared.length, where)


def _add_metadata(pieces: _Pieces, segments: Segments, starts: Column) -> None:
    """Metadata, rendered once however often it is referred to, empty pages left out."""
    rows = np.flatnonzero(segments.kind == META)
    refs = segments.ref[rows]
    for ref in dict.fromkeys(refs.tolist()):
        meta = segments.metas[ref]
        content = memoryview(meta.render())
        assert len(content) == meta.length
        used = Ranges.single(0, len(content))
        if meta.length > PAGE:
            # Pages of the file lie anywhere in it, but none in a gap shorter than a page.
            used = data_runs(content, SECTOR).merged(apart=PAGE)
        places = starts[rows[refs == ref]]
        pieces.add(
            content,
            np.add.outer(places, used.start).ravel(),
            np.tile(used.length, len(places)),
            np.tile(used.start, len(places)),
        )

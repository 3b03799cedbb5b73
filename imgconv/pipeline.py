"""The engine: read, scan, encode, place, deliver, with ordered placement.

Two drivers share it. `stream` delivers while it reads: one pass. `plan` runs the same
writer over the runs alone and returns the whole layout, which `emit` then sends, head
first, to a sink that cannot go back. Both give the same bytes. A layout that depends on how
well the content compresses has no plan: `rehearse` finds out the head, and `stream` follows.

A worker holds one batch at a time, from reading to writing; so memory is the number of
threads times a batch, whatever the size of the disk.
"""

import mmap
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from imgconv.batches import CAPACITY, Batch, Pace, batches
from imgconv.deliver import deliver
from imgconv.encode import encode
from imgconv.errors import OutOfResources, SourceChanged
from imgconv.formats.base import EncodingWriter, PlannedWriter, Writer
from imgconv.found import Found
from imgconv.layout import Layout, LayoutBuilder
from imgconv.ranges import Ranges
from imgconv.render import render
from imgconv.segments import ZEROS, Data, Meta, Segments
from imgconv.sinks.base import Sink
from imgconv.sources.base import Source
from imgconv.sources.scanning import scanner
from imgconv.stretch import Stretch
from imgconv.tally import Tally
from imgconv.units import KiB, MiB
from imgconv.workers import Stop, Turn, run

LONG = MiB  # zeros, to be worth noting in an outline
GRANULE = 4 * KiB  # how finely zeros are told from data where the unit is coarser


def granule_of(writer: Writer) -> int:
    """Return how finely the engine looks for zeros; units that are encoded stay whole."""
    return writer.unit if isinstance(writer, EncodingWriter) else min(writer.unit, GRANULE)


def _batches(source: Source, writer: Writer, pace: Pace) -> Iterator[Batch]:
    return batches(source.extents(), source.size, writer.unit, granule_of(writer), pace)


def page_buffer(size: int) -> memoryview:
    """Memory for a worker: whole pages, to which the kernel copies up to twice as fast."""
    try:
        pages = mmap.mmap(-1, size)
    except OSError as error:
        raise OutOfResources(f"no memory for a buffer of {size} bytes") from error
    with suppress(OSError):  # a kernel may know no huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)


class _Stream:
    """The state of a one-pass conversion: how far the output has been placed."""

    def __init__(self, source: Source, writer: Writer, sink: Sink, tally: Tally, pace: Pace):
        self._source, self._writer = source, writer
        self._sink, self._tally = sink, tally
        self._scan, self._granule, self._pace = scanner(source), granule_of(writer), pace
        self.at = writer.head_size

    def make_worker(self) -> Callable[[Batch, Turn], None]:
        return partial(self._convert, page_buffer(self._pace.most))

    def _convert(self, buffer: memoryview, batch: Batch, turn: Turn) -> None:
        found = self._scan(batch.extents, self._granule, buffer)
        self._pace.note(found.data)
        written = self._place(found, turn) if len(found.data) else 0
        self._tally.advance(batch.stop - batch.start, data=found.data.total, written=written)

    def _place(self, found: Found, turn: Turn) -> int:
        place, payload = self._prepare(found)
        with turn:
            segments, offset = self._reserve(place())
            if not self._sink.parallel:
                return deliver(self._sink, offset, segments, payload)
        return deliver(self._sink, offset, segments, payload)

    def _prepare(self, found: Found) -> tuple[Callable[[], Segments], Found]:
        """Do what needs no turn; return what does, and the bytes it will place."""
        writer = self._writer
        if isinstance(writer, EncodingWriter):
            encoded = encode(writer, found)
            columns = encoded.units, encoded.lengths, encoded.checks
            return partial(writer.place, *columns), encoded.payload
        runs = found.data.aligned(writer.unit, self._source.size)
        return partial(writer.place, runs), found

    def _reserve(self, segments: Segments) -> tuple[Segments, int]:
        offset = self.at
        self.at += segments.size
        return segments, offset

    def append(self, parts: Iterator[Segments]) -> None:
        """Deliver metadata at the end of what has been placed."""
        for part in parts:
            segments, offset = self._reserve(part)
            self._tally.advance(0, written=deliver(self._sink, offset, segments, None))

    def patch_head(self) -> None:
        """Deliver the head, which was left out, to the front."""
        at = 0
        for part in self._writer.head():
            self._tally.advance(0, written=deliver(self._sink, at, part, None))
            at += part.size
        assert at == self._writer.head_size


def stream(
    source: Source,
    writer: Writer,
    sink: Sink,
    *,
    threads: int,
    stop: Stop,
    tally: Tally,
    head: bytes | None = None,
) -> int:
    """Convert in one pass; return the output's size in bytes.

    The sink must take a late head unless the writer has none or `head` says what it will
    be. SourceChanged when it turns out to be another.
    """
    tally.begin("convert", source.size)
    pace = Pace(writer.unit, threads)
    state = _Stream(source, writer, sink, tally, pace)
    if head is not None:
        state.at = 0
        state.append(iter([Segments.of([Meta.of(head)])]))
    state.append(writer.begin())
    run(_batches(source, writer, pace), state.make_worker, threads=threads, stop=stop)
    state.append(writer.finish())
    if head is None:
        state.patch_head()
    elif head != _rendered(writer.head()):
        raise SourceChanged(f"{source.name}: changed while it was read")
    return state.at


def rehearse(
    source: Source, writer: Writer, *, threads: int, stop: Stop, tally: Tally
) -> bytes:
    """Convert into nothing; return the head that an output that cannot go back begins with.

    The alternative is to keep all of the output somewhere until its head is known.
    """
    from imgconv.sinks.null import NullSink

    tally.begin("scan", source.size)
    silent = Tally(lambda now: tally.proceed(now.done))
    stream(source, writer, NullSink(), threads=threads, stop=stop, tally=silent)
    return _rendered(writer.head())


def _rendered(parts: Iterator[Segments]) -> bytes:
    """The bytes of a few segments of metadata."""
    pieces = []
    for segments in parts:
        for segment in segments:
            assert not isinstance(segment, Data)
            if isinstance(segment, Meta):
                pieces.append(segment.render())
            else:
                pieces.append(bytes(segment.length))
    return b"".join(pieces)


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What metadata tell of an output: the most bytes it can have, and of one that will
    have exactly those, where long stretches will be nothing but zeros."""

    bound: int
    zeros: Ranges


def outline(source: Source, writer: Writer) -> Outline:
    """Find out what can be known without reading data; uses up the writer.

    Content can only turn data into zeros. In an output that stores nothing for zeros what
    follows then moves up, so there its own zeros are of no moment; there are few.
    """
    extents = (group.aligned(writer.unit, source.size) for group in source.extents())
    if isinstance(writer, EncodingWriter):
        unit = writer.unit
        count = sum(int((-(-group.length // unit)).sum()) for group in extents)
        return Outline(writer.bound(count), Ranges.of([]))
    at, zeros = writer.head_size, []
    for segments in _placed(source, writer, extents):
        ends = at + np.cumsum(segments.length)
        long = (segments.kind == ZEROS) & (segments.length >= LONG)
        zeros.append(Ranges(ends - segments.length, ends).where(long))
        at += segments.size
    return Outline(at, Ranges.concat(zeros).merged())


def _placed(
    source: Source, writer: PlannedWriter, extents: Iterator[Ranges]
) -> Iterator[Segments]:
    """Yield all segments but the head, with extents for runs."""
    yield from writer.begin()
    at = 0
    for group in extents:
        runs = group.window(at, source.size)  # groups may share the unit they meet in
        yield writer.place(runs)
        at = int(runs.stop[-1]) if len(runs) else at
    yield from writer.finish()


class Planning:
    """A writer that is told of runs, in order, and the layout that comes of it."""

    def __init__(self, writer: PlannedWriter):
        self._writer, self._body = writer, LayoutBuilder()
        for part in writer.begin():
            self._body.append(part)

    def place(self, runs: Ranges) -> None:
        """Append runs of whole units."""
        self._body.append(self._writer.place(runs))

    def finish(self) -> Layout:
        """Return the whole layout."""
        for part in self._writer.finish():
            self._body.append(part)
        return self._body.build(head=self._writer.head())


def plan(
    source: Source, writer: PlannedWriter, *, threads: int, stop: Stop, tally: Tally
) -> Layout:
    """Read and scan the whole disk; return the layout its output will have."""
    tally.begin("scan", source.size)
    planning = Planning(writer)
    scan, granule, pace = scanner(source), granule_of(writer), Pace(writer.unit, threads)

    def place(buffer: memoryview, batch: Batch, turn: Turn) -> None:
        found = scan(batch.extents, granule, buffer)
        pace.note(found.data)
        runs = found.data.aligned(writer.unit, source.size)
        with turn:
            planning.place(runs)
        tally.advance(batch.stop - batch.start, data=found.data.total)

    def make_worker() -> Callable[[Batch, Turn], None]:
        return partial(place, page_buffer(pace.most))

    run(_batches(source, writer, pace), make_worker, threads=threads, stop=stop)
    return planning.finish()


def emit(
    layout: Layout, source: Source, sink: Sink, *, threads: int, stop: Stop, tally: Tally
) -> int:
    """Send a planned output to the sink from front to back; return its size in bytes."""
    tally.begin("emit", layout.size)

    def send(buffer: memoryview, offset: int, turn: Turn) -> None:
        length = min(CAPACITY, layout.size - offset)
        content = buffer[:length]
        empty = layout.is_zero(offset, offset + length)
        if not empty:
            render(layout, source, offset, content)
        with turn:
            sink.put(Stretch.zeros(offset, length) if empty else Stretch.of(offset, [content]))
        tally.advance(length, written=length)

    run(
        range(0, layout.size, CAPACITY),
        lambda: partial(send, page_buffer(CAPACITY)),
        threads=threads,
        stop=stop,
    )
    return layout.size

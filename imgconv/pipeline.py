"""The engine: read, scan, encode, place, deliver, with ordered placement.

Two drivers share it. `stream` delivers while it reads: one pass, and `fan_out` does so for
several outputs, of which each is a `Lane`. `plan` runs the same writer over the runs alone
and returns the whole layout, which `emit` then sends, head first, to a sink that cannot go
back. Both give the same bytes. A layout that depends on how well the content compresses has
no plan: `rehearse` finds out the head, and `stream` follows.

A worker holds one batch at a time, from reading to writing; so memory is the number of
threads times a batch, whatever the size of the disk.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import lcm

from imgconv.batches import CAPACITY, Batch, Pace, batches
from imgconv.formats.base import EncodingWriter, PlannedWriter, Writer
from imgconv.found import Found
from imgconv.lanes import Lane, rendered
from imgconv.layout import Layout, LayoutBuilder
from imgconv.pages import page_buffer
from imgconv.ranges import Ranges
from imgconv.render import render
from imgconv.segments import ZEROS, Segments
from imgconv.sinks.base import Sink
from imgconv.sources.base import Source
from imgconv.sources.scanning import refined, scanner
from imgconv.stretch import Stretch
from imgconv.tally import Tally
from imgconv.units import KiB, MiB
from imgconv.workers import Stop, Turn, run

LONG = MiB  # zeros, to be worth noting in an outline
GRANULE = 4 * KiB  # how finely zeros are told from data where the unit is coarser


def granule_of(writer: Writer) -> int:
    """Return how finely the engine looks for zeros; units that are encoded stay whole."""
    return writer.unit if isinstance(writer, EncodingWriter) else min(writer.unit, GRANULE)


def span_of(writer: Writer) -> int:
    """Return the guest bytes of which a writer must be told at once."""
    return writer.span if isinstance(writer, EncodingWriter) else writer.unit


class _Pass:
    """One pass over a disk, of which every lane is given what was found."""

    def __init__(self, source: Source, lanes: Sequence[Lane], threads: int):
        self._source, self._lanes = source, lanes
        self._granules = [granule_of(lane.writer) for lane in lanes]
        self._granule = lcm(*self._granules)
        self._span = lcm(*(span_of(lane.writer) for lane in lanes))
        self._scan, self._pace = scanner(source), Pace(self._span, threads)

    def batches(self) -> Iterator[Batch]:
        """Cut the disk where no lane's unit or span is cut in two."""
        extents, size = self._source.extents(), self._source.size
        return batches(extents, size, self._span, self._granule, self._pace)

    def make_worker(self) -> Callable[[Batch, Turn], None]:
        return partial(self._convert, page_buffer(self._pace.most))

    def _convert(self, buffer: memoryview, batch: Batch, turn: Turn) -> None:
        found = self._scan(batch.extents, self._granule, buffer)
        self._pace.note(batch.extents, found.data)
        if len(found.data):
            self._place(found, turn)
        for lane in self._lanes:
            lane.tally.advance(batch.stop - batch.start)

    def _place(self, found: Found, turn: Turn) -> None:
        """Put what was found into every lane, as finely as each looks at it."""
        views = {self._granule: found}
        for granule in self._granules:
            if granule not in views:
                views[granule] = refined(found, granule)
        ready = [
            lane.prepare(views[granule], self._source.size)
            for lane, granule in zip(self._lanes, self._granules, strict=True)
        ]
        with turn:
            for batch in ready:
                batch.place()
        for batch in ready:
            batch.deliver()


def fan_out(source: Source, lanes: Sequence[Lane], *, threads: int, stop: Stop) -> None:
    """Convert into several outputs in one pass: the disk is read and scanned once.

    Every output gets the bytes it would get alone. SourceChanged when the head of a lane
    turns out to be another than it was said to be.
    """
    for lane in lanes:
        lane.tally.begin("convert", source.size)
        lane.begin()
    whole = _Pass(source, lanes, threads)
    run(whole.batches(), whole.make_worker, threads=threads, stop=stop)
    for lane in lanes:
        lane.finish(source.name)


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
    lane = Lane(writer, sink, tally, head)
    fan_out(source, [lane], threads=threads, stop=stop)
    return lane.at


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
    return rendered(writer.head())


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
        ends = at + segments.length.cumsum()
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
        pace.note(batch.extents, found.data)
        runs = found.data.aligned(writer.unit, source.size)
        with turn:
            planning.place(runs)
        tally.advance(batch.stop - batch.start, data=found.data.total)

    def make_worker() -> Callable[[Batch, Turn], None]:
        return partial(place, page_buffer(pace.most))

    tasks = batches(source.extents(), source.size, writer.unit, granule, pace)
    run(tasks, make_worker, threads=threads, stop=stop)
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

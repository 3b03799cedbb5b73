"""Planned outputs: all of a layout before a byte of it is written, for what cannot go back.

`plan` runs a writer over what is found in the disk and returns the whole layout, which `emit`
then sends, head first; that gives the bytes that `pipeline.stream` does. `outline` asks the
metadata alone, and says less.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from imgconv.batches import CAPACITY, Batch, Pace, batches
from imgconv.formats.base import EncodingWriter, PlannedWriter, Writer
from imgconv.layout import Layout, LayoutBuilder
from imgconv.pages import page_buffer
from imgconv.pipeline import granule_of
from imgconv.ranges import Ranges
from imgconv.render import render
from imgconv.segments import ZEROS, Segments
from imgconv.sinks.base import Sink
from imgconv.sources.base import Source
from imgconv.sources.scanning import scanner
from imgconv.stretch import Stretch
from imgconv.tally import Tally
from imgconv.units import MiB
from imgconv.workers import Stop, Turn, run

LONG = MiB  # zeros, to be worth noting in an outline


class Outline(NamedTuple):
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

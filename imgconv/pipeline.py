"""The engine: read, scan, encode, place, deliver, with ordered placement.

`stream` delivers while it reads: one pass, and `fan_out` does so for several outputs, of which
each is a `Lane`. A sink that cannot go back wants the head first: `planning.py` finds out the
whole layout of an output before; one that depends on how well the content compresses has no
plan: `rehearse` finds out its head, and `stream` follows.

A worker holds one batch at a time, from reading to writing; so memory is the number of
threads times a batch, whatever the size of the disk.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import lcm

from imgconv.batches import Batch, Pace, batches
from imgconv.formats.base import EncodingWriter, Writer
from imgconv.found import Found
from imgconv.lanes import Lane, rendered
from imgconv.pages import page_buffer
from imgconv.sinks.base import Sink
from imgconv.sources.base import Source
from imgconv.sources.scanning import refined, scanner
from imgconv.tally import Tally
from imgconv.units import KiB
from imgconv.workers import Stop, Turn, run

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

"""Lanes: the outputs of a pass, each with its writer, its sink, and how far it is placed."""

from collections.abc import Callable, Iterator
from functools import partial

from imgconv.deliver import deliver
from imgconv.encode import encode
from imgconv.errors import SourceChanged
from imgconv.formats.base import EncodingWriter, Writer
from imgconv.found import Found
from imgconv.segments import Data, Meta, Segments
from imgconv.sinks.base import Sink
from imgconv.tally import Tally
from imgconv.workers import Room


class Lane:
    """An output while it is made; `at` is its size so far, in bytes.

    The sink must take a late head unless the writer has none or `head` says what it will
    be.
    """

    def __init__(self, writer: Writer, sink: Sink, tally: Tally, head: bytes | None = None):
        self.writer, self.sink, self.tally = writer, sink, tally
        self._head, self._room = head, Room()
        self.at = writer.head_size if head is None else 0

    def begin(self) -> None:
        """Deliver what is known before anything is placed."""
        if self._head is not None:
            self._append(iter([Segments.of([Meta.of(self._head)])]))
        self._append(self.writer.begin())

    def prepare(self, found: Found, size: int) -> "LaneBatch":
        """Do all that needs no turn for what was found of a disk of `size` bytes."""
        writer, data = self.writer, found.data.total
        if isinstance(writer, EncodingWriter):
            encoded = encode(writer, found, self._room)
            columns = encoded.units, encoded.lengths, encoded.checks
            return LaneBatch(self, data, partial(writer.place, *columns), encoded.payload)
        runs = found.data.aligned(writer.unit, size)
        return LaneBatch(self, data, partial(writer.place, runs), found)

    def finish(self, name: str) -> None:
        """Deliver what follows the data, and the head where it was left out.

        SourceChanged, of the disk called `name`, when the head is not what it should be.
        """
        self._append(self.writer.finish())
        if self._head is None:
            self._patch_head()
        elif self._head != rendered(self.writer.head()):
            raise SourceChanged(f"{name}: changed while it was read")

    def reserve(self, segments: Segments) -> int:
        """Return where segments go that follow all that was placed before."""
        offset = self.at
        self.at += segments.size
        return offset

    def _append(self, parts: Iterator[Segments]) -> None:
        for part in parts:
            offset = self.reserve(part)
            self.tally.advance(0, written=deliver(self.sink, offset, part, None))

    def _patch_head(self) -> None:
        at = 0
        for part in self.writer.head():
            self.tally.advance(0, written=deliver(self.sink, at, part, None))
            at += part.size
        assert at == self.writer.head_size


class LaneBatch:
    """A batch on its way into one output: `data` bytes of guest, stored as `payload`."""

    def __init__(self, lane: Lane, data: int, place: Callable[[], Segments], payload: Found):
        self._lane, self._data = lane, data
        self._place, self._payload = place, payload
        self._placed: tuple[int, Segments] | None = None

    def place(self) -> None:
        """Take the turn: place the batch, and deliver it to a sink that wants all in order."""
        segments = self._place()
        self._placed = self._lane.reserve(segments), segments
        if not self._lane.sink.parallel:
            self.deliver()

    def deliver(self) -> None:
        """Deliver what was placed, unless that was done in its turn."""
        if self._placed is None:
            return
        offset, segments = self._placed
        self._placed = None
        written = deliver(self._lane.sink, offset, segments, self._payload)
        self._lane.tally.advance(0, data=self._data, written=written)


def rendered(parts: Iterator[Segments]) -> bytes:
    """Return the bytes of a few segments of metadata."""
    pieces = []
    for segments in parts:
        for segment in segments:
            assert not isinstance(segment, Data)
            if isinstance(segment, Meta):
                pieces.append(segment.render())
            else:
                pieces.append(bytes(segment.length))
    return b"".join(pieces)

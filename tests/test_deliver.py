"""How placed segments are handed to a sink."""

from imgconv.deliver import PAGE, deliver
from imgconv.segments import Meta, Segments
from imgconv.stretch import Stretch
from imgconv.units import KiB, MiB


class Recorder:
    """A sink that keeps what it is given."""

    parallel, late_head = False, True

    def __init__(self) -> None:
        self.given: list[Stretch] = []

    def put(self, stretch: Stretch) -> None:
        self.given.append(stretch)

    def prepare(self, size: int) -> None: ...
    def commit(self, size: int) -> None: ...
    def abort(self) -> None: ...


def pieces_of(content: bytes, offset: int = 0) -> list[tuple[int, int]]:
    """Deliver metadata; return where, and how long, the pieces are that are written."""
    sink = Recorder()
    deliver(sink, offset, Segments.of([Meta.of(content)]), None)
    (stretch,) = sink.given
    return list(zip(stretch.at.tolist(), stretch.size.tolist(), strict=True))


def test_metadata_with_a_byte_here_and_there_is_one_piece() -> None:
    """As compressed zeros are: no page of a file could stay a hole."""
    assert pieces_of((b"x" + bytes(KiB - 1)) * 1024, 12345) == [(12345, MiB - 512)]


def test_pages_without_any_are_left_out() -> None:
    table = bytearray(16 * PAGE)
    table[0] = table[9 * PAGE] = 1
    assert pieces_of(bytes(table)) == [(0, 512), (9 * PAGE, 512)]
    table[512 + PAGE] = 1  # a page away from the first
    table[512 + 9 * PAGE + PAGE - 1] = 1  # a sector less than that from the other
    assert pieces_of(bytes(table)) == [(0, 512), (PAGE + 512, 512), (9 * PAGE, PAGE + 512)]


def test_a_page_of_metadata_is_written_as_it_is() -> None:
    assert pieces_of(bytes(PAGE)) == [(0, PAGE)]

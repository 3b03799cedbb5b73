"""Writing the pieces of a stretch, and what is left of views after a short write."""

import os
from pathlib import Path

import pytest

from imgconv.errors import WriteFailed
from imgconv.sinks.base import write_pieces
from imgconv.sinks.stream import unwritten
from imgconv.stretch import Stretch

VECTORS = 64  # that native/io.c writes at once


@pytest.mark.parametrize("count", [0, 1, VECTORS - 1, VECTORS, VECTORS + 1, 5000])
def test_any_number_of_views_some_of_them_empty(tmp_path: Path, count: int) -> None:
    views = [memoryview(bytes([i % 251]) * (i % 3)) for i in range(count)]
    fd = os.open(tmp_path / "o", os.O_RDWR | os.O_CREAT)
    write_pieces(fd, "o", Stretch.of(7, views))
    os.close(fd)
    expected = b"".join(views)
    assert (tmp_path / "o").read_bytes() == (bytes(7) + expected if expected else b"")


def test_a_refused_write_tells_where() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(WriteFailed, match=r"out.*4096.*No space left"):
        write_pieces(fd, "out", Stretch.of(4096, [memoryview(b"abc")]))
    os.close(fd)


def test_what_is_left_after_a_short_write() -> None:
    views = [memoryview(b"abc"), memoryview(b"de"), memoryview(b"f")]
    left = [b"".join(unwritten(views, n)) for n in range(7)]
    assert left == [b"abcdef"[n:] for n in range(7)]

"""Writing every byte of many buffers."""

import os
from pathlib import Path

import pytest

from imgconv.sinks.base import MAX_VECTORS, unwritten, write_all


@pytest.mark.parametrize("count", [0, 1, MAX_VECTORS - 1, MAX_VECTORS, MAX_VECTORS + 1, 5000])
def test_any_number_of_buffers_some_of_them_empty(tmp_path: Path, count: int) -> None:
    buffers = [memoryview(bytes([i % 251]) * (i % 3)) for i in range(count)]
    fd = os.open(tmp_path / "o", os.O_RDWR | os.O_CREAT)
    write_all(fd, "o", 7, buffers)
    os.close(fd)
    expected = b"".join(buffers)
    assert (tmp_path / "o").read_bytes() == (bytes(7) + expected if expected else b"")


def test_what_is_left_after_a_short_write() -> None:
    views = [memoryview(b"abc"), memoryview(b"de"), memoryview(b"f")]
    left = [b"".join(unwritten(views, n)) for n in range(7)]
    assert left == [b"abcdef"[n:] for n in range(7)]

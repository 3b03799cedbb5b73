"""Memory for what is read: pages of our own, and an error with a code when there is none."""

import ctypes

import pytest

from imgconv.errors import OutOfResources
from imgconv.pages import page_buffer


def test_a_buffer_that_cannot_be_had_is_an_error_of_ours() -> None:
    with pytest.raises(OutOfResources, match="no memory for a buffer"):
        page_buffer(1 << 17 << 30 << 12)


def test_a_buffer_is_as_long_as_asked_and_empty() -> None:
    buffer = page_buffer(12345)
    assert len(buffer) == 12345
    assert not any(buffer)


def test_a_buffer_is_not_shared_as_such_pages_are_small() -> None:
    buffer = page_buffer(1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, mode = line.split()[:2]
            start, stop = (int(end, 16) for end in span.split("-"))
            if start <= address < stop:
                assert mode == "rw-p"
                return
    pytest.fail("it is nowhere")

"""Memory of workers: whole pages, and an error with a code when there is none."""

import pytest

from imgconv import pipeline
from imgconv.errors import OutOfResources


def test_a_buffer_that_cannot_be_had_is_an_error_of_ours() -> None:
    with pytest.raises(OutOfResources, match="no memory for a buffer"):
        pipeline.page_buffer(1 << 17 << 30 << 12)


def test_a_buffer_is_as_long_as_asked_and_empty() -> None:
    buffer = pipeline.page_buffer(12345)
    assert len(buffer) == 12345
    assert not any(buffer)

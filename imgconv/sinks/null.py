"""The null sink: for measuring an output without writing it."""

from collections.abc import Sequence


class NullSink:
    """Takes everything and keeps nothing."""

    parallel = True
    late_head = True

    def write(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Drop the bytes."""

    def zeros(self, offset: int, length: int) -> None:
        """Drop the zeros."""

    def commit(self, size: int) -> None:
        """Publish nothing."""

    def abort(self) -> None:
        """Nothing to throw away."""

"""The null sink: for measuring an output without writing it."""

from imgconv.stretch import Stretch


class NullSink:
    """Takes everything and keeps nothing."""

    parallel = True
    late_head = True

    def put(self, stretch: Stretch) -> None:
        """Drop it."""

    def prepare(self, size: int) -> None:
        """Nothing can fail."""

    def commit(self, size: int) -> None:
        """Publish nothing."""

    def abort(self) -> None:
        """Nothing to throw away."""

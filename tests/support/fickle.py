"""A source whose outputs cannot be verified."""

from collections.abc import Iterator

from imgconv.identity import Identity
from imgconv.ranges import Ranges
from imgconv.units import MiB


class Fickle:
    """A disk that reads once as one thing and ever after as another."""

    name, size, warnings = "fickle", MiB, ()
    identity = Identity("fickle")

    def __init__(self) -> None:
        self.read = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.read += len(buffer)
        buffer[:] = (b"A" if self.read <= self.size else b"B") * len(buffer)

    def extents(self) -> Iterator[Ranges]:
        yield Ranges.single(0, self.size)

    def verify(self) -> None:
        """It claims not to have changed."""

    def close(self) -> None:
        """Nothing to close."""

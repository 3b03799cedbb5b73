"""Raw: the guest's bytes and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from imgconv.formats.base import Disk, PlannedWriter
from imgconv.formats.body import FlatBody
from imgconv.ranges import Ranges
from imgconv.segments import Segments
from imgconv.units import KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Raw output; it has no options."""

    name: ClassVar[str] = "raw"

    @property
    def max_size(self) -> int:
        """What a file offset can address."""
        return (1 << 63) - 512

    def writer(self, disk: Disk) -> PlannedWriter:
        """Return a writer that keeps holes as holes."""
        return RawWriter(disk.size)


class RawWriter(PlannedWriter):
    """No head, no tail; a hole wherever 4 KiB of the guest are zero."""

    head_size = 0
    unit = 4 * KiB

    def __init__(self, size: int):
        self.size = size
        self._body = FlatBody()

    def place(self, runs: Ranges) -> Segments:
        """Put runs at their own offsets."""
        return self._body.place(runs)

    def finish(self) -> Iterator[Segments]:
        """Fill up to the disk's size."""
        yield self._body.finish(self.size)

    def head(self) -> Iterator[Segments]:
        """Raw has none."""
        return iter(())

"""A file parts of which are to be read as something else than what is in it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imgconv.identity import Identity
from imgconv.ranges import Column, Ranges
from imgconv.sources.base import Source

ZEROS = -1  # in place of where content begins


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Ranges of a file, and where in `content` begins what each of them reads as."""

    ranges: Ranges
    where: Column
    content: memoryview


class PatchedSource:
    """Reads a file of `size` bytes with patches on it; past the real file's end are zeros.

    Owns the file, which is never written to.
    """

    warnings = ()

    def __init__(self, file: Source, size: int, patches: Patches):
        self.file, self.size, self._patches = file, size, patches

    @property
    def name(self) -> str:
        """The file's."""
        return self.file.name

    @property
    def parts(self) -> tuple[Source, ...]:
        """The file."""
        return (self.file,)

    @property
    def identity(self) -> Identity:
        """The file's."""
        return self.file.identity

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; errors are the file's."""
        there = max(min(len(buffer), self.file.size - offset), 0)
        if there:
            self.file.read_into(offset, buffer[:there])
        buffer[there:] = bytes(len(buffer) - there)
        ranges, where = self._patches.ranges, self._patches.where
        end = offset + len(buffer)
        first = int(np.searchsorted(ranges.stop, offset, side="right"))
        last = int(np.searchsorted(ranges.start, end, side="left"))
        for row in range(first, last):
            begin = int(ranges.start[row])
            low, high = max(begin, offset), min(int(ranges.stop[row]), end)
            at = int(where[row])
            content = self._patches.content[at + low - begin : at + high - begin]
            buffer[low - offset : high - offset] = bytes(high - low) if at < 0 else content

    def extents(self) -> Iterator[Ranges]:
        """Yield the whole file: nothing is known of it."""
        yield Ranges.single(0, self.size)

    def verify(self) -> None:
        """Raise SourceChanged if the file was modified since it was opened."""
        self.file.verify()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

"""Disks of several parts, one behind another, in files of their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from imgconv.found import Found
from imgconv.identity import Identity
from imgconv.ranges import Ranges
from imgconv.sources.base import Source
from imgconv.sources.located import ZEROS, Files, Located, located
from imgconv.sources.scanning import read_and_scan, scanner


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """`length` bytes of the disk, which `source` has from `offset` on; without one, zeros."""

    length: int
    source: Source | None = None
    offset: int = 0


class JoinedSource:
    """Reads each part where it is; owns `file`, which lists the parts, and all of them."""

    def __init__(self, file: Source, joined: tuple[Part, ...], warnings: tuple[str, ...] = ()):
        self.file, self._joined, self._warnings = file, joined, warnings
        self._starts = np.cumsum([0, *(part.length for part in joined)])
        self.size = int(self._starts[-1])

    @property
    def name(self) -> str:
        """The file's."""
        return self.file.name

    @property
    def identity(self) -> Identity:
        """The file's."""
        return self.file.identity

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of all parts."""
        found = [part.source.warnings for part in self._joined if part.source is not None]
        return self._warnings + tuple(warning for each in found for warning in each)

    @property
    def parts(self) -> tuple[Source, ...]:
        """The file that lists them, and theirs."""
        return self.file, *(part.source for part in self._joined if part.source is not None)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; errors are those of the parts."""
        at, end = offset, offset + len(buffer)
        row = int(np.searchsorted(self._starts, offset, side="right")) - 1
        while at < end:
            start, part = int(self._starts[row]), self._joined[row]
            stop = min(start + part.length, end)
            piece = buffer[at - offset : stop - offset]
            if part.source is None:
                piece[:] = bytes(len(piece))
            else:
                part.source.read_into(part.offset + at - start, piece)
            at, row = stop, row + 1

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        owner = self._sole(extents, granule)
        if owner is None:
            return read_and_scan(self, extents, granule, buffer)
        source, shift = owner
        there = Ranges(extents.start - shift, extents.stop - shift)
        found = scanner(source)(there, granule, buffer)
        data = Ranges(found.data.start + shift, found.data.stop + shift)
        return Found(data, found.where, found.buffer)

    def _sole(self, extents: Ranges, granule: int) -> tuple[Source, int] | None:
        """Return what all of the extents are in, and how far before the disk that begins;
        None if there is no such thing, or granules differ there."""
        if not len(extents):
            return None
        row = int(np.searchsorted(self._starts, extents.start[0], side="right")) - 1
        part, shift = self._joined[row], int(self._starts[row]) - self._joined[row].offset
        if part.source is None or shift % granule or extents.stop[-1] > self._starts[row + 1]:
            return None
        return part.source, shift

    def extents(self) -> Iterator[Ranges]:
        """Yield what holds data in the parts."""
        for (start, _), part in zip(pairwise(self._starts.tolist()), self._joined, strict=True):
            if part.source is None:
                continue
            shift = start - part.offset
            for group in part.source.extents():
                shown = group.window(part.offset, part.offset + part.length)
                if len(shown):
                    yield Ranges(shown.start + shift, shown.stop + shift)

    def located(self, files: Files) -> Iterator[Located]:
        """Yield what is known of the parts."""
        for (start, stop), part in zip(
            pairwise(self._starts.tolist()), self._joined, strict=True
        ):
            if part.source is None:
                yield Located.single(start, stop, ZEROS)
                continue
            at, end = part.offset, part.offset + part.length
            for group in located(part.source, files):
                found = group.window(at, end)
                if len(found.kind):
                    yield found.shifted(start - at)

    def verify(self) -> None:
        """Raise SourceChanged if one of the files was modified since it was opened."""
        for part in self.parts:
            part.verify()

    def close(self) -> None:
        """Close all files."""
        self.file.close()
        self.close_parts()

    def close_parts(self) -> None:
        """Close the parts' files only."""
        for part in self._joined:
            if part.source is not None:
                part.source.close()

"""The contract of a source."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from imgconv.found import Found
from imgconv.identity import Identity
from imgconv.ranges import Pieces, Ranges


class Source(Protocol):
    """A guest disk that can be read at any offset by any number of threads.

    Its size is a multiple of 512 and not 0.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """One-line remarks."""
        ...

    @property
    def identity(self) -> Identity:
        """What the ids in an output derive from unless the user names the disk."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer with the guest's bytes from `offset` on.

        There are no short reads: what cannot be filled raises a SourceError.
        """
        ...

    def extents(self) -> Iterator[Ranges]:
        """Yield, in ascending order, guest ranges that may hold data.

        All that lies outside reads as zeros. Comes from metadata, without reading data.
        """
        ...

    def verify(self) -> None:
        """Raise SourceChanged if the disk is not what it was when it was opened."""
        ...

    def close(self) -> None:
        """Release what the source holds; harmless when repeated."""
        ...


@runtime_checkable
class ScanningSource(Source, Protocol):
    """A source that reads a batch and finds the data in it in one go."""

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents into the buffer, which has room for all; find their nonzero granules.

        Extents begin at multiples of `granule` bytes. What is nothing but zeros need not
        stay in the buffer. Safe for use by many threads; errors are those of `read_into`.
        """
        ...


@runtime_checkable
class MappableSource(Source, Protocol):
    """A source that reads another disk, of which pieces are in it, as a ScanningSource."""

    def read_pieces(
        self, pieces: Pieces, extents: Ranges, granule: int, buffer: memoryview
    ) -> Found:
        """Read extents of a disk of which `pieces` are here and the rest is zeros."""
        ...


@runtime_checkable
class StoredSource(Source, Protocol):
    """A source that is one file, device or object, as it is."""

    @property
    def length(self) -> int:
        """How many bytes there are of it."""
        ...

    @property
    def allocated(self) -> int | None:
        """How many bytes it takes where it is stored, None where nobody tells."""
        ...


@runtime_checkable
class CompositeSource(Source, Protocol):
    """A source that reads from others."""

    @property
    def parts(self) -> tuple[Source, ...]:
        """What it reads from."""
        ...

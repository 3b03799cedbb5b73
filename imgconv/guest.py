"""An opened disk as library users see it."""

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from imgconv.sources.base import Source

if TYPE_CHECKING:
    from imgconv.diskmap import DiskMap
    from imgconv.inspection import Info


class GuestDisk:
    """A disk image opened for reading; made by `imgconv.open`, closed by `with`.

    All offsets and lengths are in bytes of the guest disk. Safe for use by many threads.
    """

    def __init__(self, source: Source, file: Source | None = None, format_name: str = "raw"):
        self._source, self._file, self._format = source, file or source, format_name

    @property
    def source(self) -> Source:
        """The source behind it, for `convert` and `measure`."""
        return self._source

    @property
    def size(self) -> int:
        """Virtual size in bytes, a multiple of 512."""
        return self._source.size

    @property
    def warnings(self) -> tuple[str, ...]:
        """One-line remarks on how the image was understood."""
        return self._source.warnings

    @property
    def info(self) -> "Info":
        """What the image's headers say, and its file's length; read when asked for.

        Raises SourceError when they cannot be read any more.
        """
        from imgconv.inspection import inspect

        return inspect(self._file, self._format)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end of the disk.

        Raises ValueError for a negative argument and SourceError when the image cannot
        be read.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"offset {offset} and length {length} must not be negative")
        offset = min(offset, self.size)
        buffer = bytearray(min(length, self.size - offset))
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset` on; it must lie inside the disk."""
        buffer = buffer.cast("B")
        if offset < 0 or offset + len(buffer) > self.size:
            raise ValueError(f"{offset} to {offset + len(buffer)} is not inside the disk")
        self._source.read_into(offset, buffer)

    def extents(self) -> Iterator[tuple[int, int, bool]]:
        """Yield (start, stop, is_data) for the whole disk, from metadata alone.

        What is not data reads as zeros; data may be zeros too.
        """
        at, last = 0, None
        for group in self._source.extents():
            for start, stop in group:
                if last is not None and start > last[1]:
                    yield last[0], last[1], True
                    last = None
                if last is None:
                    if start > at:
                        yield at, start, False
                    last = (start, stop)
                else:
                    last = (last[0], stop)
                at = stop
        if last is not None:
            yield last[0], last[1], True
        if at < self.size:
            yield at, self.size, False

    def map(self, start: int = 0, length: int | None = None) -> "DiskMap":
        """Return the map of the disk, or of `length` bytes from `start` on.

        Iterating over it gives a MapEntry for each stretch that is alike. From metadata
        alone; raises ValueError for a negative argument, and SourceError while iterating.
        """
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"start {start} and length {length} must not be negative")
        from imgconv.diskmap import map_of

        return map_of(self._source, start, length)

    def close(self) -> None:
        """Release the image; harmless when repeated."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

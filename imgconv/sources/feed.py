"""What follows in a file, taken from front to back."""

from imgconv.sources.base import Source
from imgconv.units import KiB

_PIECE = 64 * KiB  # read at once


class Feed:
    """Reads a file from an offset on, a piece at a time; for one thread at a time."""

    __slots__ = ("_at", "_file", "_piece", "_start")

    def __init__(self, file: Source, where: int):
        self._file, self._start, self._at = file, where, 0
        self._piece = memoryview(b"")

    @property
    def where(self) -> int:
        """The file offset, in bytes, of what comes next."""
        return self._start + self._at

    @property
    def left(self) -> int:
        """How many bytes of the file follow."""
        return self._file.size - self.where

    def ahead(self, most: int) -> memoryview:
        """Return some of what comes next without taking it: at most so many bytes, at least
        one, but none at the end of the file."""
        if self._at == len(self._piece):
            self._load()
        return self._piece[self._at : self._at + most]

    def peek(self, length: int) -> bytes:
        """Return that much of what comes next without taking it, less at the file's end."""
        if len(self._piece) - self._at < length:
            self._load()
        return bytes(self._piece[self._at : self._at + length])

    def take(self, length: int) -> bytes:
        """Take that much, at most what is read at once; less at the file's end."""
        taken = self.peek(length)
        self.skip(len(taken))
        return taken

    def skip(self, length: int) -> None:
        """Pass over so many bytes, which the file must have."""
        self._at += length
        if self._at > len(self._piece):
            self._start, self._at = self.where, 0
            self._piece = memoryview(b"")

    def _load(self) -> None:
        """Read the piece that begins with what comes next."""
        self._start, self._at = self.where, 0
        self._piece = memoryview(bytearray(max(min(_PIECE, self.left), 0)))
        self._file.read_into(self._start, self._piece)

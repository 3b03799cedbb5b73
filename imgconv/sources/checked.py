"""Reading what an image says of itself, believing none of it before it has been checked."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from imgconv.errors import Cancelled, ImageMalformed, ImageUnsupported
from imgconv.ranges import Column, Ranges
from imgconv.sources.base import Source
from imgconv.sources.options import MAX_PIECES, Budget, ReadOptions
from imgconv.units import SECTOR, MiB, round_up

_PIECE = MiB  # bytes of a table read at once


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The file an image is in, and what to say when something in it is wrong.

    `chain` are the files of images that need this one, with which it shares a budget.
    `cancelled` says, while an image is opened that takes long, whether anybody still wants it.
    """

    file: Source
    format: str
    options: ReadOptions = field(default_factory=ReadOptions)
    chain: tuple[Source, ...] = ()
    cancelled: Callable[[], bool] | None = None
    budget: Budget = field(default_factory=Budget)

    def needed(self, file: Source) -> "ImageFile":
        """Return the image in a file that this one needs."""
        return replace(self, file=file, chain=(*self.chain, self.file))

    def spend(self, pieces: int) -> None:
        """Count pieces that will have to be remembered; refuse an image of too many."""
        self.budget.pieces -= pieces
        if self.budget.pieces < 0:
            raise ImageUnsupported(f"{self.file.name}: is in more than {MAX_PIECES} pieces")

    def error(self, offset: int, reason: str) -> ImageMalformed:
        """Return what to raise for what is at `offset`, in bytes."""
        return ImageMalformed(self.file.name, self.format, offset, reason)

    def check(self, condition: bool, offset: int, reason: str) -> None:
        """Refuse the image unless the condition holds."""
        if not condition:
            raise self.error(offset, reason)

    def check_wanted(self) -> None:
        """Raise Cancelled if nobody wants the image any more."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("cancelled")

    def check_size(self, size: int) -> None:
        """Refuse an image that declares a disk larger than anybody's."""
        if size > self.options.max_virtual_size:
            raise ImageUnsupported(
                f"{self.file.name}: declares a disk of {size} bytes; at most "
                f"{self.options.max_virtual_size} are believed (--max-virtual-size)"
            )

    def rounded(self, size: int) -> tuple[int, tuple[str, ...]]:
        """Return a disk's size in whole sectors, and a remark if that is not what was said."""
        whole = round_up(size, SECTOR)
        remark = f"a disk of {size} bytes is no whole sectors; rounded up to {whole}"
        return whole, () if whole == size else (f"{self.file.name}: {remark}",)

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return bytes that must lie in the file; `what` they are is said if they do not."""
        self.check_inside(offset, length, offset, what)
        buffer = bytearray(length)
        self.file.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_tables(self, places: Column, length: int) -> bytearray:
        """Return, one behind another, tables of `length` bytes, which lie in the file."""
        buffer = bytearray(len(places) * length)
        cuts = np.flatnonzero(np.diff(places) != length) + 1
        for low, high in pairwise([0, *cuts.tolist(), len(places)]):
            piece = memoryview(buffer)[low * length : high * length]
            self.file.read_into(int(places[low]), piece)
        return buffer

    def check_inside(self, start: int, length: int, offset: int, what: str) -> None:
        """Refuse the image, for what it says at `offset`, unless a range is in the file."""
        if start < 0 or start + length > self.file.size:
            raise self.error(
                offset,
                f"{what} would be at {start} to {start + length}, "
                f"but the file has {self.file.size} bytes",
            )

    def stored_blocks(
        self, offset: int, count: int, kind: str, absent: int, what: str
    ) -> tuple[Column, Column]:
        """Read a table of blocks, of which entries from `absent` on stand for none.

        `kind` is a numpy type such as ">u4". Returns the numbers of the others, ascending,
        and their entries. The table must lie in the file as a whole.
        """
        size = np.dtype(kind).itemsize
        self.check_inside(offset, count * size, offset, what)
        numbers, values = [], []
        step = _PIECE // size
        for first in range(0, count, step):
            raw = self.read(offset + first * size, min(step, count - first) * size, what)
            entries = np.frombuffer(raw, dtype=kind)
            stored = np.flatnonzero(entries < absent)
            numbers.append(first + stored)
            values.append(entries[stored].astype(np.int64))
            self.spend(len(stored))
        return np.concatenate(numbers), np.concatenate(values)

    def check_blocks(
        self,
        number: Column,
        where: Column,
        block: int,
        size: int,
        metadata: Iterable[tuple[int, int]],
        offset: int,
        *,
        front: int = 0,
    ) -> None:
        """Refuse an image, whose table is at `offset`, of which blocks do not lie in the file,
        or on one another, or on metadata.

        They are of `block` bytes behind a `front` of their own; that with which a disk of
        `size` bytes ends may end with it, if it is the last one in the file, too.
        """
        ends_disk = len(where) and int(number[where.argmax()]) == (size - 1) // block
        missing = -size % block if ends_disk else 0
        self.check_places(where, front + block, metadata, offset, missing)

    def check_places(
        self,
        where: Column,
        length: int,
        metadata: Iterable[tuple[int, int]],
        offset: int,
        missing: int = 0,
    ) -> None:
        """Refuse an image, whose table is at `offset`, of which blocks of `length` bytes do
        not lie in the file, or on one another, or on metadata.

        The one that lies last may lack so many bytes as are `missing`.
        """
        if not len(where):
            return
        ascending = np.sort(where)
        last = int(ascending[-1])
        self.check_inside(last, length - missing, offset, "a block")
        self.check(int(ascending[0]) >= 0, offset, "a block lies before the file")
        if len(ascending) > 1 and int(np.diff(ascending).min()) < length:
            at = int(ascending[int(np.diff(ascending).argmin())])
            raise self.error(offset, f"two blocks lie at {at}, or on one another there")
        for start, stop in metadata:
            row = int(np.searchsorted(ascending, start - length, side="right"))
            if row == len(ascending) - 1 and last + length - missing <= start:
                continue
            if row < len(ascending) and int(ascending[row]) < stop:
                raise self.error(
                    offset, f"a block lies at {int(ascending[row])}, on the metadata"
                )

    def check_apart(self, pieces: Ranges, offset: int) -> None:
        """Refuse an image of which pieces of the file, in any order, lie on one another, for
        what it says at `offset`."""
        order = np.argsort(pieces.start, kind="stable")
        start, stop = pieces.start[order], pieces.stop[order]
        for row in np.flatnonzero(start[1:] < stop[:-1])[:1].tolist():
            raise self.error(offset, f"what is at {int(start[row + 1])} has two uses")

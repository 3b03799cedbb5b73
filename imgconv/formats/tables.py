"""Format tables (L1, block maps, grain tables) as segments of bounded size."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from imgconv.native import is_zero
from imgconv.segments import Meta, Segments, Zeros

Table: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PIECE = 1 << 20  # bytes; what one Meta of a long table holds


def table(entries: Table) -> Iterator[Segments]:
    """Yield the table as it lies in memory, pieces of nothing but zeros as Zeros."""
    step = PIECE // entries.itemsize
    for first in range(0, len(entries), step):
        piece = entries[first : first + step]
        if is_zero(as_bytes(piece)):
            yield Segments.of([Zeros(piece.nbytes)])
        else:
            # As bytes: numpy pickles entries of the other byte order in that of the machine.
            entry_bytes = piece.view(np.uint8)
            yield Segments.of([Meta(piece.nbytes, partial(as_bytes, entry_bytes))])


def mapped_table(entries: Table, encode: Callable[[Table], Table]) -> Iterator[Segments]:
    """Yield `encode(entries)`, which keeps the item size, encoding a piece at a time."""
    step = PIECE // entries.itemsize
    for first in range(0, len(entries), step):
        piece = entries[first : first + step]
        yield Segments.of([Meta(piece.nbytes, partial(_encoded, encode, piece))])


def as_bytes(entries: Table) -> memoryview:
    """Return the table's own bytes, not a copy."""
    return entries.view(np.uint8).data


def _encoded(encode: Callable[[Table], Table], piece: Table) -> memoryview:
    return as_bytes(encode(piece))


def padding(length: int) -> Segments:
    """Return `length` bytes of zeros, none when it is 0."""
    return Segments.of([Zeros(length)])

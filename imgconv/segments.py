"""Segments: what an output is made of, in stream order.

There are three kinds. `Meta` is bytes a format writer made; `Data` is a range of the
guest (or, from an encoding writer, of the batch's encoded payload); `Zeros` is a hole
in a file and real zero bytes on a wire. Writers and engine exchange them as columns,
because one call may place thousands; iterating a `Segments` gives them one by one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from imgconv.ranges import Column

META, DATA, ZEROS = 0, 1, 2
Kinds: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


class Meta(NamedTuple):
    """`length` bytes of format metadata, made by `render()` when they are reached.

    Rendering late keeps a planned layout small: it holds the few numbers a table is
    computed from, not the table. `render` is pure and can be pickled.
    """

    length: int
    render: Callable[[], bytes | memoryview]

    @classmethod
    def of(cls, content: bytes) -> "Meta":
        """Make metadata whose bytes are known already."""
        return cls(len(content), partial(bytes, content))


class Data(NamedTuple):
    """`length` bytes that begin at `start` in the guest or in the encoded payload."""

    start: int
    length: int


class Zeros(NamedTuple):
    """`length` zero bytes."""

    length: int


Segment: TypeAlias = Meta | Data | Zeros


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Consecutive segments as columns; lengths in bytes.

    `ref` is the start of a Data segment, the index into `metas` of a Meta segment, and
    0 for Zeros. One Meta may be referred to many times.
    """

    kind: Kinds
    length: Column
    ref: Column
    metas: tuple[Meta, ...] = ()

    @classmethod
    def of(cls, segments: Iterable[Segment]) -> "Segments":
        """Make columns from single segments; empty ones are dropped."""
        rows: list[tuple[int, int, int]] = []
        metas: list[Meta] = []
        for segment in segments:
            if segment.length == 0:
                continue
            match segment:
                case Meta(length):
                    rows.append((META, length, len(metas)))
                    metas.append(segment)
                case Data(start, length):
                    rows.append((DATA, length, start))
                case Zeros(length):
                    rows.append((ZEROS, length, 0))
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return cls(table[:, 0].astype(np.uint8), table[:, 1], table[:, 2], tuple(metas))

    @classmethod
    def concat(cls, parts: Iterable["Segments"]) -> "Segments":
        """Chain columns of segments."""
        parts = [part for part in parts if len(part)]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.of(())
        metas: list[Meta] = []
        refs = []
        for part in parts:
            refs.append(np.where(part.kind == META, part.ref + len(metas), part.ref))
            metas.extend(part.metas)
        return cls(
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.length for part in parts]),
            np.concatenate(refs),
            tuple(metas),
        )

    def __len__(self) -> int:
        return len(self.kind)

    def __iter__(self) -> Iterator[Segment]:
        rows = zip(self.kind.tolist(), self.length.tolist(), self.ref.tolist(), strict=True)
        for kind, length, ref in rows:
            if kind == META:
                yield self.metas[ref]
            elif kind == DATA:
                yield Data(ref, length)
            else:
                yield Zeros(length)

    @property
    def size(self) -> int:
        """Total length in bytes."""
        return int(self.length.sum())

    def rows(self, chosen: slice) -> "Segments":
        """Return some consecutive segments, with all the metadata."""
        return Segments(self.kind[chosen], self.length[chosen], self.ref[chosen], self.metas)

    def compacted(self) -> "Segments":
        """Leave out the metadata that no segment refers to, and the memory that is shared."""
        is_meta = self.kind == META
        used = dict.fromkeys(self.ref[is_meta].tolist())
        ref = self.ref.copy()
        if used:
            number = np.zeros(max(used) + 1, dtype=np.int64)
            number[list(used)] = np.arange(len(used))
            ref[is_meta] = number[ref[is_meta]]
        metas = tuple(self.metas[old] for old in used)
        return Segments(self.kind.copy(), self.length.copy(), ref, metas)

    def coalesced(self) -> "Segments":
        """Join neighbours that continue one another: data that is adjacent, and zeros."""
        kind, length, ref = self.kind, self.length, self.ref
        same = kind[1:] == kind[:-1]
        follows = (kind[1:] == DATA) & (ref[1:] == ref[:-1] + length[:-1])
        first = np.concatenate(([True], ~(same & (follows | (kind[1:] == ZEROS)))))[: len(kind)]
        rows = np.flatnonzero(first)
        if len(rows) == len(kind):
            return self
        return Segments(kind[rows], np.add.reduceat(length, rows), ref[rows], self.metas)


def data(starts: Column, lengths: Column) -> Segments:
    """Return one Data segment per row, back to back."""
    return Segments(np.full(len(starts), DATA, dtype=np.uint8), lengths, starts)

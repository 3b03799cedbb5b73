"""The map of a disk: what of it is where, from metadata alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from imgconv.sources.base import Source
from imgconv.sources.located import ABSENT, DATA, NOWHERE, PACKED, Located, located


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEntry:
    """A stretch of a disk, in bytes, of which all is alike.

    `data` says that it may hold anything, `zero` that it reads as zeros; `present` that an
    image of the chain says so, the one at `depth` (0 for the image itself). Where content is
    stored as it is, and in a hole of a raw file, `offset` is where that begins in `file`.
    """

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    compressed: bool
    offset: int | None
    file: str | None


@dataclass(frozen=True, slots=True, eq=False)
class DiskMap:
    """The stretch of a disk from `start` on to `stop`, walked once.

    `files` are the names of the files there are offsets in; it grows while groups are taken.
    """

    source: Source
    start: int
    stop: int
    files: list[str] = field(default_factory=list)

    def groups(self) -> Iterator[Located]:
        """Yield rows in order, so many at once; no two neighbours are alike and adjacent."""
        rest = Located.single(0, 0, ABSENT)
        for group in located(self.source, self.files):
            if group.stop <= self.start:
                continue
            found = Located.sorted([rest, group.window(self.start, self.stop)]).merged()
            last = len(found.kind) - 1
            yield found.rows(slice(0, last))
            rest = found.rows(slice(last, None))
            if group.stop >= self.stop:
                break
        yield rest

    def __iter__(self) -> Iterator[MapEntry]:
        for group in self.groups():
            rows = zip(
                group.guest.start.tolist(),
                group.guest.length.tolist(),
                group.depth.tolist(),
                group.kind.tolist(),
                group.where.tolist(),
                group.file.tolist(),
                strict=True,
            )
            for start, length, depth, kind, where, file in rows:
                yield MapEntry(
                    start=start,
                    length=length,
                    depth=depth,
                    present=kind != ABSENT,
                    zero=kind not in (DATA, PACKED),
                    data=kind in (DATA, PACKED),
                    compressed=kind == PACKED,
                    offset=None if where == NOWHERE else where,
                    file=None if where == NOWHERE else self.files[file],
                )


def map_of(source: Source, start: int = 0, length: int | None = None) -> DiskMap:
    """Return the map of a disk, or of a stretch of it."""
    end = source.size if length is None else min(start + length, source.size)
    return DiskMap(source, min(start, end), end)

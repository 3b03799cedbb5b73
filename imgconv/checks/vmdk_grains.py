"""Grain directories and tables of VMDK extents of every kind, and where grains are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from imgconv.checks.inspection import Inspection
from imgconv.ranges import Column, Mask, Ranges
from imgconv.units import MiB

_BATCH = 2 * MiB  # of tables read at once

# Takes entries that are not 0; returns where their grains are in the file, which hold data,
# and which are not possible.
Decode = Callable[[Column], tuple[Column, Mask, Mask]]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tables:
    """Grain tables there are: `number` counts those of a full directory, `where` is the file
    offset of each, which lies in the file, and `said_at` where that is told.

    Each has `entries` of a numpy type such as "<u4", for grains of `grain` bytes of a disk of
    `size` bytes. `least` bytes of a grain must be in the file; 0 stands for all of them.
    """

    number: Column
    where: Column
    said_at: Column
    entries: int
    kind: str
    grain: int
    size: int
    decode: Decode
    least: int = 0

    @property
    def length(self) -> int:
        """Bytes of a table."""
        return self.entries * np.dtype(self.kind).itemsize

    @property
    def places(self) -> Ranges:
        """Where in the file they are, in any order."""
        return Ranges(self.where, self.where + self.length)


@dataclass(frozen=True, slots=True, eq=False)
class Grains:
    """Grains that are stored: by number, where they begin, and where that is told."""

    number: Column
    start: Column
    said_at: Column


def walk(inspection: Inspection, tables: Tables, *, report: bool = False) -> Iterator[Grains]:
    """Yield what is stored, a few tables at a time; if `report`, say what cannot be.

    What begins beyond the end of the file, or is behind the disk, is left out.
    """
    step = max(_BATCH // tables.length, 1)
    size = np.dtype(tables.kind).itemsize
    for low in range(0, len(tables.number), step):
        inspection.stop.check()
        numbers, where = tables.number[low : low + step], tables.where[low : low + step]
        raw = inspection.image.read_tables(where, tables.length)
        words = np.frombuffer(raw, dtype=tables.kind)
        used = np.flatnonzero(words)
        entries = words[used].astype(np.int64)
        table, index = used // tables.entries, used % tables.entries
        number = numbers[table] * tables.entries + index
        at = where[table] + index * size
        start, stored, wrong = tables.decode(entries)
        behind = number * tables.grain >= tables.size
        if report:
            inspection.tally.advance(len(raw))
            _report(inspection, tables, Grains(number, start, at), stored, wrong, behind)
        kept = stored & ~wrong & ~behind & (start < inspection.size)
        yield Grains(number[kept], start[kept], at[kept])


def _report(
    inspection: Inspection,
    tables: Tables,
    grains: Grains,
    stored: Mask,
    wrong: Mask,
    behind: Mask,
) -> None:
    inspection.corruptions(
        "grain-entry", wrong, grains.said_at, lambda _: "no entry of a grain"
    )
    inspection.warnings(
        "entry-past-end", behind & stored, grains.said_at, lambda _: "behind the disk's end"
    )
    need = np.minimum(tables.grain, tables.size - grains.number * tables.grain)
    if tables.least:
        need = np.full(len(need), tables.least)
    beyond = stored & ~wrong & ~behind & (grains.start + need > inspection.size)
    inspection.corruptions(
        "grain-beyond-end",
        beyond,
        grains.said_at,
        lambda row: f"a grain at {grains.start[row]}",
    )


def read_directory(
    inspection: Inspection, start: int, said_at: int, count: int, kind: str
) -> tuple[Column, Column] | None:
    """Return the entries of a grain directory that are not 0, and their numbers; None when it
    does not lie in the file."""
    length = count * np.dtype(kind).itemsize
    text = f"a grain directory of {length} bytes at {start}"
    inside = start > 0 and inspection.holds(start, length)
    if not inspection.require(inside, "directory-beyond-end", said_at, text):
        return None
    raw = np.frombuffer(inspection.read(start, length), dtype=kind).astype(np.int64)
    used = np.flatnonzero(raw)
    return used, raw[used]


def tables_within(inspection: Inspection, where: Column, at: Column, length: int) -> Mask:
    """Say which tables lie in the file, and report the others."""
    inside = (where > 0) & (where + length <= inspection.size)
    inspection.corruptions(
        "table-beyond-end", ~inside, at, lambda row: f"a grain table at {where[row]}"
    )
    return inside


def check_metadata(inspection: Inspection, pieces: Ranges, said_at: Column) -> Ranges:
    """Report metadata that lie on one another; return all that they take, ascending."""
    order = np.argsort(pieces.start, kind="stable")
    start, stop, at = pieces.start[order], pieces.stop[order], said_at[order]
    kept = start < stop
    start, stop, at = start[kept], stop[kept], at[kept]
    before = np.maximum.accumulate(stop)[:-1]
    wrong = np.concatenate(([False], start[1:] < before))[: len(start)]
    inspection.corruptions(
        "metadata-overlap", wrong, at, lambda row: f"metadata at {start[row]} lie on others"
    )
    return Ranges(start, stop).merged()

"""Grain directories and tables of VMDK extents of every kind: which grains are where."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import Mapping
from imgconv.units import MiB

# Takes entries; returns where their grains are in the file, which hold data, and which say
# that a grain is zeros. All others say nothing.
Decode: TypeAlias = Callable[[Column], tuple[Column, Mask, Mask]]


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Grain tables: `number` counts those of a full directory, `where` is their file offset.

    `entries` of a numpy type such as "<u4" are in each, for grains of `grain` bytes.
    """

    number: Column
    where: Column
    entries: int
    kind: str
    grain: int

    @property
    def length(self) -> int:
        """Bytes of a table."""
        return self.entries * np.dtype(self.kind).itemsize

    @property
    def places(self) -> Ranges:
        """Where in the file they are."""
        return Ranges(self.where, self.where + self.length)


@dataclass(frozen=True, slots=True, eq=False)
class Grains:
    """Which of the guest is where, and which is zeros whatever a parent has there."""

    mapping: Mapping
    zeros: Ranges

    @property
    def own(self) -> Ranges:
        """The guest ranges of which something is said."""
        return self.mapping.guest.union(self.zeros)


def read_grains(
    image: ImageFile, tables: Tables, size: int, decode: Decode, *, join: bool = True
) -> Grains:
    """Read all tables; `join` what is in order here and there."""
    grain = tables.grain
    guest, where, zeros = [Ranges.of([])], [np.empty(0, np.int64)], [Ranges.of([])]
    step = max(MiB // tables.length, 1)
    for low in range(0, len(tables.number), step):
        number = tables.number[low : low + step]
        raw = image.read_tables(tables.where[low : low + step], tables.length)
        words = np.frombuffer(raw, dtype=tables.kind).astype(np.int64)
        used = np.flatnonzero(words)
        grains = number[used // tables.entries] * tables.entries + used % tables.entries
        inside = grains * grain < size
        place, is_data, is_zero = decode(words[used[inside]])
        found, blank = grains[inside][is_data], grains[inside][is_zero] * grain
        if join:
            part = Mapping.of_blocks(found, place[is_data], grain, size)
        else:
            stop = np.minimum(found * grain + grain, size)
            part = Mapping(Ranges(found * grain, stop), place[is_data])
        guest.append(part.guest)
        where.append(part.where)
        zeros.append(Ranges(blank, np.minimum(blank + grain, size)).merged())
        image.spend(len(part.guest) + len(zeros[-1]))
    said = Ranges.concat(zeros)
    return Grains(Mapping(Ranges.concat(guest), np.concatenate(where), said), said)


def check_grains(image: ImageFile, grains: Mapping, metadata: Ranges, offset: int) -> None:
    """Refuse grains, stored as they are, beyond the file, on one another, or on `metadata`,
    for what the directory at `offset` and its tables say."""
    stop = grains.where + grains.guest.length
    if len(stop):
        image.check_inside(0, int(stop.max()), offset, "a grain")
    check_apart(image, Ranges(grains.where, stop), metadata, offset)


def check_apart(image: ImageFile, grains: Ranges, metadata: Ranges, offset: int) -> None:
    """Refuse an image of which two things lie on one another."""
    start = np.concatenate((grains.start, metadata.start))
    stop = np.concatenate((grains.stop, metadata.stop))
    image.check_apart(Ranges(start, stop), offset)

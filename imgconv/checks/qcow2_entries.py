"""The entries of a QCOW2's L2 tables, a few tables at a time: what they mean, and what not."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.qcow2_header import Shape
from imgconv.checks.qcow2_metadata import Tables
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ranges import Column, Mask
from imgconv.units import SECTOR, MiB

_BATCH = 4 * MiB  # of L2 tables read at once
_COPIED = np.int64(-1 << 63)
_ENTRY = "an L2 entry {:#x}"
_WHOLE = (1 << ondisk.SUBCLUSTERS) - 1  # of the bits of subclusters


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Clusters that follow one another in the file and in their tables: the first and the
    last of each run. `fragments` counts where a table goes on elsewhere."""

    first: Column
    last: Column
    fragments: int


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Entries that are not empty of a few tables: `index` counts from the first of these on.

    Of each table there is where it is, and how many references there are to it: of all L1
    tables, and of the active one.
    """

    entry: Column
    bitmap: Column | None
    index: Column
    places: Column
    weights: Column
    actives: Column
    shape: Shape

    @property
    def table(self) -> Column:
        """Which table each entry is in."""
        return self.index // self.shape.per_table

    @property
    def at(self) -> Column:
        """Where in the file each entry is."""
        size = 8 if self.bitmap is None else 16
        return self.places[self.table] + self.index % self.shape.per_table * size

    @property
    def weight(self) -> Column:
        """How many references there are to each entry's table."""
        return self.weights[self.table]

    @property
    def active(self) -> Column:
        """How many of them are in the active L1 table."""
        return self.actives[self.table]

    def runs(self) -> Runs | None:
        """Return what there is to count if there is nothing odd: plain clusters in the file,
        of one reference each. None otherwise."""
        shape, cluster = self.shape, self.shape.cluster
        if self.bitmap is not None or shape.external or not len(self.entry):
            return None
        if not (self.weights == 1).all() or not (self.actives == 1).all():
            return None
        place = self.entry ^ _COPIED
        aligned = ondisk.OFFSET & -cluster
        if int(np.bitwise_or.reduce(place)) & ~aligned or int(place.min()) == 0:
            return None
        if int(place.max()) + cluster > shape.file_size:
            return None
        ends = np.flatnonzero(np.diff(place) != cluster)
        table = shape.per_table
        same = self.index[ends] // table == self.index[ends + 1] // table
        first = place[np.append(0, ends + 1)] >> shape.front.cluster_bits
        last = place[np.append(ends, len(place) - 1)] >> shape.front.cluster_bits
        return Runs(first, last, int(same.sum()))

    @property
    def packed(self) -> Mask:
        """Those of compressed clusters."""
        return np.asarray((self.entry & ondisk.COMPRESSED) != 0)

    @property
    def place(self) -> Column:
        """Where a cluster that is not compressed begins."""
        return self.entry & ondisk.OFFSET

    @property
    def plain(self) -> Mask:
        """Those of clusters stored as they are, or reserved though they read as zeros."""
        somewhere: Mask = self.place != 0
        if self.shape.external:  # where offset 0 is an ordinary one; bit 63 tells
            zero = (self.entry & ondisk.ZERO) != 0
            somewhere = somewhere | ((self.entry < 0) & (~zero | self.shape.extended))
        return somewhere & ~self.packed

    def where(self, chosen: Mask) -> "Entries":
        """Return those for which `chosen` is true."""
        bitmap = None if self.bitmap is None else self.bitmap[chosen]
        tables = self.places, self.weights, self.actives
        return Entries(self.entry[chosen], bitmap, self.index[chosen], *tables, self.shape)

    def streams(self) -> tuple[Column, Column]:
        """Return where compressed data begin, and how many bytes belong to them at most; all
        entries must be of such."""
        bits = 70 - self.shape.front.cluster_bits
        where = self.entry & (1 << bits) - 1
        sectors = (self.entry & ondisk.COMPRESSED - 1) >> bits
        return where, (sectors + 1) * SECTOR - where % SECTOR


def walk(inspection: Inspection, shape: Shape, tables: Tables) -> Iterator[Entries]:
    """Yield the entries of all tables, a few tables at a time."""
    step = max(_BATCH // shape.cluster, 1)
    for low in range(0, len(tables.place), step):
        inspection.stop.check()
        places = tables.place[low : low + step]
        raw = inspection.image.read_tables(places, shape.cluster)
        words = np.frombuffer(raw, dtype=">u8").astype(np.int64)
        entry, bitmap = words, None
        if shape.extended:
            entry, bitmap = words[::2], words[1::2]
            used = np.flatnonzero(entry | bitmap)
            entry, bitmap = entry[used], bitmap[used]
        elif np.count_nonzero(words) == len(words):
            used = np.arange(len(words))
        else:
            used = np.flatnonzero(words)
            entry = words[used]
        weights, actives = tables.weight[low : low + step], tables.active[low : low + step]
        yield Entries(entry, bitmap, used, places, weights, actives, shape)


def check_entries(inspection: Inspection, entries: Entries) -> None:
    """Record what entries say that cannot be."""
    shape, packed, plain = entries.shape, entries.packed, entries.plain
    reserved = ondisk.L2_RESERVED
    if shape.front.version == 2 or shape.extended:
        reserved |= ondisk.ZERO
    rules = [("l2-reserved", ~packed & ((entries.entry & reserved) != 0))]
    if packed.any():
        rules += [
            ("packed-copied", packed & (entries.entry < 0)),
            ("packed-external", packed & shape.external),
        ]
    place = entries.place
    misaligned = plain & (place & (shape.cluster - 1) != 0)
    rules.append(("cluster-misaligned", misaligned))
    if not shape.external:
        rules.append(("cluster-beyond-end", plain & (place >= shape.file_size)))
    rules += _subcluster_rules(entries, packed, plain)
    at = entries.at
    for rule, wrong in rules:
        inspection.corruptions(rule, wrong, at, Told(_ENTRY, entries.entry))
    if not shape.external:
        cut = plain & (place < shape.file_size) & (place + shape.cluster > shape.file_size)
        inspection.warnings("cluster-cut", cut, entries.at, Told(_ENTRY, entries.entry))
    _check_streams(inspection, entries.where(packed))


def _subcluster_rules(entries: Entries, packed: Mask, plain: Mask) -> list[tuple[str, Mask]]:
    if entries.bitmap is None:
        return []
    allocated, zero = entries.bitmap & _WHOLE, entries.bitmap >> 32 & _WHOLE
    return [
        ("packed-subclusters", packed & (entries.bitmap != 0)),
        ("subclusters-both", plain & (allocated & zero != 0)),
        ("subclusters-nowhere", ~packed & ~plain & (allocated != 0)),
    ]


def _check_streams(inspection: Inspection, packed: Entries) -> None:
    if not len(packed.entry) or packed.shape.external:
        return
    where, length = packed.streams()
    beyond = where >= packed.shape.file_size
    beyond |= where + length - packed.shape.file_size >= packed.shape.cluster
    inspection.corruptions("packed-beyond-end", beyond, packed.at, Told(_ENTRY, packed.entry))

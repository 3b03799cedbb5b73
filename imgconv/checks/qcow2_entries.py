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
_RESERVED = 0x3F000000000001FE
_WHOLE = 0xFFFFFFFF  # of the bits of subclusters
_ENTRY = "an L2 entry {:#x}"


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Entries that are not empty: where each is, which table of the batch it is in, how many
    references to that table there are and how many from the active L1 table."""

    entry: Column
    bitmap: Column | None
    at: Column
    table: Column
    weight: Column
    active: Column
    shape: Shape

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
        return Entries(
            self.entry[chosen],
            None if self.bitmap is None else self.bitmap[chosen],
            self.at[chosen],
            self.table[chosen],
            self.weight[chosen],
            self.active[chosen],
            self.shape,
        )

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
    size = 16 if shape.extended else 8
    for low in range(0, len(tables.place), step):
        inspection.stop.check()
        places = tables.place[low : low + step]
        raw = inspection.image.read_tables(places, shape.cluster)
        words = np.frombuffer(raw, dtype=">u8").reshape(-1, size // 8)
        used = np.flatnonzero(words.any(axis=1) if shape.extended else words[:, 0])
        table = used // shape.per_table
        yield Entries(
            words[used, 0].astype(np.int64),
            words[used, 1].astype(np.int64) if shape.extended else None,
            places[table] + used % shape.per_table * size,
            table,
            tables.weight[low : low + step][table],
            tables.active[low : low + step][table],
            shape,
        )


def check_entries(inspection: Inspection, entries: Entries) -> None:
    """Record what entries say that cannot be."""
    shape, packed, plain = entries.shape, entries.packed, entries.plain
    reserved = _RESERVED
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
    for rule, wrong in rules:
        inspection.corruptions(rule, wrong, entries.at, Told(_ENTRY, entries.entry))
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

"""Who refers to each cluster of a QCOW2, and what its refcounts say: a window at a time.

The window slides over the clusters of the file; for each, all tables are read once. Memory is
that of a window, however large the file is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.qcow2_entries import Entries, Runs
from imgconv.checks.qcow2_header import Shape
from imgconv.checks.qcow2_metadata import Metadata, owners
from imgconv.checks.qcow2_stored import BIGGEST, PIECE, Numbers, Stored
from imgconv.checks.report import CORRUPTION, LEAK
from imgconv.ondisk import qcow2 as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.units import MiB

WINDOW_BYTES = 96 * MiB
_FEW, _MANY = 256, 10_000


def counter(metadata: Metadata, shape: Shape) -> np.dtype[Any]:
    """Return a type that no count of references can overflow."""
    most = int(metadata.tables.weight.sum()) * shape.per_table * 2
    most += shape.front.refcount_table_clusters * shape.cluster + len(metadata.scattered)
    return np.dtype(np.int32 if most < 1 << 30 else np.int64)


class Window:
    """The clusters from `low` to `high`: references to them, and what is stored of them."""

    def __init__(
        self,
        inspection: Inspection,
        shape: Shape,
        metadata: Metadata,
        low: int,
        high: int,
        kind: np.dtype[Any],
    ):
        self._inspection, self._shape, self._metadata = inspection, shape, metadata
        self._owners = owners(shape, metadata)
        self.low, self.high = low, high
        self._steps = np.zeros(high - low + 1, dtype=kind)  # where the count changes
        self._is_one = np.zeros(high - low, dtype=np.bool_)
        self.in_use = 0  # behind the last cluster with a refcount or a reference
        self._stored = Stored(inspection, shape, metadata.blocks)
        has_blocks = self._stored.has_blocks(low, high)
        for first, stored in self._pieces() if has_blocks else ():
            self._is_one[first - low : first - low + len(stored)] = stored == 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted, and no refcounts are stored."""
        return not self._stored.has_blocks(self.low, self.high) and not self._steps.any()

    def refer(self, first: Column, last: Column, weight: Column | int) -> None:
        """Count references to clusters `first` to `last`, of which some may lie outside."""
        start = np.maximum(first, self.low) - self.low
        stop = np.minimum(last + 1, self.high) - self.low
        inside = start < stop
        if not inside.all():
            start, stop = start[inside], stop[inside]
            weight = weight if isinstance(weight, int) else weight[inside]
        kind = self._steps.dtype.type
        amount = kind(weight) if isinstance(weight, int) else weight.astype(kind)
        np.add.at(self._steps, start, amount)
        np.subtract.at(self._steps, stop, amount)

    def refer_metadata(self) -> None:
        """Count what metadata but L2 tables' entries refer to."""
        for owner in self._owners:
            self.refer(owner.number, owner.number, owner.own)

    def refer_runs(self, runs: Runs) -> None:
        """Count references to clusters in runs."""
        self.refer(runs.first, runs.last, 1)

    def are_single(self, runs: Runs) -> bool:
        """Say whether the refcounts of runs, as far as they are in the window, are all one."""
        start = np.maximum(runs.first, self.low) - self.low
        stop = np.minimum(runs.last + 1, self.high) - self.low
        pairs = Ranges(start, stop).where(start < stop)
        if len(pairs) < _FEW:
            return all(self._is_one[low:high].all() for low, high in pairs)
        return bool(self._is_one[pairs.units(1)].all())

    def refer_entries(self, entries: Entries) -> None:
        """Count what entries refer to; clusters in order are one reference."""
        if self._shape.external:
            return
        bits, cluster = self._shape.front.cluster_bits, self._shape.cluster
        plain = entries.where(entries.plain)
        place = plain.place
        plain_weight = plain.weight
        beyond = place >= self._shape.clusters * cluster
        if beyond.any():
            place, plain_weight = place[~beyond], plain_weight[~beyond]
        if len(place):
            follows = (np.diff(place) == cluster) & (np.diff(plain_weight) == 0)
            first = np.flatnonzero(np.concatenate(([True], ~follows)))
            last = np.append(first[1:], len(place)) - 1
            end = place[last] + cluster - 1
            self.refer(place[first] >> bits, end >> bits, plain_weight[first])
        packed = entries.where(entries.packed)
        if packed.bitmap is not None:
            packed = packed.where(packed.bitmap == 0)
        if len(packed.entry):
            where, length = packed.streams()
            inside = where + length - self._shape.file_size < cluster
            where, length, weight = where[inside], length[inside], packed.weight[inside]
            self.refer(where >> bits, (where + length - 1) >> bits, weight)

    def check_copied(self, entries: Entries) -> None:
        """Check the flag that says that a cluster has one reference only."""
        chosen = entries.plain & (entries.active != 0)
        plain = entries.where(chosen) if not chosen.all() else entries
        self._check_copied("copied-flag", plain.entry, plain.place, plain.at)

    def check_l1_copied(self) -> None:
        """Check the same of the active L1 table's entries."""
        found = self._metadata
        place = found.l1 & ondisk.OFFSET
        self._check_copied("l1-copied-flag", found.l1, place, found.l1_at)

    def _check_copied(self, rule: str, entry: Column, place: Column, at: Column) -> None:
        copied: Mask = entry < 0  # bit 63
        if self._shape.external and rule == "copied-flag":
            wrong = ~copied if self.low == 0 else copied & False
        else:
            number = place >> self._shape.front.cluster_bits
            inside = (number >= self.low) & (number < self.high)
            is_one = self._is_one[np.where(inside, number - self.low, 0)]
            wrong = (is_one != copied) & inside
            if self.low == 0:
                wrong |= self._differs_beyond(number, copied)
        self._inspection.corruptions(rule, wrong, at, Told("an entry {:#x}", entry))

    def _differs_beyond(self, number: Column, copied: Mask) -> Mask:
        """Say which flags are wrong of clusters that are not in the file; a refcount there may
        be all the same. Of very many, only the first are looked up."""
        wrong = copied & False
        for row in np.flatnonzero(number >= self._shape.clusters).tolist()[:_MANY]:
            wrong[row] = self._stored.is_one(int(number[row])) != copied[row]
        return wrong

    def compare(self) -> None:
        """Compare references with refcounts; nothing may be counted any more."""
        expected = np.cumsum(self._steps, dtype=self._steps.dtype, out=self._steps)[:-1]
        most = min((1 << self._shape.refcount_bits) - 1, BIGGEST)
        self._check_owners(expected, most)
        for first, stored in self._pieces():
            piece = expected[first - self.low : first - self.low + len(stored)]
            self._compare(first, stored, piece, most)

    def _compare(self, first: int, stored: Numbers, expected: Numbers, most: int) -> None:
        equal = np.array_equal(stored, expected)
        used = (expected if equal else (stored > 0) | (expected > 0)) != 0
        if used.any():
            behind = len(used) - int(np.argmax(used[::-1]))
            self.in_use = max(self.in_use, first + behind)
        if equal:
            return
        over = expected > most
        if over.any():
            self._overflow(first + np.flatnonzero(over), expected[over], most)
            expected = np.minimum(expected, most)
        low, high = np.flatnonzero(stored < expected), np.flatnonzero(stored > expected)
        for rows, severity, rule in (
            (low, CORRUPTION, "refcount-low"),
            (high, LEAK, "refcount-high"),
        ):
            number = first + rows
            text = _Counts(self._stored, number, stored[rows], expected[rows])
            at = number * self._shape.cluster
            self._inspection.findings.add_all(severity, rule, at, text)

    def _overflow(self, number: Column, count: Numbers, most: int) -> None:
        self._inspection.findings.add_all(
            CORRUPTION,
            "refcount-overflow",
            number * self._shape.cluster,
            Told("{} references, more than a refcount can tell", count),
            total=int((count - most).sum()),
        )

    def _check_owners(self, expected: Numbers, most: int) -> None:
        """Check that what holds metadata holds nothing else; where the refcount tells of it,
        that is said already."""
        for owner in self._owners:
            inside = (owner.number >= self.low) & (owner.number < self.high)
            count = expected[np.where(inside, owner.number - self.low, 0)]
            wrong = inside & (count != owner.own)
            if not owner.alone and wrong.any():
                wrong &= self._is_stored(owner.number, np.minimum(count, most), wrong)
            text = Told("metadata in cluster {}, which has another use", owner.number)
            self._inspection.corruptions("metadata-overlap", wrong, owner.said_at, text)

    def _is_stored(self, number: Column, count: Column, chosen: Mask) -> Mask:
        """Say for the chosen clusters whether their refcount is `count`."""
        same = chosen & False
        for row in np.flatnonzero(chosen).tolist()[:_MANY]:
            one = int(number[row])
            same[row] = self._stored.read(one, one + 1)[0] == count[row]
        return same

    def _pieces(self) -> Iterator[tuple[int, Numbers]]:
        """Yield the refcounts of the window in pieces, and which cluster each begins with."""
        for first in range(self.low, self.high, PIECE):
            self._inspection.stop.check()
            yield first, self._stored.read(first, min(first + PIECE, self.high))


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Tells of refcounts that are wrong."""

    stored: Stored
    number: Column
    told: Numbers
    expected: Numbers

    def __call__(self, row: int) -> str:
        at = self.stored.where(int(self.number[row]))
        where = "" if at is None else f" (at {at})"
        return (
            f"cluster {self.number[row]} has refcount {self.told[row]}{where} "
            f"and {self.expected[row]} references"
        )

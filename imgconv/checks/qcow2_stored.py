"""The refcounts that a QCOW2 stores, of every width."""

from typing import Any, TypeAlias

import numpy as np

from imgconv.checks.inspection import Inspection
from imgconv.checks.qcow2_header import Shape
from imgconv.ranges import Column

Numbers: TypeAlias = np.ndarray[Any, np.dtype[Any]]  # of whichever width is enough
PIECE = 1 << 20  # refcounts that are read at once
BIGGEST = (1 << 63) - 1  # what we take larger ones of 64 bits for


class Stored:
    """Refcounts of clusters by number, in blocks at the file offsets `blocks`, 0 for none."""

    def __init__(self, inspection: Inspection, shape: Shape, blocks: Column):
        self._inspection, self._shape, self._blocks = inspection, shape, blocks
        self._kind = np.dtype(np.int32 if shape.refcount_bits < 32 else np.int64)

    def where(self, number: int) -> int | None:
        """Return the file offset of a cluster's refcount, None where there is none."""
        block, index = divmod(number, self._shape.per_block)
        if block >= len(self._blocks) or not self._blocks[block]:
            return None
        return int(self._blocks[block]) + index * self._shape.refcount_bits // 8

    def has_blocks(self, low: int, high: int) -> bool:
        """Say whether there are blocks for some of the clusters from `low` to `high`."""
        per_block = self._shape.per_block
        return bool(self._blocks[low // per_block : -(-high // per_block)].any())

    def is_one(self, number: int) -> bool:
        """Say whether a cluster's refcount is one."""
        return bool(self.read(number, number + 1)[0] == 1)

    def read(self, low: int, high: int) -> Numbers:
        """Return the refcounts of clusters `low` to `high`, a piece at most."""
        per_block = self._shape.per_block
        found = np.zeros(high - low, dtype=self._kind)
        first, last = low // per_block, (high - 1) // per_block
        if first == last or per_block > PIECE:
            for block in range(first, min(last + 1, len(self._blocks))):
                start, stop = max(block * per_block, low), min((block + 1) * per_block, high)
                if self._blocks[block]:
                    found[start - low : stop - low] = self._part(block, start, stop)
            return found
        blocks = self._blocks[first : last + 1]
        used = np.flatnonzero(blocks)
        if not len(used):
            return found
        raw = self._read_whole(blocks[used])
        start = low - first * per_block
        if len(used) == last + 1 - first:
            return self._decode(raw)[start : start + high - low]
        rows = np.zeros((last + 1 - first, per_block), dtype=self._kind)
        rows[used] = self._decode(raw).reshape(-1, per_block)
        return rows.reshape(-1)[start : start + high - low]

    def _read_whole(self, places: Column) -> bytes | bytearray:
        """Read blocks, the last of which the file's end may cut."""
        cluster = self._shape.cluster
        if int(places.max()) + cluster <= self._inspection.size:
            return self._inspection.image.read_tables(places, cluster)
        return b"".join(self._inspection.read(place, cluster) for place in places.tolist())

    def _part(self, block: int, start: int, stop: int) -> Numbers:
        """Return some of the refcounts of one block."""
        width, base = self._shape.refcount_bits, block * self._shape.per_block
        low, high = (start - base) * width // 8, -(-(stop - base) * width // 8)
        raw = self._inspection.read(int(self._blocks[block]) + low, high - low)
        skip = start - base - low * 8 // width
        return self._decode(raw)[skip : skip + stop - start]

    def _decode(self, raw: bytes | bytearray) -> Numbers:
        width = self._shape.refcount_bits
        if width < 8:  # the lowest bits come first
            octets = np.frombuffer(raw, dtype=np.uint8)
            shifts = np.arange(0, 8, width, dtype=np.uint8)
            return (octets[:, None] >> shifts & (1 << width) - 1).reshape(-1).astype(self._kind)
        words = np.frombuffer(raw, dtype=f">u{width // 8}")
        if width == 64:
            words = np.minimum(words, np.uint64(BIGGEST))
        return words.astype(self._kind)

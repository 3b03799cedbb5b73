"""Memory for parts: pooled blocks, and the parts that are being filled from them.

Only data take memory. A part of a sparse disk may be a gibibyte long and hold one block.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from imgconv.body import zero_views
from imgconv.native import Checksum
from imgconv.units import MiB, div_ceil
from imgconv.workers import Condition

BLOCK = MiB
Block: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


class Blocks:
    """A bounded pool; who finds it empty waits until a part has been sent.

    Nobody waits for blocks that will not come: when none are under way to the store, a
    part that needs more than the budget gets more. `check` is called while waiting, and
    raises when there is no point in it any more.
    """

    _NOTICE_SECONDS = 0.1

    def __init__(self, budget: int, check: Callable[[], None]):
        self._left = div_ceil(budget, BLOCK)
        self._promised = 0  # blocks of parts that are whole: they will come back
        self._free: list[Block] = []
        self._check = check
        self._changed = Condition()

    def take(self) -> Block:
        """Return a block with anything in it."""
        with self._changed:
            while self._left <= 0 < self._promised:
                self._check()
                self._changed.wait(self._NOTICE_SECONDS)
            self._left -= 1
            return self._free.pop() if self._free else np.empty(BLOCK, dtype=np.uint8)

    def promise(self, count: int) -> None:
        """Say that `count` blocks belong to a part that is on its way."""
        with self._changed:
            self._promised += count

    def give_back(self, blocks: Iterable[Block]) -> None:
        """Return promised blocks to the pool, which keeps no more than its budget."""
        with self._changed:
            for block in blocks:
                self._promised -= 1
                self._left += 1
                if self._left > 0:
                    self._free.append(block)
            self._changed.notify_all()


class PartBuffer:
    """A part that is being filled: each of its bytes exactly once, in any order."""

    def __init__(self, number: int, start: int, length: int, pool: Blocks):
        self.number, self.start = number, start
        self.length = length
        self.filled = 0
        self._pool = pool
        self._blocks: dict[int, Block] = {}
        self._gaps: list[tuple[int, int]] = []

    @property
    def stop(self) -> int:
        """The output offset at which the part ends."""
        return self.start + self.length

    @property
    def is_zero(self) -> bool:
        """Whether nothing but zeros was put in."""
        return not self._blocks

    def put(self, at: int, content: memoryview) -> None:
        """Copy bytes to offset `at` of the part."""
        source = np.frombuffer(content, dtype=np.uint8)
        self.filled += len(source)
        while len(source):
            index, low = divmod(at, BLOCK)
            block = self._block(index)
            count = min(BLOCK - low, len(source))
            np.copyto(block[low : low + count], source[:count])  # lets other threads run
            at, source = at + count, source[count:]

    def _block(self, index: int) -> Block:
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = self._pool.take()
        return block

    def zeros(self, at: int, length: int) -> None:
        """Make `length` bytes from `at` on zeros."""
        self.filled += length
        self._gaps.append((at, at + length))

    def close(self) -> None:
        """Say that the part is whole; a last part is as long as it was filled."""
        assert self.filled <= self.length
        self.length = self.filled
        for start, stop in self._gaps:
            self._clear(start, stop)
        self._gaps = []
        self._pool.promise(len(self._blocks))

    def _clear(self, start: int, stop: int) -> None:
        for index in range(start // BLOCK, div_ceil(stop, BLOCK)):
            if (block := self._blocks.get(index)) is not None:
                low = index * BLOCK
                block[max(start - low, 0) : stop - low] = 0

    def views(self) -> Sequence[memoryview]:
        """Return the bytes of a closed part, in order, as they lie in memory."""
        views: list[memoryview] = []
        for index, length in self._stretch():
            block = self._blocks.get(index)
            views += zero_views(length) if block is None else [block[:length].data]
        return views

    def _stretch(self) -> Iterator[tuple[int, int]]:
        """Yield (index, length) of each block there is or might be."""
        for index in range(div_ceil(self.length, BLOCK)):
            yield index, min(BLOCK, self.length - index * BLOCK)

    def checksum(self, kind: Checksum) -> int:
        """Return the checksum of a closed part; zeros cost next to nothing."""
        value = gap = 0
        for index, length in self._stretch():
            block = self._blocks.get(index)
            if block is None:
                gap += length
            else:
                value = kind.update(block[:length].data, kind.zeros(value, gap))
                gap = 0
        return kind.zeros(value, gap)

    def release(self) -> None:
        """Give the memory back; harmless when repeated."""
        blocks, self._blocks = self._blocks, {}
        self._pool.give_back(blocks.values())

"""Raw disks in object storage and behind HTTP, read by range and read ahead."""

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from imgconv.errors import (
    ObjectChanged,
    ReadFailed,
    SourceChanged,
    SourceUnreadable,
    StoreError,
    StoreRefused,
)
from imgconv.identity import Identity
from imgconv.objectstore import ObjectReader
from imgconv.ranges import Ranges
from imgconv.sources.file import MAX_LENGTH
from imgconv.units import SECTOR, MiB, div_ceil, round_up
from imgconv.workers import Condition, Pool

Attempt: TypeAlias = Callable[[Callable[[], None]], None]
"""Carries a request out, perhaps again when it fails."""

_PATIENCE = 5.0  # seconds that `close` gives to requests under way


def once(request: Callable[[], None]) -> None:
    """Make one attempt."""
    request()


@dataclass(frozen=True, slots=True)
class Window:
    """What is kept and fetched around the furthest reader: `count` blocks of `block` bytes.

    That product is the memory it takes, `count` the requests it makes at once.
    """

    block: int = 8 * MiB
    count: int = 8

    @property
    def behind(self) -> int:
        """How many blocks are kept for readers that come a little later."""
        return self.count // 4

    def around(self, front: int) -> range:
        """Return the numbers of the blocks to hold while the furthest reader is at `front`."""
        first = max(front - self.behind, 0)
        return range(first, first + self.count)


class _Block:
    """A stretch of the object that is fetched in the background."""

    def __init__(self, number: int, buffer: memoryview):
        self.number, self.buffer = number, buffer
        self.readers = 0
        self.state: Literal["queued", "loading", "there"] = "queued"
        self.error: BaseException | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody reads or fills it, so that its buffer may be taken."""
        return self.readers == 0 and self.state != "loading"


class _ReadAhead:
    """Fetches blocks before they are asked for, as long as readers move along the object.

    Readers need not come in exact order: whoever reads near the furthest one follows it.
    A read elsewhere is a jump: it is fetched alone, and only if others follow it there is
    anything read ahead. What is not among the blocks is fetched by the reader itself, so
    nobody ever waits for room.
    """

    def __init__(self, fetch: Callable[[int, memoryview], None], length: int, window: Window):
        self._fetch, self._length, self._window = fetch, length, window
        self._pool = Pool(window.count, "imgconv-read-ahead")
        self._changed = Condition()
        self._blocks: dict[int, _Block] = {}
        self._front = -window.count - 1  # so that the first read is a jump
        self._closed = False

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer, of no more than a block's length; raises what `fetch` does."""
        size = self._window.block
        numbers = range(offset // size, (offset + len(buffer) - 1) // size + 1)
        claimed = self._claim(numbers)
        try:
            if not any(claimed):
                self._fetch(offset, buffer)
                return
            stop = offset + len(buffer)
            for number, block in zip(numbers, claimed, strict=True):
                low, high = max(number * size, offset), min((number + 1) * size, stop)
                piece = buffer[low - offset : high - offset]
                if block is None:
                    self._fetch(low, piece)
                else:
                    self._await(block)
                    piece[:] = block.buffer[low - number * size : high - number * size]
        finally:
            self._release(claimed)

    def _claim(self, numbers: range) -> list[_Block | None]:
        with self._changed:
            if self._closed:
                raise StoreRefused("is closed")
            self._follow(numbers)
            claimed = [self._blocks.get(number) for number in numbers]
            for block in filter(None, claimed):
                block.readers += 1
        return claimed

    def _follow(self, numbers: range) -> None:
        """Note where the readers are, and fetch what they will come to."""
        if abs(numbers[0] - self._front) > self._window.count:
            self._front = numbers[-1]
            return
        self._front = max(self._front, numbers[-1])
        window = self._window.around(self._front)
        end = min(window.stop, div_ceil(self._length, self._window.block))
        for number in range(max(window.start, numbers[0]), end):
            if number not in self._blocks and (buffer := self._room(window)) is not None:
                block = _Block(number, buffer)
                self._pool.submit(partial(self._load, block))
                self._blocks[number] = block

    def _room(self, window: range) -> memoryview | None:
        """Return a buffer for another block, None while all are in use."""
        if len(self._blocks) < self._window.count:
            return np.empty(self._window.block, dtype=np.uint8).data
        for block in self._blocks.values():
            if block.idle and block.number not in window:
                del self._blocks[block.number]
                return block.buffer
        return None

    def _load(self, block: _Block) -> None:
        with self._changed:
            if self._blocks.get(block.number) is not block:
                return  # its buffer is another block's by now
            block.state = "loading"
        start = block.number * self._window.block
        try:
            self._fetch(start, block.buffer[: self._length - start])
        except BaseException as error:
            block.error = error  # for whoever reads the block, if anybody does
        with self._changed:
            block.state = "there"
            self._changed.notify_all()

    def _await(self, block: _Block) -> None:
        with self._changed:
            while block.state != "there":
                if self._closed:
                    raise StoreRefused("is closed")
                self._changed.wait()
        if block.error is not None:
            raise block.error

    def _release(self, claimed: list[_Block | None]) -> None:
        with self._changed:
            for block in filter(None, claimed):
                block.readers -= 1
                if block.error is not None and self._blocks.get(block.number) is block:
                    del self._blocks[block.number]  # told; the next reader tries again

    def close(self) -> None:
        """Fetch nothing more and let go of the blocks; who waits for one gets an error."""
        with self._changed:
            self._closed = True
            self._blocks.clear()
            self._changed.notify_all()
        self._pool.close(_PATIENCE)


class RemoteSource:
    """A raw disk that is an object; the reader is its own, to close as well.

    Each request goes through `attempt`, which may repeat what failed for the moment. What
    lies past the end of an object whose size is no multiple of 512 reads as zeros.
    `release` is called when the source is closed.
    """

    def __init__(
        self,
        reader: ObjectReader,
        *,
        attempt: Attempt = once,
        window: Window | None = None,
        release: Callable[[], None] | None = None,
    ):
        self.name = reader.name
        self._reader, self._attempt = reader, attempt
        self._window = window or Window()
        self._release = release
        self._closed = False
        self._length = reader.info.size
        self._ahead = _ReadAhead(self._fetch, self._length, self._window)
        self.size = round_up(self._length, SECTOR)
        if self._length <= 0 or self._length > MAX_LENGTH:
            self.close()
            raise SourceUnreadable(
                f"{self.name}: {self._length} bytes are more than a disk may have"
                if self._length
                else f"{self.name}: is empty; a disk has at least one sector"
            )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say so when the last sector is not whole, or when a change would go unnoticed."""
        remarks = []
        if self._length != self.size:
            remarks.append(
                f"{self.name}: length {self._length} is not a multiple of 512; "
                f"padded with {self.size - self._length} zero bytes"
            )
        if not self._reader.info.etag:
            remarks.append(
                f"{self.name}: has neither ETag nor modification time; "
                "whether it changes while it is read is told by its size alone"
            )
        return tuple(remarks)

    @property
    def identity(self) -> Identity:
        """Base name, size and ETag; no time."""
        base_name = posixpath.basename(self.name)
        return Identity(f"{base_name}:{self._length}:{self._reader.info.etag}")

    @property
    def length(self) -> int:
        """Bytes of the object."""
        return self._length

    @property
    def allocated(self) -> int | None:
        """No store tells."""
        return None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from `offset` on; ReadFailed or SourceChanged otherwise."""
        stored = buffer[: max(self._length - offset, 0)]
        for low in range(0, len(stored), self._window.block):
            self._read_piece(offset + low, stored[low : low + self._window.block])
        buffer[len(stored) :] = bytes(len(buffer) - len(stored))

    def _read_piece(self, offset: int, piece: memoryview) -> None:
        try:
            self._ahead.read_into(offset, piece)
        except ObjectChanged as error:
            raise SourceChanged(f"{self.name}: was replaced while it was read") from error
        except StoreError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            raise ReadFailed(self.name, offset, reason) from error

    def _fetch(self, offset: int, buffer: memoryview) -> None:
        def request() -> None:
            if self._closed:  # so that a request that failed is not repeated for nobody
                raise StoreRefused("is closed")
            self._reader.read_into(offset, buffer)

        self._attempt(request)

    def extents(self) -> Iterator[Ranges]:
        """Yield the whole object: a store knows no holes."""
        yield Ranges.single(0, self._length)

    def verify(self) -> None:
        """Return: every request demanded the object that was opened, by its ETag."""

    def close(self) -> None:
        """Close the reader; what is still being read ahead is given a few seconds."""
        self._closed = True
        self._reader.close()
        self._ahead.close()
        if self._release is not None:
            self._release()

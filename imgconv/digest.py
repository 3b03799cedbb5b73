"""A digest of what a disk holds, the same however and in whatever format it is stored.

The disk is cut into blocks of 64 KiB, and 1024 blocks make a group. A block's digest is
the SHA-256 of its bytes, a group's that of its blocks' digests, and the disk's that of a
line that names the scheme and the size, followed by the groups' digests. Blocks and groups
of nothing but zeros have digests that are known, so that holes are neither read nor hashed,
and blocks can be hashed on every processor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np

from imgconv.batches import Batch, Pace, batches
from imgconv.found import Found
from imgconv.sources.base import Source
from imgconv.sources.scanning import scanner
from imgconv.tally import Tally
from imgconv.units import KiB, div_ceil
from imgconv.workers import Stop, Turn, run

ALGORITHM = "sha256-64k"
BLOCK = 64 * KiB
GROUP = 1024  # blocks
_DIGEST = sha256().digest_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """The digest of a disk of `size` bytes, in hexadecimal, and the scheme it follows.

    `data_bytes` is how much is in blocks that are not all zeros.
    """

    algorithm: str
    digest: str
    size: int
    data_bytes: int


def checksum(source: Source, *, threads: int, stop: Stop, tally: Tally) -> Checksum:
    """Compute the digest of a disk; it does not depend on the number of threads.

    Raises SourceError for what cannot be read, and Cancelled.
    """
    tally.begin("scan", source.size)
    pace, scan, tree = Pace(BLOCK, threads), scanner(source), _Tree(source.size)

    def make_worker() -> Callable[[Batch, Turn], None]:
        buffer = np.empty(pace.most, dtype=np.uint8).data

        def work(batch: Batch, turn: Turn) -> None:
            found = scan(batch.extents, BLOCK, buffer)
            pace.note(batch.extents, found.data)
            blocks = _hashed(found)
            with turn:
                tree.add(blocks)
            tally.advance(batch.stop - batch.start, data=found.data.total)

        return work

    cut = batches(source.extents(), source.size, BLOCK, BLOCK, pace)
    run(cut, make_worker, threads=threads, stop=stop)
    return Checksum(
        algorithm=ALGORITHM, digest=tree.root(), size=source.size, data_bytes=tally.data
    )


def _hashed(found: Found) -> list[tuple[int, bytes]]:
    """Return number and digest of every block that was found."""
    hashed = []
    for (start, stop), where in zip(found.data, found.where.tolist(), strict=True):
        for at in range(start, stop, BLOCK):
            low = where + at - start
            block = found.buffer[low : low + min(BLOCK, stop - at)]
            hashed.append((at // BLOCK, sha256(block).digest()))
    return hashed


class _Tree:
    """The digests of a disk, taken in ascending order."""

    def __init__(self, size: int):
        self._size = size
        self._groups = bytearray()
        self._done = 0  # groups
        self._blocks = bytearray()  # digests of the group at hand, if it is not all zeros

    def add(self, blocks: list[tuple[int, bytes]]) -> None:
        """Take in digests of blocks; those left out are of zeros."""
        for number, digest in blocks:
            group, index = divmod(number, GROUP)
            if group != self._done:
                self._finish(group)
            if not self._blocks:
                self._blocks += self._zeros(group)
            self._blocks[index * _DIGEST : (index + 1) * _DIGEST] = digest

    def root(self) -> str:
        """Return the disk's digest, when all its blocks were taken in."""
        self._finish(div_ceil(self._size, GROUP * BLOCK))
        head = f"imgconv {ALGORITHM} {self._size}\n".encode()
        return sha256(head + self._groups).hexdigest()

    def _finish(self, group: int) -> None:
        """Go on to a group; those in between are of zeros."""
        while self._done < group:
            blocks = bytes(self._blocks)
            self._blocks.clear()
            self._groups += sha256(blocks).digest() if blocks else self._zero_group(self._done)
            self._done += 1

    def _zero_group(self, group: int) -> bytes:
        return _digest_of(self._zeros(group))

    def _zeros(self, group: int) -> bytes:
        return _zero_blocks(min(GROUP * BLOCK, self._size - group * GROUP * BLOCK))


@cache
def _digest_of(blocks: bytes) -> bytes:
    return sha256(blocks).digest()


@cache
def _zero_blocks(length: int) -> bytes:
    """Return the digests of blocks of zeros that have `length` bytes together."""
    whole, rest = divmod(length, BLOCK)
    last = sha256(bytes(rest)).digest() if rest else b""
    return sha256(bytes(BLOCK)).digest() * whole + last

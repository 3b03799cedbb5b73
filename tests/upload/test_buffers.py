"""Parts being filled: every byte where it belongs, and memory that comes back."""

import random
import threading
from itertools import pairwise

import pytest

from imgconv.errors import Cancelled
from imgconv.native import CRC64_NVME, CRC64_XZ
from imgconv.units import KiB, MiB
from imgconv.upload.buffers import BLOCK, Blocks, PartBuffer


def never() -> None:
    pass


def filled(pool: Blocks, content: bytes, gaps: list[tuple[int, int]]) -> PartBuffer:
    """Put the content in, in random pieces and order, the gaps as zeros."""
    rng = random.Random(len(content))
    edges = sorted({0, len(content), *(e for gap in gaps for e in gap)})
    edges = sorted({*edges, *(rng.randrange(len(content)) for _ in range(20))})
    pieces = list(pairwise(edges))
    rng.shuffle(pieces)
    part = PartBuffer(3, 0, len(content), pool)
    for low, high in pieces:
        if any(a <= low and high <= b for a, b in gaps):
            part.zeros(low, high - low)
        else:
            part.put(low, memoryview(content)[low:high])
    return part


@pytest.mark.parametrize(
    "gaps",
    [
        [],
        [(0, 100)],
        [(100 * KiB, 3 * MiB + 5)],
        [(MiB, 2 * MiB), (2 * MiB + 7, 5 * MiB)],
        [(0, 5 * MiB + 11)],
    ],
)
def test_what_was_put_in_comes_out(gaps: list[tuple[int, int]]) -> None:
    content = bytearray(random.Random(1).randbytes(5 * MiB + 11))
    for low, high in gaps:
        content[low:high] = bytes(high - low)
    pool = Blocks(100 * MiB, never)
    dirty = filled(pool, random.Random(2).randbytes(8 * MiB), [])  # blocks are used again
    dirty.close()
    dirty.release()
    part = filled(pool, bytes(content), gaps)
    assert part.filled == part.length
    part.close()
    assert b"".join(part.views()) == content
    for kind in (CRC64_NVME, CRC64_XZ):
        assert part.checksum(kind) == kind.update(bytes(content))
    assert part.is_zero == (not any(content))


def test_a_last_part_is_as_long_as_it_was_filled() -> None:
    part = PartBuffer(1, 0, 10 * MiB, Blocks(MiB, never))
    part.put(0, memoryview(b"abc"))
    part.zeros(3, 4)
    part.close()
    assert (part.length, b"".join(part.views())) == (7, b"abc\0\0\0\0")


def test_zeros_take_no_memory() -> None:
    part = PartBuffer(1, 0, 5 << 40, Blocks(0, never))
    part.zeros(0, 5 << 40)
    assert part.is_zero


def test_who_finds_the_pool_empty_waits_for_a_part_to_be_sent() -> None:
    pool = Blocks(2 * BLOCK, never)
    part = PartBuffer(1, 0, 2 * BLOCK, pool)
    part.put(0, memoryview(bytes(2 * BLOCK)))
    part.close()
    timer = threading.Timer(0.2, part.release)
    timer.start()
    pool.take()
    assert not part._blocks  # it was released, or there would have been nothing to take
    timer.join()


def test_nobody_waits_for_what_will_not_come() -> None:
    pool = Blocks(BLOCK, never)
    part = PartBuffer(1, 0, 5 * BLOCK, pool)
    part.put(0, memoryview(bytes(5 * BLOCK)))  # five times the budget, nothing under way
    part.close()
    part.release()
    assert len(pool._free) == 1  # what was too much is not kept


def test_waiting_ends_when_there_is_no_point() -> None:
    def check() -> None:
        raise Cancelled("no point")

    pool = Blocks(BLOCK, check)
    part = PartBuffer(1, 0, BLOCK, pool)
    part.put(0, memoryview(bytes(BLOCK)))
    part.close()
    with pytest.raises(Cancelled):
        pool.take()

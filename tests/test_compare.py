"""Comparing disks: by content alone, exact, and the same on any number of threads."""

import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks
from support.engine import FaultySource, MemorySource

from imgconv.comparison import Comparison, compare
from imgconv.errors import Cancelled, ReadFailed
from imgconv.progress import Progress
from imgconv.ranges import Ranges
from imgconv.sources.base import Source
from imgconv.sources.file import FileSource
from imgconv.tally import Tally
from imgconv.units import SECTOR, KiB, MiB, TiB
from imgconv.workers import Stop


def compared(
    first: Source, second: Source, *, threads: int = 2, strict: bool = False
) -> Comparison:
    return compare(first, second, threads=threads, stop=Stop(), tally=Tally(), strict=strict)


def lowest_difference(first: bytes, second: bytes) -> int | None:
    """The obvious way."""
    size = max(len(first), len(second))
    ours, theirs = (np.frombuffer(c.ljust(size, b"\0"), np.uint8) for c in (first, second))
    different = np.flatnonzero(ours != theirs)
    return int(different[0]) if len(different) else None


class CountingSource(MemorySource):
    """Keeps book of what is read."""

    def __init__(self, content: bytes, extents: list[tuple[int, int]]):
        super().__init__(content, [[extent] for extent in extents])
        self.read: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.read.append((offset, offset + len(buffer)))
        super().read_into(offset, buffer)


@st.composite
def sources(draw: st.DrawFn, base: bytes) -> MemorySource:
    """The content, longer or shorter, with a few bytes changed; extents told in any way
    that covers what is not zero."""
    size = draw(st.integers(1, 40)) * SECTOR
    content = bytearray(base[:size].ljust(size, b"\0"))
    for at in draw(st.lists(st.integers(0, size - 1), max_size=2)):
        content[at] = draw(st.integers(0, 255))
    covered = np.frombuffer(content, np.uint8) != 0
    for at in draw(st.sets(st.integers(0, size - 1), max_size=5)):
        covered[at : at + draw(st.integers(1, 3000))] = True
    edges = np.flatnonzero(np.diff(covered, prepend=False, append=False)).tolist()
    extents = list(zip(edges[::2], edges[1::2], strict=True))
    cuts = sorted(draw(st.sets(st.integers(0, len(extents)), max_size=4)))
    bounds = zip([0, *cuts], [*cuts, len(extents)], strict=True)
    return MemorySource(bytes(content), [extents[low:high] for low, high in bounds])


BASE = b"".join(
    random.Random(n).randbytes(700) + bytes(random.Random(n).randrange(2000)) for n in range(12)
)


@given(sources(BASE), sources(BASE), st.sampled_from([1, 2, 7]))
@settings(max_examples=300, deadline=None)
def test_the_result_is_that_of_the_obvious_way(
    first: MemorySource, second: MemorySource, threads: int
) -> None:
    found = compared(first, second, threads=threads)
    expected = lowest_difference(first.content, second.content)
    assert found.first_difference == expected
    assert found.identical == (expected is None)
    assert (found.first_size, found.second_size) == (first.size, second.size)
    assert found == compared(first, second, threads=1)
    swapped = compared(second, first)
    assert (swapped.first_difference, swapped.compared) == (expected, found.compared)


@pytest.mark.parametrize("threads", [1, 2, 7, 16])
def test_the_lowest_of_many_differences(threads: int) -> None:
    """They lie in many batches, which are read at once."""
    content = random.Random(1).randbytes(70 * MiB)
    rng = random.Random(threads)
    for _ in range(3):
        changed = bytearray(content)
        places = [rng.randrange(len(content)) for _ in range(40)]
        for at in places:
            changed[at] ^= 1 << rng.randrange(8)
        found = compared(MemorySource(content), MemorySource(bytes(changed)), threads=threads)
        assert found.first_difference == min(places)
        assert found.compared == min(places)


@pytest.mark.parametrize("at", [0, 511, 512, 4 * MiB - 1, 4 * MiB, 9 * MiB + 299])
def test_a_single_byte_anywhere(at: int) -> None:
    content = random.Random(1).randbytes(9 * MiB + 512)
    changed = bytearray(content)
    changed[at] ^= 0x80
    found = compared(MemorySource(content), MemorySource(bytes(changed)))
    assert found == Comparison(
        identical=False,
        first_difference=at,
        first_size=len(content),
        second_size=len(content),
        compared=at,
    )


def test_only_what_may_hold_data_is_read() -> None:
    content = b"a" * 4096 + bytes(4096 * 6) + b"b" * 4096
    first = CountingSource(content, [(0, 8192), (28672, 32768)])
    second = CountingSource(content, [(0, 4096), (16384, 20480), (28672, 32768)])
    found = compared(first, second, threads=1)
    assert found.identical
    assert found.compared == 8192 + 4096 + 4096
    assert first.read == [(0, 4096), (4096, 8192), (28672, 32768)]
    assert second.read == [(0, 4096), (16384, 20480), (28672, 32768)]


def test_it_ends_soon_after_a_difference() -> None:
    content = bytes(400 * MiB)
    first = CountingSource(content, [(0, len(content))])
    changed = bytearray(content)
    changed[5 * MiB] = 1
    found = compared(first, MemorySource(bytes(changed)), threads=2)
    assert found.first_difference == 5 * MiB
    assert max(stop for _, stop in first.read) <= 24 * MiB


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("tail", [b"\0" * SECTOR, b"\0" * (SECTOR - 1) + b"x"])
def test_sizes_may_differ_by_zeros_unless_strict(tail: bytes, strict: bool) -> None:
    content = b"x" * (3 * MiB)
    small, large = MemorySource(content), MemorySource(content + tail)
    for first, second in [(small, large), (large, small)]:
        found = compared(first, second, strict=strict)
        assert found.identical == (not strict and tail[-1] == 0)
        exact = None if strict or tail[-1] == 0 else 3 * MiB + SECTOR - 1
        assert found.first_difference == exact
        assert (found.first_size, found.second_size) == (first.size, second.size)
        assert (found.compared == 0) == strict


def test_strict_says_nothing_of_equal_sizes() -> None:
    assert compared(MemorySource(b"x" * 512), MemorySource(b"x" * 512), strict=True).identical
    found = compared(MemorySource(b"x" * 512), MemorySource(b"y" * 512), strict=True)
    assert found.first_difference == 0


class Sparse(MemorySource):
    """16 TiB, data here and there, made up as it is read."""

    def __init__(self, step: int):
        super().__init__(b"")
        self.size, self._step = 16 * TiB, step

    def extents(self) -> Iterator[Ranges]:
        for low in range(0, self.size, TiB):
            starts = np.arange(low, low + TiB, self._step, dtype=np.int64)
            yield Ranges(starts, starts + 4 * KiB)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = (b"\1" if offset % (32 << 30) == 0 else b"\0") * len(buffer)


def test_a_huge_disk_takes_as_long_as_its_data() -> None:
    found = compared(Sparse(4 << 30), Sparse(32 << 30))
    assert found.identical
    assert found.compared == 4096 * 4 * KiB


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_what_cannot_be_read_is_an_error_unless_a_difference_comes_first(
    threads: int,
) -> None:
    content = random.Random(1).randbytes(40 * MiB)
    changed = bytearray(content)
    changed[21 * MiB] ^= 1
    other = MemorySource(bytes(changed))
    with pytest.raises(ReadFailed, match=str(20 * MiB)):
        compared(FaultySource(content, "EIO", 20 * MiB), other, threads=threads)
    for at in (24 * MiB, 39 * MiB):
        found = compared(other, FaultySource(content, "EIO", at), threads=threads)
        assert found.first_difference == 21 * MiB


def test_progress_and_cancelling() -> None:
    seen: list[Progress] = []
    source = MemorySource(random.Random(1).randbytes(20 * MiB))
    tally = Tally(seen.append)
    assert compare(source, source, threads=2, stop=Stop(), tally=tally).identical
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total) == (20 * MiB, 20 * MiB)
    stop = Stop(lambda: seen[-1].done > 4 * MiB)
    with pytest.raises(Cancelled):
        compare(source, source, threads=1, stop=stop, tally=Tally(seen.append))


def compared_files(first: Path, second: Path, *, strict: bool = False) -> Comparison:
    with closing(FileSource(str(first))) as ours, closing(FileSource(str(second))) as theirs:
        return compared(ours, theirs, strict=strict)


def reference(first: Path, second: Path, *flags: str) -> int | str:
    """What the reference implementation says: "same", "size", or the sector that differs."""
    done = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "raw", *flags, first, second],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return "same"
    assert done.returncode == 1, done
    match = re.search("mismatch at offset ([0-9]+)!", done.stdout)
    return int(match[1]) // SECTOR if match else "size"


@pytest.mark.parametrize("content", disks.CONTENTS)
@pytest.mark.parametrize("change", ["none", "byte", "longer", "tail"])
def test_files_compare_as_in_the_reference(tmp_path: Path, content: str, change: str) -> None:
    size = 9 * MiB + 512
    one = disks.CONTENTS[content](tmp_path / "one", size)
    data = bytearray(one.read_bytes())
    if change == "byte":
        data[6 * MiB + 7] ^= 1
    elif change == "longer":
        data += bytes(5 * MiB)
    elif change == "tail":
        data += bytes(5 * MiB - 1) + b"x"
    two = tmp_path / "two"
    two.write_bytes(data)  # without holes
    for first, second in [(one, two), (two, one)]:
        found = compared_files(first, second)
        at = found.first_difference
        assert ("same" if at is None else at // SECTOR) == reference(first, second)
        assert found.identical == (change in ("none", "longer"))
        strict = compared_files(first, second, strict=True)
        if change in ("longer", "tail"):
            assert not strict.identical
            assert reference(first, second, "-s") == "size"

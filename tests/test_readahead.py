"""Reading ahead is a hint: what comes of it is what plain reading finds, or nothing."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from support import disks

from imgconv import readahead
from imgconv.ranges import Pieces, Ranges
from imgconv.readahead import GRANULE, ReadAhead, claim, reading
from imgconv.sources.file import FileSource
from imgconv.sources.prefix import Prefix
from imgconv.units import KiB, MiB

ITSELF = Pieces(Ranges.single(0, 1 << 62), np.zeros(1, np.int64))


def make_disk(path: Path, seed: int, size: int = 40 * MiB) -> Path:
    rng = random.Random(seed)
    pieces = {}
    for at in sorted(rng.sample(range(0, size - MiB, MiB), 20)):
        length = rng.choice([1, 4 * KiB, 100_000, MiB])
        pieces[at + rng.randrange(0, MiB - length + 1)] = rng.choice(
            [rng.randbytes(length), bytes(length)]
        )
    return disks.write(path, size, pieces)


def content(source: FileSource, granule: int = GRANULE) -> bytes:
    """The whole disk, put together from what batches would get."""
    disk, step = bytearray(source.size), 3 * MiB
    (extents,) = [Ranges.concat(list(source.extents()))]
    for at in range(0, source.size, step):
        part = extents.aligned(granule, source.size).window(at, at + step)
        found = source.read_runs(part, granule, memoryview(bytearray(part.total)))
        for (start, stop), where in zip(found.data, found.where.tolist(), strict=True):
            disk[start:stop] = found.buffer[where : where + stop - start]
    return bytes(disk)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("patience", [0, 0.05])
def test_a_source_that_was_read_ahead_is_the_same(
    tmp_path: Path, seed: int, patience: float
) -> None:
    path = make_disk(tmp_path / "d.raw", seed, 40 * MiB + seed * 512)
    with reading(str(path)):
        time.sleep(patience)
        source = FileSource(str(path))
        assert content(source, GRANULE if seed else 64 * KiB) == path.read_bytes()
        source.close()


def test_a_whole_small_disk_is_known(tmp_path: Path) -> None:
    path = make_disk(tmp_path / "d.raw", 1)
    ahead = ReadAhead(str(path))
    time.sleep(0.5)
    prefix = Prefix(ahead)
    found = prefix.find(ITSELF, Ranges.single(0, 40 * MiB), GRANULE)
    assert found is not None
    assert found.data.total > 0
    assert prefix.find(ITSELF, Ranges.single(0, 40 * MiB), 512) is None
    prefix.close()
    assert prefix.find(ITSELF, Ranges.single(0, 40 * MiB), GRANULE) is None


def test_data_beyond_its_room_is_left_to_others(tmp_path: Path) -> None:
    size = readahead.ROOM + 8 * MiB
    path = disks.write(tmp_path / "d.raw", size, {0: os.urandom(MiB) * (size // MiB)})
    prefix = Prefix(ReadAhead(str(path)))
    time.sleep(0.5)
    assert prefix.find(ITSELF, Ranges.single(size - MiB, size), GRANULE) is None
    reach, rows, memory = ReadAhead(str(path)).end()
    assert 0 <= reach <= readahead.ROOM == len(memory)
    assert len(rows) % 24 == 0
    prefix.close()


def test_a_file_that_changed_is_not_claimed(tmp_path: Path) -> None:
    path = make_disk(tmp_path / "d.raw", 2)
    with reading(str(path)):
        with open(path, "r+b") as file:
            file.write(b"new")
        os.utime(path, ns=(1, 1))
        assert claim(path.stat()) is None
        source = FileSource(str(path))
        assert content(source) == path.read_bytes()
        source.close()


def test_another_file_is_not_claimed(tmp_path: Path) -> None:
    first, second = make_disk(tmp_path / "1", 1), make_disk(tmp_path / "2", 2)
    with reading(str(first)):
        assert claim(second.stat()) is None
        ahead = claim(first.stat())
        assert ahead is not None
        ahead.end()
        assert claim(first.stat()) is None
    assert claim(first.stat()) is None


@pytest.mark.parametrize("name", ["missing", ".", "fifo", "s3://bucket/key", "a\0b", ""])
def test_what_cannot_be_read_is_no_concern(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    with reading(str(tmp_path / name) if name else ""):
        assert claim(tmp_path.stat()) is None
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(os.listdir("/proc/self/task")) >= 1


def test_nothing_is_left_when_nobody_claims(tmp_path: Path) -> None:
    path = make_disk(tmp_path / "d.raw", 3)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt), reading(str(path)):
        raise KeyboardInterrupt
    assert len(os.listdir("/proc/self/fd")) == before
    assert claim(path.stat()) is None

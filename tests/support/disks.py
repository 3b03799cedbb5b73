"""Raw disks with known contents."""

import os
import random
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from imgconv.units import SECTOR, KiB, MiB


def write(path: Path, size: int, pieces: Mapping[int, bytes]) -> Path:
    """Make a sparse file of `size` bytes with data at some offsets."""
    return _write(path, size, pieces.items())


def _write(path: Path, size: int, pieces: Iterable[tuple[int, bytes]]) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, content in pieces:
            assert 0 <= offset <= size - len(content)
            file.seek(offset)
            file.write(content)
    return path


def zeros(path: Path, size: int) -> Path:
    """Allocated zeros, no hole anywhere."""
    return write(path, size, {0: bytes(size)})


def dense(path: Path, size: int) -> Path:
    """Nothing but random bytes."""
    rng = random.Random(1)
    starts = range(0, size, MiB)
    return _write(path, size, ((at, rng.randbytes(min(MiB, size - at))) for at in starts))


def random_runs(path: Path, size: int) -> Path:
    """Allocated throughout; runs of data and of zeros of all lengths, on no boundary."""
    rng = random.Random(2)
    content = bytearray(size)
    at = 0
    while at < size:
        at += int(rng.expovariate(1 / (200 * KiB)))
        length = min(int(rng.expovariate(1 / (100 * KiB))) + 1, max(size - at, 0))
        content[at : at + length] = rng.randbytes(length)
        at += length
    return write(path, size, {0: bytes(content)})


def holes(path: Path, size: int) -> Path:
    """Sparse; data runs between holes, some of the data being zeros."""
    rng = random.Random(3)
    pieces = {}
    for start in range(0, size - 70 * KiB, 900 * KiB):
        length = rng.choice([512, 4 * KiB, 70 * KiB])
        pieces[start] = rng.choice([rng.randbytes(length), bytes(length)])
    return write(path, size, pieces)


def checkered(path: Path, size: int) -> Path:
    """4 KiB of data, 4 KiB of hole, and so on: more pieces than one system call takes."""
    starts = range(0, size - 4 * KiB, 8 * KiB)
    return _write(path, size, ((at, at.to_bytes(8, "big") * 512) for at in starts))


def last_byte(path: Path, size: int) -> Path:
    """One nonzero byte, the very last."""
    return write(path, size, {size - 1: b"\x01"})


def empty(path: Path, size: int) -> Path:
    """One hole."""
    return write(path, size, {})


def islands(path: Path, size: int, count: int, length: int = 64 * KiB) -> Path:
    """A huge sparse disk with `count` islands of data spread over it, and a last sector."""
    rng = random.Random(4)
    places = [(at, length) for at in island_offsets(size, count, length)]
    places.append((size - SECTOR, SECTOR))
    return _write(path, size, ((at, rng.randbytes(n)) for at, n in places))


def island_offsets(size: int, count: int, length: int = 64 * KiB) -> list[int]:
    """Where `islands` puts them: one at a random sector of each equal part of the disk."""
    rng = random.Random(5)
    step = size // count
    room = (step - length) // SECTOR
    return [i * step + rng.randrange(room) * SECTOR for i in range(count)]


def file_system(path: Path, size: int = 96 * MiB) -> Path:
    """A GPT disk whose one partition is ext4 and holds part of the standard library."""
    offset = MiB
    with open(path, "wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "-q", path], input=b"label: gpt\n2048,\n", check=True)
    blocks = (size - 2 * offset) // 4096
    folder = os.path.join(sysconfig.get_path("stdlib"), "asyncio")
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-b", "4096", "-d", folder]
        + ["-E", f"offset={offset}", str(path), str(blocks)],
        check=True,
    )
    return path


CONTENTS = {
    f.__name__: f for f in (zeros, dense, random_runs, holes, checkered, last_byte, empty)
}

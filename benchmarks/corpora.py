"""Seeded corpora: sparse raw disks whose content depends on their name and scale alone."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from imgconv.units import GiB, KiB, MiB, TiB

Pieces = Iterator[tuple[int, bytes]]


def zeros(scale: float) -> tuple[int, Pieces]:
    size = int(4 * GiB * scale) // MiB * MiB
    return size, ((at, bytes(MiB)) for at in range(0, size, MiB))


def dense(scale: float) -> tuple[int, Pieces]:
    rng, size = random.Random(1), int(2 * GiB * scale) // MiB * MiB
    return size, ((at, rng.randbytes(MiB)) for at in range(0, size, MiB))


def mixed(scale: float) -> tuple[int, Pieces]:
    rng, run = random.Random(2), 256 * KiB
    size, count = int(16 * GiB * scale) // MiB * MiB, int(2 * GiB * scale) // run
    step = size // count // (4 * KiB) * 4 * KiB

    def pieces() -> Pieces:
        for i in range(count):
            noise = rng.randbytes(run if i % 2 else 4 * KiB)
            yield i * step, noise if i % 2 else noise * (run // len(noise))

    return size, pieces()


def huge(scale: float) -> tuple[int, Pieces]:
    rng, count = random.Random(3), int(8192 * scale)
    size = int(TiB * scale) // MiB * MiB
    step = size // count // (64 * KiB) * 64 * KiB
    return size, ((i * step, rng.randbytes(64 * KiB)) for i in range(count))


def sparse(scale: float) -> tuple[int, Pieces]:
    rng, run, count = random.Random(4), 16 * MiB, 16
    size = int(64 * GiB * scale) // GiB * GiB
    return size, ((i * (size // count) + MiB, rng.randbytes(run)) for i in range(count))


CORPORA: dict[str, Callable[[float], tuple[int, Pieces]]] = {
    f.__name__: f for f in (zeros, dense, mixed, huge, sparse)
}


def make(name: str, path: Path, scale: float) -> None:
    """Write a corpus as a sparse file."""
    size, pieces = CORPORA[name](scale)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, content in pieces:
            file.seek(offset)
            file.write(content)

"""Corpora: sparse raw disks whose content depends on their name and scale alone.

Only those in FILE_SYSTEMS depend on more: on the machine's own files, and the clock.
"""

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from imgconv.units import GiB, KiB, MiB, TiB, div_ceil, round_up

Pieces = Iterator[tuple[int, bytes]]

PAGE = 4 * KiB
ISLAND = 64 * KiB
SYSTEM = Path("/usr")


def zeros(scale: float) -> tuple[int, Pieces]:
    size = int(4 * GiB * scale) // MiB * MiB
    return size, ((at, bytes(MiB)) for at in range(0, size, MiB))


def dense(scale: float) -> tuple[int, Pieces]:
    rng, size = random.Random(1), int(2 * GiB * scale) // MiB * MiB
    return size, ((at, rng.randbytes(MiB)) for at in range(0, size, MiB))


def mixed(scale: float) -> tuple[int, Pieces]:
    rng, run = random.Random(2), 256 * KiB
    size, count = int(16 * GiB * scale) // MiB * MiB, int(2 * GiB * scale) // run
    step = size // count // PAGE * PAGE

    def pieces() -> Pieces:
        for i in range(count):
            noise = rng.randbytes(run if i % 2 else PAGE)
            yield i * step, noise if i % 2 else noise * (run // len(noise))

    return size, pieces()


def huge(scale: float) -> tuple[int, Pieces]:
    size = int(TiB * scale) // MiB * MiB
    return size, _islands(random.Random(3), size, int(8192 * scale))


def sparse(scale: float) -> tuple[int, Pieces]:
    rng, run, count = random.Random(4), 16 * MiB, 16
    size = int(64 * GiB * scale) // GiB * GiB
    return size, ((i * (size // count) + MiB, rng.randbytes(run)) for i in range(count))


SEEDED: dict[str, Callable[[float], tuple[int, Pieces]]] = {
    f.__name__: f for f in (zeros, dense, mixed, huge, sparse)
}
FILE_SYSTEMS = {  # bytes of the disk, and of files on it at most
    "filesystem": (4 * GiB, GiB),
    "system": (16 * GiB, 4 * GiB),
    "vast": (64 * GiB, GiB),
}
CORPORA = (*SEEDED, *FILE_SYSTEMS)


def make(name: str, path: Path, scale: float) -> None:
    """Write a corpus as a sparse file."""
    if name in FILE_SYSTEMS:
        size, data = FILE_SYSTEMS[name]
        _file_system(path, int(size * scale) // MiB * MiB, int(data * scale))
    else:
        _write(path, *SEEDED[name](scale))


def make_islands(path: Path, size: int, data: int) -> None:
    """Write a sparse disk of `size` bytes, `data` of them in islands spread over it."""
    _write(path, size, _islands(random.Random(5), size, max(1, data // ISLAND)))


def data_bytes(path: Path) -> int:
    """How much of a disk is not zero, in pages of 4 KiB: what no output can do without."""
    found, end, zero = 0, 0, bytes(PAGE)
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for at in range(start, end, MiB):
                block = os.pread(file.fileno(), min(MiB, end - at), at)
                pages = (block[i : i + PAGE] for i in range(0, len(block), PAGE))
                found += sum(len(page) for page in pages if page != zero[: len(page)])
    return found


def _islands(rng: random.Random, size: int, count: int) -> Pieces:
    step = size // count // ISLAND * ISLAND
    return ((i * step, rng.randbytes(ISLAND)) for i in range(count))


def _write(path: Path, size: int, pieces: Pieces) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, content in pieces:
            file.seek(offset)
            file.write(content)


def _file_system(path: Path, size: int, data: int) -> None:
    """Write an ext4 file system of `size` bytes whose files hold about `data` bytes."""
    path.touch()  # or mke2fs would mention that it makes it
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _copy_system(Path(folder), data)
        options = ["-q", "-F", "-t", "ext4", "-b", str(PAGE), "-m", "0", "-d", folder]
        subprocess.run(["mke2fs", *options, str(path), f"{size // KiB}k"], check=True)


def _copy_system(target: Path, limit: int) -> None:
    """Copy about `limit` bytes of files below /usr: every so manieth, programs, libraries,
    texts and all, as they lie on the disks of machines."""
    sizes = {path: path.stat().st_size for path in SYSTEM.rglob("*") if _is_plain(path)}
    files = sorted(path for path, size in sizes.items() if size <= limit // 8)
    step = div_ceil(sum(round_up(sizes[path], PAGE) for path in files), limit)
    for path in files[::step]:
        place = target / path.relative_to(SYSTEM)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)

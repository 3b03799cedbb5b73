"""One target a format, from a table: open an image, ask for what it says, read some of it."""

import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from hostile.cases import FAMILIES
from hostile.made import Made, fixed_vhd, make_qcow2, make_stream, make_vdi, make_vhd, make_vmdk
from hostile.worker import peak_memory
from support.engine import MemorySource

import imgconv
from imgconv.errors import ImgconvError
from imgconv.formats import format_from_text
from imgconv.ondisk import vhd
from imgconv.sources import open_image
from imgconv.sources.options import ReadOptions
from imgconv.units import SECTOR, MiB, TiB, round_up

CRASHERS = Path(__file__).parent / "crashers"
BUDGET = MiB  # bytes read of each disk
SECONDS = 5  # of processor time for one image
GROWTH = 256 * MiB  # of memory, at most, for one image
_MAX_CONTENT = 4 * MiB


class Finding(Exception):
    """A reader did what it must not."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """How a format is fuzzed: images to begin with, and what seals a damaged one anew."""

    format: str
    seeds: Callable[[], list[bytes]]
    seal: Callable[[bytes], bytes] = bytes


def seal_vhd(content: bytes) -> bytes:
    """Make the checksums right, at which otherwise nearly all would end."""
    raw = bytearray(content)
    if len(raw) < 1536 + SECTOR:
        return content
    raw[512:1536] = vhd.DynamicHeader.unpack(bytes(raw[512:1536])).sealed().pack()
    for at in (0, len(raw) - SECTOR):
        raw[at : at + SECTOR] = vhd.Footer.unpack(bytes(raw[at : at + SECTOR])).sealed().pack()
    return bytes(raw)


def _seeds(family: str, *more: Made) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        made = [*more, *(case.make() for case in FAMILIES[family].values())]
        return [m.content() for m in made if m.size <= _MAX_CONTENT]

    return seeds


def _written(*outputs: str) -> Callable[[], list[bytes]]:
    """Seeds that imgconv writes itself."""

    def seeds() -> list[bytes]:
        disk = bytearray(MiB)
        disk[: 96 * SECTOR] = random.Random(7).randbytes(96 * SECTOR)
        found = []
        with TemporaryDirectory() as folder:
            for number, text in enumerate(outputs):
                name, _, options = text.partition(" ")
                out = Path(folder) / str(number)
                imgconv.convert(
                    MemorySource(bytes(disk)), out, options=format_from_text(name, options)
                )
                found.append(out.read_bytes())
        return found

    return seeds


# A format to come needs one line.
TARGETS = {
    target.format: target
    for target in (
        Target(
            format="qcow2",
            seeds=_seeds("qcow2", make_qcow2(), make_qcow2(front={"version": 2})),
        ),
        Target(format="vmdk", seeds=_seeds("vmdk", make_vmdk(), make_stream())),
        Target(
            format="vhd", seeds=_seeds("vhd", make_vhd(), fixed_vhd(b"x" * 4096)), seal=seal_vhd
        ),
        Target(format="vdi", seeds=_seeds("vdi", make_vdi())),
        Target(format="vhdx", seeds=_written("vhdx")),
        Target(format="raw.gz", seeds=_written("raw.gz", "raw.gz members=many")),
        Target(format="raw.zst", seeds=_written("raw.zst")),
        Target(format="raw.tar.gz", seeds=_written("raw.tar.gz")),
    )
}


class _Guard:
    """Makes a finding of every file that is opened and of time that is used up."""

    def __init__(self) -> None:
        self.on = False
        sys.addaudithook(self._hear)
        signal.signal(signal.SIGVTALRM, self._late)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and not str(arguments[0]).endswith((".py", ".pyc")):
            raise Finding(f"opened {arguments[0]!a}")

    def _late(self, number: int, frame: FrameType | None) -> None:
        raise Finding(f"took more than {SECONDS} s")

    @contextmanager
    def watching(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        self.on = True
        try:
            yield
        finally:
            self.on = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


_guard: _Guard | None = None


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_one(target: Target, content: bytes) -> None:
    """Try an image as it is, and sealed; raises what a reader must not raise."""
    global _guard
    if _guard is None:
        for seed in target.seeds():  # so that all modules are loaded
            with suppress(Exception):
                _read(target.format, seed)
        _guard = _Guard()
    sealed, before, peak = target.seal(content), _memory(), peak_memory()
    for each in (content,) if sealed == content else (content, sealed):
        with _guard.watching(), suppress(ImgconvError):
            _read(target.format, each)
    if peak_memory() > max(peak, before + GROWTH):
        raise Finding(f"grew by {peak_memory() - before} bytes")


def _read(format_name: str, content: bytes) -> None:
    if not content:
        return
    padded = content.ljust(round_up(len(content), SECTOR), b"\0")
    disk = open_image(
        MemorySource(padded), format_name, ReadOptions(allow_references="same-folder")
    )
    if not 0 < disk.size <= 64 * TiB or disk.size % SECTOR:
        raise Finding(f"a disk of {disk.size} bytes")
    str(disk.identity), disk.warnings
    at, left, data = 0, BUDGET, 0
    for group in disk.extents():
        data += group.total
        for start, stop in group:
            if not at <= start < stop <= disk.size:
                raise Finding(f"an extent {start} to {stop} behind {at}")
            at, length = stop, min(stop - start, left)
            disk.read_into(start, memoryview(bytearray(length)))
            left -= length
    last = max(disk.size - 4096, 0)
    disk.read_into(last, memoryview(bytearray(disk.size - last)))


_WORDS = (0, 1, 0x7F, 0xFF, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Change an image in a few places: bytes, or words of any width, or its end."""
    raw = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        width, order = rng.choice((1, 2, 4, 8)), rng.choice(("big", "little"))
        front = rng.choice((128, 512, 2048, len(raw)))
        at = rng.randrange(max(min(front, len(raw)) - width, 1))
        old = int.from_bytes(raw[at : at + width], order)  # type: ignore[arg-type]
        new = rng.choice((rng.choice(_WORDS), old + rng.randint(-9, 9), rng.getrandbits(64)))
        mask = (1 << 8 * width) - 1
        raw[at : at + width] = (new & mask).to_bytes(width, order)  # type: ignore[arg-type]
    return bytes(raw[: rng.randrange(len(raw)) if rng.random() < 0.1 else len(raw)])


def crashers(target: Target) -> list[bytes]:
    """Return images that once were findings."""
    return [path.read_bytes() for path in sorted((CRASHERS / target.format).glob("*"))]

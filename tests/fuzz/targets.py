"""One target a format, from a table: open an image, ask for what it says, read some of it."""

import atexit
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import FrameType
from typing import Any

from hostile.cases import FAMILIES
from hostile.made import (
    Made,
    fixed_vhd,
    make_cowd,
    make_qcow2,
    make_sesparse,
    make_stream,
    make_vdi,
    make_vhd,
    make_vmdk,
    text,
)
from hostile.vhdx_cases import make_vhdx
from hostile.worker import opened_path, peak_memory
from support import vhdx_image
from support.engine import MemorySource

import imgconv
from imgconv.errors import ImgconvError
from imgconv.formats import format_from_text
from imgconv.ondisk import vhd, vhdx
from imgconv.sources import open_image
from imgconv.sources.base import Source
from imgconv.sources.file import FileSource
from imgconv.sources.options import ReadOptions
from imgconv.units import SECTOR, KiB, MiB, TiB, round_up

KEPT = Path(__file__).parent / "seeds"
BUDGET = MiB  # bytes read of each disk
SECONDS = 5  # of processor time for one image
GROWTH = 256 * MiB  # of memory, at most, for one image
_MAX_CONTENT = 4 * MiB


class Finding(Exception):
    """A reader did what it must not."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """How a format is fuzzed: inputs to begin with, and what makes images of them.

    `shape` makes an image of an input, which it is itself if it is small enough; `seal` makes
    the checksums of a damaged one right. With `beside` it has a file next to it, which it may
    open: the input is the image, a zero byte, and that file.
    """

    name: str
    format: str
    made: Callable[[], list[bytes]]
    shape: Callable[[bytes], bytes] = bytes
    seal: Callable[[bytes], bytes] = bytes
    beside: str = ""

    def seeds(self) -> list[bytes]:
        """Return all inputs to begin with: those that are made, and those that are kept."""
        paths = sorted((KEPT / self.name).glob("*"))
        return [*self.made(), *(path.read_bytes() for path in paths)]


def seal_vhd(content: bytes) -> bytes:
    """Make the checksums right, at which otherwise nearly all would end."""
    raw = bytearray(content)
    if len(raw) < 1536 + SECTOR:
        return content
    raw[512:1536] = vhd.DynamicHeader.unpack(bytes(raw[512:1536])).sealed().pack()
    for at in (0, len(raw) - SECTOR):
        raw[at : at + SECTOR] = vhd.Footer.unpack(bytes(raw[at : at + SECTOR])).sealed().pack()
    return bytes(raw)


# What of a VHDX is of interest, and where in the image it is; all else is zeros.
_VHDX_PARTS = (
    (0, 16),
    (64 * KiB, 128),
    (128 * KiB, 128),
    (192 * KiB, 256),
    (256 * KiB, 256),
    (MiB, 3 * 4096),
    (vhdx_image.TABLE_AT, 256),
    (vhdx_image.METADATA_AT, 256),
    (vhdx_image.ITEMS_AT, 512),
    (6 * MiB - 16, 16),
)
_VHDX_SEALED = ((64, 4), (128, 4), (192, 64), (256, 64))  # KiB: where, how long


def shape_vhdx(content: bytes) -> bytes:
    """Put the parts of a VHDX where they belong."""
    raw, at = bytearray(6 * MiB), 0
    for place, length in _VHDX_PARTS:
        part = content[at : at + length]
        raw[place : place + len(part)] = part
        at += length
    return bytes(raw)


def parts_of_vhdx(content: bytes) -> bytes:
    """Take an image apart again."""
    raw = content.ljust(6 * MiB, b"\0")
    return b"".join(raw[place : place + length] for place, length in _VHDX_PARTS)


def seal_vhdx(content: bytes) -> bytes:
    """Headers, region tables, and the log's first entry."""
    raw = bytearray(content)
    for at, length in _VHDX_SEALED:
        piece = slice(at * KiB, (at + length) * KiB)
        raw[piece] = vhdx.sealed(bytes(raw[piece]))
    length = int.from_bytes(raw[MiB + 8 : MiB + 12], "little")
    if 64 <= length <= MiB:
        raw[MiB : MiB + length] = vhdx.sealed(bytes(raw[MiB : MiB + length]))
    return bytes(raw)


def _of(family: str, *more: Made) -> Callable[[], list[bytes]]:
    """Images that are sound, and hostile ones."""

    def made() -> list[bytes]:
        images = [*more, *(case.make() for case in FAMILIES[family].values())]
        return [m.content() for m in images if 0 < m.size <= _MAX_CONTENT]

    return made


def _vhdx() -> list[bytes]:
    log = vhdx_image.log_entry(1, [(vhdx_image.DATA_AT, b"l" * 4096), (MiB * 5, 4096)])
    images = [make_vhdx(), make_vhdx(log=log)]
    images += [case.make() for case in FAMILIES["vhdx"].values()]
    return [parts_of_vhdx(m.content()) for m in images if m.size <= 7 * MiB]


def _parts() -> list[bytes]:
    """Descriptors with an extent or a parent of every kind beside them."""
    pairs = (
        (text('RW 32 FLAT "x.vmdk" 0'), make_vmdk().content()),
        (text('RW 32 SPARSE "x.vmdk"', kind="monolithicSparse"), make_vmdk().content()),
        (text('RW 4096 VMFSSPARSE "x.vmdk"', kind="vmfsSparse"), make_cowd().content()),
        (text('RW 32768 SESPARSE "x.vmdk"', kind="seSparse"), make_sesparse().content()),
        (
            text("RW 8 ZERO", parent="12345678", more=('parentFileNameHint="x.vmdk"',)),
            text("RW 8 ZERO").encode(),
        ),
    )
    found = [said.encode() + b"\0" + content for said, content in pairs]
    for case in FAMILIES["vmdk"].values():
        if case.beside:
            found.append(case.make().content() + b"\0" + case.beside["x.vmdk"])
    return found


def _written(family: str, *outputs: str) -> Callable[[], list[bytes]]:
    """Those that imgconv writes itself, and hostile ones."""

    def made() -> list[bytes]:
        disk = bytearray(MiB)
        disk[: 96 * SECTOR] = random.Random(7).randbytes(96 * SECTOR)
        found = []
        with TemporaryDirectory() as folder:
            for number, words in enumerate(outputs):
                name, _, options = words.partition(" ")
                out = Path(folder) / str(number)
                imgconv.convert(
                    MemorySource(bytes(disk)), out, options=format_from_text(name, options)
                )
                found.append(out.read_bytes())
        small = (content for content in _of(family)() if len(content) <= 64 * KiB)
        return [*found, *small]

    return made


# A format to come needs one line.
TARGETS = {
    target.name: target
    for target in (
        Target(
            name="qcow2",
            format="qcow2",
            made=_of("qcow2", make_qcow2(), make_qcow2(front={"version": 2})),
        ),
        Target(name="vmdk", format="vmdk", made=_of("vmdk", make_vmdk(), make_stream())),
        Target(name="vmdk-parts", format="vmdk", made=_parts, beside="x.vmdk"),
        Target(
            name="vhd",
            format="vhd",
            made=_of("vhd", make_vhd(), fixed_vhd(b"x" * 4096)),
            seal=seal_vhd,
        ),
        Target(name="vdi", format="vdi", made=_of("vdi", make_vdi())),
        Target(name="vhdx", format="vhdx", made=_vhdx, shape=shape_vhdx, seal=seal_vhdx),
        Target(
            name="raw.gz",
            format="raw.gz",
            made=_written("raw.gz", "raw.gz", "raw.gz members=many"),
        ),
        Target(name="raw.zst", format="raw.zst", made=_written("raw.zst", "raw.zst")),
        Target(
            name="raw.tar.gz", format="raw.tar.gz", made=_written("raw.tar.gz", "raw.tar.gz")
        ),
    )
}


class _Guard:
    """Makes a finding of every file that is opened, but those `named`, and of time that is
    used up."""

    def __init__(self) -> None:
        self.on = False
        self.named = frozenset[str]()
        sys.addaudithook(self._hear)
        signal.signal(signal.SIGVTALRM, self._late)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = opened_path(event, arguments) if self.on else None
        if path is None or path.endswith((".py", ".pyc")) or Path(path).name in self.named:
            return
        raise Finding(f"opened {path!a}")

    def _late(self, number: int, frame: FrameType | None) -> None:
        raise Finding(f"took more than {SECONDS} s")

    @contextmanager
    def watching(self, *named: str) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        self.on, self.named = True, frozenset(named)
        try:
            yield
        finally:
            self.on = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


_guard: _Guard | None = None


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_one(target: Target, content: bytes) -> None:
    """Try an input as it is, and sealed; raises what a reader must not raise."""
    global _guard
    if not content:
        return
    if _guard is None:
        for seed in target.made():  # so that all modules are loaded
            with suppress(Exception):
                _try(target, target.shape(seed))
        _guard = _Guard()
    image = target.shape(content)
    sealed, before, peak = target.seal(image), _memory(), peak_memory()
    for each in (image,) if sealed == image else (image, sealed):
        _try(target, each)
    if peak_memory() > max(peak, before + GROWTH):
        raise Finding(f"grew by {peak_memory() - before} bytes")


def _try(target: Target, image: bytes) -> None:
    if not target.beside:
        with _watching(), suppress(ImgconvError):
            _read(target, MemorySource(image.ljust(round_up(len(image), SECTOR), b"\0")))
        return
    own, _, other = image.partition(b"\0")
    if not own or not other:
        return
    (_folder / "disk").write_bytes(own)
    (_folder / target.beside).write_bytes(other)
    with _watching("disk", target.beside), suppress(ImgconvError):
        _read(target, FileSource(str(_folder / "disk")))


_folder = Path(mkdtemp(prefix="imgconv-fuzz-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)


def _watching(*named: str) -> AbstractContextManager[None]:
    return nullcontext() if _guard is None else _guard.watching(*named)


def _read(target: Target, file: Source) -> None:
    """Open an image, ask for what it says, read some of it, close it."""
    try:
        disk = open_image(file, target.format, ReadOptions(allow_references="same-folder"))
    except BaseException:
        file.close()
        raise
    with closing(disk):
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

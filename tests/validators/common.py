"""What all validators share: reading pieces of a file, and collecting broken rules."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

SECTOR = 512
PIECE = 4 << 20
TIB = 1 << 40

Ints = npt.NDArray[np.int64]


def ceil_div(value: int, unit: int) -> int:
    return -(-value // unit)


def round_up(value: int, unit: int) -> int:
    return ceil_div(value, unit) * unit


def is_all(raw: bytes, value: int = 0) -> bool:
    """Tell whether all bytes have one value (much faster than `any`)."""
    return raw == (bytes(len(raw)) if value == 0 else bytes([value]) * len(raw))


class Findings:
    """The rules an image breaks, one sentence each, with few examples of each kind."""

    EXAMPLES = 4
    MOST = 200

    def __init__(self) -> None:
        self.items: list[str] = []

    def add(self, text: str) -> None:
        """Record a broken rule; a badly damaged image is not described to the end."""
        if len(self.items) < self.MOST:
            self.items.append(text)

    def check(self, holds: bool, text: str) -> bool:
        """Record `text` unless the rule holds; return whether it holds."""
        if not holds:
            self.add(text)
        return holds

    def equal(self, name: str, offset: int, found: object, wanted: object) -> bool:
        """Record a field that has another value than the only right one."""
        return self.check(
            found == wanted, f"{name} at {offset} is {_show(found)}, not {_show(wanted)}"
        )

    def several(self, rule: str, examples: Iterable[str], count: int) -> None:
        """Record `count` cases of one broken rule, naming the first few."""
        if count:
            named = [text for text, _ in zip(examples, range(self.EXAMPLES), strict=False)]
            more = f" and {count - len(named)} more" if count > len(named) else ""
            self.add(f"{rule}: {'; '.join(named)}{more}")


def _show(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value} ({value:#x})" if value > 9 else str(value)
    return repr(value)


class Image:
    """An image file, opened to read; a read past the end comes back short."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.length = os.fstat(self._fd).st_size

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def read(self, offset: int, count: int) -> bytes:
        if offset >= self.length or count <= 0:
            return b""
        parts: list[bytes] = []
        while count:
            part = os.pread(self._fd, count, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def gather(self, offsets: Sequence[int], size: int) -> bytes:
        """Read `size` bytes at each offset, in one call where they are contiguous.

        The bytes of an offset of zero, and what lies past the end, are zeros.
        """
        parts: list[bytes] = []
        at = 0
        while at < len(offsets):
            run = at + 1
            if offsets[at] == 0:
                parts.append(bytes(size))
                at = run
                continue
            while run < len(offsets) and offsets[run] == offsets[run - 1] + size:
                run += 1
            wanted = (run - at) * size
            parts.append(self.read(offsets[at], wanted).ljust(wanted, b"\0"))
            at = run
        return b"".join(parts)

    def data_ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a range that are not holes of the file system."""
        end = min(end, self.length)
        while start < end:
            try:
                data = os.lseek(self._fd, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            if data >= end:
                return
            hole = min(os.lseek(self._fd, data, os.SEEK_HOLE), end)
            yield data, hole
            start = hole

    def first_unlike(self, start: int, end: int, wanted: int) -> int | None:
        """Return the offset of the first byte of a range that is not `wanted`."""
        if end - start <= 65536 or wanted:
            return self._first_unlike(start, min(end, self.length), wanted)
        for data, hole in self.data_ranges(start, end):
            found = self._first_unlike(data, hole, wanted)
            if found is not None:
                return found
        return None

    def _first_unlike(self, start: int, end: int, wanted: int) -> int | None:
        while start < end:
            piece = self.read(start, min(PIECE, end - start))
            if not piece:
                return None
            if not is_all(piece, wanted):
                values = np.frombuffer(piece, dtype=np.uint8)
                return start + int(np.argmax(values != wanted))
            start += len(piece)
        return None


def check_fill(
    image: Image, findings: Findings, what: str, span: tuple[int, int], wanted: int = 0
) -> None:
    """Record the first byte of a padding area that has not the value it must have."""
    found = image.first_unlike(*span, wanted)
    if found is not None:
        value = image.read(found, 1)[0]
        findings.add(f"{what} has byte {value:#04x} at {found}, not {wanted:#04x}")


def check_single_format(image: Image, findings: Findings, own: str) -> None:
    """OpenStack refuses a file that looks like two formats (image inspector, 7.2).

    A magic number of another format must not be where that format looks for it. Guest
    data may put one there where the layout of the image lets it.
    """
    head = image.read(0, 0x8800)
    if own != "vdi" and head[0x40:0x44] == b"\x7f\x10\xda\xbe":
        findings.add("the signature of VDI is at 64: the file looks like two formats")
    if head[510:512] == b"\x55\xaa":
        findings.add("the signature of an MBR is at 510: the file looks like two formats")
    if head[0x8001:0x8006] in (b"CD001", b"NSR02", b"NSR03"):
        findings.add("the magic of ISO 9660 is at 32769: the file looks like two formats")
    tail = image.read(max(image.length - SECTOR, 0), SECTOR)
    if own != "vhd" and (tail[:8] == b"conectix" or tail[1:9] == b"conectix"):
        at = image.length - SECTOR + tail.index(b"conectix")
        findings.add(f"the cookie of a VHD footer is at {at}: the file looks like two formats")


def where(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the first places where a mask is true, enough of them for examples."""
    return [int(at) for at in np.flatnonzero(mask)[: Findings.EXAMPLES]]


def table_from(raw: bytes, dtype: str) -> Any:
    """Return a table of integers of a file as int64 (values of 64 bits as uint64)."""
    values = np.frombuffer(raw, dtype=np.dtype(dtype))
    return values.astype(np.uint64 if values.itemsize == 8 else np.int64)

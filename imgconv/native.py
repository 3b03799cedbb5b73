"""The compiled leaf functions: zero detection, checksums, and file access by the batch.

Each call crosses into C once per buffer or batch and releases the interpreter lock while
it runs.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from imgconv._native import ffi, lib
from imgconv.found import Found
from imgconv.kernels import KERNEL
from imgconv.ranges import Column, Pieces, Ranges
from imgconv.stretch import Stretch

Buffer: TypeAlias = bytes | bytearray | memoryview


def is_zero(buffer: Buffer) -> bool:
    """Say whether every byte of the buffer is zero (true when there is none)."""
    return bool(lib.ic_is_zero(KERNEL, ffi.from_buffer(buffer), len(buffer)))


def data_runs(buffer: Buffer, granule: int) -> Ranges:
    """Find the maximal runs of granules that hold a nonzero byte.

    `granule` is in bytes, > 0; the last granule may be short. Returns offsets in the
    buffer.
    """
    if granule <= 0:
        raise ValueError(f"granule must be positive, not {granule}")
    room = len(buffer) // granule // 2 + 2
    starts, stops = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    count = lib.ic_data_runs(
        KERNEL,
        ffi.from_buffer(buffer),
        len(buffer),
        granule,
        ffi.from_buffer("int64_t[]", starts),
        ffi.from_buffer("int64_t[]", stops),
    )
    return Ranges(starts[:count], stops[:count])


def repeats(buffer: Buffer, distance: int) -> int:
    """Count the bytes that equal the one `distance` bytes (> 0) before them."""
    if distance <= 0:
        raise ValueError(f"distance must be positive, not {distance}")
    return int(lib.ic_repeats(ffi.from_buffer(buffer), len(buffer), distance))


class FrameLibrary:
    """What decodes zstd frames: functions of libzstd (zstd.h), by their addresses."""

    def __init__(
        self, create: int, destroy: int, content_size: int, frame_size: int, decode: int
    ):
        # In the order of `struct ic_zstd` (native/frames.h).
        addresses = create, destroy, content_size, frame_size, decode
        members = (field.type for _, field in ffi.typeof("struct ic_zstd").fields)
        self._functions = ffi.new(
            "struct ic_zstd *",
            [ffi.cast(m, a) for m, a in zip(members, addresses, strict=True)],
        )

    def decode(
        self,
        streams: memoryview,
        where: Column,
        length: Column,
        buffer: memoryview,
        place: Column,
        size: Column,
    ) -> int:
        """Decode frames, each by itself, until one that is broken or does not say its size.

        Frame i begins `where[i]` bytes into the streams, has at most `length[i]` and holds
        `size[i]`, which belong `place[i]` bytes into the buffer. Returns how many it decoded.
        """
        count, table = len(where), np.array((where, length, place, size))
        if count == 0:
            return 0
        assert table.min() >= 0
        assert (where + length).max() <= len(streams)
        assert (place + size).max() <= len(buffer)
        wheres, lengths, places, sizes = _columns(table)
        with ffi.from_buffer(streams) as source, ffi.from_buffer(buffer) as room:
            return int(
                lib.ic_decode_frames(
                    self._functions, count, source, wheres, lengths, room, places, sizes
                )
            )


class FileFailed(OSError):
    """The system refused to read or write a file at `offset`."""

    def __init__(self, code: int, offset: int):
        self.reason, self.offset = os.strerror(code), offset
        super().__init__(code, self.reason)


class FileEnded(Exception):
    """A file ended at `offset`, before the length it should have."""

    def __init__(self, offset: int):
        super().__init__(offset)
        self.offset = offset


def file_extents(
    fd: int, at: int, length: int, *, room: int, volume: int
) -> tuple[Ranges, int]:
    """Walk the data ranges of a file of `length` bytes from `at` on.

    Ends when there are `room` of them, or `volume` bytes in them, or at the end; returns
    them and how far they reach. Raises FileFailed.
    """
    found, reach = np.empty((2, room), dtype=np.int64), ffi.new("struct ic_reach *")
    reach.at = at
    starts, stops = _columns(found)
    _check(lib.ic_file_extents(fd, length, volume, room, starts, stops, reach), reach.at)
    return Ranges(found[0, : reach.count], found[1, : reach.count]), reach.at


def read_runs(
    fd: int, length: int, pieces: Pieces, extents: Ranges, granule: int, buffer: memoryview
) -> Found:
    """Read extents of a disk that is in a file, and find their granules that hold a nonzero
    byte.

    Extents begin at multiples of `granule` bytes, and all of them fit in `buffer`; behind
    the file's `length` there are zeros. Raises FileFailed, and FileEnded before `length`.
    """
    bounds = np.array((extents.start, extents.stop))
    places = np.array((pieces.guest.start, pieces.guest.stop, pieces.where))
    total = extents.total
    assert total <= len(buffer)
    found = np.empty((3, total // granule // 2 + len(extents) + 1), dtype=np.int64)
    reach = ffi.new("struct ic_reach *")
    map = ffi.new("struct ic_map *", (len(pieces.where), *_columns(places)))
    counts = granule, len(extents)
    with ffi.from_buffer(buffer) as room:  # not held by the traceback of an error
        code = lib.ic_read_runs(
            KERNEL, fd, length, map, *counts, *_columns(bounds), room, *_columns(found), reach
        )
    _check(code, reach.at)
    starts, stops, where = found[:, : reach.count]
    return Found(Ranges(starts, stops), where, buffer)


def write_pieces(fd: int, stretch: Stretch) -> None:
    """Write all pieces of a stretch to a file, at their offsets; raises FileFailed."""
    _write(partial(lib.ic_write_pieces, fd), stretch)


class Target:
    """A file in the making, which several threads write at once.

    `fd` is open for reading and writing and lasts longer; the length of the file is anything
    until somebody sets it at the end. On tmpfs one thread writes as usual and others give the
    kernel whole pages (native/target.h).
    """

    def __init__(self, fd: int):
        self._target = ffi.gc(lib.ic_target_new(fd), lib.ic_target_free)
        if self._target == ffi.NULL:
            raise MemoryError

    def write(self, stretch: Stretch) -> None:
        """Write all pieces of a stretch at their offsets; raises FileFailed."""
        _write(partial(lib.ic_target_write, self._target), stretch)

    def close(self) -> None:
        """End it before the file is closed; harmless when repeated."""
        ffi.release(self._target)


def _write(write: Callable[..., int], stretch: Stretch) -> None:
    reach = ffi.new("struct ic_reach *")
    with ExitStack() as held:
        pins = [held.enter_context(ffi.from_buffer(view)) for view in stretch.contents]
        bases = np.array([int(ffi.cast("uintptr_t", pin)) for pin in pins], dtype=np.int64)
        pieces = np.array((stretch.at, stretch.size, bases[stretch.origin] + stretch.where))
        at, size, address = _columns(pieces)
        address = ffi.cast("uint64_t *", address)
        code = write(len(stretch.at), at, size, address, reach)
    _check(code, reach.at)


def _columns(table: np.ndarray) -> list[Any]:
    """Pointers to the rows of a table."""
    first = ffi.from_buffer("int64_t[]", table)
    return [first + row * table.shape[1] for row in range(len(table))]


def _check(code: int, offset: int) -> None:
    if code == lib.IC_END_OF_FILE:
        raise FileEnded(offset)
    if code:
        raise FileFailed(code, offset)


class Checksum(NamedTuple):
    """One of the CRCs; values are finished ones, 0 for no bytes, so calls chain."""

    name: str
    crc_id: int
    width: int

    def update(self, data: Buffer, value: int = 0) -> int:
        """Return the checksum of what `value` covers followed by `data`."""
        crc: int = lib.ic_crc_update(
            KERNEL, self.crc_id, value, ffi.from_buffer(data), len(data)
        )
        return crc

    def combine(self, first: int, second: int, second_length: int) -> int:
        """Return the checksum of two pieces from theirs; O(log second_length)."""
        return int(lib.ic_crc_combine(self.crc_id, first, second, second_length))

    def zeros(self, value: int, length: int) -> int:
        """Return the checksum of what `value` covers followed by zeros; O(log length)."""
        return int(lib.ic_crc_zeros(self.crc_id, value, length))


CRC32 = Checksum("CRC-32", lib.IC_CRC32, 32)
CRC32C = Checksum("CRC-32C", lib.IC_CRC32C, 32)
CRC64_XZ = Checksum("CRC-64/XZ", lib.IC_CRC64_XZ, 64)
CRC64_NVME = Checksum("CRC-64/NVME", lib.IC_CRC64_NVME, 64)

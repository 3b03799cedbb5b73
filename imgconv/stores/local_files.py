"""The files of the local store: parts with trailers, objects with a memory, and holes.

All names are looked up in an open folder and no link is followed, so that nobody who
swaps a folder for a link makes us write elsewhere.
"""

import errno
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from imgconv.errors import StoreError, StoreRefused, StoreUnavailable
from imgconv.native import CRC64_NVME, data_runs
from imgconv.objectstore import ObjectInfo, Part, Upload
from imgconv.units import KiB, MiB

RECORD, OBJECT = "upload.json", "object"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
FILE = os.O_RDONLY | os.O_NOFOLLOW

_ATTRIBUTE = "user.imgconv"
_GRANULE = 64 * KiB  # shorter zeros are not worth a system call
_PART = re.compile("[0-9]{5}")
_TRAILER = struct.Struct("<QQ")  # checksum and length of what is before it
_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


@contextmanager
def errors_of(what: str, missing: type[StoreError]) -> Iterator[None]:
    """Turn OSErrors into StoreErrors; `missing` is for names that are not there."""
    try:
        yield
    except OSError as error:
        kind: type[StoreError] = StoreRefused
        if isinstance(error, FileNotFoundError):
            kind = missing
        elif error.errno in _PASSING:
            kind = StoreUnavailable
        raise kind(f"{what}: {error.strerror or error}") from error


@contextmanager
def opened(path: str, flags: int = os.O_RDONLY, folder: int | None = None) -> Iterator[int]:
    """Open a file or folder for a while."""
    fd = os.open(path, flags | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def passing(folder: int, name: str) -> Iterator[int]:
    """Create a file; what has this name in the end is removed."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def write_record(folder: int, record: bytes) -> float:
    """Make an upload exist; return when, in seconds since 1970.

    Raises OSError, EOPNOTSUPP where the object could not have an attribute in the end.
    """
    with passing(folder, f"{RECORD}.tmp") as fd:
        _write(fd, memoryview(record), 0)
        os.setxattr(fd, _ATTRIBUTE, b"")
        os.fsync(fd)
        os.rename(f"{RECORD}.tmp", RECORD, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
        return os.fstat(fd).st_mtime


def has_record(folder: int) -> bool:
    """Say whether an upload exists: whether its folder has a record."""
    try:
        os.stat(RECORD, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def read_record(folder: int, upload_id: str) -> tuple[Upload, Mapping[str, str]]:
    """Return an upload and its metadata; FileNotFoundError when it has no sound record."""
    with opened(RECORD, FILE, folder) as fd:
        started, content = os.fstat(fd).st_mtime, os.read(fd, 64 * KiB)
    try:
        record = json.loads(content)
        return Upload(record["key"], upload_id, started), record["metadata"]
    except (ValueError, LookupError, TypeError) as error:
        raise FileNotFoundError(errno.ENOENT, "its record is damaged") from error


@contextmanager
def new_part(folder: int, number: int) -> Iterator["PartFile"]:
    """Begin to write a part; unless it is published, nothing of it stays."""
    name = f"{_name(number)}.{os.urandom(6).hex()}.tmp"
    with passing(folder, name) as fd:
        yield PartFile(folder, fd, name, number)


class PartFile:
    """A part while it is written, front to back; `crc` is CRC-64/NVME."""

    def __init__(self, folder: int, fd: int, name: str, number: int):
        self._folder, self._fd, self._passing = folder, fd, name
        self._number = number
        self.length = self.crc = 0

    def data(self, view: memoryview) -> None:
        """Append bytes; their longer zeros become holes."""
        for start, stop in data_runs(view, _GRANULE):
            _write(self._fd, view[start:stop], self.length + start)
        self.crc = CRC64_NVME.update(view, self.crc)
        self.length += len(view)

    def hole(self, length: int) -> None:
        """Append zeros, in no time."""
        self.crc = CRC64_NVME.zeros(self.crc, length)
        self.length += length

    def copy(self, source: int, start: int, stop: int) -> None:
        """Append a range of an open file; StoreUnavailable when the file ends before it."""
        at = start
        for first, last in extents(source, start, stop):
            self.hole(first - at)
            for at in range(first, last, MiB):
                content = os.pread(source, min(MiB, last - at), at)
                if len(content) < min(MiB, last - at):
                    raise StoreUnavailable(f"the object to copy ended at {at + len(content)}")
                self.data(memoryview(content))
            at = last
        self.hole(stop - at)

    def publish(self) -> Part:
        """Give the part its name, in place of an earlier one of its number."""
        _write(self._fd, memoryview(_TRAILER.pack(self.crc, self.length)), self.length)
        os.fsync(self._fd)
        name = _name(self._number)
        os.rename(self._passing, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)
        return _part(self._number, self.length, self.crc)


def stored_parts(folder: int) -> Iterator[Part]:
    """Yield the whole parts in an upload's folder, by number."""
    for name in sorted(filter(_PART.fullmatch, os.listdir(folder))):
        with opened(name, FILE, folder) as fd:
            part = _read_part(fd, int(name))
        if part is not None:
            yield part


def assemble(out: int, folder: int, parts: Sequence[Part], what: str) -> tuple[int, int]:
    """Append parts to a new file; return its size and CRC-64/NVME.

    StoreRefused when the folder does not hold one of the parts with its ETag.
    """
    size = crc = 0
    for part in parts:
        try:
            with opened(_name(part.number), FILE, folder) as fd:
                held = _read_part(fd, part.number)
                if held is None or held.etag != part.etag.lower():
                    raise StoreRefused(f"{what}: part {part.number} is not {part.etag}")
                _clone(fd, held.length, out, size)
        except FileNotFoundError as error:
            raise StoreRefused(f"{what}: there is no part {part.number}") from error
        crc = CRC64_NVME.combine(crc, int(held.etag[:16], 16), held.length)
        size += held.length
    os.ftruncate(out, size)
    return size, crc


def remember(fd: int, crc: int, metadata: Mapping[str, str]) -> None:
    """Attach checksum and metadata to a finished file.

    They name the very file, so that they count for nothing once it is copied or changed.
    """
    record = {"etag": etag_of(os.fstat(fd)), "crc": crc, "metadata": dict(metadata)}
    os.setxattr(fd, _ATTRIBUTE, json.dumps(record).encode())


def object_info(fd: int) -> ObjectInfo:
    """Return what is known of an open file."""
    status = os.fstat(fd)
    size, etag = status.st_size, etag_of(status)
    with suppress(OSError, ValueError, LookupError, TypeError):  # made by somebody else
        record = json.loads(os.getxattr(fd, _ATTRIBUTE))
        if record["etag"] == etag:
            known, crc = record["metadata"], record["crc"]
            return ObjectInfo(size=size, etag=etag, crc=crc, metadata=known)
    return ObjectInfo(size=size, etag=etag)


def etag_of(status: os.stat_result) -> str:
    """Return what changes when a file is written to, or replaced by another."""
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


def extents(fd: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges within a range that may hold data; all else is holes."""
    while start < stop:
        try:
            first = os.lseek(fd, start, os.SEEK_DATA)
            start = os.lseek(fd, first, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        if first < stop:
            yield first, min(start, stop)


def _clone(source: int, length: int, out: int, at: int) -> None:
    """Copy the first bytes of a file within its file system, sharing blocks where it can."""
    for start, stop in extents(source, 0, length):
        while start < stop:
            count = os.copy_file_range(source, out, stop - start, start, at + start)
            if count == 0:
                raise StoreUnavailable(f"a part ended at {start} of {length} bytes")
            start += count


def _write(fd: int, view: memoryview, offset: int) -> None:
    while len(view):
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _name(number: int) -> str:
    return f"{number:05}"


def _part(number: int, length: int, crc: int) -> Part:
    return Part(number, length, f"{crc:016x}-{length}", crc)


def _read_part(fd: int, number: int) -> Part | None:
    """Return the part in a file, None when its trailer does not confirm its length."""
    length = os.fstat(fd).st_size - _TRAILER.size
    if length < 0:
        return None
    crc, told = _TRAILER.unpack(os.pread(fd, _TRAILER.size, length))
    return _part(number, length, crc) if told == length else None

"""The log of a VHDX: changes that its last user had no time to make in the file itself.

They are never made there by us. What is read is the file as it would be afterwards.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import vhdx as ondisk
from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.patched import ZEROS, PatchedSource, Patches
from imgconv.units import SECTOR, MiB, round_up

MAX_LOG = 64 * MiB  # that is replayed; Hyper-V and QEMU make logs of 1 MiB
MAX_CHANGES = 1 << 16
_SECTOR = ondisk.LOG_SECTOR
_CHANGE = np.dtype(
    [
        ("signature", "S4"),
        ("trailing", "V4"),
        ("length", "<u8"),  # of data, their first 8 bytes
        ("offset", "<u8"),
        ("sequence", "<u8"),
    ]
)
assert _CHANGE.itemsize == ondisk.Change.LAYOUT.size

Sectors: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Changes: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A log entry that is whole: `rows` are its sectors, `data` those with content, one for
    each change that is not of zeros."""

    front: ondisk.LogEntry
    rows: Column
    data: Column
    changes: Changes


def replayed(image: ImageFile, header: ondisk.Header) -> ImageFile:
    """Return the image as it is with the changes that its log holds.

    Raises ImageMalformed, and ImageUnsupported for a log of another version or too large.
    """
    if header.log_id == ondisk.NO_ID or not header.log_length:
        return image
    name = image.file.name
    if header.log_version != ondisk.LOG_VERSION:
        raise ImageUnsupported(f"{name}: has a log of version {header.log_version}")
    if header.log_length > MAX_LOG:
        raise ImageUnsupported(
            f"{name}: has a log of {header.log_length} bytes to be replayed; "
            f"at most {MAX_LOG} are"
        )
    raw = bytearray(image.read(header.log_offset, header.log_length, "the log"))
    log = np.frombuffer(raw, dtype=np.uint8).reshape(-1, _SECTOR)
    active = _active_sequence(image, header, tuple(_entries(log, header.log_id)))
    if not active:
        return image
    size = _size_afterwards(image, header, active)
    patches = _patches(image, header, log, active, size)
    return replace(image, file=PatchedSource(image.file, size, patches))


def _entries(log: Sectors, log_id: bytes) -> Iterator[_Entry]:
    """Yield the entries that are whole and this log's, in whatever order they stand."""
    marks = np.ascontiguousarray(log[:, :4]).view("S4").ravel()
    starts = np.flatnonzero(marks == ondisk.LOG_ENTRY)
    # No sector of an entry but the first has this mark, so none reaches beyond the next one
    # and no sector is looked at twice.
    room = np.diff(starts, append=starts[:1] + len(log))
    for start, limit in zip(starts.tolist(), room.tolist(), strict=True):
        entry = _entry(log, start, limit)
        if entry is not None and entry.front.log_id == log_id:
            yield entry


def _entry(log: Sectors, start: int, limit: int) -> _Entry | None:
    """Return the entry at a sector, None if it is torn or was never one."""
    front = ondisk.LogEntry.unpack(log[start].data)
    count, rest = divmod(front.length, _SECTOR)
    if rest or not front.descriptor_sectors <= count <= limit or not front.sequence:
        return None
    rows = (start + np.arange(count)) % len(log)
    content = (log[start : start + count] if start < rows[-1] + 1 else log[rows]).reshape(-1)
    if ondisk.checksum(content.data) != front.checksum:
        return None
    first = front.LAYOUT.size
    changes = content[first : first + front.count * _CHANGE.itemsize].view(_CHANGE).copy()
    is_data = changes["signature"] == ondisk.CHANGE_DATA
    data = rows[front.descriptor_sectors :][: int(is_data.sum())]
    whole = (
        bool((is_data | (changes["signature"] == ondisk.CHANGE_ZEROS)).all())
        and bool((changes["sequence"] == front.sequence).all())
        and len(data) == int(is_data.sum())
        and _are_of(log, data, front.sequence)
    )
    return _Entry(front, rows, data, changes) if whole else None


def _are_of(log: Sectors, data: Column, sequence: int) -> bool:
    """Say whether sectors with content were written together with their entry."""
    words, mark = log.view("<u4"), int.from_bytes(ondisk.LOG_DATA, "little")
    wanted = {0: mark, 1: sequence >> 32, -1: sequence & 0xFFFFFFFF}
    return all(bool((words[data, at] == word).all()) for at, word in wanted.items())


def _active_sequence(
    image: ImageFile, header: ondisk.Header, entries: Iterable[_Entry]
) -> tuple[_Entry, ...]:
    """Return the entries to be replayed, in order; none if nothing was logged yet.

    They are those of the newest chain, from the one on that its last entry calls the tail.
    """
    chains = dict[tuple[int, int], list[_Entry]]()  # by what would continue each
    sectors = header.log_length // _SECTOR
    for entry in sorted(entries, key=lambda entry: entry.front.sequence):
        chain = chains.pop((int(entry.rows[0]), entry.front.sequence), [])
        chain.append(entry)
        following = (int(entry.rows[-1]) + 1) % sectors
        chains[following, entry.front.sequence + 1] = chain
    for _, chain in sorted(chains.items(), key=lambda item: item[0][1], reverse=True):
        tail, rest = divmod(chain[-1].front.tail, _SECTOR)
        for number, entry in enumerate(chain):
            if not rest and int(entry.rows[0]) == tail:
                return tuple(chain[number:])
    image.check(not chains, header.log_offset, "the log's entries make no sequence")
    return ()


def _size_afterwards(
    image: ImageFile, header: ondisk.Header, active: tuple[_Entry, ...]
) -> int:
    flushed = max(entry.front.flushed_size for entry in active)
    image.check(
        flushed <= round_up(image.file.size, SECTOR),
        header.log_offset,
        f"the log was written when the file had {flushed} bytes, "
        f"but it has {image.file.size} of them",
    )
    last = round_up(max(entry.front.last_size for entry in active), SECTOR)
    image.check(last <= 1 << 62, header.log_offset, f"the log wants a file of {last} bytes")
    return max(image.file.size, last)


def _patches(
    image: ImageFile,
    header: ondisk.Header,
    log: Sectors,
    active: tuple[_Entry, ...],
    size: int,
) -> Patches:
    """Return what the changes come to, of which the last one to a place counts."""
    changes = np.concatenate([entry.changes for entry in active])
    if len(changes) > MAX_CHANGES:
        raise ImageUnsupported(
            f"{image.file.name}: has {len(changes)} changes in its log; "
            f"at most {MAX_CHANGES} are made"
        )
    is_data = changes["signature"] == ondisk.CHANGE_DATA
    length = np.where(is_data, np.uint64(_SECTOR), changes["length"])
    offset = changes["offset"]
    possible = (offset % _SECTOR == 0) & (length % _SECTOR == 0) & (offset <= size)
    possible &= length <= np.uint64(size) - np.minimum(offset, size)
    for row in np.flatnonzero(~possible)[:1].tolist():
        raise image.error(
            header.log_offset,
            f"the log changes {int(length[row])} bytes at {int(offset[row])} "
            f"of a file of {size}",
        )
    where = np.full(len(changes), ZEROS, dtype=np.int64)
    rows = np.concatenate([entry.data for entry in active])
    where[is_data] = rows * _SECTOR
    _complete(log, rows, changes[is_data])
    start = offset.astype(np.int64)
    return _flattened(start, start + length.astype(np.int64), where, log.reshape(-1).data)


def _complete(log: Sectors, rows: Column, changes: Changes) -> None:
    """Put back into sectors what their marks have displaced."""
    log[rows, :8] = np.ascontiguousarray(changes["length"]).view(np.uint8).reshape(-1, 8)
    ends = np.ascontiguousarray(changes["trailing"]).view(np.uint8).reshape(-1, 4)
    log[rows, _SECTOR - 4 :] = ends


def _flattened(start: Column, stop: Column, where: Column, content: memoryview) -> Patches:
    """Cut ranges that may lie on one another into ones that do not; later ones prevail."""
    bounds = np.unique(np.concatenate((start, stop)))
    owner = np.full(len(bounds), -1, dtype=np.int32)
    low, high = np.searchsorted(bounds, start), np.searchsorted(bounds, stop)
    for number, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        owner[first:last] = number
    piece = np.flatnonzero(owner >= 0)
    row, begins = owner[piece], bounds[piece]
    moved = np.where(where[row] < 0, ZEROS, where[row] + begins - start[row])
    return Patches(Ranges(begins, bounds[piece + 1]), moved, content)

"""VHDX images in memory, with one field after another wrong, with logs, with parents."""

import struct
from collections.abc import Sequence
from dataclasses import replace

from imgconv.ondisk import vhdx
from imgconv.units import KiB, MiB

LOG_ID = b"l" * 16
DATA_ID = b"d" * 16
TABLE_AT, METADATA_AT, DATA_AT = 2 * MiB, 3 * MiB, 4 * MiB
ITEMS_AT = METADATA_AT + 64 * KiB


def entry(megabyte: int, state: int = vhdx.PRESENT) -> int:
    return megabyte << 20 | state


def regions(*more: vhdx.Region, **fields: int) -> list[vhdx.Region]:
    table = vhdx.Region(vhdx.TABLE_REGION, TABLE_AT, MiB, 1)
    return [
        replace(table, **fields),
        vhdx.Region(vhdx.METADATA_REGION, METADATA_AT, MiB, 1),
        *more,
    ]


def items(
    size: int,
    block: int = MiB,
    sector: int = 512,
    flags: int = 0,
    locator: bytes | None = None,
) -> dict[bytes, bytes]:
    found = {
        vhdx.FILE_PARAMETERS: struct.pack("<II", block, flags),
        vhdx.DISK_SIZE: struct.pack("<Q", size),
        vhdx.DISK_ID: b"i" * 16,
        vhdx.LOGICAL_SECTOR: struct.pack("<I", sector),
    }
    return found if locator is None else found | {vhdx.PARENT_LOCATOR: locator}


def image(
    metadata: dict[bytes, bytes],
    entries: Sequence[int],
    data: bytes,
    *,
    table: list[vhdx.Region] | None = None,
    log: bytes = b"",
    **header: object,
) -> bytes:
    """Log at 1 MiB, block table at 2, metadata at 3, and from 4 on `data`."""
    plain = vhdx.Header(
        signature=vhdx.HEADER,
        checksum=0,
        sequence=1,
        file_write_id=b"f" * 16,
        data_write_id=DATA_ID,
        log_id=LOG_ID if log else vhdx.NO_ID,
        log_version=0,
        version=1,
        log_length=MiB,
        log_offset=MiB,
        reserved=bytes(4016),
    )
    headers = [plain, replace(plain, sequence=2, **header)]  # type: ignore[arg-type]
    rows = regions() if table is None else table
    raw = vhdx.RegionTable(vhdx.REGIONS, 0, len(rows), 0).pack()
    raw += b"".join(row.pack() for row in rows)
    sealed = vhdx.sealed(raw.ljust(64 * KiB, b"\0"))
    parts = [vhdx.SIGNATURE, *(one.sealed().pack() for one in headers), sealed, sealed]
    front = b"".join(part.ljust(64 * KiB, b"\0") for part in parts).ljust(MiB, b"\0")
    bat = struct.pack(f"<{len(entries)}Q", *entries)
    return b"".join(
        [front, log.ljust(MiB, b"\0"), bat.ljust(MiB, b"\0"), _metadata(metadata), data]
    )


def _metadata(metadata: dict[bytes, bytes]) -> bytes:
    table = vhdx.MetadataTable(vhdx.METADATA, 0, len(metadata), bytes(20)).pack()
    content = b""
    for kind, value in metadata.items():
        table += vhdx.Item(kind, 64 * KiB + len(content), len(value), 4, 0).pack()
        content += value
    return (table.ljust(64 * KiB, b"\0") + content).ljust(MiB, b"\0")


def log_entry(
    sequence: int,
    changes: Sequence[tuple[int, bytes | int]],
    *,
    tail: int = 0,
    sizes: tuple[int, int] = (0, 0),
    log_id: bytes = LOG_ID,
) -> bytes:
    """An entry that puts 4 KiB of bytes, or a number of zeros, to offsets of the file."""
    descriptors, sectors = bytearray(), bytearray()
    for at, what in changes:
        if isinstance(what, int):
            row = vhdx.Change(vhdx.CHANGE_ZEROS, bytes(4), what, at, sequence)
        else:
            first = int.from_bytes(what[:8], "little")
            row = vhdx.Change(vhdx.CHANGE_DATA, what[-4:], first, at, sequence)
            low, high = sequence & 0xFFFFFFFF, sequence >> 32
            sectors += vhdx.LOG_DATA + struct.pack("<I", high) + what[8:-4]
            sectors += struct.pack("<I", low)
        descriptors += row.pack()
    front = vhdx.LogEntry(vhdx.LOG_ENTRY, 0, 0, tail, sequence, len(changes), 0, log_id, *sizes)
    length = front.descriptor_sectors * 4096 + len(sectors)
    raw = replace(front, length=length).pack() + descriptors
    return vhdx.sealed(raw.ljust(front.descriptor_sectors * 4096, b"\0") + sectors)


def locator(values: dict[str, str], kind: bytes = vhdx.VHDX_LOCATOR) -> bytes:
    """What a differencing image says of its parent."""
    at, table, text = 20 + 12 * len(values), b"", b""
    for key, value in values.items():
        raw = key.encode("utf-16-le"), value.encode("utf-16-le")
        key_at = at + len(text)
        row = (key_at, key_at + len(raw[0]), len(raw[0]), len(raw[1]))
        table += vhdx.LocatorEntry(*row).pack()
        text += raw[0] + raw[1]
    return vhdx.Locator(kind, 0, len(values)).pack() + table + text

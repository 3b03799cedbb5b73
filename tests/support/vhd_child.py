"""Differencing VHDs, which no tool at hand makes: written from the specification."""

import struct
from collections.abc import Mapping
from pathlib import Path

from imgconv.units import SECTOR

BLOCK = 2 << 20
_BITMAP = BLOCK // SECTOR // 8


def make(
    path: Path,
    size: int,
    sectors: Mapping[int, bytes],
    *,
    parent_id: bytes,
    own_id: bytes = b"child id 16 byte",
    name: str = "",
    locators: Mapping[bytes, bytes] | None = None,
) -> Path:
    """Write a child that says what is in `sectors`, by number, and nothing of others."""
    blocks = sorted({number * SECTOR // BLOCK for number in sectors})
    paths = b"".join(_padded(text) for text in (locators or {}).values())
    table_at = 1536 + len(paths)
    entries = -(-size // BLOCK)
    at = table_at + -(-4 * entries // SECTOR) * SECTOR
    table, stored = [0xFFFFFFFF] * entries, b""
    for block in blocks:
        table[block] = (at + len(stored)) // SECTOR
        stored += _block(block, sectors)
    footer = _footer(size, own_id)
    front = footer + _header(table_at, entries, parent_id, name, locators or {}) + paths
    raw_table = struct.pack(f">{entries}I", *table)
    path.write_bytes(front + raw_table.ljust(at - table_at, b"\xff") + stored + footer)
    return path


def _block(block: int, sectors: Mapping[int, bytes]) -> bytes:
    bitmap, content = bytearray(_BITMAP), bytearray(BLOCK)
    for number, data in sectors.items():
        index = number - block * (BLOCK // SECTOR)
        if 0 <= index < BLOCK // SECTOR:
            bitmap[index // 8] |= 0x80 >> index % 8
            content[index * SECTOR : (index + 1) * SECTOR] = data
    return bytes(bitmap + content)


def _footer(size: int, own_id: bytes) -> bytes:
    fields = b"conectix", 2, 0x10000, 512, 0, b"win ", 0xA0000, b"Wi2k", size, size
    raw = struct.pack(">8sIIQI4sI4sQQHBBII16s428x", *fields, 0, 0, 0, 4, 0, own_id)
    return _sealed(raw, 64)


def _header(
    table_at: int, entries: int, parent_id: bytes, name: str, locators: Mapping[bytes, bytes]
) -> bytes:
    raw = struct.pack(
        ">8sQQIIII16sII512s",
        *(b"cxsparse", 0xFFFFFFFFFFFFFFFF, table_at, 0x10000, entries, BLOCK, 0),
        *(parent_id, 0, 0, name.encode("utf-16-be")),
    )
    where = 1536
    for code, text in locators.items():
        raw += struct.pack(">4sIIIQ", code, len(_padded(text)), len(text), 0, where)
        where += len(_padded(text))
    return _sealed(raw.ljust(1024, b"\0"), 36)


def _padded(text: bytes) -> bytes:
    return text.ljust(-(-len(text) // SECTOR) * SECTOR, b"\0")


def _sealed(raw: bytes, at: int) -> bytes:
    return raw[:at] + struct.pack(">I", ~sum(raw) & 0xFFFFFFFF) + raw[at + 4 :]

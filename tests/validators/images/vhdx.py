"""VHDX images made by hand, and how their checksums are made right again."""

from __future__ import annotations

import struct
import uuid

import crc32c

from .parts import KIB, MIB, SECTOR, noise, padded

VHDX_SIZE = 4 * MIB + SECTOR
VHDX_ITEMS = 2 * MIB + 64 * KIB
VHDX_TABLE = 3 * MIB


def crc_sealed(raw: bytes) -> bytes:
    """Return a structure of VHDX with a right checksum at byte 4."""
    return raw[:4] + struct.pack("<I", crc32c.crc32c(raw[:4] + bytes(4) + raw[8:])) + raw[8:]


def vhdx_sealed(data: bytes) -> bytes:
    """Return the image with all its checksums right."""
    for at, size in ((64, 4), (128, 4), (192, 64), (256, 64)):
        at, end = at * KIB, (at + size) * KIB
        data = data[:at] + crc_sealed(data[at:end]) + data[end:]
    return data


def guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def vhdx_header(sequence: int) -> bytes:
    ids = bytes(range(1, 33)) + bytes(16)
    raw = struct.pack("<4sIQ", b"head", 0, sequence) + ids
    return padded(raw + struct.pack("<HHIQ", 0, 1, MIB, MIB), 4 * KIB)


def vhdx_metadata(size: int, fixed: bool) -> bytes:
    items = [
        ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", 4, struct.pack("<II", MIB, fixed)),
        ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", 6, struct.pack("<Q", size)),
        ("BECA12AB-B2E6-4523-93EF-C309E000C746", 6, bytes(range(16, 32))),
        ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 6, struct.pack("<I", 512)),
        ("CDA348C7-445D-4471-9CC9-E9885251C556", 6, struct.pack("<I", 4096)),
    ]
    table, content = struct.pack("<8sHH20s", b"metadata", 0, 5, bytes(20)), b""
    for kind, flags, value in items:
        where = 64 * KIB + len(content)
        table += guid(kind) + struct.pack("<IIII", where, len(value), flags, 0)
        content += value
    return padded(padded(table, 64 * KIB) + content, MIB)


def vhdx(
    fixed: bool = False, size: int = VHDX_SIZE, stored: tuple[int, ...] = (1, 2, 4)
) -> bytes:
    """Blocks of 1 MiB, of which a dynamic disk stores some; the last one is partly used."""
    blocks = -(-size // MIB)
    stored = tuple(range(blocks)) if fixed else stored
    table = b""
    for n in range(blocks):
        place = 4 + stored.index(n) if n in stored else 0
        table += struct.pack("<Q", place << 20 | (6 if place else 2))
        if n % 4096 == 4095 and n < blocks - 1:
            table += bytes(8)
    regions = struct.pack("<4sIII", b"regi", 0, 2, 0)
    regions += guid("2DC27766-F623-4200-9D64-115E9BFD4A08") + struct.pack(
        "<QII", 3 * MIB, MIB, 1
    )
    regions += guid("8B7CA206-4790-4B9A-B8FE-575F050F886E") + struct.pack(
        "<QII", 2 * MIB, MIB, 1
    )
    parts = [b"vhdxfile" + "made by hand".encode("utf-16-le"), vhdx_header(7), vhdx_header(8)]
    parts += [regions, regions]
    front = b"".join(padded(part, 64 * KIB) for part in parts)
    front = padded(front, 2 * MIB) + vhdx_metadata(size, fixed) + padded(table, MIB)
    used = size % MIB or MIB
    data = b"".join(
        padded(noise(9, used), MIB) if n == blocks - 1 else noise(n, MIB) for n in stored
    )
    return vhdx_sealed(front + data)

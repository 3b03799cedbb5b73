"""VDI images made by hand."""

from __future__ import annotations

import struct

from .parts import MIB, NONE32, SECTOR, noise, padded

VDI_SIZE = 4 * MIB + SECTOR


def vdi(kind: int = 1) -> bytes:
    """Five blocks; a dynamic disk stores 1, 2 and 4, of which the last is partly used."""
    blocks = [None, 0, 1, None, 2] if kind == 1 else list(range(5))
    stored = [n for n in blocks if n is not None]
    raw = padded(b"<<< Oracle VirtualBox Disk Image >>>\n", 64)
    raw += struct.pack("<IIIII", 0xBEDA107F, 0x10001, 400, kind, 0) + bytes(256)
    raw += struct.pack("<7I", MIB, 2 * MIB, 0, 0, 0, 512, 0)
    raw += struct.pack("<QIIII", VDI_SIZE, MIB, 0, 5, len(stored))
    raw += bytes(range(1, 33)) + bytes(32) + struct.pack("<4I", 0, 0, 0, 512)
    table = b"".join(NONE32 if n is None else struct.pack("<I", n) for n in blocks)
    data = b"".join(noise(n, MIB) for n in stored[:-1]) + padded(noise(9, 512), MIB)
    return padded(raw, MIB) + padded(table, MIB) + data

"""Sparse extents of ESX, which no tool here makes."""

import struct

from imgconv.ondisk import vmdk_esx
from imgconv.units import SECTOR


def cowd(content: dict[int, bytes], sectors: int) -> bytes:
    """Grains of one sector each, by number."""
    tables = -(-sectors // 4096)
    header = vmdk_esx.CowdHeader(vmdk_esx.COWD_MAGIC, 1, 3, sectors, 1, 4, tables, 0)
    head = header.pack().ljust(2048, b"\0")
    first_table = 4 + -(-4 * tables // SECTOR)
    directory = b"".join(struct.pack("<I", first_table + 32 * i) for i in range(tables))
    entries = [0] * (4096 * tables)
    grains = b""
    for number, grain in content.items():
        entries[number] = first_table + 32 * tables + len(grains) // SECTOR
        grains += grain
    directory = directory.ljust(-(-len(directory) // SECTOR) * SECTOR, b"\0")
    return head + directory + struct.pack(f"<{len(entries)}I", *entries) + grains


def sesparse(
    entries: dict[int, int], grains: list[bytes], capacity: int, replay: int = 0
) -> bytes:
    fields = [0] * 26
    fields[:5] = vmdk_esx.SESPARSE_MAGIC, vmdk_esx.SESPARSE_VERSION, capacity, 8, 64
    fields[10:12], fields[16:18] = (1, 1), (2, 1)  # volatile header, directory
    fields[18:20], fields[24:26] = (8, 64), (72, 8 * len(grains))
    table = [entries.get(row, 0) for row in range(4096)]
    parts = {
        0: struct.pack("<26Q", *fields),
        1: struct.pack("<4Q", vmdk_esx.SeSparseVolatileHeader.MAGIC, 0, 0, replay),
        2: struct.pack("<Q", 0x10000000 << 32),
        8: struct.pack("<4096Q", *table),
        72: b"".join(grains),
    }
    out = bytearray(72 * SECTOR + 4096 * len(grains))
    for sector, part in parts.items():
        out[sector * SECTOR : sector * SECTOR + len(part)] = part
    return bytes(out)

"""VHD images made by hand, and how their checksums are made right again."""

from __future__ import annotations

import struct

from .parts import MIB, NONE32, SECTOR, noise


def vhd_sum(raw: bytes, at: int) -> bytes:
    plain = raw[:at] + bytes(4) + raw[at + 4 :]
    return struct.pack(">I", 0xFFFFFFFF - sum(plain))


def vhd_footer(size: int, chs: bytes, kind: int, **fields: bytes) -> bytes:
    raw = bytearray(SECTOR)
    raw[0:16] = b"conectix" + bytes.fromhex("00000002 00010000")
    raw[16:24] = b"\xff" * 8 if kind == 2 else struct.pack(">Q", 512)
    raw[24:40] = bytes.fromhex("20000000") + b"win \x00\x0a\x00\x00Wi2k"
    raw[40:56] = struct.pack(">QQ", size, size)
    raw[56:60] = chs
    raw[60:64] = struct.pack(">I", kind)
    raw[68:84] = bytes(range(1, 17))
    raw[64:68] = vhd_sum(bytes(raw), 64)
    return bytes(raw)


def vhd_seal(data: bytes) -> bytes:
    """Return the image with right checksums and a right copy of the footer."""
    footer = data[-SECTOR:]
    footer = footer[:64] + vhd_sum(footer, 64) + footer[68:]
    if footer[60:64] != bytes([0, 0, 0, 3]):
        return data[:-SECTOR] + footer
    header = data[512:1536]
    header = header[:36] + vhd_sum(header, 36) + header[40:]
    return footer + header + data[1536:-SECTOR] + footer


VHD_SIZE = 5 * MIB + 3 * SECTOR  # 10243 sectors: 602 tracks of 17, 150 cylinders of 4
VHD_CHS = bytes([0, 150, 4, 17])
VHD_BLOCK_0 = 3584
VHD_BLOCK_2 = VHD_BLOCK_0 + 512 + 2 * MIB + 3584
VHD_FOOTER = VHD_BLOCK_2 + 512 + 2 * MIB


def vhd_dynamic() -> bytes:
    """Three blocks, of which 0 and 2 are stored; the disk ends inside of block 2."""
    header = bytearray(1024)
    header[0:8] = b"cxsparse"
    header[8:16] = b"\xff" * 8
    header[16:36] = struct.pack(">QIII", 1536, 0x10000, 3, 2 * MIB)
    header[36:40] = vhd_sum(bytes(header), 36)
    footer = vhd_footer(VHD_SIZE, VHD_CHS, 3)
    table = struct.pack(">I", VHD_BLOCK_0 // 512) + NONE32
    table += struct.pack(">I", VHD_BLOCK_2 // 512) + b"\xff" * 500
    first = b"\xff" * 512 + noise(1, 2 * MIB)
    last = b"\xff" * 512 + noise(2, MIB + 3 * SECTOR) + bytes(MIB - 3 * SECTOR)
    image = footer + bytes(header) + table + bytes(1536) + first + bytes(3584) + last + footer
    assert len(image) == VHD_FOOTER + 512
    return image


def vhd_fixed(size: int = 3 * MIB, chs: bytes = bytes([0, 90, 4, 17])) -> bytes:
    return noise(3, size) + vhd_footer(size, chs, 2)

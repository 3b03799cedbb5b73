"""The validator of VDI accepts right images and finds what is wrong with others."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from .images.parts import MIB, NONE32, noise, patched
from .images.vdi import vdi
from .proof import assert_found, assert_reads_in_qemu, found

VDI_CASES = [
    # name, offset, new bytes, problem
    ("text", 63, b"x", "text at 0"),
    ("text without NUL", 0, b"x" * 64, "has no NUL"),
    ("signature", 0x40, b"\0", "signature"),
    ("version", 0x44, b"\2", "version"),
    ("header size", 0x48, struct.pack("<I", 384), "header size"),
    ("type", 0x4C, b"\4", "type at"),
    ("type fixed", 0x4C, b"\2", "fixed disk has 3 blocks of 5"),
    ("flags", 0x50, b"\1", "flags"),
    ("comment", 0x54, b"\xff", "not UTF-8"),
    ("comment tail", 0x153, b"a", "bytes after its NUL"),
    ("map offset", 0x154, struct.pack("<I", 512), "map offset"),
    ("map offset 0", 0x154, bytes(4), "map offset"),
    ("data offset", 0x158, struct.pack("<I", 2 * MIB + 512), "data offset"),
    ("data before the map", 0x158, struct.pack("<I", MIB), "before the map's end"),
    ("data after the end", 0x158, struct.pack("<I", 1 << 31), "ends before the data"),
    ("legacy geometry", 0x15C, b"\1", "legacy geometry"),
    ("sector size", 0x168, bytes(4), "sector size"),
    ("unused", 0x16C, b"\1", "unused field"),
    ("odd size", 0x170, b"\1", "multiple of 512"),
    ("size 0", 0x170, bytes(8), "multiple of 512"),
    ("larger disk", 0x170, struct.pack("<Q", 5 * MIB + 512), "number of blocks"),
    ("block size", 0x178, struct.pack("<I", 2 * MIB), "block size"),
    ("block extra", 0x17C, b"\1", "block extra"),
    ("fewer blocks", 0x180, b"\4", "number of blocks"),
    ("more blocks", 0x180, b"\6", "number of blocks"),
    ("too many blocks", 0x170, struct.pack("<QIII", 1 << 50, MIB, 0, 1 << 30), "(qemu)"),
    ("counter low", 0x184, b"\2", "not below the allocated blocks"),
    ("counter high", 0x184, b"\4", "it must have"),
    ("counter above blocks", 0x184, b"\6", "more than 5"),
    ("null UUID", 0x188, bytes(16), "UUID of the image"),
    ("null change UUID", 0x198, bytes(16), "UUID of the last change"),
    ("parent UUID", 0x1A8, b"\1", "UUID of the parent at"),
    ("parent change UUID", 0x1B8, b"\1", "UUID of the parent's change"),
    ("logical geometry", 0x1C8, b"\1", "logical geometry"),
    ("logical sector size", 0x1D4, bytes(4), "logical geometry"),
    ("after the header", 0x1D8, b"\1", "gap after the header"),
    ("before the map", MIB - 1, b"\1", "gap after the header"),
    ("index twice", MIB + 8, b"\0", "in the map twice"),
    ("index gap", MIB + 4, b"\2", "an index is not in the map"),
    ("index high", MIB + 16, b"\3", "not below the allocated blocks"),
    ("index after the end", MIB + 16, b"\3", "after the end of the file"),
    ("order", MIB + 4, struct.pack("<II", 1, 0), "not in guest order"),
    ("index lost", MIB + 4, NONE32, "allocated blocks (the map has others)"),
    ("map padding", MIB + 20, b"\1", "padding of the map"),
    ("map padding end", 2 * MIB - 1, b"\1", "padding of the map"),
    ("data beyond the disk", -1, b"\1", "last block beyond the disk"),
    ("data just beyond", 4 * MIB + 512, b"\1", "last block beyond the disk"),
]


class TestVdi:
    @pytest.mark.parametrize("kind", [1, 2])
    def test_accepts(self, tmp_path: Path, kind: int) -> None:
        assert found(tmp_path / "a", vdi(kind), "vdi") == []

    def test_accepts_zero_blocks(self, tmp_path: Path) -> None:
        image = patched(vdi(), MIB, b"\xfe")
        assert found(tmp_path / "a", image, "vdi") == []

    def test_image_reads_in_qemu(self, tmp_path: Path) -> None:
        disk = bytes(MIB) + noise(0, MIB) + noise(1, MIB) + bytes(MIB) + noise(9, 512)
        assert_reads_in_qemu(tmp_path, "vdi", vdi(), disk)

    @pytest.mark.parametrize(
        ("offset", "new", "wanted"),
        [case[1:] for case in VDI_CASES],
        ids=[case[0] for case in VDI_CASES],
    )
    def test_finds(self, tmp_path: Path, offset: int, new: bytes, wanted: str) -> None:
        image = patched(vdi(), offset, new)
        assert_found(found(tmp_path / "a", image, "vdi"), wanted)

    def test_finds_unordered_fixed(self, tmp_path: Path) -> None:
        image = patched(vdi(2), MIB, struct.pack("<II", 1, 0))
        assert_found(found(tmp_path / "a", image, "vdi"), "not in guest order")

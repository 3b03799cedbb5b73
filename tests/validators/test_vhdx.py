"""The validator of VHDX accepts right images and finds what is wrong with others."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from .images.parts import KIB, MIB, noise, patched
from .images.vhdx import VHDX_ITEMS, VHDX_TABLE, guid, vhdx, vhdx_sealed
from .proof import assert_found, assert_reads_in_qemu, found

VHDX_CASES = [
    # name, offset, new bytes, problem; the checksums are made right afterwards
    ("signature", 0, b"V", "signature"),
    ("creator", 40, b"x", "goes on after its NUL"),
    ("creator text", 8, b"\0\xd8", "not UTF-16"),
    ("after the creator", 520, b"\1", "a reserved area"),
    ("after header 1", 68 * KIB, b"\1", "a reserved area"),
    ("after header 2", 132 * KIB, b"\1", "a reserved area"),
    ("before the log", MIB - 1, b"\1", "a reserved area"),
    ("header signature", 64 * KIB, b"H", "header signature"),
    ("second header", 128 * KIB, b"H", "header signature"),
    ("sequence", 64 * KIB + 8, b"\x08", "the sequence number 8"),
    ("file write id", 64 * KIB + 16, bytes(16), "file write id"),
    ("data write id", 128 * KIB + 32, bytes(16), "data write id"),
    ("ids differ", 64 * KIB + 16, b"\xff", "do not say the same"),
    ("log id", 64 * KIB + 48, b"\1", "a log to be replayed"),
    ("log version", 64 * KIB + 64, b"\1", "log version"),
    ("version", 128 * KIB + 66, b"\2", "version at"),
    ("log length", 64 * KIB + 68, bytes(4), "not of whole MiB"),
    ("log offset", 64 * KIB + 72, struct.pack("<Q", MIB + 4096), "not of whole MiB"),
    ("log in front", 64 * KIB + 72, bytes(8), "not of whole MiB"),
    ("log after the end", 64 * KIB + 72, struct.pack("<Q", 64 * MIB), "ends after the file"),
    ("log on metadata", 64 * KIB + 72, struct.pack("<Q", 2 * MIB), "overlap"),
    ("header reserved", 64 * KIB + 4000, b"\1", "reserved bytes"),
    ("region signature", 192 * KIB, b"R", "region signature"),
    ("region tables differ", 256 * KIB + 12, b"\1", "differ"),
    ("region reserved", 192 * KIB + 12, b"\1", "reserved field"),
    ("region count", 192 * KIB + 8, b"\1", "no region of the metadata"),
    ("too many regions", 192 * KIB + 8, struct.pack("<I", 2048), "number of regions"),
    ("region rest", 192 * KIB + 80, b"\1", "bytes after the regions"),
    ("region twice", 192 * KIB + 48, guid("2DC27766-F623-4200-9D64-115E9BFD4A08"), "twice"),
    ("unknown region", 192 * KIB + 48, b"?", "unknown region"),
    ("region not required", 192 * KIB + 44, bytes(4), "required bit"),
    ("region offset", 192 * KIB + 32, struct.pack("<Q", 3 * MIB + 512), "not of whole MiB"),
    ("region length", 192 * KIB + 40, struct.pack("<I", 512), "not of whole MiB"),
    ("region after the end", 192 * KIB + 32, struct.pack("<Q", 7 * MIB), "ends after the"),
    ("regions overlap", 192 * KIB + 32, struct.pack("<Q", 2 * MIB), "overlap"),
    ("metadata signature", 2 * MIB, b"M", "metadata signature"),
    ("metadata reserved", 2 * MIB + 8, b"\1", "reserved field of the metadata"),
    ("metadata rest", 2 * MIB + 12, b"\1", "reserved bytes"),
    ("items", 2 * MIB + 10, b"\4", "no item physical"),
    ("too many items", 2 * MIB + 10, struct.pack("<H", 2048), "number of items"),
    ("after the items", 2 * MIB + 192, b"\1", "after the metadata's items"),
    ("unknown item", 2 * MIB + 32, b"?", "unknown kind"),
    ("item flags", 2 * MIB + 56, b"\6", "flags of the file parameters"),
    ("item reserved", 2 * MIB + 60, b"\1", "reserved field of the file parameters"),
    ("item length", 2 * MIB + 52, b"\4", "length of the file parameters"),
    ("item outside", 2 * MIB + 48, struct.pack("<I", MIB - 4), "is not in the metadata"),
    ("item in the table", 2 * MIB + 48, struct.pack("<I", 64), "is not in the metadata"),
    ("items overlap", 2 * MIB + 80, struct.pack("<I", 64 * KIB + 4), "overlap"),
    ("block size", VHDX_ITEMS, struct.pack("<I", 3 * MIB), "blocks are of"),
    ("small blocks", VHDX_ITEMS, struct.pack("<I", MIB // 2), "blocks are of"),
    ("large blocks", VHDX_ITEMS, struct.pack("<I", 512 * MIB), "blocks are of"),
    ("parent", VHDX_ITEMS + 4, b"\2", "(a parent?)"),
    ("fixed", VHDX_ITEMS + 4, b"\1", "stores 3 of 5"),
    ("odd size", VHDX_ITEMS + 8, b"\1", "multiple of 512"),
    ("size 0", VHDX_ITEMS + 8, bytes(8), "multiple of 512"),
    ("size 65 TiB", VHDX_ITEMS + 8, struct.pack("<Q", 65 << 40), "up to 64 TiB"),
    ("larger disk", VHDX_ITEMS + 8, struct.pack("<Q", 1 << 40), "too few for"),
    ("disk id", VHDX_ITEMS + 16, bytes(16), "disk id is null"),
    ("logical sector", VHDX_ITEMS + 32, struct.pack("<I", 4096), "logical sectors"),
    ("physical sector", VHDX_ITEMS + 36, struct.pack("<I", 1024), "physical sectors"),
    ("absent", VHDX_TABLE, b"\0", "neither zero nor there"),
    ("partly", VHDX_TABLE + 8, b"\7", "neither zero nor there"),
    ("zero with a place", VHDX_TABLE, struct.pack("<Q", 7 << 20 | 2), "has a place"),
    ("reserved bits", VHDX_TABLE + 8, b"\x0e", "reserved bits"),
    ("block in front", VHDX_TABLE + 8, struct.pack("<Q", 6), "lies on metadata"),
    ("block on the table", VHDX_TABLE + 8, struct.pack("<Q", 3 << 20 | 6), "lies on metadata"),
    ("block twice", VHDX_TABLE + 16, struct.pack("<Q", 4 << 20 | 6), "or overlap"),
    ("block outside", VHDX_TABLE + 32, struct.pack("<Q", 7 << 20 | 6), "end of the file"),
    ("order", VHDX_TABLE + 8, struct.pack("<QQ", 5 << 20 | 6, 4 << 20 | 6), "guest order"),
    ("block lost", VHDX_TABLE + 32, struct.pack("<Q", 2), "its last part ends at"),
    ("table padding", VHDX_TABLE + 40, b"\1", "padding of the block table"),
    ("beyond the disk", -1, b"\1", "last block beyond the disk"),
]


class TestVhdx:
    @pytest.mark.parametrize("fixed", [False, True])
    def test_accepts(self, tmp_path: Path, fixed: bool) -> None:
        assert found(tmp_path / "a", vhdx(fixed), "vhdx") == []

    def test_image_reads_in_qemu(self, tmp_path: Path) -> None:
        disk = bytes(MIB) + noise(1, MIB) + noise(2, MIB) + bytes(MIB) + noise(9, 512)
        assert_reads_in_qemu(tmp_path, "vhdx", vhdx(), disk)

    @pytest.mark.parametrize("n", [4095, 4096, 8190, 8191])
    def test_blocks_around_entries_of_bitmaps(self, tmp_path: Path, n: int) -> None:
        image = vhdx(size=8 << 30, stored=(n,))
        assert found(tmp_path / "a", image, "vhdx") == []
        image = patched(image, VHDX_TABLE + 8 * 4096, b"\6")
        assert_found(found(tmp_path / "a", image, "vhdx"), "bitmap without a parent")

    @pytest.mark.parametrize(
        ("offset", "new", "wanted"),
        [case[1:] for case in VHDX_CASES],
        ids=[case[0] for case in VHDX_CASES],
    )
    def test_finds(self, tmp_path: Path, offset: int, new: bytes, wanted: str) -> None:
        image = vhdx_sealed(patched(vhdx(), offset, new))
        assert_found(found(tmp_path / "a", image, "vhdx"), wanted)

    @pytest.mark.parametrize("at", [64, 128, 192, 256])
    def test_finds_wrong_checksums(self, tmp_path: Path, at: int) -> None:
        image = patched(vhdx(), at * KIB + 4, b"sums")
        assert_found(found(tmp_path / "a", image, "vhdx"), "checksum")

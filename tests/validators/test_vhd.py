"""The validator of VHD accepts right images and finds what is wrong with others."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from . import problems, vhd
from .images.parts import MIB, NONE32, SECTOR, noise, patched
from .images.qemu import qemu
from .images.vhd import (
    VHD_BLOCK_0,
    VHD_BLOCK_2,
    VHD_FOOTER,
    VHD_SIZE,
    vhd_dynamic,
    vhd_fixed,
    vhd_seal,
)
from .proof import assert_found, found

BAT = 1536
VHD_DYNAMIC_SEALED = [
    # name, offset, new bytes, problem; checksums and front copy are made right again
    ("features", -512 + 8, b"\0\0\0\3", "footer features"),
    ("version", -512 + 12, b"\0\2\0\0", "footer version"),
    ("data offset in the front copy", -512 + 16, bytes(8), "data offset 0"),
    ("data offset unaligned", -512 + 16, struct.pack(">Q", 520), "data offset 520"),
    ("data offset in the end", -512 + 16, b"\0\0\1\0\0\0\0\0", "no sector between"),
    ("creator that qemu sizes by geometry", -512 + 28, b"vbox", "creator at"),
    ("creator vpc", -512 + 28, b"vpc ", "creator at"),
    ("creator OS", -512 + 36, bytes(4), "creator OS"),
    ("original size", -512 + 40, struct.pack(">Q", VHD_SIZE - 512), "original size"),
    ("current size odd", -512 + 48, struct.pack(">Q", VHD_SIZE - 1), "multiple of 512"),
    ("current size above the BAT", -512 + 48, struct.pack(">Q", 7 * MIB), "max table entries"),
    ("current size above the limit", -512 + 48, struct.pack(">Q", 1 << 41), "2040 GiB"),
    ("geometry", -512 + 56, bytes([0, 151]), "geometry at"),
    ("type differencing", -512 + 60, b"\0\0\0\4", "disk type"),
    ("null UUID", -512 + 68, bytes(16), "unique id"),
    ("saved state", -512 + 84, b"\1", "saved state"),
    ("reserved", -1, b"\1", "reserved bytes from"),
    ("header cookie", 512, b"CXSPARSE", "dynamic header cookie"),
    ("header data offset", 520, bytes(4), "dynamic header data offset"),
    ("BAT offset", 528, struct.pack(">Q", 1024), "BAT offset 1024"),
    ("BAT offset unaligned", 528, struct.pack(">Q", 1540), "BAT offset 1540"),
    ("BAT offset in the end", 528, struct.pack(">Q", 1 << 32), "after the footer"),
    ("header version", 536, b"\0\0\0\1", "dynamic header version"),
    ("too few entries", 540, struct.pack(">I", 2), "max table entries"),
    ("too many entries", 540, struct.pack(">I", 4), "max table entries"),
    ("block size", 544, struct.pack(">I", 4 * MIB), "block size"),
    ("parent UUID", 552, b"\1", "parent UUID"),
    ("parent timestamp", 568, b"\1", "parent timestamp"),
    ("header reserved", 572, b"\1", "reserved field"),
    ("parent name", 576, b"\0a", "parent name"),
    ("locator", 512 + 576, b"W2ru", "parent locators"),
    ("header reserved tail", 1535, b"\1", "reserved bytes"),
    ("BAT entry 0", BAT, bytes(4), "start before the end of the BAT"),
    ("BAT entry in the BAT", BAT, struct.pack(">I", 3), "start before the end of the BAT"),
    ("BAT entry beyond", BAT, struct.pack(">I", VHD_FOOTER // 512), "after the start of the"),
    ("BAT entry far", BAT + 8, b"\xff\xff\xff\xfe", "after the start of the footer"),
    ("BAT entry twice", BAT + 4, struct.pack(">I", VHD_BLOCK_2 // 512), "overlap"),
    ("block not in order", BAT + 4, struct.pack(">I", VHD_BLOCK_0 // 512), "ascending"),
    ("block unaligned", BAT, struct.pack(">I", VHD_BLOCK_0 // 512 + 1), "4 KiB aligned"),
    ("block dropped", BAT + 8, NONE32, "right after the last block"),
    ("BAT padding", BAT + 12, bytes(4), "padding of the BAT"),
    ("gap before the blocks", 2048, b"\1", "gap before a block is not zero"),
    ("gap between blocks", VHD_BLOCK_2 - 1, b"\1", "gap before a block is not zero"),
    ("bitmap", VHD_BLOCK_0 + 100, b"\xfe", "bitmap is not all ones"),
    ("bitmap beyond the disk", VHD_BLOCK_2 + 511, b"\0", "bitmap is not all ones"),
    ("data beyond the disk", VHD_FOOTER - 1, b"\1", "last block beyond the disk"),
    ("data just beyond", VHD_BLOCK_2 + 512 + MIB + 3 * SECTOR, b"\1", "beyond the disk"),
]
VHD_DYNAMIC_RAW = [
    ("footer cookie", -512, b"Conectix", "footer cookie"),
    ("footer checksum", -512 + 64, b"\0\0\0\0", "footer checksum"),
    ("timestamp without a new checksum", -512 + 24, bytes(4), "footer checksum"),
    ("front copy", 24, bytes(4), "copy of the footer at 0 differs from it in byte 24"),
    ("front cookie", 0, b"\0", "copy of the footer at 0 differs from it in byte 0"),
    ("header checksum", 512 + 36, b"\0\0\0\0", "dynamic header checksum"),
]


class TestVhd:
    def test_accepts_dynamic(self, tmp_path: Path) -> None:
        assert found(tmp_path / "a", vhd_dynamic(), "vhd") == []

    def test_accepts_fixed(self, tmp_path: Path) -> None:
        assert found(tmp_path / "a", vhd_fixed(), "vhd") == []

    def test_accepts_qemu_fixed(self, tmp_path: Path) -> None:
        raw, image = tmp_path / "raw", tmp_path / "vhd"
        raw.write_bytes(noise(4, 3 * MIB))
        options = "subformat=fixed,force_size=on"
        qemu("convert", "-f", "raw", "-O", "vpc", "-o", options, raw, image)
        assert problems(image, "vhd") == []

    def test_qemu_dynamic_lacks_only_the_alignment(self, tmp_path: Path) -> None:
        raw, image = tmp_path / "raw", tmp_path / "vhd"
        raw.write_bytes(noise(4, 5 * MIB) + bytes(3 * MIB))
        qemu("convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, image)
        texts = problems(image, "vhd")
        assert len(texts) == 1, texts
        assert_found(texts, "4 KiB aligned")

    @pytest.mark.parametrize(
        ("size", "chs"),
        [
            (9590784, (275, 4, 17)),
            (1079296, (31, 4, 17)),
            (3221471232, (6242, 16, 63)),
            (65535 * 16 * 255 * 512, (65535, 16, 255)),
            (2040 << 30, (65535, 16, 255)),
        ],
    )
    def test_geometry(self, size: int, chs: tuple[int, int, int]) -> None:
        assert vhd.geometry(size // 512) == chs

    @pytest.mark.parametrize(
        ("offset", "new", "wanted"),
        [case[1:] for case in VHD_DYNAMIC_SEALED],
        ids=[case[0] for case in VHD_DYNAMIC_SEALED],
    )
    def test_finds_in_dynamic(
        self, tmp_path: Path, offset: int, new: bytes, wanted: str
    ) -> None:
        image = vhd_seal(patched(vhd_dynamic(), offset, new))
        assert_found(found(tmp_path / "a", image, "vhd"), wanted)

    @pytest.mark.parametrize(
        ("offset", "new", "wanted"),
        [case[1:] for case in VHD_DYNAMIC_RAW],
        ids=[case[0] for case in VHD_DYNAMIC_RAW],
    )
    def test_finds_unsealed(self, tmp_path: Path, offset: int, new: bytes, wanted: str) -> None:
        image = patched(vhd_dynamic(), offset, new)
        assert_found(found(tmp_path / "a", image, "vhd"), wanted)

    @pytest.mark.parametrize(
        ("offset", "new", "wanted"),
        [
            (-512 + 16, struct.pack(">Q", 512), "data offset of a fixed disk"),
            (-512 + 40, struct.pack(">QQ", 2 * MIB, 2 * MIB), "not current size + 512"),
            (-512 + 40, struct.pack(">QQ", 1 << 50, 1 << 50), "is above"),
            (-512 + 60, b"\0\0\0\0", "disk type"),
            (0, b"conectix", "begins with the cookie"),
        ],
    )
    def test_finds_in_fixed(self, tmp_path: Path, offset: int, new: bytes, wanted: str) -> None:
        image = vhd_seal(patched(vhd_fixed(), offset, new))
        assert_found(found(tmp_path / "a", image, "vhd"), wanted)

    def test_gap_before_footer(self, tmp_path: Path) -> None:
        image = vhd_dynamic()
        image = image[:-512] + bytes(512) + image[-512:]
        assert_found(found(tmp_path / "a", image, "vhd"), "right after the last block")

    def test_azure(self, tmp_path: Path) -> None:
        image = tmp_path / "a"
        image.write_bytes(vhd_fixed(20 * MIB, bytes([0x02, 0x5A, 4, 17])))
        assert vhd.azure_problems(image) == []

    @pytest.mark.parametrize(
        ("data", "wanted"),
        [
            (vhd_fixed(), "Azure takes 20972032"),
            (vhd_fixed(20 * MIB + 512, bytes([0x02, 0x5A, 4, 17])), "whole number of MiB"),
            (vhd_dynamic(), "Azure takes fixed only"),
        ],
    )
    def test_finds_for_azure(self, tmp_path: Path, data: bytes, wanted: str) -> None:
        image = tmp_path / "a"
        image.write_bytes(data)
        assert_found(vhd.azure_problems(image), wanted)

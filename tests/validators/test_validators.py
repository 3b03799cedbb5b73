"""Proof that the validators accept right images and can fail on each rule.

The images come from qemu-img or are built here byte by byte, not by the code that the
validators are meant to judge: one test alone has what that code makes judged.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import crc32c
import pytest
import zstandard

from . import problems, vhd

SECTOR = 512
KIB = 1 << 10
MIB = 1 << 20
NONE32 = b"\xff" * 4


def found(path: Path, data: bytes, format_name: str) -> list[str]:
    path.write_bytes(data)
    return problems(path, format_name)


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Return the data with other bytes at an offset; negative counts from the end."""
    start = offset if offset >= 0 else len(data) + offset
    assert data[start : start + len(new)] != new, "the patch changes nothing"
    return data[:start] + new + data[start + len(new) :]


def assert_found(texts: list[str], wanted: str) -> None:
    assert any(wanted in text for text in texts), texts


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


# VHD ---------------------------------------------------------------------------------


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


# QCOW2 -------------------------------------------------------------------------------


def qemu(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> int:
    command = ["qemu-img", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in codes, done.stderr
    return done.returncode


def qemu_qcow2(folder: Path, options: str, data: bytes) -> Path:
    raw, image = folder / "raw", folder / "qcow2"
    raw.write_bytes(data)
    qemu("convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, image)
    return image


def scattered(size: int, unit: int = 64 * KIB) -> bytes:
    """Data in some units of a disk, also at its end, zeros in the others."""
    chooser = random.Random(size)
    data = bytearray(size)
    for start in range(0, size, unit):
        if chooser.random() < 0.4 or start + unit >= size:
            end = min(start + unit, size)
            data[start:end] = noise(start, end - start)
    return bytes(data)


@dataclass
class Qcow2:
    """Where the parts of an image are; a patch names a part and an offset in it."""

    data: bytes
    parts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (l1,) = struct.unpack_from(">Q", self.data, 40)
        (table,) = struct.unpack_from(">Q", self.data, 48)
        (l2,) = struct.unpack_from(">Q", self.data, l1)
        (block,) = struct.unpack_from(">Q", self.data, table)
        self.parts = {"header": 0, "L1": l1, "L2": l2 & ((1 << 56) - 1)}
        self.parts |= {"table": table, "block": block, "end": len(self.data)}

    def at(self, part: str, offset: int) -> int:
        return self.parts[part] + offset


QCOW2_SIZE = 20 * 64 * KIB + 512
COPIED = 1 << 63


def word(value: int) -> bytes:
    return struct.pack(">Q", value)


QCOW2_CASES = [
    # name, part, offset, new bytes, problem
    ("magic", "header", 0, b"QED\0", "magic"),
    ("version 1", "header", 4, b"\0\0\0\1", "version at 4"),
    ("backing file", "header", 8, word(1024), "backing_file_offset"),
    ("backing name length", "header", 16, b"\0\0\0\7", "backing_file_size"),
    ("cluster bits", "header", 20, b"\0\0\0\x16", "cluster_bits"),
    ("odd size", "header", 24, word(QCOW2_SIZE - 1), "size at 24"),
    ("larger size", "header", 24, word(1 << 30), "l1_size"),
    ("smaller size", "header", 24, word(1 << 20), "past the end of the disk"),
    ("shorter last cluster", "header", 24, word(QCOW2_SIZE - 64 * KIB), "past the end of the"),
    ("crypt", "header", 32, b"\0\0\0\1", "crypt_method"),
    ("no L1", "header", 36, b"\0\0\0\0", "l1_size"),
    ("longer L1", "header", 36, b"\0\0\0\2", "l1_size"),
    ("L1 unaligned", "header", 40, word(0x30200), "l1_table_offset"),
    ("L1 in the header", "header", 40, word(0), "l1_table_offset"),
    ("L1 beyond the end", "header", 40, word(1 << 40), "ends after the end"),
    ("refcount table unaligned", "header", 48, word(0x10008), "refcount_table_offset"),
    ("refcount table empty", "header", 56, b"\0\0\0\0", "refcount_table_clusters"),
    ("refcount table huge", "header", 56, b"\0\0\1\0", "refcount_table_clusters"),
    ("snapshots", "header", 60, b"\0\0\0\1", "nb_snapshots"),
    ("snapshot table", "header", 64, word(65536), "snapshots_offset"),
    ("dirty", "header", 79, b"\1", "incompatible_features"),
    ("unknown incompatible", "header", 72, b"\x80", "incompatible_features"),
    ("lazy refcounts", "header", 87, b"\1", "compatible_features"),
    ("autoclear", "header", 95, b"\1", "autoclear_features"),
    ("refcount order", "header", 99, b"\7", "refcount_order"),
    ("other refcount order", "header", 99, b"\3", "a refcount is too"),
    ("header length", "header", 103, b"\x6c", "header_length"),
    ("compression type", "header", 104, b"\1", "compression_type"),
    ("header padding", "header", 111, b"\1", "padding of the header"),
    ("unknown extension", "header", 112, b"\x23\x85\x28\x75", "has the type"),
    ("long extension", "header", 116, b"\0\1\0\0", "runs out of cluster 0"),
    ("feature names cut", "header", 116, b"\0\0\0\x58", "not n * 48"),
    ("feature kind", "header", 120, b"\3", "feature name at"),
    ("after the extensions", "header", 520, b"\1", "cluster 0 after the header"),
    ("end of cluster 0", "header", 65535, b"\1", "cluster 0 after the header"),
    ("L1 reserved bits", "L1", 7, b"\1", "L1 table has reserved bits"),
    ("L1 high reserved bits", "L1", 0, b"\xc0", "L1 table has reserved bits"),
    ("L1 entry not COPIED", "L1", 0, b"\0", "L1 table lacks COPIED"),
    ("L1 entry unaligned", "L1", 6, b"\2", "L1 table has an offset that is not cluster"),
    ("L1 entry beyond the end", "L1", 1, b"\1", "L1 table has an offset beyond"),
    ("L1 entry without offset", "L1", 0, word(COPIED), "bits without an offset"),
    ("L1 padding", "L1", 8, b"\1", "padding of the L1 table"),
    ("L1 entry to the header", "L1", 0, word(COPIED | 65536), "more than once"),
    ("L2 compressed", "L2", 0, b"\x40", "does not decode"),
    ("L2 reserved", "L2", 7, b"\2", "L2 table has reserved bits"),
    ("L2 high reserved", "L2", 0, b"\x84", "L2 table has reserved bits"),
    ("L2 not COPIED", "L2", 0, b"\0", "L2 table lacks COPIED"),
    ("L2 unaligned", "L2", 6, b"\2", "L2 table has an offset that is not cluster"),
    ("L2 beyond the end", "L2", 1, b"\1", "L2 table has an offset beyond"),
    ("L2 to the L2", "L2", 0, word(COPIED | 0x40000), "more than once"),
    ("L2 past the disk", "L2", 21 * 8, word(COPIED | 0x50000), "past the end of the disk"),
    ("L2 without offset", "L2", 0, word(COPIED), "bits but no offset"),
    ("L2 entry lost", "L2", 0, word(0), "a refcount is too high (leak)"),
    ("zero flag keeps the rest right", "L2", 8, word(2), "L2 table has reserved bits"),
    ("refcount table reserved", "table", 7, b"\1", "refcount table has reserved bits"),
    ("refcount table unaligned", "table", 6, b"\2", "refcount table has an offset that is"),
    ("refcount table above 2^56", "table", 0, b"\1", "offsets above 2^56"),
    ("refcount block lost", "table", 0, word(0), "a refcount is too low (corruption)"),
    ("refcount block past the end", "table", 8, word(0x50000), "past the end of the file"),
    ("refcount 0 of the header", "block", 1, b"\0", "cluster 0 at 0 has 0, not 1"),
    ("refcount 2", "block", 11, b"\2", "a refcount is too high (leak): cluster 5"),
    ("refcount past the end", "block", 65534, b"\0\1", "for a cluster past the end"),
    ("data beyond the disk", "end", -1, b"\1", "last cluster beyond the disk"),
]


class TestQcow2:
    @pytest.mark.parametrize("compat", ["0.10", "1.1"])
    @pytest.mark.parametrize("cluster_size", [512, 4096, 65536, 2 * MIB])
    def test_accepts_cluster_sizes(
        self, tmp_path: Path, cluster_size: int, compat: str
    ) -> None:
        options = f"cluster_size={cluster_size},compat={compat}"
        image = qemu_qcow2(tmp_path, options, scattered(3 * MIB + 7 * SECTOR))
        complete_last_cluster(image, cluster_size)
        assert problems(image, "qcow2") == []

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
    @pytest.mark.parametrize("cluster_size", [512, 65536])
    def test_accepts_refcount_widths(
        self, tmp_path: Path, cluster_size: int, bits: int
    ) -> None:
        options = f"cluster_size={cluster_size},refcount_bits={bits}"
        image = qemu_qcow2(tmp_path, options, scattered(2 * MIB))
        complete_last_cluster(image, cluster_size)
        assert problems(image, "qcow2") == []

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
    def test_finds_a_wrong_refcount_of_any_width(self, tmp_path: Path, bits: int) -> None:
        """Cluster 5 has a refcount of 1: make it 0 and see that this one is named."""
        image = qemu_qcow2(tmp_path, f"refcount_bits={bits}", noise(5, 20 * 64 * KIB))
        data = bytearray(image.read_bytes())
        start = Qcow2(bytes(data)).parts["block"]
        if bits >= 8:
            data[start + 6 * bits // 8 - 1] -= 1
        else:
            data[start + 5 * bits // 8] -= 1 << 5 * bits % 8
        texts = found(image, bytes(data), "qcow2")
        assert_found(texts, "cluster 5 at 327680 has 0, not 1")
        assert len(texts) == 1, texts

    @pytest.mark.parametrize("size", [0, 512, MIB, 1 << 40])
    def test_empty_image_of_qemu_lacks_only_the_end_of_its_last_cluster(
        self, tmp_path: Path, size: int
    ) -> None:
        image = tmp_path / "a"
        qemu("create", "-f", "qcow2", image, str(size))
        complete_last_cluster(image, 65536)
        assert problems(image, "qcow2") == []

    def test_file_that_ends_in_a_cluster(self, tmp_path: Path) -> None:
        image = tmp_path / "a"
        qemu("create", "-f", "qcow2", image, "1T")
        assert image.stat().st_size % 65536
        assert_found(problems(image, "qcow2"), "not a multiple of the cluster size")

    def test_accepts_preallocated_metadata(self, tmp_path: Path) -> None:
        image = tmp_path / "a"
        qemu("create", "-f", "qcow2", "-o", "preallocation=metadata", image, "40M")
        complete_last_cluster(image, 65536)
        assert problems(image, "qcow2") == []

    def test_finds_what_qemu_leaves_in_unused_clusters(self, tmp_path: Path) -> None:
        """A refcount table that grew moves, and its old clusters keep what they held."""
        image = tmp_path / "a"
        options = "preallocation=metadata,cluster_size=512"
        qemu("create", "-f", "qcow2", "-o", options, image, "40M")
        complete_last_cluster(image, 512)
        texts = problems(image, "qcow2")
        assert len(texts) == 1, texts
        assert_found(texts, "an unused cluster holds data")

    @pytest.mark.parametrize(
        ("part", "offset", "new", "wanted"),
        [case[1:] for case in QCOW2_CASES],
        ids=[case[0] for case in QCOW2_CASES],
    )
    def test_finds(
        self, tmp_path: Path, part: str, offset: int, new: bytes, wanted: str
    ) -> None:
        image = qemu_qcow2(tmp_path, "compat=1.1", noise(6, QCOW2_SIZE))
        data = image.read_bytes().ljust(-(-image.stat().st_size // 65536) * 65536, b"\0")
        assert found(image, data, "qcow2") == []
        data = patched(data, Qcow2(data).at(part, offset), new)
        assert_found(found(image, data, "qcow2"), wanted)

    def test_zero_flag(self, tmp_path: Path) -> None:
        """Legal in version 3 with or without a cluster, corruption in version 2."""
        for compat, wanted in (("1.1", 0), ("0.10", 1)):
            image = qemu_qcow2(tmp_path, f"compat={compat}", noise(6, MIB))
            data = image.read_bytes()
            last = Qcow2(data).at("L2", 7)
            data = patched(data, last, bytes([data[last] | 1]))
            texts = found(image, data, "qcow2")
            assert len(texts) == wanted, texts
        assert_found(texts, "has the zero flag in version 2")

    def test_shared_cluster(self, tmp_path: Path) -> None:
        image = qemu_qcow2(tmp_path, "compat=1.1", noise(6, MIB))
        data = image.read_bytes()
        at = Qcow2(data).at("L2", 0)
        data = patched(data, at, data[at + 8 : at + 16])
        texts = found(image, data, "qcow2")
        assert_found(texts, "is referenced more than once")
        assert_found(texts, "has COPIED where the refcount is not 1")

    def test_refuses_what_the_writer_has_no_business_with(self, tmp_path: Path) -> None:
        raw, image = tmp_path / "raw", tmp_path / "a"
        raw.write_bytes(noise(6, MIB))
        qemu("convert", "-f", "raw", "-O", "qcow2", raw, image)
        qemu("snapshot", "-c", "one", image)
        assert_found(problems(image, "qcow2"), "nb_snapshots")
        qemu("create", "-f", "qcow2", "-F", "raw", "-b", raw, image)
        assert_found(problems(image, "qcow2"), "backing_file_offset")
        qemu("create", "-f", "qcow2", "-o", "extended_l2=on", image, "1M")
        assert_found(problems(image, "qcow2"), "incompatible_features")

    @pytest.mark.parametrize("options", ["compat=1.1", "compat=0.10,cluster_size=4096"])
    def test_finds_whatever_qemu_img_check_finds(self, tmp_path: Path, options: str) -> None:
        chooser = random.Random(7)
        image = qemu_qcow2(tmp_path, options, scattered(40 * 64 * KIB))
        good = image.read_bytes()
        parts = Qcow2(good).parts
        broken = 0
        for _ in range(60):
            part = chooser.choice(["header", "L1", "L2", "table", "block"])
            at = parts[part] + chooser.randrange(8 if part in ("L1", "table") else 104)
            data = patched(good, at, bytes([good[at] ^ 1 << chooser.randrange(8)]))
            texts = found(image, data, "qcow2")
            if qemu("check", "-f", "qcow2", image, codes=(0, 1, 2, 3)):
                broken += 1
                assert texts, f"qemu-img check finds something in byte {at}"
        assert broken > 20


def complete_last_cluster(image: Path, cluster_size: int) -> None:
    """qemu leaves the end of the last cluster out of the file; the strict rule does not."""
    length = image.stat().st_size
    with image.open("r+b") as file:
        file.truncate(-(-length // cluster_size) * cluster_size)


# QCOW2, compressed -------------------------------------------------------------------

PACKED_LAST = 8  # guest clusters 0, 1, 2 and the last hold texts, 3 noise, the others zeros
PACKED_TAIL = 5 * SECTOR


def prose(seed: int, size: int) -> bytes:
    """Bytes that compress to between a half and a third."""
    return bytes(byte & 15 | 64 for byte in noise(seed, size))


def deflate(data: bytes, window_bits: int = -12) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, window_bits)
    return packer.compress(data) + packer.flush()


def zstd(data: bytes, content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=content_size).compress(data)


@dataclass
class Packing:
    """Streams laid back to back from an offset on, as an L2 table describes them."""

    bits: int
    start: int
    data: bytes = b""
    entries: dict[int, int] = field(default_factory=dict)
    references: dict[int, int] = field(default_factory=dict)

    def add(self, guest: int, stream: bytes) -> None:
        offset = self.start + len(self.data)
        sectors = (offset % SECTOR + len(stream) - 1) // SECTOR
        self.entries[guest] = 1 << 62 | sectors << 70 - self.bits | offset
        last = (offset // SECTOR + sectors) * SECTOR >> self.bits
        for cluster in range(offset >> self.bits, last + 1):
            self.references[cluster] = self.references.get(cluster, 0) + 1
        self.data += stream


def packed_qcow2(
    version: int = 3,
    kind: str = "deflate",
    bits: int = 16,
    streams: dict[int, bytes] | None = None,
    room: bytes = b"",
    tail: tuple[int, int] = (PACKED_LAST, PACKED_TAIL),
) -> bytes:
    """Header, refcount table, block, L1, L2, the streams, and one plain cluster.

    The tail is the last cluster of the disk and how much of it there is.
    """
    size = 1 << bits
    pack = {"deflate": deflate, "zstd": zstd}[kind]
    texts = {guest: prose(guest, size) for guest in (0, 1, 2)}
    last, used = tail[0], min(tail[1], size)
    texts[last] = padded(prose(last, used), size)
    packing = Packing(bits, 5 * size)
    for guest, text in texts.items():
        packing.add(guest, (streams or {}).get(guest) or pack(text))
        packing.data += room if guest == 0 else b""
    data = packing.data.ljust(-(-len(packing.data) // size) * size, b"\0")
    plain = 5 + len(data) // size
    return (
        packed_header(version, kind, bits, last * size + used).ljust(size, b"\0")
        + word(2 * size).ljust(size, b"\0")
        + refcounts(packing, plain).ljust(size, b"\0")
        + word(COPIED | 4 * size).ljust(size, b"\0")
        + b"".join(
            word(packing.entries.get(guest, COPIED | plain * size if guest == 3 else 0))
            for guest in range(size // 8)
        )
        + data
        + noise(3, size)
    )


def packed_header(version: int, kind: str, bits: int, disk_size: int) -> bytes:
    raw = struct.pack(">4sIQIIQII", b"QFI\xfb", version, 0, 0, bits, disk_size, 0, 1)
    raw += struct.pack(">QQIIQ", 3 << bits, 1 << bits, 1, 0, 0)
    if version == 3:
        raw += struct.pack(">QQQII", 8 * (kind == "zstd"), 0, 0, 4, 112)
        raw += bytes([kind == "zstd"]).ljust(8, b"\0")
    return raw


def refcounts(packing: Packing, plain: int) -> bytes:
    counts = [packing.references.get(cluster, int(cluster < 5)) for cluster in range(plain)]
    return struct.pack(f">{plain + 1}H", *counts, 1)


PACKED_FORMS = [(2, "deflate"), (3, "deflate"), (3, "zstd")]
TEXT = prose(1, 64 * KIB)
FAR = noise(7, 9000) * 7 + bytes(64 * KIB - 63000)
STREAM_CASES = [
    # name, kind, the stream of guest cluster 1, problem
    ("zeros", "deflate", deflate(bytes(64 * KIB)), "holds only zeros"),
    ("zeros", "zstd", zstd(bytes(64 * KIB)), "holds only zeros"),
    ("short data", "deflate", deflate(TEXT[:-1]), "to a whole cluster"),
    ("short data", "zstd", zstd(TEXT[:-1]), "lacks the content size"),
    ("long data", "deflate", deflate(TEXT + b"\0"), "more than 65536 bytes"),
    ("long data", "zstd", zstd(TEXT + b"\0"), "lacks the content size"),
    ("wrapped", "deflate", deflate(TEXT, 12), "does not decode"),
    ("other codec", "deflate", zstd(TEXT), "does not decode"),
    ("other codec", "zstd", deflate(TEXT), "not with a zstd frame"),
    ("wide window", "deflate", deflate(FAR, -15), "too far back"),
    ("window of 8 KiB", "deflate", deflate(noise(7, 6000) * 10 + bytes(5536), -13), "too far"),
    ("no smaller", "deflate", deflate(noise(7, 64 * KIB)), "not smaller than a plain one"),
    ("no smaller", "zstd", zstd(noise(7, 64 * KIB)), "not smaller than a plain one"),
    ("cut", "deflate", deflate(TEXT)[:-100], "does not decode"),
    ("no last block", "deflate", deflate(TEXT)[:-1] + bytes(1), "does not decode"),
    ("cut", "zstd", zstd(TEXT)[:-100], "does not decode"),
    ("more after it", "deflate", deflate(TEXT) + b"x" * 600, "sector count"),
    ("bytes after it", "deflate", deflate(TEXT) + b"x", "room between"),
    ("second frame", "zstd", zstd(TEXT) + zstd(b"x" * 10), "room between"),
    ("no content size", "zstd", zstd(TEXT, content_size=False), "lacks the content size"),
    ("skippable", "zstd", b"\x50\x2a\x4d\x18" + bytes(4) + zstd(TEXT), "not with a zstd"),
]


def entry(data: bytes, guest: int) -> int:
    (value,) = struct.unpack_from(">Q", data, Qcow2(data).at("L2", 8 * guest))
    return value


def with_entry(data: bytes, guest: int, value: int) -> bytes:
    return patched(data, Qcow2(data).at("L2", 8 * guest), word(value))


ENTRY_CASES: list[tuple[str, Callable[[int], int], str]] = [
    ("one sector more", lambda value: value + (1 << 54), "the sector count of a compressed"),
    ("one sector less", lambda value: value - (1 << 54), "the sector count of a compressed"),
    ("COPIED", lambda value: value | COPIED, "COPIED is set on a compressed cluster"),
    ("offset one more", lambda value: value + 1, "does not decode"),
    ("beyond the end", lambda value: value | 1 << 50, "beyond the end of the file"),
    ("lost", lambda value: 0, "a refcount is too high (leak)"),
    ("plain", lambda value: value & ~(1 << 62), "not cluster aligned"),
]


class TestQcow2Compressed:
    @pytest.mark.parametrize(("version", "kind"), PACKED_FORMS)
    @pytest.mark.parametrize("bits", [9, 12, 16, 21])
    def test_accepts(self, tmp_path: Path, version: int, kind: str, bits: int) -> None:
        image = packed_qcow2(version, kind, bits)
        assert found(tmp_path / "a", image, "qcow2") == []
        qemu("check", "-f", "qcow2", tmp_path / "a")

    @pytest.mark.parametrize("kind", ["deflate", "zstd"])
    def test_image_reads_in_qemu(self, tmp_path: Path, kind: str) -> None:
        size = 64 * KIB
        disk = b"".join(prose(guest, size) for guest in (0, 1, 2)) + noise(3, size)
        disk += bytes(4 * size) + prose(8, PACKED_TAIL)
        assert_reads_in_qemu(tmp_path, "qcow2", packed_qcow2(kind=kind), disk)

    @pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "compression_type=zstd"])
    @pytest.mark.parametrize("cluster_size", [4096, 65536])
    def test_accepts_qemu(self, tmp_path: Path, options: str, cluster_size: int) -> None:
        raw, image = tmp_path / "raw", tmp_path / "a"
        raw.write_bytes(prose(1, MIB) + noise(2, MIB) + bytes(MIB) + prose(3, 7 * SECTOR))
        options += f",cluster_size={cluster_size}"
        qemu("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, image)
        complete_last_cluster(image, cluster_size)
        assert problems(image, "qcow2") == []

    @pytest.mark.parametrize(
        "options",
        [
            "compress=fast",
            "compression_type=zstd",
            "compat=0.10,compress=fast",
            "compress=fast,cluster_size=4k",
        ],
    )
    def test_accepts_imgconv(self, tmp_path: Path, options: str) -> None:
        raw, image = tmp_path / "raw", tmp_path / "a.qcow2"
        raw.write_bytes(prose(1, 3 * MIB) + noise(2, MIB) + bytes(MIB) + prose(3, 7 * SECTOR))
        command = [sys.executable, "-m", "imgconv", "-q", raw, image, "-o", options]
        subprocess.run(command, check=True, cwd=tmp_path)
        assert image.stat().st_size < raw.stat().st_size
        assert problems(image, "qcow2") == []

    @pytest.mark.parametrize(
        ("kind", "stream", "wanted"),
        [case[1:] for case in STREAM_CASES],
        ids=[f"{case[0]} {case[1]}" for case in STREAM_CASES],
    )
    def test_finds_in_a_stream(
        self, tmp_path: Path, kind: str, stream: bytes, wanted: str
    ) -> None:
        image = packed_qcow2(kind=kind, streams={1: stream})
        assert_found(found(tmp_path / "a", image, "qcow2"), wanted)

    @pytest.mark.parametrize("kind", ["deflate", "zstd"])
    @pytest.mark.parametrize(
        ("change", "wanted"),
        [case[1:] for case in ENTRY_CASES],
        ids=[case[0] for case in ENTRY_CASES],
    )
    def test_finds_in_an_entry(
        self, tmp_path: Path, kind: str, change: Callable[[int], int], wanted: str
    ) -> None:
        data = packed_qcow2(kind=kind)
        data = with_entry(data, 1, change(entry(data, 1)))
        assert_found(found(tmp_path / "a", data, "qcow2"), wanted)

    @pytest.mark.parametrize("kind", ["deflate", "zstd"])
    def test_finds_one_sector_more_alone(self, tmp_path: Path, kind: str) -> None:
        """It reads well in qemu, and here stays in the same host cluster."""
        data = packed_qcow2(kind=kind)
        data = with_entry(data, 0, entry(data, 0) + (1 << 54))
        texts = found(tmp_path / "a", data, "qcow2")
        qemu("check", "-f", "qcow2", tmp_path / "a")
        assert len(texts) == 1, texts
        assert_found(
            texts, "the sector count of a compressed cluster is wrong: guest cluster 0"
        )

    @pytest.mark.parametrize("kind", ["deflate", "zstd"])
    @pytest.mark.parametrize("at", [0, 1, 3, 5, 8])
    def test_finds_a_damaged_stream(self, tmp_path: Path, kind: str, at: int) -> None:
        """In its tables at least: another literal of the same length decodes as well."""
        data = packed_qcow2(kind=kind)
        start = (entry(data, 1) & ((1 << 54) - 1)) + at
        data = patched(data, start, bytes([data[start] ^ 0xFF]))
        assert_found(found(tmp_path / "a", data, "qcow2"), "a compressed cluster ")

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize(("step", "wanted"), [(1, "(leak)"), (-1, "(corruption)")])
    def test_finds_a_refcount_off_by_one(
        self, tmp_path: Path, version: int, step: int, wanted: str
    ) -> None:
        """Cluster 5 holds the stream of guest cluster 0 and the start of the next."""
        data = packed_qcow2(version)
        at = Qcow2(data).at("block", 11)
        texts = found(tmp_path / "a", patched(data, at, bytes([data[at] + step])), "qcow2")
        assert len(texts) == 1, texts
        assert_found(texts, f"{wanted}: cluster 5 at 327680 has")

    @pytest.mark.parametrize(
        ("kind", "patches", "wanted"),
        [
            ("deflate", {104: b"\1"}, "incompatible_features"),
            ("deflate", {104: b"\1", 79: b"\x08"}, "not with a zstd frame"),
            ("deflate", {79: b"\x08"}, "incompatible_features"),
            ("deflate", {104: b"\2", 79: b"\x08"}, "compression_type"),
            ("zstd", {104: b"\0"}, "incompatible_features"),
            ("zstd", {104: b"\0", 79: b"\0"}, "does not decode"),
            ("zstd", {79: b"\0"}, "incompatible_features"),
            ("zstd", {79: b"\x18"}, "incompatible_features"),
            ("zstd", {7: b"\2"}, "does not decode"),
        ],
    )
    def test_finds_a_wrong_type(
        self, tmp_path: Path, kind: str, patches: dict[int, bytes], wanted: str
    ) -> None:
        data = packed_qcow2(kind=kind)
        for offset, new in patches.items():
            data = patched(data, offset, new)
        assert_found(found(tmp_path / "a", data, "qcow2"), wanted)

    def test_no_zstd_without_compressed_clusters(self, tmp_path: Path) -> None:
        image = qemu_qcow2(tmp_path, "compression_type=zstd", noise(6, MIB))
        texts = problems(image, "qcow2")
        assert_found(texts, "compression_type")
        assert_found(texts, "incompatible_features")

    def test_finds_shared_streams_and_clusters(self, tmp_path: Path) -> None:
        data = packed_qcow2()
        twice = with_entry(data, 4, entry(data, 1))
        assert_found(found(tmp_path / "a", twice, "qcow2"), "compressed clusters overlap")
        over = with_entry(data, 3, COPIED | 5 * 64 * KIB)
        texts = found(tmp_path / "a", over, "qcow2")
        assert_found(texts, "overlaps metadata or plain data: cluster 5")
        over = with_entry(data, 1, entry(data, 1) & ~((1 << 54) - 1) | 4 * 64 * KIB)
        texts = found(tmp_path / "a", over, "qcow2")
        assert_found(texts, "overlaps metadata or plain data: cluster 4")

    def test_finds_a_plain_cluster_without_copied(self, tmp_path: Path) -> None:
        data = packed_qcow2()
        data = with_entry(data, 3, entry(data, 3) & ~COPIED)
        assert_found(found(tmp_path / "a", data, "qcow2"), "an L2 table lacks COPIED")

    def test_room_between_streams(self, tmp_path: Path) -> None:
        assert found(tmp_path / "a", packed_qcow2(room=bytes(700)), "qcow2") == []
        texts = found(tmp_path / "a", packed_qcow2(room=bytes(699) + b"x"), "qcow2")
        assert len(texts) == 1, texts
        assert_found(texts, "the room between compressed clusters is not zero: byte at")
        data = packed_qcow2()
        end = len(data) - 64 * KIB - 1  # of the host cluster of the last stream
        texts = found(tmp_path / "a", patched(data, end, b"x"), "qcow2")
        assert_found(texts, f"the room between compressed clusters is not zero: byte at {end}")

    @pytest.mark.parametrize("kind", ["deflate", "zstd"])
    def test_data_beyond_the_disk(self, tmp_path: Path, kind: str) -> None:
        data = patched(packed_qcow2(kind=kind), 24, word(8 * 64 * KIB + SECTOR))
        assert_found(found(tmp_path / "a", data, "qcow2"), "has data beyond the disk")


# VMDK --------------------------------------------------------------------------------

VMDK_CAPACITY = 3 * 65536 + 128 + 5  # three whole grain tables, one grain and 5 sectors
VMDK_TEXT = """# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=1234abcd
parentCID=ffffffff
createType="{kind}"

# Extent description
RW {capacity} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "0123456789abcdef012345671234abcd"
ddb.toolsInstallType = "4"
ddb.toolsVersion = "2147483647"
ddb.uuid.image = "01234567-89ab-cdef-0123-456789abcdef"
ddb.uuid.parent = "00000000-0000-0000-0000-000000000000"
"""


def vmdk_text(kind: str, capacity: int = VMDK_CAPACITY) -> str:
    return VMDK_TEXT.format(kind=kind, capacity=capacity, cylinders=-(-capacity // 16065))


def vmdk_header(version: int, flags: int, rgd: int, gd: int, overhead: int) -> bytes:
    raw = struct.pack("<4sII", b"KDMV", version, flags)
    raw += struct.pack("<QQQQ", VMDK_CAPACITY, 128, 1, 20)
    raw += struct.pack("<IQQQ", 512, rgd, gd, overhead)
    raw += b"\0\n \r\n" + struct.pack("<H", flags >> 16 & 1)
    return raw.ljust(512, b"\0")


def padded(raw: bytes, size: int) -> bytes:
    assert len(raw) <= size
    return raw.ljust(size, b"\0")


def words(values: list[int], size: int) -> bytes:
    return padded(struct.pack(f"<{len(values)}I", *values), size)


RGD, RGTS, GD, GTS = 21, 22, 38, 39
GRAINS = {0: 128, 1: 256, 511: 384, 512: 512, 1537: 640}


def vmdk_sparse(text: str | None = None) -> bytes:
    """Grains 0, 1 and 511 of table 0, the first of table 1, and the last one of the disk."""
    head = vmdk_header(1, 3, RGD, GD, 128)
    head += padded((text or vmdk_text("monolithicSparse")).encode(), 20 * SECTOR)
    tables = b"".join(
        words([GRAINS.get(512 * table + entry, 0) for entry in range(512)], 2048)
        for table in range(4)
    )
    for first in (RGTS, GTS):
        head += words([first + 4 * table for table in range(4)], 512) + tables
    data = b"".join(noise(grain, 128 * SECTOR) for grain in sorted(GRAINS)[:-1])
    data += padded(noise(9, 5 * SECTOR), 128 * SECTOR)
    return padded(head, 128 * SECTOR) + data


VMDK_SPARSE_CASES = [
    # name, offset, new bytes, problem
    ("magic", 0, b"COWD", "magic"),
    ("version 2", 4, b"\2", "version"),
    ("version 3", 4, b"\3", "version"),
    ("zeroed grains", 8, b"\7", "flags"),
    ("no redundant directory", 8, b"\1", "flags"),
    ("capacity 0", 12, bytes(8), "capacity at 12 is 0"),
    ("capacity of 2 TiB", 12, struct.pack("<Q", 1 << 32), "not below 2^32"),
    ("other capacity", 12, struct.pack("<Q", VMDK_CAPACITY - 1), "has not the capacity"),
    ("smaller capacity", 12, struct.pack("<Q", VMDK_CAPACITY - 5), "past the capacity"),
    ("grain size", 20, struct.pack("<Q", 256), "grain size"),
    ("descriptor offset", 28, b"\2", "descriptor offset"),
    ("descriptor size", 36, b"\x15", "descriptor size"),
    ("GTEs", 44, struct.pack("<I", 1024), "GTEs per GT"),
    ("RGD in the descriptor", 48, b"\x14", "RGD offset"),
    ("RGD is the GD", 48, bytes([GD]), "metadata overlap"),
    ("GD after the overhead", 56, b"\x80", "GD offset"),
    ("overhead odd", 64, b"\x7f", "not a multiple of the grain"),
    ("overhead after the end", 64, struct.pack("<Q", 1 << 30), "after the file's end"),
    ("overhead too high", 64, struct.pack("<Q", 256), "before the overhead"),
    ("unclean", 72, b"\1", "unclean shutdown"),
    ("newlines", 73, b"\n \n\n", "newline test"),
    ("compression", 77, b"\1", "compression"),
    ("header padding", 511, b"\1", "padding of the header"),
    ("descriptor padding", 21 * 512 - 1, b"\1", "bytes after its NUL"),
    ("RGD entry 0", RGD * 512, bytes(4), "RGD at sector 21 is not preallocated"),
    ("GD entry 0", GD * 512 + 12, bytes(4), "GD at sector 38 is not preallocated"),
    ("GD entry twice", GD * 512, bytes([GTS + 4]), "metadata overlap"),
    ("GD entry of the RGD", GD * 512, bytes([RGTS]), "metadata overlap"),
    ("GD entry late", GD * 512, struct.pack("<I", 125), "not before the grains"),
    ("GD padding", GD * 512 + 16, b"\1", "padding of the GD"),
    ("RGD table", RGTS * 512 + 8, b"\1", "unlike its twin"),
    ("GT entry", GTS * 512, bytes(4), "unlike its twin"),
    ("gap before the grains", 128 * 512 - 1, b"\1", "gap in the metadata"),
    ("data beyond the disk", -1, b"\1", "last grain beyond the disk"),
]
VMDK_ENTRY_CASES = [
    # name, grain, new sector, problem; both tables are patched
    ("explicit zero", 5, 1, "before the overhead"),
    ("in the metadata", 0, 64, "before the overhead"),
    ("unaligned", 1, 257, "not grain aligned"),
    ("twice", 2, 256, "grains overlap"),
    ("descending", 0, 640, "ascending guest order"),
    ("after the end", 1537, 768, "after the end of the file"),
    ("lost in the middle", 1, 0, "room that no grain uses"),
    ("lost at the end", 1537, 0, "the grains end at"),
    ("past the disk", 1538, 768, "past the capacity"),
]
DESCRIPTOR_CASES = [
    # old text, new text, problem
    ("# Disk DescriptorFile", "# Disk Descriptor", "descriptor begins with"),
    ("version=1\n", "version=2\n", "field version"),
    ("CID=1234abcd\n", "CID=fffffffe\n", "field CID"),
    ("\nCID=", "\ncid=", "unknown line"),
    ("CID=1234abcd\n", "CID=1234abce\n", "does not end with the CID"),
    ("CID=1234abcd\n", "CID=1234ABCD\n", "field CID"),
    ("parentCID=ffffffff", "parentCID=12345678", "field parentCID"),
    ("createType", "CREATETYPE", "field createType"),
    ('Type="', 'Type="vmfs', "field createType"),
    ('encoding="UTF-8"', 'encoding="GBK"', "field encoding"),
    ("parentCID=", 'parentFileNameHint="a"\nparentCID=', "unknown line"),
    ("RW ", "RDONLY ", "is not RW SECTORS SPARSE"),
    ("RW 1", "RW 2", "has not the capacity"),
    (" SPARSE ", " FLAT ", "is not RW SECTORS SPARSE"),
    ('"disk.vmdk"', '"/dev/sda"', "no bare file name"),
    ('"disk.vmdk"', '".."', "no bare file name"),
    ('"disk.vmdk"', '"d\u00efsk.vmdk"', "not ASCII"),
    ('"disk.vmdk"', '"disk.vmdk" 0', "is not RW SECTORS SPARSE"),
    ('SPARSE "disk.vmdk"\n', 'SPARSE "disk.vmdk"\nRW 1 ZERO\n', "2 extents"),
    ("# Extent description\n", "", "lines '# Extent description'"),
    ("#DDB\n", "", "lines '#DDB'"),
    ('ddb.toolsVersion = "2147483647"\n', "", "no ddb.toolsVersion"),
    ('lsilogic"', 'pvscsi"', "ddb.adapterType"),
    ('lsilogic"', 'ide"', "ddb.geometry"),
    ('heads = "255"', 'heads = "16"', "ddb.geometry"),
    ("ddb.geometry.sectors", "ddb.geometry.tracks", "or is unknown"),
    ("ddb.uuid.image", "ddb.uuid.parent", "twice"),
    ('parent = "0', 'parent = "1', "ddb.uuid.parent"),
    ("\nversion", "\r\nversion", "carriage returns"),
    ("#DDB", "# DDB" + "\n#" * 1100, "VirtualBox: 1100"),
    ("# Disk DescriptorFile\n", '# Disk DescriptorFile\nddb.encoding = "UTF-8"\n', "section"),
]


def vmdk_grain(lba: int, data: bytes) -> bytes:
    packed = zlib.compress(data)
    raw = struct.pack("<QI", lba, len(packed)) + packed
    return raw + bytes(-len(raw) % SECTOR)


def vmdk_marker(sectors: int, kind: int) -> bytes:
    return padded(struct.pack("<QII", sectors, 0, kind), SECTOR)


@dataclass
class Stream:
    """A streamOptimized image, and where each of its parts begins."""

    data: bytes
    parts: dict[str, int]


def vmdk_stream(
    last: bytes = noise(9, 5 * SECTOR),
    edit: Callable[[list[tuple[str, bytes]]], None] = lambda parts: None,
) -> Stream:
    """The grains of `vmdk_sparse`; `edit` may change the list of parts before tables."""
    header = vmdk_header(3, 0x30001, 0, (1 << 64) - 1, 128)
    head = header + padded(vmdk_text("streamOptimized").encode(), 20 * SECTOR)
    order = [(f"grain {g}", vmdk_grain(128 * g, noise(g, 65536))) for g in (0, 1, 511)]
    order += [("table 0", b""), ("grain 512", vmdk_grain(65536, noise(512, 65536)))]
    order += [("table 1", b""), ("grain 1537", vmdk_grain(128 * 1537, last))]
    order += [("table 3", b""), ("directory", b""), ("footer", b""), ("end", b"")]
    edit(order)
    data, parts = padded(head, 128 * SECTOR), {}
    tables: dict[int, list[int]] = {}
    directory = [0] * 4
    for name, raw in order:
        parts[name] = len(data)
        kind, _, number = name.partition(" ")
        if kind == "grain":
            tables.setdefault(int(number) // 512, [0] * 512)[int(number) % 512] = (
                len(data) // SECTOR
            )
        elif kind == "table":
            entries = tables.get(int(number), [0] * 512)
            raw = raw or vmdk_marker(4, 1) + words(entries, 2048)
            directory[int(number)] = len(data) // SECTOR + 1
        elif kind == "directory":
            raw = raw or vmdk_marker(1, 2) + words(directory, 512)
        elif kind == "footer":
            place = struct.pack("<Q", parts.get("directory", 0) // SECTOR + 1)
            raw = raw or vmdk_marker(1, 3) + header[:56] + place + header[64:]
        elif kind == "end":
            raw = raw or bytes(512)
        data += raw
    return Stream(data, parts)


VMDK_STREAM_CASES = [
    # name, part, offset in it, new bytes, problem
    ("version", "header", 4, b"\1", "version (ESXi)"),
    ("flags", "header", 8, b"\3", "flags"),
    ("RGD", "header", 48, b"\x15", "RGD offset"),
    ("GD in front", "header", 56, b"\x15" + bytes(7), "GD offset"),
    ("compression", "header", 77, b"\0", "compression"),
    ("overhead before the grains", "header", 64, b"\x7f", "stream"),
    ("overhead in the descriptor", "header", 64, b"\x10", "end of the descriptor"),
    ("unclean", "header", 72, b"\1", "unclean shutdown"),
    ("huge capacity", "header", 18, b"\1", "too few for the"),
    ("gap", "header", 127 * 512, b"\1", "gap between descriptor and overhead"),
    ("LBA", "grain 1", 0, b"\x81", "no grain of the disk"),
    ("LBA twice", "grain 1", 0, b"\0", "is not after LBA 0"),
    ("LBA after the disk", "grain 1537", 2, b"\4", "no grain of the disk"),
    ("LBA of other grain", "grain 1", 1, b"\1", "does not match the grains before it"),
    ("size 0", "grain 1", 8, bytes(4), "the marker at"),
    ("size huge", "grain 1", 8, b"\xff\xff\xff\xff", "longer than 129 sectors"),
    ("size 130 sectors", "grain 1", 8, struct.pack("<I", 66037), "longer than 129 sectors"),
    ("size too small", "grain 1", 8, struct.pack("<I", 60000), "does not end"),
    ("not zlib", "grain 0", 12, b"\0", "no zlib stream"),
    ("checksum", "grain 0", 5000, b"\0\0\0\0\0\0", "no zlib stream"),
    ("table marker sectors", "table 0", 0, b"\5", "sectors in its marker"),
    ("table marker junk", "table 0", 100, b"\5", "bytes that are not zero"),
    ("table marker unknown", "table 0", 12, b"\4", "unknown type 4"),
    ("table entry", "table 1", 512, bytes(4), "does not match the grains before it"),
    ("table entry added", "table 1", 516, b"\1", "does not match the grains before it"),
    ("directory sectors", "directory", 0, b"\2", "sectors in its marker"),
    ("directory entry", "directory", 512, b"\1", "does not match the tables"),
    ("directory entry of empty", "directory", 520, b"\1", "does not match the tables"),
    ("directory padding", "directory", 1023, b"\1", "padding of the grain directory"),
    ("footer marker", "footer", 0, b"\2", "sectors"),
    ("footer GD", "footer", 512 + 56, b"\1", "GD offset of the footer"),
    ("footer GD at end", "footer", 512 + 56, b"\xff" * 8, "GD offset of the footer"),
    ("footer capacity", "footer", 512 + 12, b"\1", "differs from the header"),
    ("footer descriptor", "footer", 512 + 28, b"\2", "differs from the header"),
    ("footer magic", "footer", 512, b"\0", "differs from the header"),
    ("end of stream", "end", 0, b"\1", "has the value 1"),
    ("end of stream type", "end", 12, b"\7", "unknown type 7"),
    ("end of stream junk", "end", 511, b"\1", "bytes that are not zero"),
]


def drop(name: str) -> Callable[[list[tuple[str, bytes]]], None]:
    def edit(parts: list[tuple[str, bytes]]) -> None:
        parts[:] = [part for part in parts if part[0] != name]

    return edit


def move(name: str, before: str) -> Callable[[list[tuple[str, bytes]]], None]:
    def edit(parts: list[tuple[str, bytes]]) -> None:
        names = [part[0] for part in parts]
        part = parts.pop(names.index(name))
        names = [part[0] for part in parts]
        parts.insert(names.index(before), part)

    return edit


def replace_part(name: str, raw: bytes) -> Callable[[list[tuple[str, bytes]]], None]:
    def edit(parts: list[tuple[str, bytes]]) -> None:
        parts[[part[0] for part in parts].index(name)] = (name, raw)

    return edit


VMDK_STREAM_EDITS = [
    # name, change of the parts, problem
    ("no table", drop("table 1"), "comes before the table of the grains of table 1"),
    ("no last table", drop("table 3"), "comes before the table of the grains of table 3"),
    ("no directory", drop("directory"), "comes before the directory"),
    ("no footer", drop("footer"), "without a footer"),
    ("no end", drop("end"), "without an end-of-stream marker"),
    ("grains in disorder", move("grain 1", "grain 0"), "is not after LBA"),
    ("table before its grain", move("table 0", "grain 511"), "comes after its grain table"),
    ("table after the directory", move("directory", "table 3"), "after the grain directory"),
    ("footer first", move("footer", "directory"), "comes before the directory"),
    ("zero grain", replace_part("grain 1", vmdk_grain(128, bytes(65536))), "is all zeros"),
    ("short grain", replace_part("grain 1", vmdk_grain(128, b"x" * 512)), "inflates to 512"),
    ("long grain", replace_part("grain 1", vmdk_grain(128, b"x" * 65537)), "inflates to"),
    ("raw deflate", replace_part("grain 1", vmdk_grain(128, b"")[:12]), "stream"),
]


class TestVmdkSparse:
    def test_accepts(self, tmp_path: Path) -> None:
        assert found(tmp_path / "a", vmdk_sparse(), "vmdk") == []

    def test_image_reads_in_qemu(self, tmp_path: Path) -> None:
        assert_reads_in_qemu(tmp_path, "vmdk", vmdk_sparse(), vmdk_content())

    def test_qemu_lacks_only_fields_of_the_descriptor(self, tmp_path: Path) -> None:
        """qemu writes no content id, and cylinders that are rounded down."""
        raw, image = tmp_path / "raw", tmp_path / "a.vmdk"
        raw.write_bytes(scattered(40 * MIB))
        qemu("convert", "-f", "raw", "-O", "vmdk", "-o", "adapter_type=lsilogic", raw, image)
        texts = without_cid(problems(image, "vmdk"))
        assert len(texts) == 2, texts
        assert_found(texts, "the descriptor has no ddb.longContentID")
        assert_found(texts, "ddb.geometry is ('5', '255', '63')")

    @pytest.mark.parametrize(
        ("offset", "new", "wanted"),
        [case[1:] for case in VMDK_SPARSE_CASES],
        ids=[case[0] for case in VMDK_SPARSE_CASES],
    )
    def test_finds(self, tmp_path: Path, offset: int, new: bytes, wanted: str) -> None:
        image = patched(vmdk_sparse(), offset, new)
        assert_found(found(tmp_path / "a", image, "vmdk"), wanted)

    @pytest.mark.parametrize(
        ("grain", "sector", "wanted"),
        [case[1:] for case in VMDK_ENTRY_CASES],
        ids=[case[0] for case in VMDK_ENTRY_CASES],
    )
    def test_finds_in_both_tables(
        self, tmp_path: Path, grain: int, sector: int, wanted: str
    ) -> None:
        image = vmdk_sparse()
        for tables in (RGTS, GTS):
            image = patched(image, tables * 512 + 4 * grain, struct.pack("<I", sector))
        assert_found(found(tmp_path / "a", image, "vmdk"), wanted)

    @pytest.mark.parametrize(("old", "new", "wanted"), DESCRIPTOR_CASES)
    def test_finds_in_descriptor(self, tmp_path: Path, old: str, new: str, wanted: str) -> None:
        text = vmdk_text("monolithicSparse")
        assert old in text
        image = vmdk_sparse(text.replace(old, new, 1))
        assert_found(found(tmp_path / "a", image, "vmdk"), wanted)

    def test_full_descriptor(self, tmp_path: Path) -> None:
        text = vmdk_text("monolithicSparse")
        image = vmdk_sparse(text + "#" * (20 * SECTOR - len(text) - 1) + "\n")
        assert_found(found(tmp_path / "a", image, "vmdk"), "no NUL")


class TestVmdkStream:
    def test_accepts(self, tmp_path: Path) -> None:
        assert found(tmp_path / "a", vmdk_stream().data, "vmdk") == []

    def test_accepts_a_whole_last_grain(self, tmp_path: Path) -> None:
        stream = vmdk_stream(last=padded(noise(9, 5 * SECTOR), 65536))
        assert found(tmp_path / "a", stream.data, "vmdk") == []

    def test_accepts_an_empty_table(self, tmp_path: Path) -> None:
        def edit(parts: list[tuple[str, bytes]]) -> None:
            at = [part[0] for part in parts].index("grain 1537")
            parts.insert(at, ("table 2", b""))

        assert found(tmp_path / "a", vmdk_stream(edit=edit).data, "vmdk") == []

    def test_image_reads_in_qemu(self, tmp_path: Path) -> None:
        assert_reads_in_qemu(tmp_path, "vmdk", vmdk_stream().data, vmdk_content())

    def test_finds_data_beyond_the_disk(self, tmp_path: Path) -> None:
        stream = vmdk_stream(last=noise(9, 65536))
        assert_found(found(tmp_path / "a", stream.data, "vmdk"), "data beyond the disk")

    def test_finds_the_shape_of_qemu(self, tmp_path: Path) -> None:
        raw, image = tmp_path / "raw", tmp_path / "a.vmdk"
        raw.write_bytes(scattered(3 * MIB))
        qemu(
            "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, image
        )
        texts = problems(image, "vmdk")
        assert_found(texts, "GD offset")
        assert_found(texts, "without an end-of-stream marker")

    @pytest.mark.parametrize(
        ("part", "offset", "new", "wanted"),
        [case[1:] for case in VMDK_STREAM_CASES],
        ids=[case[0] for case in VMDK_STREAM_CASES],
    )
    def test_finds(
        self, tmp_path: Path, part: str, offset: int, new: bytes, wanted: str
    ) -> None:
        stream = vmdk_stream()
        at = offset + (stream.parts[part] if part != "header" else 0)
        image = patched(stream.data, at, new)
        assert_found(found(tmp_path / "a", image, "vmdk"), wanted)

    @pytest.mark.parametrize(
        ("edit", "wanted"),
        [case[1:] for case in VMDK_STREAM_EDITS],
        ids=[case[0] for case in VMDK_STREAM_EDITS],
    )
    def test_finds_parts_that_lack_or_moved(
        self, tmp_path: Path, edit: Callable[[list[tuple[str, bytes]]], None], wanted: str
    ) -> None:
        image = vmdk_stream(edit=edit).data
        assert_found(found(tmp_path / "a", image, "vmdk"), wanted)


def vmdk_content() -> bytes:
    """The disk that both hand-made images hold."""
    disk = bytearray(VMDK_CAPACITY * SECTOR)
    for grain in GRAINS:
        data = noise(grain, 65536) if grain != 1537 else noise(9, 5 * SECTOR)
        disk[grain * 65536 : grain * 65536 + len(data)] = data
    return bytes(disk)


def without_cid(texts: list[str]) -> list[str]:
    """qemu picks a random CID and writes less than 8 digits when the first are 0."""
    return [text for text in texts if "field CID" not in text]


def assert_reads_in_qemu(folder: Path, format_name: str, image: bytes, disk: bytes) -> None:
    """The hand-made image is what it claims to be."""
    (folder / "image").write_bytes(image)
    (folder / "disk").write_bytes(disk)
    files = folder / "disk", folder / "image"
    qemu("compare", "-f", "raw", "-F", format_name, *files)


# VDI ---------------------------------------------------------------------------------

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


# VHDX --------------------------------------------------------------------------------

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


# All formats -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qcow2_image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("qcow2")
    return qemu_qcow2(folder, "compat=1.1,cluster_size=4096", scattered(2 * MIB)).read_bytes()


IMAGES: list[tuple[str, str, Callable[[], bytes]]] = [
    ("dynamic", "vhd", vhd_dynamic),
    ("fixed", "vhd", vhd_fixed),
    ("monolithicSparse", "vmdk", vmdk_sparse),
    ("streamOptimized", "vmdk", lambda: vmdk_stream().data),
    ("dynamic", "vdi", vdi),
    ("fixed", "vdi", lambda: vdi(2)),
    ("dynamic", "vhdx", vhdx),
    ("fixed", "vhdx", lambda: vhdx(fixed=True)),
    ("version 3", "qcow2", bytes),
    ("deflate", "qcow2", lambda: packed_qcow2(bits=12, tail=(511, 4096))),
    ("zstd", "qcow2", lambda: packed_qcow2(kind="zstd", bits=12, tail=(511, 4096))),
]
FREE_BYTES = {
    # header bytes that may have any value: ids, texts, a size in the same block
    "vhd": [],
    "vmdk": [],
    "vhdx": [(8, 512)],
    "vdi": [(0, 64), (0x54, 0x154), (0x171, 0x173), (0x188, 0x1A8)],
    "qcow2": [(120, 504)],
}


@pytest.fixture(params=IMAGES, ids=[f"{image[1]} {image[0]}" for image in IMAGES])
def image(request: pytest.FixtureRequest, qcow2_image: bytes) -> tuple[str, bytes]:
    _, format_name, build = request.param
    return format_name, build() or qcow2_image


class TestAllFormats:
    def test_finds_every_truncation(self, tmp_path: Path, image: tuple[str, bytes]) -> None:
        format_name, data = image
        chooser = random.Random(1)
        lengths = [0, 1, 64, 511, 512, 1024, 1536, len(data) - 1, len(data) - 512]
        lengths += [chooser.randrange(len(data)) for _ in range(20)]
        lengths += [chooser.randrange(len(data) // 512) * 512 for _ in range(20)]
        for length in lengths:
            assert found(tmp_path / "a", data[:length], format_name), length

    @pytest.mark.parametrize("junk", [b"\0", bytes(512), bytes(4096), b"junk" * MIB])
    def test_finds_trailing_junk(
        self, tmp_path: Path, image: tuple[str, bytes], junk: bytes
    ) -> None:
        format_name, data = image
        assert found(tmp_path / "a", data + junk, format_name)

    def test_finds_damage_of_the_header(self, tmp_path: Path, image: tuple[str, bytes]) -> None:
        """Each byte of the first 512 matters, but those of ids and texts."""
        format_name, data = image
        fixed_vhd = format_name == "vhd" and data[:8] != b"conectix"
        start = len(data) - 512 if fixed_vhd else 0
        path = tmp_path / "a"
        path.write_bytes(data)
        with path.open("r+b") as file:
            for at in range(start, start + 512):
                if any(low <= at < high for low, high in FREE_BYTES[format_name]):
                    continue
                for changed in (data[at] ^ 0xFF, data[at] ^ 1):
                    file.seek(at)
                    file.write(bytes([changed]))
                    file.flush()
                    assert problems(path, format_name), f"byte {at} = {changed:#x}"
                file.seek(at)
                file.write(data[at : at + 1])
                file.flush()
        assert problems(path, format_name) == []

    def test_never_raises(self, tmp_path: Path, image: tuple[str, bytes]) -> None:
        """Whatever is damaged, the answer is a list of sentences."""
        format_name, data = image
        chooser = random.Random(2)
        path = tmp_path / "a"
        path.write_bytes(data)
        head = data[:70000]
        with path.open("r+b") as file:
            for _ in range(300):
                for _ in range(chooser.randrange(1, 6)):
                    at = chooser.choice([chooser.randrange(512), chooser.randrange(70000)])
                    file.seek(at)
                    file.write(chooser.choice([b"\0", b"\xff" * 4, chooser.randbytes(8)]))
                file.flush()
                assert all(isinstance(text, str) for text in problems(path, format_name))
                file.seek(0)
                file.write(head)
                file.flush()
        for length in (0, 1, 511, 512, 4096, 200000):
            garbage = noise(length, length)
            for name in ("vhd", "qcow2", "vmdk", "vdi", "vhdx"):
                assert found(path, garbage, name)

    def test_finds_two_formats(self, tmp_path: Path) -> None:
        """OpenStack refuses a file with the signatures of two formats."""
        image = patched(vhd_dynamic(), 0x8001, b"CD001")
        assert_found(found(tmp_path / "a", image, "vhd"), "looks like two formats")
        image = patched(vdi(2), -SECTOR, b"conectix")
        assert_found(found(tmp_path / "a", image, "vdi"), "cookie of a VHD footer")

    def test_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no validator"):
            problems(tmp_path / "a", "raw")


class TestScale:
    """Huge sparse images take little time and memory."""

    def test_qcow2_of_16_tib(self, tmp_path: Path) -> None:
        image = tmp_path / "a"
        qemu("create", "-f", "qcow2", image, "16T")
        complete_last_cluster(image, 65536)
        assert problems(image, "qcow2") == []

    def test_vdi_of_16_tib(self, tmp_path: Path) -> None:
        blocks = 16 * MIB
        head = bytearray(vdi()[: 2 * MIB])
        head[0x158:0x15C] = struct.pack("<I", 65 * MIB)
        head[0x170:0x178] = struct.pack("<Q", blocks * MIB)
        head[0x180:0x188] = struct.pack("<II", blocks, 1)
        with (tmp_path / "a").open("wb") as file:
            file.write(head[:MIB])
            file.write(NONE32 * (blocks - 1) + bytes(4))
            file.write(noise(1, MIB))
        assert problems(tmp_path / "a", "vdi") == []

    def test_vmdk_of_1_tib(self, tmp_path: Path) -> None:
        """The tables are 128 MiB; only the descriptor has what it always has from qemu."""
        image = tmp_path / "a"
        qemu("create", "-f", "vmdk", "-o", "adapter_type=lsilogic", image, "1T")
        texts = without_cid(problems(image, "vmdk"))
        assert len(texts) == 2, texts
        assert_found(texts, "ddb.geometry is ('133674', '255', '63')")

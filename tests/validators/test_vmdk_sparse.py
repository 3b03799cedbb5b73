"""The validator of VMDK, of monolithicSparse images and descriptors."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from . import problems
from .images.parts import MIB, SECTOR, patched, scattered
from .images.qemu import qemu
from .images.vmdk import (
    GD,
    GTS,
    RGD,
    RGTS,
    VMDK_CAPACITY,
    vmdk_content,
    vmdk_sparse,
    vmdk_text,
    without_cid,
)
from .proof import assert_found, assert_reads_in_qemu, found

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

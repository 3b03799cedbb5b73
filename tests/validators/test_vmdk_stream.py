"""The validator of VMDK, of streamOptimized images."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from . import problems
from .images.parts import MIB, SECTOR, noise, padded, patched, scattered
from .images.qemu import qemu
from .images.vmdk import drop, move, replace_part, vmdk_content, vmdk_grain, vmdk_stream
from .proof import assert_found, assert_reads_in_qemu, found

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

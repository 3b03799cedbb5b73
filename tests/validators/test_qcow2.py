"""The validator of QCOW2 accepts right images and finds what is wrong with others."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from . import problems
from .images.parts import KIB, MIB, SECTOR, noise, patched, scattered, word
from .images.qcow2 import COPIED, QCOW2_SIZE, Qcow2
from .images.qemu import complete_last_cluster, qemu, qemu_qcow2
from .proof import assert_found, found

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

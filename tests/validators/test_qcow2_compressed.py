"""The validator of QCOW2 decodes what is compressed, and knows where it may lie."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import problems
from .images.parts import KIB, MIB, SECTOR, noise, patched, prose, word
from .images.qcow2 import COPIED, Qcow2
from .images.qcow2_compressed import PACKED_TAIL, deflate, entry, packed_qcow2, with_entry, zstd
from .images.qemu import complete_last_cluster, qemu, qemu_qcow2
from .proof import assert_found, assert_reads_in_qemu, found

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

"""What holds for the validators of all formats: they find any damage, never raise, and
are quick with huge images.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from . import problems
from .images.parts import MIB, NONE32, SECTOR, noise, patched, scattered
from .images.qcow2_compressed import packed_qcow2
from .images.qemu import complete_last_cluster, qemu, qemu_qcow2
from .images.vdi import vdi
from .images.vhd import vhd_dynamic, vhd_fixed
from .images.vhdx import vhdx
from .images.vmdk import vmdk_sparse, vmdk_stream, without_cid
from .proof import assert_found, found


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

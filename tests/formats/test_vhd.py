"""VHD facts of the specification and of the readers' sources."""

import random
import struct
from pathlib import Path

import pytest
from support import disks, engine

import imgconv
from imgconv.ondisk import vhd as ondisk
from imgconv.units import SECTOR, GiB, MiB, TiB


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        (9_590_784, (275, 4, 17)),
        (1_079_296, (31, 4, 17)),  # what QEMU makes of 1 MiB
        (3_221_471_232, (6242, 16, 63)),  # and of 3 GiB
        (65535 * 16 * 63 * SECTOR, (65535 * 16 * 63 // 255 // 16, 16, 255)),
        (65535 * 16 * 255 * SECTOR, (65535, 16, 255)),
        (2040 * GiB, (65535, 16, 255)),
    ],
)
def test_geometry_vectors(size: int, geometry: tuple[int, int, int]) -> None:
    found = ondisk.Geometry.of(size // SECTOR)
    assert (found.cylinders, found.heads, found.sectors) == geometry


def test_the_footer_field_by_field() -> None:
    image = engine.one_pass(engine.MemorySource(b"\x01" * 4096), imgconv.Vhd())
    footer = image[-512:]
    assert image[:512] == footer
    assert footer[:8] == b"conectix"
    assert struct.unpack_from(">IIQ", footer, 8) == (2, 0x00010000, 512)
    assert footer[28:32] == b"win "
    assert struct.unpack_from(">QQ", footer, 40) == (4096, 4096)
    assert struct.unpack_from(">I", footer, 60) == (3,)
    body = footer[:64] + bytes(4) + footer[68:]
    assert struct.unpack_from(">I", footer, 64) == (~sum(body) & 0xFFFFFFFF,)


def test_blocks_are_page_aligned_and_the_footer_follows_the_last() -> None:
    """Hyper-V on 4 KiB sectors; XenServer's streaming import."""
    content = random.Random(1).randbytes(3 * MiB)
    image = engine.one_pass(engine.MemorySource(content), imgconv.Vhd())
    sectors = struct.unpack_from(">2I", image, 1536)
    assert all((sector + 1) * SECTOR % 4096 == 0 for sector in sectors)
    assert len(image) == (sectors[1] + 1) * SECTOR + 2 * MiB + 512


def test_a_fixed_disk_may_be_as_large_as_azure_allows(roomy: Path) -> None:
    raw = disks.last_byte(roomy / "disk.raw", 5 * TiB)
    imgconv.convert(raw, roomy / "disk.vhd", options=imgconv.Vhd(subformat="fixed", azure=True))
    with open(roomy / "disk.vhd", "rb") as image:
        assert image.seek(0, 2) == 5 * TiB + 512
        image.seek(-513, 2)
        assert image.read(9) == b"\x01conectix"


def test_the_dynamic_limit() -> None:
    assert imgconv.Vhd().max_size == 2_190_433_320_960
    error = imgconv.LimitExceeded("vhd", 1 << 50, imgconv.Vhd().max_size, ("raw",))
    assert "2190433320960" in str(error)


def test_the_timestamp_counts_from_2000_and_never_wraps() -> None:
    from imgconv.formats.vhd import make_footer
    from imgconv.identity import Identity

    assert make_footer(MiB, Identity("x", 0), 3).timestamp == 0
    assert make_footer(MiB, Identity("x", 946684800 + 5), 3).timestamp == 5
    assert make_footer(MiB, Identity("x", 1 << 40), 3).timestamp == 0xFFFFFFFF

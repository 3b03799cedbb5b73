"""qemu-img reads every output as the disk that went in, and finds no fault with it."""

from pathlib import Path

import pytest
from support import disks
from support.peers import (
    assert_checks,
    assert_compares,
    assert_compares_at,
    assert_same_guest,
    info,
)
from support.readers import assert_reads_same_at
from support.variants import MAIN, VARIANTS
from validators import problems
from validators.vhd import azure_problems

import imgconv
from imgconv.units import SECTOR, GiB, KiB, MiB, TiB

SIZE = 9 * MiB + 3 * SECTOR


def convert(raw: Path, folder: Path, variant: str) -> Path:
    options = VARIANTS[variant]
    image = folder / f"disk.{options.name}"
    report = imgconv.convert(raw, image, options=options)
    assert report.output_size == image.stat().st_size
    return image


def assert_valid(raw: Path, image: Path, variant: str) -> None:
    options = VARIANTS[variant]
    assert_same_guest(raw, image, options.name)
    if options.name != "raw":
        assert problems(image, options.name) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("content", disks.CONTENTS)
def test_every_option_on_every_content(tmp_path: Path, content: str, variant: str) -> None:
    raw = disks.CONTENTS[content](tmp_path / "disk.in", SIZE)
    assert_valid(raw, convert(raw, tmp_path, variant), variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_real_file_system(tmp_path: Path, file_system: Path, variant: str) -> None:
    assert_valid(file_system, convert(file_system, tmp_path, variant), variant)


UNITS = {"512": 512, "4k": 4 * KiB, "64k": 64 * KiB, "1M": MiB, "2M": 2 * MiB}
SIZES = {
    "one-sector": SECTOR,
    "odd": 12345 * SECTOR,
    **{f"{n}-minus": u - SECTOR for n, u in UNITS.items() if u > SECTOR},
    **{n: u for n, u in UNITS.items() if u > SECTOR},
    **{f"{n}-plus": u + SECTOR for n, u in UNITS.items()},
    "grain-table": 32 * MiB,
    "grain-table-plus": 32 * MiB + SECTOR,
}


@pytest.mark.parametrize("variant", MAIN)
@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_every_unit(tmp_path: Path, size: str, variant: str) -> None:
    for content in (disks.last_byte, disks.dense):
        raw = content(tmp_path / "disk.in", SIZES[size])
        image = convert(raw, tmp_path, variant)
        assert_valid(raw, image, variant)
        if variant != "vhd-azure":
            assert info(image, VARIANTS[variant].name)["virtual-size"] == SIZES[size]


CHS_EDGE = 65535 * 16 * 255 * SECTOR
HUGE = {
    "4g-plus": 4 * GiB + SECTOR,
    "chs-minus": CHS_EDGE - SECTOR,
    "chs": CHS_EDGE,
    "chs-plus": CHS_EDGE + SECTOR,
    "chs-63-sectors": 65535 * 16 * 63 * SECTOR,
    "1t": TiB,
    "2t-minus": 2 * TiB - SECTOR,
    "16t": 16 * TiB,
}


GEOMETRIES = ("chs-minus", "chs", "chs-plus")  # edges of what a VHD can describe
LARGEST = {"qcow2-512": "chs-plus"}  # close to the most that clusters of 512 bytes address
# QEMU compares some windows only, and the reader named all of the data: QEMU asks for the
# state of every single grain or block, and of a VHDX it knows none and reads everything.
# libvhdi misreads large VHDX.
READ_IN_PART = {"vmdk": "libvmdk", "vdi": "dissect", "vhdx": "dissect"}
HUGE_CASES = [
    (size, variant)
    for size in HUGE
    for variant in MAIN
    if size not in GEOMETRIES or variant.startswith("vhd") or LARGEST.get(variant) == size
]


@pytest.mark.parametrize(("size", "variant"), HUGE_CASES)
def test_huge_sparse_disks(roomy: Path, size: str, variant: str) -> None:
    if HUGE[size] > VARIANTS[variant].max_size:
        with pytest.raises(imgconv.LimitExceeded):
            convert(disks.empty(roomy / "disk.in", HUGE[size]), roomy, variant)
        assert [p.name for p in roomy.iterdir()] == ["disk.in"]
        return
    raw = disks.islands(roomy / "disk.in", HUGE[size], 12)
    image = convert(raw, roomy, variant)
    assert image.stat().st_blocks * 512 < 300 * MiB
    if variant == "vhd-fixed" and HUGE[size] > 2040 * GiB:
        # QEMU opens no VHD of this size, but a fixed one is a raw disk and a footer.
        assert problems(image, "vhd") == []
        assert_compares(f"driver=raw,size={HUGE[size]},file.filename={image}", raw)
        return
    name = VARIANTS[variant].name
    assert info(image, name)["virtual-size"] == HUGE[size]
    if name not in READ_IN_PART or (HUGE[size] < TiB and name != "vhdx"):
        assert_valid(raw, image, variant)
        return
    assert problems(image, name) == []
    assert_checks(image, name)
    islands = disks.island_offsets(HUGE[size], 12)
    for at in [*islands, HUGE[size] - 64 * KiB]:
        assert_reads_same_at(raw, image, (name, READ_IN_PART[name]), at - 64 * KiB, 192 * KiB)
    for at in [*islands[::5], HUGE[size] - 64 * MiB]:
        assert_compares_at(raw, image, name, at, 64 * MiB)


def test_the_exact_size_is_seen_whatever_the_geometry(tmp_path: Path) -> None:
    """CHS of 9,590,784 bytes describes less; readers must not fall for it."""
    raw = disks.dense(tmp_path / "disk.in", 9_590_784)
    image = convert(raw, tmp_path, "vhd")
    assert info(image, "vhd")["virtual-size"] == 9_590_784


def test_azure_rounds_up_to_a_mebibyte(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "disk.in", 20 * MiB + SECTOR)
    image = convert(raw, tmp_path, "vhd-azure")
    assert image.stat().st_size == 21 * MiB + SECTOR
    assert info(image, "vhd")["virtual-size"] == 21 * MiB
    assert_valid(raw, image, "vhd-azure")
    assert azure_problems(image) == []


def test_azure_takes_nothing_below_20_mebibytes(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "disk.in", MiB)
    image = convert(raw, tmp_path, "vhd-azure")
    assert image.stat().st_size == 20 * MiB + SECTOR
    assert_valid(raw, image, "vhd-azure")
    assert azure_problems(image) == []

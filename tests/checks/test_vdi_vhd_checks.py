"""Damaged VDI and VHD: each damage is found, and where it is."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support import disks
from support.damage import (
    assert_agrees,
    assert_clean,
    assert_found,
    check,
    flip,
    number,
    patch,
    put,
    qemu_check,
)

import imgconv
from imgconv import OptionError
from imgconv.ondisk import vhd as ondisk
from imgconv.units import KiB, MiB

SIZE = 9 * MiB + 5 * KiB
MAP = MiB  # of the VDIs that we write
BAT = 1536  # of the VHDs
STRIDE = 2 * MiB + 512


def written(folder: Path, name: str) -> Path:
    raw = disks.random_runs(folder / "disk.raw", SIZE)
    imgconv.convert(raw, folder / name)
    return folder / name


@pytest.fixture
def vdi(tmp_path: Path) -> Path:
    return written(tmp_path, "disk.vdi")


@pytest.fixture
def vhd(tmp_path: Path) -> Path:
    return written(tmp_path, "disk.vhd")


@pytest.mark.parametrize(
    ("offset", "kind", "value", "rule", "said_at"),
    [
        (MAP + 8, "<I", 3, "overlap", MAP + 12),  # the number of the block behind it
        (MAP + 8, "<I", 1 << 20, "index-out-of-range", MAP + 8),
        (0x184, "<I", 4, "blocks-allocated", 0x184),
    ],
)
def test_a_vdi_that_qemu_finds_damaged(
    vdi: Path, offset: int, kind: str, value: int, rule: str, said_at: int
) -> None:
    put(vdi, offset, kind, value)
    assert qemu_check(vdi, "vdi")[0] == 2
    report = check(vdi, "vdi")
    assert report.exit_status == 2
    assert_found(report, rule, said_at, "corruption")


def test_a_vdi_of_which_two_blocks_are_one_is_counted_as_qemu_does(vdi: Path) -> None:
    put(vdi, MAP + 8, "<I", 3)
    status, theirs = qemu_check(vdi, "vdi")
    report = check(vdi, "vdi")
    assert (status, theirs["corruptions"]) == (report.exit_status, report.corruptions)
    assert report.leaks == 1  # the place that nothing uses now, of which qemu says nothing


@pytest.mark.parametrize(
    ("offset", "kind", "value", "rule", "severity"),
    [
        (0x40, "<I", 1, "header-magic", "corruption"),
        (0x44, "<I", 1, "header-version", "error"),
        (0x48, "<I", 12, "header-length", "corruption"),
        (0x4C, "<I", 9, "image-type", "corruption"),
        (0x154, "<I", 0xFFFFFF00, "map-beyond-end", "corruption"),
        (0x154, "<I", 16, "metadata-overlap", "corruption"),
        (0x158, "<I", 512, "metadata-overlap", "corruption"),
        (0x168, "<I", 4096, "sector-size", "corruption"),
        (0x170, "<Q", 0, "disk-size", "corruption"),
        (0x170, "<Q", 99 * MiB, "map-size", "corruption"),
        (0x178, "<I", 12345, "block-size", "corruption"),
        (0x17C, "<I", 7, "block-size", "corruption"),
        (0x188, "<Q", 0, "null-id", "warning"),
        (0x1A8, "<Q", 5, "parent", "corruption"),
        (0x1B8, "<Q", 5, "parent", "corruption"),
        (0x1D4, "<I", 1, "sector-size", "corruption"),
    ],
)
def test_fields_of_a_vdi(
    vdi: Path, offset: int, kind: str, value: int, rule: str, severity: str
) -> None:
    put(vdi, offset, kind, value)
    if rule == "null-id":
        put(vdi, offset + 8, kind, value)
    report = check(vdi, "vdi")
    where = 0x180 if rule == "map-size" else offset
    assert_found(report, rule, where, severity)
    assert report.exit_status == {"corruption": 2, "error": 1, "warning": 0}[severity]


def test_a_vdi_with_a_gap(vdi: Path) -> None:
    """VirtualBox wants the places used without a gap; qemu does not care."""
    last = max(range(10), key=lambda n: number(vdi, MAP + 4 * n, "<I") + 1 & 0xFFFFFFFF)
    index = number(vdi, MAP + 4 * last, "<I")
    put(vdi, MAP + 4 * last, "<I", 0xFFFFFFFF)
    put(vdi, 0x184, "<I", number(vdi, 0x184, "<I") - 1)
    assert qemu_check(vdi, "vdi")[0] == 0
    report = check(vdi, "vdi")
    assert (report.exit_status, report.leaks) == (3, 1)
    assert_found(report, "unused", 2 * MiB + index * MiB, "leak")


def test_a_vdi_that_ends_too_soon(vdi: Path) -> None:
    with open(vdi, "r+b") as file:
        file.truncate(vdi.stat().st_size - 2 * MiB)
    assert qemu_check(vdi, "vdi")[0] == 0
    report = check(vdi, "vdi")
    assert_found(report, "block-beyond-end", MAP + 4 * 8, "corruption")
    assert report.exit_status == 2


def end_of(vhd: Path) -> int:
    return vhd.stat().st_size - 512


def sealed(vhd: Path, at: int, record: type, **changes: object) -> None:
    """Change fields of a footer or header, and correct its checksum."""
    raw = vhd.read_bytes()[at : at + record.LAYOUT.size]  # type: ignore[attr-defined]
    values = {name: getattr(record.unpack(raw), name) for name in record.__slots__}  # type: ignore[attr-defined]
    patch(vhd, at, record(**{**values, **changes}).sealed().pack())


Damage = Callable[[Path], tuple[str, int, str]]


def footer_checksum(vhd: Path) -> tuple[str, int, str]:
    flip(vhd, end_of(vhd) + 70)
    return "checksum", end_of(vhd) + 64, "corruption"


def footer_gone(vhd: Path) -> tuple[str, int, str]:
    flip(vhd, end_of(vhd))
    return "footer-missing", end_of(vhd), "corruption"


def copy_differs(vhd: Path) -> tuple[str, int, str]:
    flip(vhd, 70)
    return "footer-copy", 70, "corruption"


def header_checksum(vhd: Path) -> tuple[str, int, str]:
    flip(vhd, 512 + 700)
    return "checksum", 512 + 36, "corruption"


def header_gone(vhd: Path) -> tuple[str, int, str]:
    flip(vhd, 512)
    return "header-magic", 512, "corruption"


def geometry(vhd: Path) -> tuple[str, int, str]:
    for at in (0, end_of(vhd)):
        sealed(vhd, at, ondisk.Footer, cylinders=3)
    return "geometry", end_of(vhd) + 56, "warning"


def no_id(vhd: Path) -> tuple[str, int, str]:
    for at in (0, end_of(vhd)):
        sealed(vhd, at, ondisk.Footer, unique_id=bytes(16))
    return "null-id", end_of(vhd) + 68, "warning"


def no_type(vhd: Path) -> tuple[str, int, str]:
    for at in (0, end_of(vhd)):
        sealed(vhd, at, ondisk.Footer, disk_type=9)
    return "disk-type", end_of(vhd) + 60, "corruption"


def child_without_parent(vhd: Path) -> tuple[str, int, str]:
    for at in (0, end_of(vhd)):
        sealed(vhd, at, ondisk.Footer, disk_type=4)
    return "parent", 512 + 40, "corruption"


def table_short(vhd: Path) -> tuple[str, int, str]:
    sealed(vhd, 512, ondisk.DynamicHeader, max_table_entries=2)
    return "map-size", 512 + 28, "corruption"


def table_beyond(vhd: Path) -> tuple[str, int, str]:
    sealed(vhd, 512, ondisk.DynamicHeader, table_offset=1 << 40)
    return "map-beyond-end", 512 + 16, "corruption"


def table_on_footer_copy(vhd: Path) -> tuple[str, int, str]:
    sealed(vhd, 512, ondisk.DynamicHeader, table_offset=0)
    return "metadata-overlap", 0, "corruption"


def odd_block(vhd: Path) -> tuple[str, int, str]:
    sealed(vhd, 512, ondisk.DynamicHeader, block_size=12345)
    return "block-size", 512 + 32, "corruption"


def two_blocks_at_one_place(vhd: Path) -> tuple[str, int, str]:
    put(vhd, BAT + 8, ">I", number(vhd, BAT + 4, ">I"))
    return "overlap", BAT + 8, "corruption"


def blocks_that_overlap(vhd: Path) -> tuple[str, int, str]:
    put(vhd, BAT + 8, ">I", number(vhd, BAT + 8, ">I") - 8)
    return "overlap", BAT + 8, "corruption"


def block_on_the_header(vhd: Path) -> tuple[str, int, str]:
    put(vhd, BAT + 4, ">I", 0)
    return "metadata-overlap", BAT + 4, "corruption"


def block_beyond_the_end(vhd: Path) -> tuple[str, int, str]:
    put(vhd, BAT + 16, ">I", number(vhd, BAT + 16, ">I") + 8)
    return "block-beyond-end", BAT + 16, "corruption"


def block_gone(vhd: Path) -> tuple[str, int, str]:
    place = 512 * number(vhd, BAT + 8, ">I")
    put(vhd, BAT + 8, ">I", 0xFFFFFFFF)
    return "unused", 512 * number(vhd, BAT + 4, ">I") + STRIDE, "leak" if place else ""


def data_that_were_never_written(vhd: Path) -> tuple[str, int, str]:
    place = 512 * number(vhd, BAT, ">I")
    patch(vhd, place, bytes(512))
    return "bitmap", place, "warning"


def more_behind_the_footer(vhd: Path) -> tuple[str, int, str]:
    size = vhd.stat().st_size
    patch(vhd, size + 4095, b"\0")
    return "trailing-data", size, "corruption"


@pytest.mark.parametrize(
    "damage",
    [
        footer_checksum,
        footer_gone,
        copy_differs,
        header_checksum,
        header_gone,
        geometry,
        no_id,
        no_type,
        child_without_parent,
        table_short,
        table_beyond,
        table_on_footer_copy,
        odd_block,
        two_blocks_at_one_place,
        blocks_that_overlap,
        block_on_the_header,
        block_beyond_the_end,
        block_gone,
        data_that_were_never_written,
        more_behind_the_footer,
    ],
    ids=lambda d: d.__name__,
)
def test_a_damaged_vhd(vhd: Path, damage: Damage) -> None:
    rule, offset, severity = damage(vhd)
    report = check(vhd, "vhd")
    assert_found(report, rule, offset, severity)
    assert report.exit_status == {"corruption": 2, "leak": 3, "warning": 0}[severity]


def test_a_vhd_of_tapdisk_has_a_map_of_full_blocks(vhd: Path) -> None:
    """Where it stands nothing is lost; it is in no one's way."""
    room = number(vhd, BAT, ">I") * 512 - BAT - 512
    assert room >= 1024
    patch(vhd, BAT + 512, struct.pack(">8sQI", b"tdbatmap", BAT + 1024, 1))
    assert_clean(check(vhd, "vhd"))
    patch(vhd, BAT + 512 + 16, struct.pack(">I", room // 512 + 8))
    assert_found(check(vhd, "vhd"), "metadata-overlap", BAT, "corruption")


def test_a_fixed_vhd(tmp_path: Path) -> None:
    raw = disks.random_runs(tmp_path / "disk.raw", SIZE)
    image = tmp_path / "disk.vhd"
    imgconv.convert(raw, image, options=imgconv.Vhd(subformat="fixed"))
    footer = end_of(image)
    sealed(image, footer, ondisk.Footer, current_size=SIZE - 512)
    assert_found(check(image, "vhd"), "trailing-data", SIZE - 512, "warning")
    sealed(image, footer, ondisk.Footer, current_size=SIZE + 512)
    assert_found(check(image, "vhd"), "block-beyond-end", footer + 48, "corruption")


def test_no_findings_are_kept_but_a_few(vdi: Path) -> None:
    patch(vdi, MAP, struct.pack("<I", 1 << 20) * 10)
    report = check(vdi, "vdi", limit=3)
    assert report.corruptions == 11
    assert report.omitted == {"index-out-of-range": 7}
    assert len(report.findings) == 4 + bool(report.leaks)
    with pytest.raises(OptionError):
        check(vdi, "vdi", limit=0)


def test_a_sound_vdi_agrees_after_all(vdi: Path) -> None:
    assert_clean(assert_agrees(vdi, "vdi"))

"""VHDX: sound ones of others are called so, and every single damage is found at its place."""

import struct
from pathlib import Path

import pytest
from hostile import vhdx_cases
from hostile.case import MALFORMED
from support import disks
from support import vhdx_image as made
from support.damage import assert_clean, assert_found, check, flip, number, put
from support.peers import assert_qemu_img

import imgconv
from imgconv.ondisk import vhdx
from imgconv.units import KiB, MiB

SIZE = 9 * MiB + 5 * KiB


def table_of(image: Path) -> int:
    """Where the block table is, by the first region table."""
    for row in range(number(image, vhdx.REGIONS_AT[0] + 8, "<I")):
        at = vhdx.REGIONS_AT[0] + 16 + 32 * row
        with open(image, "rb") as file:
            file.seek(at)
            if file.read(16) == vhdx.TABLE_REGION:
                return number(image, at + 16, "<Q")
    raise AssertionError("no block table")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    raw = disks.dense(tmp_path / "disk.raw", SIZE)
    imgconv.convert(raw, tmp_path / "disk.vhdx", options=imgconv.Vhdx(block_size=MiB))
    assert_clean(check(tmp_path / "disk.vhdx", "vhdx"))
    return tmp_path / "disk.vhdx"


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=fixed", "block_size=1M"])
def test_what_qemu_makes(tmp_path: Path, options: str) -> None:
    raw, made = disks.holes(tmp_path / "disk.raw", SIZE), tmp_path / "disk.vhdx"
    words = "-f", "raw", "-O", "vhdx", "-o", options
    assert_qemu_img("convert", *words, raw, made)
    report = check(made, "vhdx")
    assert_clean(report)
    assert report.usage.allocated_clusters


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (4, "entry-state"),
        (vhdx.PARTLY_PRESENT, "entry-state"),
        (1 << 40 | vhdx.PRESENT, "block-beyond-end"),
        (1 << 63 | vhdx.PRESENT, "block-beyond-end"),
        (vhdx.PRESENT, "metadata-overlap"),
    ],
)
def test_an_entry_that_cannot_be(image: Path, entry: int, rule: str) -> None:
    at = table_of(image) + 8 * 3
    put(image, at, "<Q", entry)
    report = check(image, "vhdx")
    assert report.exit_status == 2
    assert_found(report, rule, at, "corruption")


def test_two_blocks_at_one_place(image: Path) -> None:
    at = table_of(image)
    put(image, at + 8 * 3, "<Q", number(image, at + 8 * 4, "<Q"))
    report = check(image, "vhdx")
    assert report.exit_status == 2
    assert {finding.rule for finding in report.findings} == {"overlap", "unused"}


def test_a_block_that_nothing_uses(image: Path) -> None:
    at = table_of(image) + 8 * 4
    where = number(image, at, "<Q") & ~0xFFFFF
    put(image, at, "<Q", vhdx.ZERO)
    report = check(image, "vhdx")
    assert report.exit_status == 3
    assert_found(report, "unused", where, "leak")


@pytest.mark.parametrize(
    ("offsets", "rule"),
    [(vhdx.HEADERS_AT, "header-copy"), (vhdx.REGIONS_AT, "region-copy")],
)
def test_one_of_two_is_damaged_or_both(image: Path, offsets: list[int], rule: str) -> None:
    flip(image, offsets[0] + 40)
    report = check(image, "vhdx")
    assert report.exit_status == 0
    assert_found(report, rule, offsets[0], "warning")
    flip(image, offsets[1] + 40)
    report = check(image, "vhdx")
    assert report.exit_status == 2
    assert_found(report, "structure", offsets[0], "corruption")


def test_reserved_bits_and_unknown_regions(image: Path) -> None:
    at = table_of(image) + 8
    put(image, at, "<Q", number(image, at, "<Q") | 1 << 10)
    report = check(image, "vhdx")
    assert_found(report, "entry-reserved", at, "warning")
    with open(image, "r+b") as file:
        for start in vhdx.REGIONS_AT:  # a third region, which one would have to know
            file.seek(start)
            raw = bytearray(file.read(vhdx.TABLE_SIZE))
            raw[8:12] = struct.pack("<I", 3)
            raw[80:112] = struct.pack("<16sQII", b"x" * 16, 64 * MiB, MiB, 1)
            file.seek(start)
            file.write(vhdx.sealed(bytes(raw)))
    report = check(image, "vhdx")
    assert report.exit_status == 1
    assert_found(report, "unsupported", vhdx.REGIONS_AT[0] + 80, "error")


def test_one_fault_hides_no_other(tmp_path: Path) -> None:
    """Each of these would end the opening of an image."""
    unknown = vhdx.Region(b"?" * 16, made.TABLE_AT, MiB, 1)
    names = made.items(3 * MiB, sector=512) | {b"!" * 16: b"", vhdx.DISK_ID: b"short"}
    content = bytearray(
        made.image(
            names,
            [made.entry(4, 4), made.entry(4), made.entry(4)],
            b"d" * MiB,
            table=made.regions(unknown, made.regions()[0]),
            log=made.log_entry(1, [], tail=4096),
        )
    )
    content[:8] = b"vhdxfile"[::-1]
    image = tmp_path / "disk.vhdx"
    image.write_bytes(content)
    report = check(image, "vhdx")
    assert report.exit_status == 2
    found = [
        ("header-magic", 0, "corruption"),
        ("log", MiB, "corruption"),
        ("unsupported", vhdx.REGIONS_AT[0] + 80, "error"),
        ("region", vhdx.REGIONS_AT[0] + 112, "corruption"),
        ("metadata-overlap", vhdx.REGIONS_AT[0], "corruption"),
        ("unsupported", made.METADATA_AT + 32 * 5, "error"),
        ("entry-state", made.TABLE_AT, "corruption"),
        ("overlap", made.TABLE_AT + 16, "corruption"),
    ]
    for rule, offset, severity in found:
        assert_found(report, rule, offset, severity)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"block": 3 * MiB}, "block-size"),
        ({"sector": 1000}, "sector-size"),
        ({"flags": 2}, "parent"),
        ({"flags": 2, "locator": b"short"}, "parent"),
    ],
)
def test_metadata_that_cannot_be(tmp_path: Path, fields: dict[str, int], rule: str) -> None:
    image, metadata = tmp_path / "disk.vhdx", made.items(3 * MiB, **fields)  # type: ignore[arg-type]
    image.write_bytes(made.image(metadata | {vhdx.DISK_SIZE: bytes(8)}, [0], b""))
    rules = {finding.rule for finding in check(image, "vhdx").findings}
    assert {rule, "disk-size"} <= rules


SOUND = ("bitmaps of 4 million holes",)
OTHERWISE = {"size 2^64": 2, "parent of another kind": 1}


@pytest.mark.parametrize("name", vhdx_cases.VHDX)
def test_hostile_images_are_found_out(tmp_path: Path, name: str) -> None:
    """What is wrong with the file itself is seen by a check, too."""
    case = vhdx_cases.VHDX[name]
    image = case.make().write(tmp_path / "disk.vhdx")
    report = check(image, "vhdx")
    expected = 2 if case.code == MALFORMED else 1
    if case.beside or name in SOUND or (name.startswith("parent") and expected == 1):
        expected = 0  # what is wrong is elsewhere, or not wrong but too much
    assert report.exit_status == OTHERWISE.get(name, expected), report.findings

"""Damaged VMDK of every kind: each damage is found, and where it is."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from support import disks
from support.damage import (
    assert_clean,
    assert_found,
    check,
    flip,
    number,
    patch,
    put,
    qemu_check,
)
from support.esx import cowd, sesparse
from support.peers import assert_qemu_img

import imgconv
from imgconv import CheckReport, ReadOptions
from imgconv.ondisk import vmdk as ondisk
from imgconv.units import SECTOR, KiB, MiB

SIZE = 9 * MiB + 5 * KiB
GRAIN = 64 * KiB
HERE = ReadOptions(allow_references="same-folder")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.random_runs(tmp_path_factory.mktemp("raw") / "disk.raw", SIZE)


@pytest.fixture
def sparse(raw: Path, tmp_path: Path) -> Path:
    imgconv.convert(raw, tmp_path / "disk.vmdk")
    return tmp_path / "disk.vmdk"


@pytest.fixture
def stream(raw: Path, tmp_path: Path) -> Path:
    image = tmp_path / "disk.vmdk"
    imgconv.convert(raw, image, options=imgconv.Vmdk(subformat="streamOptimized"))
    return image


def directory(image: Path) -> int:
    sector = number(image, 56, "<Q")
    if sector == ondisk.DIRECTORY_AT_END:
        sector = number(image, image.stat().st_size - 1024 + 56, "<Q")
    return sector * SECTOR


def table(image: Path) -> int:
    return number(image, directory(image), "<I") * SECTOR


def entries(image: Path) -> list[int]:
    """Where in the file the entries of grains are that are stored."""
    start = table(image)
    words = struct.unpack("<512I", image.read_bytes()[start : start + 2048])
    return [start + 4 * row for row, word in enumerate(words) if word]


def grain(image: Path, row: int) -> int:
    return number(image, entries(image)[row], "<I") * SECTOR


Damage = Callable[[Path], tuple[str, int, str]]
STATUS = {"corruption": 2, "leak": 3, "error": 1, "warning": 0}


def assert_damage(image: Path, damage: Damage) -> CheckReport:
    rule, offset, severity = damage(image)
    report = check(image, "vmdk", limit=1000)
    assert_found(report, rule, offset, severity)
    assert report.exit_status == STATUS[severity], report.findings
    return report


def magic(image: Path) -> tuple[str, int, str]:
    flip(image, 1)
    return "header-magic", 0, "corruption"


def version(image: Path) -> tuple[str, int, str]:
    put(image, 4, "<I", 9)
    return "header-version", 4, "error"


def as_text(image: Path) -> tuple[str, int, str]:
    patch(image, 73, b"\r\n \n")
    return "newline-test", 73, "corruption"


def not_closed(image: Path) -> tuple[str, int, str]:
    patch(image, 72, b"\1")
    return "unclean-shutdown", 72, "warning"


def half_compressed(image: Path) -> tuple[str, int, str]:
    flip(image, 10, 1)
    return "header-flags", 8, "corruption"


def method(image: Path) -> tuple[str, int, str]:
    flip(image, 77, 3)
    return "compression", 77, "corruption"


def odd_grain(image: Path) -> tuple[str, int, str]:
    put(image, 20, "<Q", 100)
    return "grain-size", 20, "corruption"


def no_capacity(image: Path) -> tuple[str, int, str]:
    put(image, 12, "<Q", 0)
    return "disk-size", 12, "corruption"


def no_tables(image: Path) -> tuple[str, int, str]:
    put(image, 44, "<I", 0)
    return "table-entries", 44, "corruption"


def descriptor_beyond(image: Path) -> tuple[str, int, str]:
    put(image, 28, "<Q", 1 << 30)
    return "descriptor", 28, "corruption"


def in_text(old: bytes, new: bytes, rule: str, severity: str) -> Damage:
    def damage(image: Path) -> tuple[str, int, str]:
        at = image.read_bytes().index(old)
        patch(image, at, new.ljust(len(old)))
        return rule, SECTOR, severity

    damage.__name__ = old.decode()
    return damage


HEADERS = [
    magic,
    version,
    as_text,
    not_closed,
    odd_grain,
    no_capacity,
    no_tables,
    descriptor_beyond,
    in_text(b"createType", b"creatType", "descriptor", "corruption"),
    in_text(b"CID=", b"CID?", "descriptor", "corruption"),
    in_text(b"parentCID=", b"parentSID=", "descriptor", "corruption"),
    in_text(b"RW 18442", b"RW 44", "descriptor-size", "corruption"),
    in_text(b"ddb.longContentID = ", b'ddb.longContentID ="0', "descriptor-id", "warning"),
    in_text(b"RW 18442", b"RW 18442?", "descriptor", "corruption"),
]


@pytest.mark.parametrize("damage", HEADERS, ids=lambda d: d.__name__)
def test_headers_and_descriptors(sparse: Path, damage: Damage) -> None:
    assert_damage(sparse, damage)


@pytest.mark.parametrize("damage", [half_compressed, method], ids=lambda d: d.__name__)
def test_headers_that_contradict_themselves(sparse: Path, damage: Damage) -> None:
    rule, offset, severity = damage(sparse)
    assert_found(check(sparse, "vmdk"), rule, offset, severity)


def grain_beyond(image: Path) -> tuple[str, int, str]:
    put(image, entries(image)[4], "<I", 1 << 30)
    return "grain-beyond-end", entries(image)[4], "corruption"


def grains_at_one_place(image: Path) -> tuple[str, int, str]:
    put(image, entries(image)[4], "<I", grain(image, 2) // SECTOR)
    return "overlap", entries(image)[4], "corruption"


def grain_on_a_table(image: Path) -> tuple[str, int, str]:
    put(image, entries(image)[4], "<I", table(image) // SECTOR)
    return "metadata-overlap", entries(image)[4], "corruption"


def grain_lost(image: Path) -> tuple[str, int, str]:
    """Both tables have forgotten it."""
    lost, second = grain(image, 4), number(image, 48, "<Q") * SECTOR
    other = number(image, second, "<I") * SECTOR + entries(image)[4] - table(image)
    for at in (other, entries(image)[4]):
        put(image, at, "<I", 0)
    return "unused", lost, "leak"


def tables_differ(image: Path) -> tuple[str, int, str]:
    second = number(image, 48, "<Q") * SECTOR
    at = number(image, second, "<I") * SECTOR + 4 * 7
    put(image, at, "<I", number(image, at, "<I") ^ 128)
    return "redundant-table", at, "corruption"


def table_beyond(image: Path) -> tuple[str, int, str]:
    put(image, directory(image), "<I", 1 << 30)
    return "table-beyond-end", directory(image), "corruption"


def directory_beyond(image: Path) -> tuple[str, int, str]:
    put(image, 56, "<Q", 1 << 40)
    return "directory-beyond-end", 56, "corruption"


def second_directory_gone(image: Path) -> tuple[str, int, str]:
    put(image, 48, "<Q", 0)
    return "directory-beyond-end", 48, "corruption"


def one_directory_for_two(image: Path) -> tuple[str, int, str]:
    put(image, 48, "<Q", directory(image) // SECTOR)
    return "metadata-overlap", 48, "corruption"


def trailing_room(image: Path) -> tuple[str, int, str]:
    size = image.stat().st_size
    patch(image, size + 3 * GRAIN - 1, b"\0")
    return "unused", size, "leak"


def end_cut(image: Path) -> tuple[str, int, str]:
    with open(image, "r+b") as file:
        file.truncate(image.stat().st_size - GRAIN)
    return "grain-beyond-end", entries(image)[-1], "corruption"


PLAIN = [
    grain_beyond,
    grains_at_one_place,
    grain_on_a_table,
    grain_lost,
    tables_differ,
    table_beyond,
    directory_beyond,
    second_directory_gone,
    one_directory_for_two,
    trailing_room,
    end_cut,
]
SEEN_BY_QEMU = {grain_beyond, end_cut}


@pytest.mark.parametrize("damage", PLAIN, ids=lambda d: d.__name__)
def test_sparse_extents(sparse: Path, damage: Damage) -> None:
    report = assert_damage(sparse, damage)
    seen = qemu_check(sparse, "vmdk")[0] != 0
    assert seen == (damage in SEEN_BY_QEMU) or not report.corruptions


def test_a_zeroed_grain_is_no_grain_unless_the_header_says_so(
    raw: Path, tmp_path: Path
) -> None:
    image = tmp_path / "disk.vmdk"
    words = "subformat=monolithicSparse,zeroed_grain=on"
    assert_qemu_img("convert", "-O", "vmdk", "-o", words, raw, image)
    put(image, entries(image)[3], "<I", 1)
    report = check(image, "vmdk")
    assert {f.rule for f in report.findings} == {"redundant-table", "unused"}
    flip(image, 8, 4)
    assert_found(check(image, "vmdk"), "metadata-overlap", entries(image)[3], "corruption")


def stream_broken(image: Path) -> tuple[str, int, str]:
    patch(image, grain(image, 3) + 40, b"\xff" * 32)
    return "stream", grain(image, 3), "corruption"


def wrong_place(image: Path) -> tuple[str, int, str]:
    put(image, grain(image, 3), "<Q", number(image, grain(image, 3), "<Q") + 128)
    return "grain-sector", grain(image, 3), "corruption"


def entries_swapped(image: Path) -> tuple[str, int, str]:
    first, second = entries(image)[2:4]
    one, other = (number(image, at, "<I") for at in (first, second))
    put(image, first, "<I", other)
    put(image, second, "<I", one)
    return "grain-sector", one * SECTOR, "corruption"


def between_grains(image: Path) -> tuple[str, int, str]:
    put(image, entries(image)[3], "<I", number(image, entries(image)[3], "<I") + 1)
    return "grain-off-stream", grain(image, 3), "corruption"


def stream_lost(image: Path) -> tuple[str, int, str]:
    lost = grain(image, 3)
    put(image, entries(image)[3], "<I", 0)
    return "unused", lost, "leak"


def marker_wrong(image: Path) -> tuple[str, int, str]:
    put(image, grain(image, 3) + 8, "<I", 1 << 30)
    return "marker", grain(image, 3), "corruption"


def footer_gone(image: Path) -> tuple[str, int, str]:
    with open(image, "r+b") as file:
        file.truncate(image.stat().st_size - 512)
    return "footer-missing", image.stat().st_size - 1536, "corruption"


def footer_differs(image: Path) -> tuple[str, int, str]:
    at = image.stat().st_size - 1024
    flip(image, at + 12)  # the disk's size
    return "footer-copy", at, "corruption"


def footer_differs_in_little(image: Path) -> tuple[str, int, str]:
    at = image.stat().st_size - 1024
    flip(image, at + 64)  # where grains begin
    return "footer-copy", at, "warning"


def footer_without_directory(image: Path) -> tuple[str, int, str]:
    at = image.stat().st_size - 1024 + 56
    put(image, at, "<Q", ondisk.DIRECTORY_AT_END)
    return "footer-directory", at, "corruption"


def end_is_no_end(image: Path) -> tuple[str, int, str]:
    at = image.stat().st_size - 512
    patch(image, at + 100, b"\1")
    return "end-of-stream", at, "corruption"


def table_without_marker(image: Path) -> tuple[str, int, str]:
    put(image, table(image) - SECTOR + 12, "<I", 4)
    return "table-marker", directory(image), "corruption"


def order_reversed(image: Path) -> tuple[str, int, str]:
    """The markers of two grains tell of one another's place, as the tables then do."""
    first, second = (grain(image, row) for row in (3, 4))
    one, other = (number(image, at, "<Q") for at in (first, second))
    put(image, first, "<Q", other)
    put(image, second, "<Q", one)
    a, b = entries(image)[3:5]
    put(image, a, "<I", second // SECTOR)
    put(image, b, "<I", first // SECTOR)
    return "grain-order", second, "warning"


STREAMED = [
    stream_broken,
    wrong_place,
    entries_swapped,
    between_grains,
    stream_lost,
    marker_wrong,
    footer_gone,
    footer_differs,
    footer_differs_in_little,
    footer_without_directory,
    end_is_no_end,
    table_without_marker,
    order_reversed,
]


@pytest.mark.parametrize("damage", STREAMED, ids=lambda d: d.__name__)
def test_streams(stream: Path, damage: Damage) -> None:
    assert_damage(stream, damage)


def test_a_checksum_is_part_of_a_stream(stream: Path) -> None:
    """qemu does not read it."""
    at = grain(stream, 3)
    length = number(stream, at + 8, "<I")
    flip(stream, at + 12 + length - 1)
    assert qemu_check(stream, "vmdk")[0] == 0
    assert_found(check(stream, "vmdk"), "stream", at, "corruption")
    assert_clean(check(stream, "vmdk", data=False))


def test_a_stream_that_holds_too_much(stream: Path) -> None:
    at = grain(stream, 3)
    bomb = zlib.compress(bytes(MiB))
    put(stream, at + 8, "<I", len(bomb))
    patch(stream, at + 12, bomb)
    assert_found(check(stream, "vmdk"), "stream", at, "corruption")


def test_the_order_of_grains_matters_to_no_one_at_a_time(stream: Path) -> None:
    report = check(stream, "vmdk", threads=1)
    assert report == check(stream, "vmdk", threads=3)
    assert report.decoded == report.usage.allocated_clusters == len(entries(stream))


def test_damage_in_a_part_of_a_disk(raw: Path, tmp_path: Path) -> None:
    image, words = tmp_path / "disk.vmdk", "subformat=twoGbMaxExtentSparse"
    assert_qemu_img("convert", "-O", "vmdk", "-o", words, raw, image)
    part = tmp_path / "disk-s001.vmdk"
    at = entries(part)[3]
    put(part, at, "<I", 1 << 30)
    report = check(image, "vmdk", read=HERE)
    assert_found(report, "grain-beyond-end", at, "corruption")
    assert report.findings[0].text.startswith("'disk-s001.vmdk': ")
    part.unlink()
    report = check(image, "vmdk", read=HERE)
    assert (report.exit_status, report.check_errors) == (1, 1)


def test_a_part_by_itself(raw: Path, tmp_path: Path) -> None:
    image, words = tmp_path / "disk.vmdk", "subformat=twoGbMaxExtentSparse"
    assert_qemu_img("convert", "-O", "vmdk", "-o", words, raw, image)
    report = check(tmp_path / "disk-s001.vmdk", "vmdk")
    assert (report.exit_status, report.corruptions) == (1, 0)
    assert_found(report, "descriptor-missing", SECTOR, "error")


def test_a_flat_part_that_is_too_short(raw: Path, tmp_path: Path) -> None:
    image, words = tmp_path / "disk.vmdk", "subformat=monolithicFlat"
    assert_qemu_img("convert", "-O", "vmdk", "-o", words, raw, image)
    with open(tmp_path / "disk-flat.vmdk", "r+b") as file:
        file.truncate(SIZE - 512)
    assert_found(check(image, "vmdk", read=HERE), "extent-size", 0, "corruption")


COWD = {5: b"a" * SECTOR, 6: b"b" * SECTOR, 4097: b"c" * SECTOR, 8999: b"d" * SECTOR}
COWD_TABLE = 5 * SECTOR  # the first one, of 32 sectors


@pytest.mark.parametrize(
    ("offset", "value", "rule"),
    [
        (12, 0, "disk-size"),
        (16, 0, "grain-size"),
        (20, 1 << 30, "directory-beyond-end"),
        (24, 1, "directory-size"),
        (2048, 1 << 30, "table-beyond-end"),
        (COWD_TABLE + 4 * 5, 1 << 30, "grain-beyond-end"),
        (COWD_TABLE + 4 * 5, 5, "metadata-overlap"),
    ],
)
def test_cowd(tmp_path: Path, offset: int, value: int, rule: str) -> None:
    image = tmp_path / "x-delta.vmdk"
    image.write_bytes(cowd(COWD, 9000))
    assert_clean(check(image, "vmdk"))
    put(image, offset, "<I", value)
    assert_found(check(image, "vmdk"), rule, offset, "corruption")


def test_cowd_with_two_grains_at_one_place(tmp_path: Path) -> None:
    image = tmp_path / "x-delta.vmdk"
    image.write_bytes(cowd(COWD, 9000))
    put(image, COWD_TABLE + 24, "<I", number(image, COWD_TABLE + 20, "<I"))
    assert_found(check(image, "vmdk"), "overlap", COWD_TABLE + 24, "corruption")


KINDS = {0: 3 << 60, 1: 2 << 60, 2: 1 << 60, 7: 3 << 60 | 1 << 48}
SE_TABLE = 8 * SECTOR


@pytest.mark.parametrize(
    ("offset", "value", "rule", "severity"),
    [
        (8, 7, "header-version", "error"),
        (16, 0, "disk-size", "corruption"),
        (24, 16, "grain-size", "corruption"),
        (40, 1, "header-reserved", "corruption"),
        (128, 1 << 40, "area-beyond-end", "corruption"),
        (SECTOR, 1, "header-magic", "corruption"),
        (SECTOR + 24, 1, "journal", "corruption"),
        (2 * SECTOR, 5, "directory-entry", "corruption"),
        (SE_TABLE, 9 << 60, "grain-entry", "corruption"),
        (SE_TABLE + 56, 3 << 60, "overlap", "corruption"),
        (SE_TABLE + 56, 3 << 60 | 9 << 48, "grain-entry", "corruption"),
    ],
)
def test_sesparse(tmp_path: Path, offset: int, value: int, rule: str, severity: str) -> None:
    image = tmp_path / "x-sesparse.vmdk"
    image.write_bytes(sesparse(KINDS, [b"a" * 4096, b"b" * 4096], 800))
    assert_clean(check(image, "vmdk"))
    put(image, offset, "<Q", value)
    report = check(image, "vmdk")
    assert_found(report, rule, offset, severity)
    assert report.exit_status == STATUS[severity]

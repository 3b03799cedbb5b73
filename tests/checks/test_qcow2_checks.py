"""Damaged QCOW2: what qemu-img finds, at the same count, and what it does not find."""

import random
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from support import disks
from support.damage import (
    COUNTS,
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
from support.peers import assert_qemu_img

from imgconv.units import GiB, KiB, MiB, TiB

CLUSTER = 64 * KiB
COPIED, COMPRESSED = 1 << 63, 1 << 62


class Qcow2:
    """An image of qemu-img with clusters of 64 KiB, and where its structures are."""

    def __init__(self, path: Path, *words: str):
        self.path = path
        raw = disks.random_runs(path.with_suffix(".raw"), 9 * MiB)
        assert_qemu_img("convert", "-f", "raw", "-O", "qcow2", *words, raw, path)
        self.l1 = self.u64(40)
        self.refcount_table = self.u64(48)
        self.block = self.u64(self.refcount_table)
        self.l2 = self.u64(self.l1) & ~COPIED
        self.used = [at for at in range(self.l2, self.l2 + 1152, 8) if self.u64(at)]

    def u64(self, at: int) -> int:
        return number(self.path, at, ">Q")

    def entry(self, at: int, value: int) -> None:
        put(self.path, at, ">Q", value)

    def data(self, row: int) -> int:
        """Where a cluster of the guest is."""
        return self.u64(self.used[row]) & ~COPIED

    def refcount_at(self, offset: int) -> int:
        return self.block + 2 * (offset // CLUSTER)

    def refcount(self, offset: int, value: int) -> None:
        put(self.path, self.refcount_at(offset), ">H", value)


@pytest.fixture
def image(tmp_path: Path) -> Qcow2:
    return Qcow2(tmp_path / "disk.qcow2")


@pytest.fixture
def packed(tmp_path: Path) -> Qcow2:
    return Qcow2(tmp_path / "disk.qcow2", "-c")


# A damage returns the rule it breaks, the offset that is to be named, and the severity.
Damage = Callable[[Qcow2], tuple[str, int, str]]


def refcount_too_low(image: Qcow2) -> tuple[str, int, str]:
    image.refcount(image.data(3), 0)
    return "refcount-low", image.data(3), "corruption"


def refcount_too_high(image: Qcow2) -> tuple[str, int, str]:
    image.refcount(image.data(3), 7)
    return "refcount-high", image.data(3), "leak"


def leak(image: Qcow2) -> tuple[str, int, str]:
    size = image.path.stat().st_size
    patch(image.path, size + CLUSTER - 1, b"\0")
    image.refcount(size, 1)
    return "refcount-high", size, "leak"


def copied_missing(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.used[5], image.data(5))
    return "copied-flag", image.used[5], "corruption"


def copied_missing_in_l1(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.l1, image.l2)
    return "l1-copied-flag", image.l1, "corruption"


def duplicate(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.used[2], image.data(7) | COPIED)
    return "refcount-low", image.data(7), "corruption"


def swapped_table(image: Qcow2) -> tuple[str, int, str]:
    """An entry leads to the L2 table that it is in."""
    image.entry(image.used[2], image.l2 | COPIED)
    return "refcount-low", image.l2, "corruption"


def on_header(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.l1, COPIED | image.refcount_table)
    return "refcount-low", image.refcount_table, "corruption"


def on_refcounts(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.used[2], image.block | COPIED)
    return "metadata-overlap", image.refcount_table, "corruption"


def beyond_end(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.used[0], 1 << 40 | COPIED)
    return "cluster-beyond-end", image.used[0], "corruption"


def table_beyond_end(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.l1 + 8, 0)
    image.entry(image.used[-1], image.data(-1) + GiB | COPIED)
    return "cluster-beyond-end", image.used[-1], "corruption"


def misaligned(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.used[4], image.data(4) + 512 | COPIED)
    return "cluster-misaligned", image.used[4], "corruption"


def reserved(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.used[4], image.data(4) | COPIED | 1 << 58)
    return "l2-reserved", image.used[4], "corruption"


def reserved_in_l1(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.l1, image.l2 | COPIED | 1)
    return "l1-reserved", image.l1, "corruption"


def refcount_block_lost(image: Qcow2) -> tuple[str, int, str]:
    image.entry(image.refcount_table, 0)
    return "refcount-low", image.data(0), "corruption"


AGREED = [
    refcount_too_low,
    refcount_too_high,
    leak,
    copied_missing,
    copied_missing_in_l1,
    duplicate,
    swapped_table,
    on_refcounts,
    beyond_end,
    table_beyond_end,
    misaligned,
    reserved,
    reserved_in_l1,
    refcount_block_lost,
]


@pytest.mark.parametrize("damage", AGREED, ids=lambda d: d.__name__)
def test_damage_that_qemu_finds(image: Qcow2, damage: Damage) -> None:
    rule, offset, severity = damage(image)
    report = check(image.path, "qcow2", limit=1000)
    assert report.exit_status == (2 if report.corruptions else 3)
    assert_found(report, rule, offset, severity)
    assert_agrees(image.path, "qcow2")


def test_leaks_alone_are_told_from_corruption(image: Qcow2) -> None:
    rule, offset, severity = leak(image)
    report = assert_agrees(image.path, "qcow2")
    assert report.exit_status == 3
    assert (report.leaks, report.corruptions) == (1, 0)
    assert_found(report, rule, offset, severity)


def test_an_l1_entry_that_leads_to_other_tables(image: Qcow2) -> None:
    rule, offset, severity = on_header(image)
    report = check(image.path, "qcow2")
    assert qemu_check(image.path, "qcow2")[0] == 2
    assert_found(report, rule, offset, severity)


# What qemu-img refuses to open, which is exit code 1 there: here it is found, and where.


def header_l1_misaligned(image: Qcow2) -> tuple[str, int, str]:
    image.entry(40, image.l1 + 8)
    return "l1-misaligned", 40, "corruption"


def header_tables_swapped(image: Qcow2) -> tuple[str, int, str]:
    image.entry(40, image.refcount_table)
    image.entry(48, image.l1)
    return "refcount-low", 0, "corruption"


def header_l1_short(image: Qcow2) -> tuple[str, int, str]:
    put(image.path, 36, ">I", 0)
    return "l1-size", 36, "corruption"


def header_no_refcounts(image: Qcow2) -> tuple[str, int, str]:
    put(image.path, 56, ">I", 0)
    return "refcount-table-size", 56, "corruption"


def header_refcounts_far_beyond(image: Qcow2) -> tuple[str, int, str]:
    """An offset that fits no signed number, and is a multiple of clusters."""
    image.entry(48, (1 << 64) - CLUSTER)
    return "area-beyond-end", 48, "corruption"


def header_no_magic(image: Qcow2) -> tuple[str, int, str]:
    flip(image.path, 2)
    return "header-magic", 0, "corruption"


def extension_too_long(image: Qcow2) -> tuple[str, int, str]:
    put(image.path, 116, ">I", 1 << 31)
    return "extension-length", 116, "corruption"


def compression_type(image: Qcow2) -> tuple[str, int, str]:
    patch(image.path, 104, b"\x01")
    return "compression-type", 104, "corruption"


def backing_name(image: Qcow2) -> tuple[str, int, str]:
    put(image.path, 8, ">Q", CLUSTER - 4)
    put(image.path, 16, ">I", 8)
    return "backing-name", 8, "corruption"


REFUSED = [
    header_l1_misaligned,
    header_tables_swapped,
    header_l1_short,
    header_no_refcounts,
    header_refcounts_far_beyond,
    header_no_magic,
    extension_too_long,
    compression_type,
    backing_name,
]


@pytest.mark.parametrize("damage", REFUSED, ids=lambda d: d.__name__)
def test_damage_at_which_others_give_up(image: Qcow2, damage: Damage) -> None:
    rule, offset, severity = damage(image)
    report = check(image.path, "qcow2", limit=1000)
    assert report.exit_status == 2
    assert_found(report, rule, offset, severity)


# What qemu-img calls clean.


def zero_flag_in_version_2(image: Qcow2) -> tuple[str, int, str]:
    put(image.path, 4, ">I", 2)
    image.entry(72, 0)  # no extensions
    image.entry(image.used[3], image.data(3) | COPIED | 1)
    return "l2-reserved", image.used[3], "corruption"


def marked_corrupt(image: Qcow2) -> tuple[str, int, str]:
    image.entry(72, 2)
    return "marked-corrupt", 72, "corruption"


def shared_with_the_l1_table(image: Qcow2) -> tuple[str, int, str]:
    """The refcounts say that a cluster has two uses, and it does; but one is a table."""
    image.refcount(image.data(6), 0)
    image.entry(image.used[6], image.l1)
    image.refcount(image.l1, 2)
    return "metadata-overlap", 40, "corruption"


@pytest.mark.parametrize(
    "damage",
    [zero_flag_in_version_2, marked_corrupt, shared_with_the_l1_table],
    ids=lambda d: d.__name__,
)
def test_damage_that_qemu_does_not_find(image: Qcow2, damage: Damage) -> None:
    rule, offset, severity = damage(image)
    assert qemu_check(image.path, "qcow2")[0] == 0
    report = check(image.path, "qcow2")
    assert report.exit_status == 2
    assert_found(report, rule, offset, severity)


def test_an_image_that_was_not_closed(image: Qcow2) -> None:
    image.entry(72, 1)
    image.entry(80, 1)
    report = assert_agrees(image.path, "qcow2")
    assert_clean(report)
    assert_found(report, "dirty", 72, "warning")


def test_a_file_that_ends_too_soon(image: Qcow2) -> None:
    size = image.path.stat().st_size - 3 * CLUSTER - 512
    with open(image.path, "r+b") as file:
        file.truncate(size)
    report = assert_agrees(image.path, "qcow2")
    assert report.exit_status == 2
    assert_found(report, "cluster-cut", image.used[-4], "warning")


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
@pytest.mark.parametrize("threads", [1, 3])
def test_streams_that_are_broken(tmp_path: Path, codec: str, threads: int) -> None:
    packed = Qcow2(tmp_path / "disk.qcow2", "-c", "-o", f"compression_type={codec}")
    rows = [at for at in packed.used if packed.u64(at) & COMPRESSED]
    places = [packed.u64(at) & (1 << 54) - 1 for at in rows[1:4]]
    for place in places:
        patch(packed.path, place, b"\xff" * 64)
    assert qemu_check(packed.path, "qcow2")[0] == 0
    report = check(packed.path, "qcow2", threads=threads)
    assert [(f.rule, f.offset) for f in report.findings] == [("stream", at) for at in places]
    assert (report.exit_status, report.corruptions) == (2, 3)
    assert_clean(check(packed.path, "qcow2", data=False))


def test_a_stream_with_too_few_sectors(packed: Qcow2) -> None:
    at = max(packed.used, key=lambda at: packed.u64(at) >> 54 & 0xFF)
    packed.entry(at, packed.u64(at) - (2 << 54))
    report = check(packed.path, "qcow2")
    place = packed.u64(at) & (1 << 54) - 1
    assert_found(report, "stream", place, "corruption")


def test_a_copied_flag_on_compressed_data(packed: Qcow2) -> None:
    at = next(at for at in packed.used if packed.u64(at) & COMPRESSED)
    packed.entry(at, packed.u64(at) | COPIED)
    assert_found(assert_agrees(packed.path, "qcow2"), "packed-copied", at, "corruption")


def test_a_stream_that_reaches_back_too_far(tmp_path: Path) -> None:
    """Its history is that of common deflate; qemu reads it, readers by pieces do not."""
    content = random.Random(1).randbytes(16 * KiB) * 4
    raw = disks.write(tmp_path / "disk.raw", MiB, {0: content})
    path = tmp_path / "disk.qcow2"
    assert_qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    l2 = number(path, number(path, 40, ">Q"), ">Q") & ~COPIED
    place = number(path, l2, ">Q") & ~COPIED
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = deflater.compress(content) + deflater.flush()
    patch(path, place, stream)
    put(path, l2, ">Q", COMPRESSED | (len(stream) - 1) // 512 << 54 | place)
    report = assert_agrees(path, "qcow2")
    assert_clean(report)
    assert_found(report, "stream-history", place, "warning")


def test_subclusters_that_are_two_things(tmp_path: Path) -> None:
    image = Qcow2(tmp_path / "disk.qcow2", "-o", "extended_l2=on")
    at = next(at for at in range(image.l2, image.l2 + 2304, 16) if image.u64(at))
    image.entry(at + 8, image.u64(at + 8) | 1 << 3 | 1 << 35)
    report = assert_agrees(image.path, "qcow2", ("corruptions",))
    assert_found(report, "subclusters-both", at, "corruption")
    image.entry(at, 0)
    report = assert_agrees(image.path, "qcow2", ("corruptions",))
    assert_found(report, "subclusters-nowhere", at, "corruption")


def test_refcounts_too_small_for_what_they_count(tmp_path: Path) -> None:
    image = Qcow2(tmp_path / "disk.qcow2", "-o", "refcount_bits=1")
    image.entry(image.used[1], image.data(0) | COPIED)
    report = assert_agrees(image.path, "qcow2")
    assert_found(report, "refcount-overflow", image.data(0), "corruption")


@pytest.fixture
def history(tmp_path: Path) -> Qcow2:
    image = Qcow2(tmp_path / "disk.qcow2")
    for name in ("one", "two"):
        assert_qemu_img("snapshot", "-c", name, image.path)
    words = ["-c", "write 0 256k", image.path]
    subprocess.run(["qemu-io", "-f", "qcow2", *words], check=True, capture_output=True)
    assert_qemu_img("bitmap", "--add", image.path, "bits")
    image.l1 = image.u64(40)
    return image


def test_a_snapshot_whose_table_is_nowhere(history: Qcow2) -> None:
    at = history.u64(64)
    history.entry(at, history.u64(at) + 512)
    report = assert_agrees(history.path, "qcow2")
    assert_found(report, "snapshot-l1-misaligned", at, "corruption")


def test_snapshots_with_one_id(history: Qcow2) -> None:
    at = history.u64(64)
    (size,) = struct.unpack(">I", history.path.read_bytes()[at + 36 : at + 40])
    first = at + 40 + size
    ids, names = (number(history.path, at + 12 + i, ">H") for i in (0, 2))
    second = at + -(-(40 + size + ids + names) // 8) * 8
    patch(history.path, second + 40 + size, history.path.read_bytes()[first : first + ids])
    report = assert_agrees(history.path, "qcow2")
    assert_found(report, "snapshot-id", second, "warning")


def bitmap_directory(image: Qcow2) -> int:
    raw = image.path.read_bytes()[:CLUSTER]
    at = raw.index(struct.pack(">II", 0x23852875, 24))
    return image.u64(at + 8 + 16)


@pytest.mark.parametrize(
    ("shift", "kind", "value", "rule"),
    [
        (0, ">Q", 512, "bitmap-table"),
        (8, ">I", 0, "bitmap-table"),
        (16, ">B", 7, "bitmap-entry"),
        (17, ">B", 40, "bitmap-entry"),
        (18, ">H", 60000, "bitmap-entry"),
    ],
)
def test_bitmaps_that_cannot_be(
    history: Qcow2, shift: int, kind: str, value: int, rule: str
) -> None:
    directory = bitmap_directory(history)
    put(history.path, directory + shift, kind, value)
    report = check(history.path, "qcow2")
    assert report.exit_status == 2
    assert_found(report, rule, directory, "corruption")
    assert qemu_check(history.path, "qcow2")[0] != 0


def test_a_bitmap_whose_cluster_is_nowhere(history: Qcow2) -> None:
    table = history.u64(bitmap_directory(history))
    history.entry(table, 1 << 60)
    report = check(history.path, "qcow2")
    assert_found(report, "bitmap-cluster", table, "corruption")


def test_bitmaps_that_were_not_kept_up(history: Qcow2) -> None:
    history.entry(88, 0)
    report = assert_agrees(history.path, "qcow2")
    assert report.exit_status == 3
    assert report.warnings == 1


def test_a_file_of_many_windows(roomy: Path) -> None:
    """A cluster far away, in a file with more clusters than are counted at once."""
    image = Qcow2(roomy / "disk.qcow2")
    end = image.path.stat().st_size
    assert end % CLUSTER == 0
    far = 2 * TiB - CLUSTER
    for place in (image.data(3), end):
        image.refcount(place, int(place == end))
    image.entry(image.used[3], far | COPIED)
    per_block = CLUSTER // 2
    image.entry(image.refcount_table + 8 * (far // CLUSTER // per_block), end)
    put(image.path, end + 2 * (far // CLUSTER % per_block), ">H", 1)
    patch(image.path, far + CLUSTER - 1, b"\1")
    assert_clean(assert_agrees(image.path, "qcow2", (*COUNTS, "image-end-offset")))
    put(image.path, end + 2 * (far // CLUSTER % per_block), ">H", 2)
    report = assert_agrees(image.path, "qcow2")
    assert_found(report, "refcount-high", far, "leak")
    assert_found(report, "copied-flag", image.used[3], "corruption")

"""Reading VDI and VHD: what qemu-img makes, what others make, and what nobody should."""

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks, engine
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.peers import assert_qemu_img, made_by_qemu
from support.reading import as_qemu_reads_it, guest, guest_of
from support.records import vdi_header, vhd_footer, vhd_header

import imgconv
from imgconv.errors import FormatMismatch, ImageMalformed, ImageUnsupported, SourceError
from imgconv.ondisk import vhd
from imgconv.sources import open_image
from imgconv.units import SECTOR, KiB, MiB, TiB

SIZE = 9 * MiB + 5 * KiB
VARIANTS = {
    "vdi": "subformat=dynamic",
    "vdi-fixed": "subformat=fixed",
    "vhd": "subformat=dynamic",
    "vhd-fixed": "subformat=fixed",
}
CONTENTS = {
    "holes": disks.holes,
    "runs": disks.random_runs,
    "empty": disks.empty,
    "last": disks.last_byte,
    "dense": disks.dense,
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("vdi", []),
        ("vdi", ["-o", "static=on"]),
        ("vhd", []),
        ("vhd", ["-o", "subformat=fixed"]),
        ("vhd", ["-o", "force_size=on"]),
        ("vhd", ["-o", "subformat=fixed,force_size=on"]),
    ],
)
def test_what_qemu_makes_is_read_as_qemu_reads_it(
    tmp_path: Path, content: str, format_name: str, options: list[str]
) -> None:
    raw = CONTENTS[content](tmp_path / "disk.raw", SIZE)
    image = made_by_qemu(raw, tmp_path / f"disk.{format_name}", format_name, *options)
    whole = as_qemu_reads_it(image, format_name)
    assert guest(image) == whole


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_we_make_comes_back(tmp_path: Path, content: str, variant: str) -> None:
    raw, name = CONTENTS[content](tmp_path / "disk.raw", SIZE), variant.partition("-")[0]
    image = tmp_path / f"disk.{name}"
    done = command(raw, image, "-o", VARIANTS[variant])
    assert done.returncode == 0, done.stderr
    report = imgconv.convert(image, tmp_path / "back.raw", threads=3)
    assert (report.source_format, report.virtual_size) == (name, SIZE)
    assert (tmp_path / "back.raw").read_bytes() == raw.read_bytes()
    assert imgconv.compare(raw, image).identical


def test_every_pair_of_formats(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    for source in ("vdi", "vhd"):
        image = tmp_path / f"in.{source}"
        imgconv.convert(raw, image)
        for target in ("raw", "vhd", "qcow2", "vmdk", "vdi", "raw.gz", "raw.zst", "raw.tar.gz"):
            imgconv.convert(image, tmp_path / "a", options=target, identity="x")
            imgconv.convert(raw, tmp_path / "b", options=target, identity="x")
            if target != "vmdk":  # which records its own name
                assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
            else:
                assert_qemu_img("compare", "-f", "raw", "-F", target, raw, tmp_path / "a")


def test_from_a_store(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    imgconv.convert(raw, tmp_path / "d.vdi")
    url = f"file://{tmp_path}/d.vdi"
    assert imgconv.compare(raw, url).identical


def test_the_image_itself_is_no_output(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    imgconv.convert(raw, tmp_path / "d.vdi")
    done = command(tmp_path / "d.vdi", tmp_path / "d.vdi", "-O", "raw")
    assert_one_line_error(done, "is the input itself", status=2)


def test_a_terabyte_of_holes(tmp_path: Path) -> None:
    raw = disks.islands(tmp_path / "disk.raw", TiB, 5)
    for name in ("vdi", "vhd"):
        imgconv.convert(raw, tmp_path / f"d.{name}")
        assert imgconv.compare(raw, tmp_path / f"d.{name}").identical


def test_names_and_content_must_agree(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    imgconv.convert(raw, tmp_path / "d.img", options="vdi")
    with pytest.raises(
        FormatMismatch, match=r"looks like vdi but is named like raw; say -f vdi"
    ):
        imgconv.open(tmp_path / "d.img")
    assert guest(tmp_path / "d.img", "vdi") == raw.read_bytes()
    with pytest.raises(FormatMismatch, match=r"looks like vdi, but vhd was said \(-f\)"):
        imgconv.open(tmp_path / "d.img", source_format="vpc")
    with pytest.raises(ImageMalformed, match="no footer"):
        imgconv.open(raw, source_format="vpc")


# VDI in memory, with one field after another wrong.


def make_vdi(
    block: int = MiB, extra: int = 0, short_header: bool = False, **fields: object
) -> bytes:
    """Three blocks of disk, of which the last is cut, the second zero, in reverse order."""
    size = 2 * block + 8 * KiB
    header = vdi_header(size, block)
    header = replace(header, header_size=384 if short_header else 400, block_extra=extra)
    entries = fields.pop("entries", (1, 0xFFFFFFFE, 0))
    header = replace(header, **fields)  # type: ignore[arg-type]
    front = header.pack()[:512].ljust(512, b"\0")
    table = struct.pack("<3I", *entries).ljust(512, b"\0")  # type: ignore[misc]
    blocks = [b"L" * block, b"F" * block]
    return front + table + b"".join(bytes(extra) + content for content in blocks)


def open_vdi(content: bytes) -> bytes:
    return guest_of(content + bytes(-len(content) % SECTOR), "vdi")


@pytest.mark.parametrize("block", [128 * KiB, 512 * KiB, MiB, 2 * MiB])
@pytest.mark.parametrize("extra", [0, 512])
@pytest.mark.parametrize("short", [False, True])
def test_vdi_of_any_kind(block: int, extra: int, short: bool) -> None:
    found = open_vdi(make_vdi(block, extra, short))
    assert found == b"F" * block + bytes(block) + b"L" * (8 * KiB)


def test_a_vdi_that_ends_within_a_sector_is_rounded_up(tmp_path: Path) -> None:
    size = 2 * MiB + 8 * KiB - 100
    (tmp_path / "d.vdi").write_bytes(make_vdi(disk_size=size))
    with imgconv.open(tmp_path / "d.vdi") as disk:
        assert disk.size == size + 100
        assert disk.read(2 * MiB, 8 * KiB) == b"L" * (8 * KiB)
        (warning,) = disk.warnings
    assert f"a disk of {size} bytes is no whole sectors; rounded up to {size + 100}" in warning
    assert imgconv.info(tmp_path / "d.vdi").warnings == (warning,)


@pytest.mark.parametrize(
    ("fields", "offset", "reason"),
    [
        ({"signature": 1}, 0x40, "no signature"),
        ({"header_size": 300}, 0x48, "too short"),
        ({"image_type": 9}, 0x4C, "no type 9"),
        ({"map_offset": 100}, 0x154, "in the header"),
        ({"map_offset": 1 << 31, "data_offset": (1 << 31) + 512}, 1 << 31, "but the file has"),
        ({"data_offset": 520}, 0x158, "before the map ends"),
        ({"sector_size": 4096}, 0x168, "not of 512"),
        ({"disk_size": 0}, 0x170, "no size"),
        ({"disk_size": 9 * MiB}, 0x180, "3 blocks, but the disk has 9"),
        ({"block_size": 0}, 0x178, "blocks of 0 bytes"),
        ({"block_size": 3 * MiB}, 0x178, "blocks of 3145728 bytes"),
        ({"block_extra": 100}, 0x17C, "do not begin at sectors"),
        ({"entries": (1, 1, 0)}, 512, "two blocks lie at"),
        ({"entries": (5, 0xFFFFFFFF, 0)}, 512, "but the file has"),
        ({"entries": (1, 0xFFFFFFFF, 7)}, 512, "but the file has"),
    ],
)
def test_a_vdi_that_cannot_be(fields: dict[str, object], offset: int, reason: str) -> None:
    with pytest.raises(ImageMalformed, match=f"malformed vdi at offset {offset}: .*{reason}"):
        open_vdi(make_vdi(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 1}, "version 0.1; only 1.1"),
        ({"image_type": 4}, "needs its parent"),
        ({"parent_id": b"p" * 16}, "needs its parent"),
        (
            {"disk_size": 65 * TiB, "blocks": 65 << 20, "data_offset": 1 << 29},
            "at most",
        ),
    ],
)
def test_a_vdi_of_another_kind(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ImageUnsupported, match=reason):
        open_vdi(make_vdi(**fields))  # type: ignore[arg-type]


# VHD in memory.


def make_vhd(
    block: int = 2 * MiB,
    bitmaps: tuple[bytes, bytes] = (b"\xff", b"\xff"),
    entries: tuple[int, int, int] | None = None,
    footer: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    seal: bool = True,
) -> bytes:
    """Three blocks of disk, of which the second is not there, in reverse order."""
    size, data_at = 2 * block + 8 * KiB, 2048
    room = -(-block // SECTOR // 8 // SECTOR) * SECTOR
    tail, dynamic = vhd_footer(size), vhd_header(block)
    sealed = replace(tail, **(footer or {})).sealed()  # type: ignore[arg-type]
    front = replace(dynamic, **(header or {})).sealed()  # type: ignore[arg-type]
    if not seal:
        sealed = replace(sealed, checksum=sealed.checksum ^ 1)
    first, second = data_at // SECTOR, (data_at + room + block) // SECTOR
    table = struct.pack(">3I", *(entries or (second, vhd.UNALLOCATED, first)))
    bitmap = [(one * (block // SECTOR // 8)).ljust(room, b"\0") for one in bitmaps]
    blocks = bitmap[1] + b"L" * block + bitmap[0] + b"F" * block
    return sealed.pack() + front.pack() + table.ljust(512, b"\xff") + blocks + sealed.pack()


def open_vhd(content: bytes) -> bytes:
    return guest_of(content + bytes(-len(content) % SECTOR), "vhd")


@pytest.mark.parametrize("block", [64 * KiB, 512 * KiB, 2 * MiB])
def test_vhd_of_any_block_size(block: int) -> None:
    assert open_vhd(make_vhd(block)) == b"F" * block + bytes(block) + b"L" * (8 * KiB)


def test_sectors_that_were_never_written_are_zeros() -> None:
    found = open_vhd(make_vhd(bitmaps=(b"\x80", b"\x0f")))
    eight = b"F" * SECTOR + bytes(7 * SECTOR)
    assert found[: 2 * MiB] == eight * (2 * MiB // len(eight))
    assert found[4 * MiB :] == (bytes(4 * SECTOR) + b"L" * (4 * SECTOR)) * 2


def test_a_lost_or_damaged_footer_is_replaced_by_its_copy() -> None:
    whole = make_vhd()
    expected = open_vhd(whole)
    assert open_vhd(whole[:-512]) == expected
    assert open_vhd(whole[:-512] + bytes(512)) == expected
    assert open_vhd(whole[:-400] + b"?" + whole[-399:]) == expected


def test_an_old_footer_is_a_byte_short() -> None:
    whole = make_vhd()
    assert open_vhd(whole[:-1]) == open_vhd(whole)


def vhd_warnings(content: bytes) -> tuple[str, ...]:
    return open_image(engine.MemorySource(content), "vhd").warnings


def test_what_a_vhd_may_lack_is_told(tmp_path: Path) -> None:
    assert vhd_warnings(make_vhd()) == ()
    (lost,) = vhd_warnings(make_vhd()[:-512])
    assert "the copy in front is used" in lost
    (saved,) = vhd_warnings(make_vhd(footer={"saved_state": 1}))
    assert "saved while it ran" in saved
    less = make_vhd(footer={"creator_application": b"vpc ", "cylinders": 100})
    (left_out,) = vhd_warnings(less)
    assert "tells 3481600 bytes, and the size beside it 4202496" in left_out
    (tmp_path / "d.vhd").write_bytes(less)
    found = imgconv.info(tmp_path / "d.vhd")
    assert found.virtual_size == 3481600
    assert found.warnings == (left_out.replace("memory", str(tmp_path / "d.vhd")),)


def test_the_last_block_of_a_vhd_may_end_with_the_disk() -> None:
    whole = make_vhd(entries=(4, vhd.UNALLOCATED, (2048 + 512 + 2 * MiB) // SECTOR))
    missing = 2 * MiB - 8 * KiB
    cut = whole[: -512 - missing] + whole[-512:]
    assert open_vhd(cut) == open_vhd(whole)
    shorter = whole[: -1024 - missing] + whole[-512:]
    with pytest.raises(ImageMalformed, match=r"a block would be at|on the metadata"):
        open_vhd(shorter)


@pytest.mark.parametrize(
    ("creator", "cylinders", "sectors"),
    [
        (b"win ", 10, None),
        (b"????", 10, None),
        (b"qem2", 10, None),
        (b"vpc ", 100, 100 * 4 * 17),
        (b"qemu", 100, 100 * 4 * 17),
        (b"vpc ", 0, None),
        (b"vpc ", 65000, None),
    ],
)
def test_what_size_a_disk_has(creator: bytes, cylinders: int, sectors: int | None) -> None:
    fields = {"creator_application": creator, "cylinders": cylinders}
    found = open_vhd(make_vhd(footer=fields))
    assert len(found) == (sectors * SECTOR if sectors else 4 * MiB + 8 * KiB)


def test_the_largest_geometry_says_nothing() -> None:
    fields = {"creator_application": b"qemu", "cylinders": 65535, "heads": 16, "sectors": 255}
    assert len(open_vhd(make_vhd(footer=fields))) == 4 * MiB + 8 * KiB


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"seal": False}, "no footer whose checksum is right"),
        ({"footer": {"disk_type": 1}}, "no type 1"),
        ({"footer": {"current_size": 0}}, "no size"),
        ({"footer": {"current_size": TiB}}, "3 blocks, but the disk has 524288"),
        ({"footer": {"disk_type": 2, "current_size": 1 << 40}}, "but the file has"),
        ({"footer": {"data_offset": 100}}, "does not begin at a sector"),
        ({"footer": {"data_offset": 1 << 40}}, "but the file has"),
        ({"header": {"cookie": b"?" * 8}}, "no header of a dynamic disk"),
        ({"header": {"block_size": 0}}, "blocks of 0 bytes"),
        ({"header": {"block_size": 3 << 20}}, "blocks of 3145728"),
        ({"header": {"block_size": 1 << 31}}, "blocks of 2147483648"),
        ({"header": {"max_table_entries": 2}}, "2 blocks, but the disk has 3"),
        ({"header": {"table_offset": 1537}}, "does not begin at a sector"),
        ({"header": {"table_offset": 1 << 50}}, "but the file has"),
        ({"entries": (4, 4, vhd.UNALLOCATED)}, "two blocks lie at 2048"),
        ({"entries": (0, vhd.UNALLOCATED, vhd.UNALLOCATED)}, "on the metadata"),
        ({"entries": (3, vhd.UNALLOCATED, vhd.UNALLOCATED)}, "on the metadata"),
        ({"entries": (5000, vhd.UNALLOCATED, 4)}, "on one another|but the file has"),
        ({"entries": (1 << 31, vhd.UNALLOCATED, 4)}, "but the file has"),
    ],
)
def test_a_vhd_that_cannot_be(parts: dict[str, object], reason: str) -> None:
    with pytest.raises(ImageMalformed, match=f"malformed vhd at offset [0-9]+: .*({reason})"):
        open_vhd(make_vhd(**parts))  # type: ignore[arg-type]


def test_a_vhd_of_another_kind() -> None:
    with pytest.raises(ImageUnsupported, match="needs its parent"):
        open_vhd(make_vhd(footer={"disk_type": 4}))
    with pytest.raises(ImageUnsupported, match="at most"):
        open_vhd(make_vhd(footer={"current_size": 1 << 60}))


IMAGES = {"vdi": make_vdi(128 * KiB), "vhd": make_vhd(64 * KiB)}
FRONT = 2048 + 512


@given(st.sampled_from(sorted(IMAGES)), st.data())
@settings(max_examples=600, deadline=None)
def test_damage_is_refused_or_harmless(name: str, data: st.DataObject) -> None:
    """Whatever its metadata say, a file is read inside, and never longer than allowed."""
    content = bytearray(IMAGES[name])
    places = st.one_of(st.integers(0, FRONT - 1), st.integers(-512, -1))
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[at] = value
    if name == "vhd" and data.draw(st.booleans()):  # so that not all ends at a checksum
        footer = vhd.Footer.unpack(content[-512:]).sealed().pack()
        content[-512:], content[:512] = footer, footer
        content[512:1536] = vhd.DynamicHeader.unpack(content[512:1536]).sealed().pack()
    cut = data.draw(st.sampled_from([0, 0, 0, 512, 64 * KiB, len(content) - 512]))
    image = bytes(content[: len(content) - cut])
    try:
        disk = open_image(engine.MemorySource(image), name)
    except SourceError:
        return
    assert 0 < disk.size <= 64 * TiB
    data_bytes = 0
    for group in disk.extents():
        data_bytes += group.total
        assert not len(group) or int(group.stop[-1]) <= disk.size
    assert data_bytes <= len(image)
    for at in (0, disk.size // 2, disk.size - 4096):
        at = max(at, 0)
        disk.read_into(at, memoryview(bytearray(min(8192, disk.size - at))))


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_a_hostile_image_leaves_one_line_and_no_output(tmp_path: Path, name: str) -> None:
    content = bytearray(IMAGES[name])
    where = 512 if name == "vdi" else 1536
    content[where : where + 4] = b"\x7f\x7f\x7f\x7f"
    (tmp_path / f"d.{name}").write_bytes(content)
    done = command(tmp_path / f"d.{name}", tmp_path / "o.raw")
    assert_one_line_error(done, f"malformed {name} at offset {where}")
    assert not (tmp_path / "o.raw").exists()


def test_a_huge_sparse_table_is_no_bomb(tmp_path: Path) -> None:
    """A file of terabytes that holds nothing, whose map says that all its blocks are there."""
    header = make_vdi(128 * KiB, disk_size=60 * TiB, blocks=(60 * TiB) // (128 * KiB))
    path = tmp_path / "d.vdi"
    front = bytearray(header[:512])
    struct.pack_into("<I", front, 0x158, (1 << 32) - 512)
    with open(path, "wb") as file:
        file.write(front)
        file.truncate(15 * TiB)
    done = command(path, tmp_path / "o.raw")
    assert_one_line_error(done, "d.vdi: ")
    assert not (tmp_path / "o.raw").exists()


def test_random_reads_agree(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    wanted, rng = raw.read_bytes(), random.Random(4)
    for name in ("vdi", "vhd"):
        imgconv.convert(raw, tmp_path / f"d.{name}")
        with imgconv.open(tmp_path / f"d.{name}") as disk:
            for _ in range(300):
                at, length = rng.randrange(SIZE), rng.choice([1, 511, 4096, 3 * MiB])
                assert disk.read(at, length) == wanted[at : at + length]

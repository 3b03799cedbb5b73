"""Reading VHDX: what qemu makes, closed or not, parents, and what nobody should make."""

import struct
import subprocess
from pathlib import Path

import pytest
from dissect.hypervisor.disk.vhdx import VHDX
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks, engine
from support import vhdx_image as made
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.peers import assert_qemu_img, made_by_qemu, qemu_img
from support.reading import guest, guest_of
from support.vhdx_image import DATA_AT, ITEMS_AT, TABLE_AT, entry

import imgconv
from imgconv import ReadOptions
from imgconv.errors import ImageMalformed, ImageUnsupported, SourceError
from imgconv.ondisk import vhdx
from imgconv.sources import open_image
from imgconv.units import GiB, KiB, MiB, TiB

SIZE = 9 * MiB + 5 * KiB
HERE = ReadOptions(allow_references="same-folder")
PAGE = 4 * KiB


def opened(content: bytes) -> bytes:
    return guest_of(content, "vhdx")


@pytest.mark.parametrize("content", [disks.holes, disks.random_runs, disks.empty])
@pytest.mark.parametrize(
    "options",
    ["block_size=1M", "block_size=2M,subformat=fixed", "block_size=256M", "log_size=3M"],
)
def test_what_qemu_makes(tmp_path: Path, content: type[disks.holes], options: str) -> None:
    raw, image = content(tmp_path / "disk.raw", SIZE), tmp_path / "disk.vhdx"
    made_by_qemu(raw, image, "vhdx", "-o", options)
    assert guest(image) == raw.read_bytes()
    imgconv.convert(image, tmp_path / "ours.raw", threads=3)
    assert (tmp_path / "ours.raw").read_bytes() == raw.read_bytes()


@pytest.mark.parametrize(
    "options",
    [imgconv.Vhdx(), imgconv.Vhdx(subformat="fixed"), imgconv.Vhdx(block_size=32 * MiB)],
)
def test_what_we_make_comes_back(tmp_path: Path, options: imgconv.Vhdx) -> None:
    raw = disks.random_runs(tmp_path / "disk.raw", SIZE)
    imgconv.convert(raw, tmp_path / "d.vhdx", options=options)
    assert guest(tmp_path / "d.vhdx") == raw.read_bytes()


def test_huge_disks_across_chunks(tmp_path: Path) -> None:
    raw = disks.islands(tmp_path / "disk.raw", 20 * GiB, 9)
    for options in (imgconv.Vhdx(), imgconv.Vhdx(block_size=256 * MiB)):
        imgconv.convert(raw, tmp_path / "d.vhdx", options=options)
        assert imgconv.compare(raw, tmp_path / "d.vhdx").identical


@pytest.mark.parametrize("number", range(1, 19))
def test_a_writer_that_dies(tmp_path: Path, number: int) -> None:
    """Every write of qemu from some number on fails; what is left reads as qemu repairs it."""
    image = tmp_path / "d.vhdx"
    assert_qemu_img("create", "-q", "-f", "vhdx", "-o", "block_size=1M", image, "8M")
    first = ["qemu-io", "-f", "vhdx", "-c", "write -P 7 0 1M", image]
    subprocess.run(first, check=True, capture_output=True)
    steps = [
        f'[set-state]\nstate = "{n}"\nevent = "pwritev"\nnew_state = "{n + 1}"\n'
        for n in range(1, number)
    ]
    fault = f'[inject-error]\nstate = "{number}"\nevent = "pwritev"\nonce = "off"\n'
    (tmp_path / "rules").write_text("\n".join([*steps, fault, 'immediately = "on"\n']))
    rules = f"file.driver=blkdebug,file.config={tmp_path}/rules,file.image.filename={image}"
    lines = [f"open -o driver=vhdx,{rules}", "write -P 8 2M 1M", "write -P 9 5M 1M"]
    words = [word for line in lines for word in ("-c", line)]
    subprocess.run(["qemu-io", *words], check=False, capture_output=True)
    before = image.read_bytes()
    with imgconv.open(image) as disk:
        ours, warned = disk.read(0, disk.size), any("log" in text for text in disk.warnings)
    assert image.read_bytes() == before
    repaired = qemu_img("check", "-f", "vhdx", "-r", "all", image)
    assert warned == ("repaired" in repaired.stdout)
    assert warned == (number in (8, 9, 16, 17))
    assert_qemu_img("convert", "-f", "vhdx", "-O", "raw", image, tmp_path / "back.raw")
    assert ours == (tmp_path / "back.raw").read_bytes()


# Logs in memory: four blocks, the first of which is there.

EMPTY = [entry(4), 0, 0, 0]


def bat(*entries: int) -> bytes:
    return struct.pack(f"<{len(entries)}Q", *entries).ljust(PAGE, b"\0")


def with_log(log: bytes, data: bytes = b"A" * MiB, **header: object) -> bytes:
    return made.image(made.items(4 * MiB), EMPTY, data, log=log, **header)


def test_a_log_changes_table_and_data_and_makes_the_file_longer() -> None:
    changes = [(TABLE_AT, bat(entry(4), 0, entry(5), 0)), (DATA_AT + PAGE, 2 * PAGE)]
    log = made.log_entry(5, changes, sizes=(5 * MiB, 6 * MiB))
    found = opened(with_log(log))
    assert found[:MiB] == b"A" * PAGE + bytes(2 * PAGE) + b"A" * (MiB - 3 * PAGE)
    assert not any(found[MiB:])


def test_later_entries_prevail_and_the_log_is_a_ring() -> None:
    one = made.log_entry(1 << 33, [(DATA_AT, b"1" * PAGE), (DATA_AT + PAGE, b"1" * PAGE)])
    two = made.log_entry((1 << 33) + 1, [(DATA_AT, b"2" * PAGE)], tail=MiB - PAGE)
    ring = bytearray(MiB)
    ring[-PAGE:] = one[:PAGE]
    ring[: len(one) - PAGE] = one[PAGE:]
    ring[len(one) - PAGE : len(one) - PAGE + len(two)] = two
    found = opened(with_log(bytes(ring)))
    assert found[: 3 * PAGE] == b"2" * PAGE + b"1" * PAGE + b"A" * PAGE


def test_a_torn_entry_ends_the_log() -> None:
    one = made.log_entry(1, [(DATA_AT, b"1" * PAGE)])
    two = bytearray(made.log_entry(2, [(DATA_AT, b"2" * PAGE)]))
    two[5000] ^= 1
    assert opened(with_log(one + bytes(two)))[:PAGE] == b"1" * PAGE
    assert opened(with_log(bytes(two)))[:PAGE] == b"A" * PAGE


def test_entries_of_another_log_are_old() -> None:
    other = made.log_entry(9, [(DATA_AT, b"9" * PAGE)], log_id=b"?" * 16)
    assert opened(with_log(other))[:PAGE] == b"A" * PAGE
    done = made.log_entry(9, [(DATA_AT, b"9" * PAGE)])
    assert opened(with_log(done, log_id=vhdx.NO_ID))[:PAGE] == b"A" * PAGE


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (made.log_entry(1, [], tail=PAGE), "make no sequence"),
        (made.log_entry(1, [], sizes=(64 * MiB, 64 * MiB)), "when the file had 67108864"),
        (made.log_entry(1, [], sizes=(0, 1 << 63)), "wants a file"),
        (made.log_entry(1, [(8 * MiB, b"x" * PAGE)]), "changes 4096 bytes at 8388608"),
        (made.log_entry(1, [(513, PAGE)]), "changes 4096 bytes at 513"),
        (made.log_entry(1, [(0, (1 << 64) - PAGE)]), "changes 18446744073709547520 bytes"),
    ],
)
def test_logs_that_cannot_be(log: bytes, reason: str) -> None:
    with pytest.raises(ImageMalformed, match=f"at offset {MiB}: .*{reason}"):
        opened(with_log(log))


# Every kind of disk, in memory.


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("block", [MiB, 4 * MiB])
@pytest.mark.parametrize("state", [0, 1, 2, 3, 5])
def test_every_state_without_content_is_zeros(sector: int, block: int, state: int) -> None:
    rows = [entry(4 + block // MiB), entry(4, state), entry(4)]
    content = made.image(
        made.items(2 * block + 8 * KiB, block, sector), rows, b"L" * block + b"F" * block
    )
    assert opened(content) == b"F" * block + bytes(block) + b"L" * (8 * KiB)


def test_a_damaged_header_or_table_has_its_twin() -> None:
    content = bytearray(made.image(made.items(MiB), [entry(4)], b"A" * MiB))
    for at in (128 * KiB + 20, 192 * KiB + 20):
        content[at] ^= 1
        assert opened(bytes(content)) == b"A" * MiB


MALFORMED = {
    "size 0": (made.items(0), "no size"),
    "odd size": (made.items(MiB + 1), "not a number of sectors"),
    "sectors": (made.items(MiB, sector=1024), "sectors of 1024"),
    "block 0": (made.items(MiB, block=0), "blocks of 0 bytes"),
    "block 3 MiB": (made.items(MiB, block=3 * MiB), "blocks of 3145728"),
    "block 512 MiB": (made.items(MiB, block=512 * MiB), "blocks of 536870912"),
    "no table for it": (made.items(TiB), "the disk has 1048831 entries"),
    "no parent": (made.items(MiB, flags=2), "there is no parent locator"),
    "no items": ({}, "there is no file parameters"),
    "short item": (made.items(MiB) | {vhdx.DISK_SIZE: b"1234"}, "has 4 bytes"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_metadata_that_cannot_be(case: str) -> None:
    metadata, reason = MALFORMED[case]
    with pytest.raises(ImageMalformed, match=f"malformed vhdx at offset [0-9]+: .*{reason}"):
        opened(made.image(metadata, [entry(4)], b"A" * MiB))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((entry(4, 4), 0), "a block in state 4"),
        ((entry(4, 7), 0), "a block in state 7"),
        ((entry(4), entry(4)), "two blocks lie at"),
        ((entry(0), 0), "on the metadata"),
        ((entry(1), 0), "on the metadata"),
        ((entry(2), 0), "on the metadata"),
        ((entry(3), 0), "on the metadata"),
        ((entry(6), 0), "but the file has"),
        ((entry((1 << 44) - 1), 0), "would be at -1048576"),
    ],
)
def test_blocks_that_cannot_be(rows: tuple[int, int], reason: str) -> None:
    with pytest.raises(ImageMalformed, match=reason):
        opened(made.image(made.items(2 * MiB), rows, b"A" * (2 * MiB)))


@pytest.mark.parametrize(
    ("table", "kind", "reason"),
    [
        (made.regions(offset=TABLE_AT + 512), ImageMalformed, "not of whole MiB"),
        (made.regions(offset=0), ImageMalformed, "not of whole MiB"),
        (made.regions(length=0), ImageMalformed, "not of whole MiB"),
        (made.regions(offset=MiB), ImageMalformed, "has two uses"),
        (made.regions(offset=3 * MiB), ImageMalformed, "has two uses"),
        (made.regions(offset=1 << 62), ImageMalformed, "but the file has"),
        (made.regions()[:1], ImageMalformed, "no region of the metadata"),
        ([*made.regions(), made.regions()[0]], ImageMalformed, "listed twice"),
        (made.regions(vhdx.Region(b"?" * 16, 9 * MiB, MiB, 1)), ImageUnsupported, "not known"),
    ],
)
def test_regions_that_cannot_be(
    table: list[vhdx.Region], kind: type[SourceError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        opened(made.image(made.items(MiB), [entry(4)], b"A" * MiB, table=table))


def test_what_is_not_required_is_ignored() -> None:
    table = made.regions(vhdx.Region(b"?" * 16, 9 * MiB, MiB, 0))
    content = made.image(made.items(MiB), [entry(4)], b"A" * MiB, table=table)
    assert opened(content) == b"A" * MiB


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"version": 2}, "version 2"),
        ({"log_id": b"l" * 16, "log_version": 1}, "a log of version 1"),
        ({"log_id": b"l" * 16, "log_length": 65 * MiB, "log_offset": 9 * MiB}, "at most"),
    ],
)
def test_what_is_not_read_is_named(header: dict[str, object], reason: str) -> None:
    with pytest.raises(ImageUnsupported, match=reason):
        opened(made.image(made.items(MiB), [entry(4)], b"A" * MiB, **header))
    with pytest.raises(ImageUnsupported, match="metadata that are not known"):
        opened(made.image(made.items(MiB) | {b"?" * 16: b""}, [entry(4)], b"A" * MiB))


# Parents.


def family(folder: Path, named: str = ".\\parent.vhdx", linkage: bytes = made.DATA_ID) -> Path:
    """A child with a block of its own, one of zeros, one in part, and one of its parent's."""
    below = made.image(made.items(4 * MiB), [entry(n) for n in range(4, 8)], b"P" * (4 * MiB))
    (folder / "parent.vhdx").write_bytes(below)
    values = {"parent_linkage": f"{{{vhdx.guid_text(linkage)}}}", "relative_path": named}
    rows = [entry(4), 2, entry(5, 7), 0]
    rows += [0] * 4092 + [entry(6)]
    bitmap = bytearray(MiB)
    bitmap[2 * 256] = 0b101
    metadata = made.items(4 * MiB, flags=2, locator=made.locator(values))
    image = folder / "child.vhdx"
    image.write_bytes(made.image(metadata, rows, b"C" * (2 * MiB) + bytes(bitmap)))
    return image


def test_a_parent_shows_through(tmp_path: Path) -> None:
    image = family(tmp_path)
    found = guest(image, read=HERE)
    partly = b"C" * 512 + b"P" * 512 + b"C" * 512
    assert found[:MiB] == b"C" * MiB
    assert not any(found[MiB : 2 * MiB])
    assert found[2 * MiB : 3 * MiB] == partly + b"P" * (MiB - len(partly))
    assert found[3 * MiB :] == b"P" * MiB
    theirs = VHDX(image)
    for at in range(0, 4 * MiB, MiB):
        theirs.seek(at)
        assert theirs.read(MiB) == found[at : at + MiB]
    theirs.parent.fh.close()
    theirs.fh.close()


def test_a_parent_is_opened_only_if_allowed_and_right(tmp_path: Path) -> None:
    assert_one_line_error(command(family(tmp_path), tmp_path / "o.raw"), "--allow-references")
    for named in ("..\\parent.vhdx", "C:\\x\\..\\parent.vhdx", "/etc/passwd", "child.vhdx"):
        with pytest.raises(ImageUnsupported):
            imgconv.open(family(tmp_path, named), read=HERE)
    with pytest.raises(ImageMalformed, match="was it modified"):
        imgconv.open(family(tmp_path, linkage=b"z" * 16), read=HERE)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever its metadata say, a file is read inside, and never longer than allowed."""
    log = made.log_entry(1, [(TABLE_AT, bat(*EMPTY)), (DATA_AT, PAGE)])
    content = bytearray(with_log(log))
    spans = (64 * KiB, 192 * KiB, MiB, MiB + PAGE, TABLE_AT, 3 * MiB, ITEMS_AT)
    places = st.tuples(st.sampled_from(spans), st.integers(0, 200), st.integers(0, 255))
    for base, at, value in data.draw(st.lists(places, max_size=6)):
        content[base + at] = value
    if data.draw(st.booleans()):  # so that not all ends at a checksum
        for at, length in ((64, 4), (128, 4), (192, 64), (256, 64), (1024, 12)):
            piece = slice(at * KiB, (at + length) * KiB)
            content[piece] = vhdx.sealed(bytes(content[piece]))
    cut = data.draw(st.sampled_from([0, 0, 512, MiB, 2 * MiB]))
    try:
        disk = open_image(engine.MemorySource(bytes(content[: len(content) - cut])), "vhdx")
    except SourceError:
        return
    assert 0 < disk.size <= 64 * TiB
    for group in disk.extents():
        assert not len(group) or int(group.stop[-1]) <= disk.size
    for at in (0, max(disk.size - PAGE, 0)):
        disk.read_into(at, memoryview(bytearray(min(PAGE, disk.size - at))))

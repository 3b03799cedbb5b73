"""Reading VMDK: qemu-img's subformats, ESX's extents, files by permission, hostile ones."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks, engine
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.esx import cowd, sesparse
from support.peers import assert_qemu_img, made_by_qemu
from support.reading import as_qemu_reads_it, guest_of

import imgconv
from imgconv import ReadOptions
from imgconv.errors import (
    FormatMismatch,
    ImageEncrypted,
    ImageMalformed,
    ImageUnsupported,
    OptionError,
    SourceError,
)
from imgconv.ondisk import vmdk
from imgconv.sources import open_image
from imgconv.units import SECTOR, KiB, MiB

SIZE = 9 * MiB + 5 * KiB
HERE = ReadOptions(allow_references="same-folder")
SUBFORMATS = [
    "monolithicSparse",
    "streamOptimized",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
]
ALONE = SUBFORMATS[:2]


def made(folder: Path, subformat: str, *options: str, name: str = "disk") -> Path:
    folder.mkdir(exist_ok=True)
    raw = disks.random_runs(folder / f"{name}.raw", SIZE)
    image = folder / f"{name}.vmdk"
    words = ",".join((f"subformat={subformat}", *options))
    return made_by_qemu(raw, image, "vmdk", "-o", words)


def check(image: Path, read: ReadOptions | None = None) -> bytes:
    return as_qemu_reads_it(image, "vmdk", read)


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_what_qemu_makes(tmp_path: Path, subformat: str) -> None:
    image = made(tmp_path, subformat)
    assert check(image, HERE) == (tmp_path / "disk.raw").read_bytes()


def test_zeroed_grains(tmp_path: Path) -> None:
    image = made(tmp_path, "monolithicSparse", "zeroed_grain=on")
    check(image)


@pytest.mark.parametrize(
    "output",
    [
        imgconv.Vmdk(),
        imgconv.Vmdk(subformat="streamOptimized"),
        imgconv.Vmdk(subformat="streamOptimized", compress="fast"),
    ],
)
@pytest.mark.parametrize("content", [disks.holes, disks.empty, disks.last_byte, disks.dense])
def test_what_imgconv_makes(
    tmp_path: Path, output: imgconv.Vmdk, content: Callable[[Path, int], Path]
) -> None:
    raw = content(tmp_path / "disk.raw", SIZE)
    imgconv.convert(raw, tmp_path / "disk.vmdk", options=output)
    assert check(tmp_path / "disk.vmdk") == raw.read_bytes()


def test_the_second_directory_stands_in_for_the_first(tmp_path: Path) -> None:
    image = made(tmp_path, "monolithicSparse")
    patch(image, 56, struct.pack("<Q", 1 << 40))
    with imgconv.open(image) as disk:
        assert disk.read(0, SIZE) == (tmp_path / "disk.raw").read_bytes()
        assert "the second one is used" in disk.warnings[0]


def test_an_image_that_was_not_closed(tmp_path: Path) -> None:
    image = made(tmp_path, "monolithicSparse")
    patch(image, 72, b"\x01")
    with imgconv.open(image) as disk:
        assert "not closed" in disk.warnings[0]


def text(*extents: str, kind: str = "monolithicFlat", parent: str = "ffffffff") -> str:
    return "\n".join(
        [
            "# Disk DescriptorFile",
            "version=1",
            "CID=12345678",
            f"parentCID={parent}",
            f'createType="{kind}"',
            "",
            # Without this line qemu-img takes the first extent twice.
            "# Extent description",
            *extents,
            "",
            'ddb.adapterType = "lsilogic"',
            "",
        ]
    )


def test_parts_with_offsets_zeros_and_windows_line_ends(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "some-flat.vmdk", MiB).read_bytes()
    image = tmp_path / "disk.vmdk"
    lines = (
        'RW 100 FLAT "some-flat.vmdk" 8',
        "RDONLY 200 ZERO",
        'RDONLY 5 VMFS "some-flat.vmdk"',
    )
    image.write_bytes(text(*lines).replace("\n", "\r\n").encode())
    with imgconv.open(image, read=HERE) as disk:
        assert disk.size == 305 * SECTOR
        whole = disk.read(0, disk.size)
        assert whole[: 100 * SECTOR] == raw[8 * SECTOR : 108 * SECTOR]
        assert not any(whole[100 * SECTOR : 300 * SECTOR])
        assert whole[300 * SECTOR :] == raw[: 5 * SECTOR]
        assert [stop for *_, stop, is_data in disk.extents() if not is_data] == [300 * SECTOR]


@pytest.mark.parametrize("first", ["# Disk Descriptor File", "#Disk DescriptorFile"])
def test_a_descriptor_may_begin_in_other_ways(tmp_path: Path, first: str) -> None:
    image = tmp_path / "disk.vmdk"
    image.write_text(text("RW 8 ZERO").replace("# Disk DescriptorFile", first))
    with imgconv.open(image) as disk:
        assert disk.read(0, disk.size) == bytes(8 * SECTOR)
    image = image.rename(tmp_path / "disk.raw")
    with pytest.raises(FormatMismatch, match="looks like vmdk"):
        imgconv.open(image)


def test_a_descriptor_that_goes_on_is_not_read_in_part(tmp_path: Path) -> None:
    image = tmp_path / "disk.vmdk"
    image.write_text(text("RW 8 ZERO") + "#\n" * (MiB // 2) + "RW 8 ZERO\n")
    with pytest.raises(ImageMalformed, match="a descriptor of more than 1048576 bytes"):
        imgconv.open(image)
    assert "descriptor" in {found.rule for found in imgconv.check(image).findings}


def test_the_first_part_may_describe_all(tmp_path: Path) -> None:
    image = made(tmp_path, "twoGbMaxExtentSparse")
    lines = f'RW {SIZE // SECTOR} SPARSE "disk-s001.vmdk"', "RW 8 ZERO"
    said = text(*lines, kind="twoGbMaxExtentSparse").encode()
    part = tmp_path / "disk-s001.vmdk"
    patch(part, SECTOR, said)
    image.write_bytes(said)
    with imgconv.open(part) as disk, imgconv.open(image, read=HERE) as same:
        whole = (tmp_path / "disk.raw").read_bytes() + bytes(8 * SECTOR)
        assert disk.read(0, disk.size) == same.read(0, same.size) == whole
    patch(part, SECTOR, said.replace(b"RW 8 ZERO", b'RW 8 SPARSE "disk-s001.vmdk"'))
    with pytest.raises(ImageUnsupported, match="needs itself"):
        imgconv.open(part, read=HERE)
    for line in (b"NOACCESS", b"RW 8 ZERO\nRW"):
        patch(part, SECTOR, said.replace(b"RW", line, 1))
        with pytest.raises(SourceError, match=r"may not be accessed|is not allowed"):
            imgconv.open(part)


def test_what_an_encrypted_disk_is_can_be_told(tmp_path: Path) -> None:
    image = tmp_path / "disk.vmdk"
    image.write_text(text("RW 8 ZERO") + 'encryption.keySafe = "vmware:key/list/(pair/(x))"\n')
    assert imgconv.info(image).encryption == "VMware"
    with pytest.raises(ImageEncrypted, match=r"is encrypted \('encryption.keysafe'\)"):
        imgconv.open(image)


# What only ESX writes.


def test_cowd(tmp_path: Path) -> None:
    content = {5: b"a" * SECTOR, 6: b"b" * SECTOR, 4097: b"c" * SECTOR, 8999: b"d" * SECTOR}
    (tmp_path / "x-delta.vmdk").write_bytes(cowd(content, 9000))
    image = tmp_path / "x.vmdk"
    image.write_text(text('RW 9000 VMFSSPARSE "x-delta.vmdk"', kind="vmfsSparse"))
    whole = check(image, HERE)
    for number, grain in content.items():
        assert whole[number * SECTOR : (number + 1) * SECTOR] == grain
    assert len(whole) - whole.count(0) == 4 * SECTOR
    with pytest.raises(ImageUnsupported, match="a COWD extent"):
        imgconv.open(tmp_path / "x-delta.vmdk")


def test_sesparse(tmp_path: Path) -> None:
    kinds = {0: 3 << 60, 1: 2 << 60, 2: 1 << 60, 7: 3 << 60 | 1 << 48}
    content = sesparse(kinds, [b"a" * 4096, b"b" * 4096], 800)
    (tmp_path / "x-sesparse.vmdk").write_bytes(content)
    image = tmp_path / "x.vmdk"
    image.write_text(text('RW 800 SESPARSE "x-sesparse.vmdk"', kind="seSparse"))
    whole = check(image, HERE)
    assert whole[:4096] == b"a" * 4096
    assert whole[7 * 4096 : 8 * 4096] == b"b" * 4096
    assert len(whole) - whole.count(0) == 8192
    for damage, error in (
        (
            sesparse(kinds, [b"a" * 4096, b"b" * 4096], 800, replay=1),
            "journal was not replayed",
        ),
        (sesparse({0: 4 << 60}, [b"a" * 4096], 800), "unknown type"),
        (sesparse({0: 3 << 60 | 9 << 48}, [b"a" * 4096], 800), "outside the place"),
        (sesparse({0: 3 << 60, 1: 3 << 60}, [b"a" * 4096], 800), "two uses"),
    ):
        (tmp_path / "x-sesparse.vmdk").write_bytes(damage)
        with pytest.raises(SourceError, match=error):
            imgconv.open(image, read=HERE)


def test_a_parent_shows_through(tmp_path: Path) -> None:
    made(tmp_path, "monolithicSparse", name="base")
    child = tmp_path / "child.vmdk"
    words = ("create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", child)
    assert_qemu_img(*words)
    assert check(child, HERE) == (tmp_path / "base.raw").read_bytes()
    with pytest.raises(
        ImageUnsupported, match=r"its parent, 'base.vmdk', which is not allowed"
    ):
        imgconv.open(child)
    with (tmp_path / "base.vmdk").open("r+b") as file:
        front = file.read(4096)
        at = front.index(b"CID=")
        file.seek(at)
        file.write(b"CID=0000aaaa")
    with pytest.raises(ImageMalformed, match="content id"):
        imgconv.open(child, read=HERE)


# Which files may be opened.


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return made(tmp_path / "images", "monolithicFlat")


def test_no_file_is_opened_unless_it_is_allowed(flat: Path, tmp_path: Path) -> None:
    done = command(flat, tmp_path / "out.raw")
    assert_one_line_error(done, "'disk-flat.vmdk'")
    assert not (tmp_path / "out.raw").exists()
    for allowed in ("same-folder", flat.parent, flat.with_name("disk-flat.vmdk")):
        done = command(flat, tmp_path / "out.raw", "--allow-references", str(allowed))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out.raw").read_bytes() == flat.with_suffix(".raw").read_bytes()
    for allowed in (tmp_path, flat.with_suffix(".raw")):
        with pytest.raises(ImageUnsupported, match="not allowed"):
            imgconv.open(flat, read=ReadOptions(allow_references=(str(allowed),)))
    with pytest.raises(OptionError, match="no such file"):
        ReadOptions(allow_references="nowhere")


@pytest.mark.parametrize(
    "named",
    ["/etc/passwd", "../secret", "./disk-flat.vmdk", "..", "json:{}", "nbd://h/x", "a\\u0007b"],
)
def test_names_that_lead_elsewhere(flat: Path, tmp_path: Path, named: str) -> None:
    (tmp_path / "secret").write_bytes(b"s" * MiB)
    flat.write_text(text(f'RW 8 FLAT "{named}" 0'))
    with pytest.raises(SourceError):
        imgconv.open(flat, read=HERE)
    done = command(flat, tmp_path / "out.raw", "--allow-references", "same-folder")
    assert_one_line_error(done, "disk.vmdk")
    assert not (tmp_path / "out.raw").exists()


def test_links_are_not_followed_out_of_the_folder(flat: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * MiB)
    (flat.parent / "link.vmdk").symlink_to(tmp_path / "secret")
    flat.write_text(text('RW 8 FLAT "link.vmdk" 0'))
    with pytest.raises(SourceError, match=r"link\.vmdk"):
        imgconv.open(flat, read=HERE)


def test_a_chain_that_bites_its_tail(tmp_path: Path) -> None:
    image = tmp_path / "a.vmdk"
    image.write_text(
        text("RW 8 ZERO", parent="12345678").replace(
            "createType", 'parentFileNameHint="a.vmdk"\ncreateType'
        )
    )
    with pytest.raises(ImageUnsupported, match="needs itself"):
        imgconv.open(image, read=HERE)


def test_a_header_of_no_size_is_no_descriptor(flat: Path) -> None:
    """What qemu-img 7.2 takes for one, and so opens any file of the host."""
    header = vmdk.SparseHeader(
        vmdk.MAGIC, 1, 1, 0, 128, 1, 20, 512, 0, 21, 128, 0, vmdk.NEWLINE_TEST, 0, bytes(433)
    )
    body = text('RW 8 FLAT "/etc/passwd" 0').encode().ljust(20 * SECTOR, b"\0")
    flat.write_bytes(header.pack() + body)
    with pytest.raises(ImageMalformed, match="no size"):
        imgconv.open(flat, read=HERE)


# Hostile ones.


def patch(image: Path, at: int, content: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(content)


def u32(image: Path, at: int) -> int:
    return int(struct.unpack_from("<I", image.read_bytes(), at)[0])


def directory(image: Path) -> int:
    return int(struct.unpack_from("<Q", image.read_bytes(), 56)[0]) * SECTOR


def table(image: Path) -> int:
    return u32(image, directory(image)) * SECTOR


def entry(image: Path) -> int:
    """Where the first entry in use of the first grain table is."""
    start = table(image)
    return next(at for at in range(start, start + 2048, 4) if u32(image, at))


def word(place: Callable[[Path], int], value: Callable[[Path], int]) -> Callable[[Path], None]:
    return lambda image: patch(image, place(image), struct.pack("<I", value(image)))


def field(at: int, content: bytes) -> Callable[[Path], None]:
    return lambda image: patch(image, at, content)


def in_text(old: bytes, new: bytes) -> Callable[[Path], None]:
    assert len(old) == len(new)

    def change(image: Path) -> None:
        whole = image.read_bytes()
        assert old in whole[:12000]
        image.write_bytes(whole.replace(old, new, 1))

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    "version 9": field(4, struct.pack("<I", 9)),
    "unknown flags": field(8, struct.pack("<I", 1 << 20)),
    "compressed without markers": field(8, struct.pack("<I", 1 << 16)),
    "markers without compression": field(8, struct.pack("<I", 1 << 17)),
    "no capacity": field(12, bytes(8)),
    "enormous": field(12, b"\xff" * 8),
    "capacity beyond its directory": field(12, struct.pack("<Q", 1 << 36)),
    "no grain": field(20, bytes(8)),
    "huge grain": field(20, struct.pack("<Q", 1 << 62)),
    "odd grain": field(20, struct.pack("<Q", 129)),
    "no entries": field(44, bytes(4)),
    "odd entries": field(44, struct.pack("<I", 513)),
    "text mode": field(73, b"\n \n\n"),
    "bzip2": field(77, b"\x02"),
    "descriptor beyond the end": field(28, struct.pack("<Q", 1 << 50)),
    "no descriptor": field(28, bytes(16)),
    "directory at the end": field(56, b"\xff" * 8),
    "directory beyond the end": field(56, struct.pack("<Q", 1 << 50)),
    "directory nowhere": field(56, bytes(8)),
    "directory in the header": field(56, struct.pack("<Q", 1)),
    "table beyond the end": word(directory, lambda _: 1 << 31),
    "table is the directory": word(directory, lambda i: directory(i) // SECTOR),
    "grain beyond the end": word(entry, lambda _: 1 << 31),
    "grain is its table": word(entry, lambda i: table(i) // SECTOR),
    "grain in the descriptor": word(entry, lambda _: 1),
    "grain twice": word(lambda i: entry(i) + 4, lambda i: u32(i, entry(i))),
    "a type of host disks": in_text(b'"monolithicSparse"', b'"fullDeviceDevice"'),
    "no type": in_text(b"createType", b"kreateType"),
    "a parent": in_text(b"parentCID=ffffffff", b"parentCID=12345678"),
    "a bad parent": in_text(b"parentCID=ffffffff", b"parentCID=fffffffg"),
    "a bad extent": in_text(b"SPARSE", b"SPA(SE"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_images_are_refused(tmp_path: Path, case: str) -> None:
    image = made(tmp_path, "monolithicSparse")
    patch(image, 8, struct.pack("<I", 1))  # without a second directory to fall back to
    DAMAGE[case](image)
    with pytest.raises((ImageMalformed, ImageUnsupported)):
        imgconv.open(image)
    done = command(image, tmp_path / "out.raw")
    assert_one_line_error(done, str(image))
    assert not (tmp_path / "out.raw").exists()


def stream(tmp_path: Path) -> bytearray:
    raw = disks.dense(tmp_path / "disk.raw", 3 * 64 * KiB)
    imgconv.convert(
        raw,
        tmp_path / "s.vmdk",
        options=imgconv.Vmdk(subformat="streamOptimized"),
        identity="x",
    )
    return bytearray((tmp_path / "s.vmdk").read_bytes())


def grain_at(content: bytes) -> int:
    return int(vmdk.SparseHeader.unpack(content).overhead) * SECTOR


def opened(content: bytes) -> bytes:
    return guest_of(bytes(content), "vmdk")


STREAM_DAMAGE: dict[str, Callable[[bytearray, int], None]] = {
    "marker of another grain": lambda c, at: struct.pack_into("<Q", c, at, 128),
    "no length": lambda c, at: struct.pack_into("<I", c, at + 8, 0),
    "huge length": lambda c, at: struct.pack_into("<I", c, at + 8, 1 << 31),
    "cut short": lambda c, at: struct.pack_into("<I", c, at + 8, 100),
    "broken data": lambda c, at: struct.pack_into("<4s", c, at + 12, b"\xff" * 4),
    "footer of another version": lambda c, at: struct.pack_into("<I", c, len(c) - 1024 + 4, 1),
    "footer of another descriptor": lambda c, at: struct.pack_into(
        "<Q", c, len(c) - 1024 + 28, 2
    ),
    "footer of another disk": lambda c, at: struct.pack_into("<Q", c, len(c) - 1024 + 12, 9),
    "footer without directory": lambda c, at: struct.pack_into(
        "<Q", c, len(c) - 1024 + 56, vmdk.DIRECTORY_AT_END
    ),
    "directory is the footer": lambda c, at: struct.pack_into(
        "<Q", c, len(c) - 1024 + 56, len(c) // 512 + 1
    ),
    "no end": lambda c, at: struct.pack_into("<B", c, len(c) - 5, 9),
    "cut off": lambda c, at: c.__delitem__(slice(len(c) - 512, None)),
}


@pytest.mark.parametrize("case", STREAM_DAMAGE)
def test_damaged_streams_are_refused(tmp_path: Path, case: str) -> None:
    content = stream(tmp_path)
    assert opened(content) == (tmp_path / "disk.raw").read_bytes()
    STREAM_DAMAGE[case](content, grain_at(content))
    with pytest.raises(ImageMalformed):
        opened(content)


@pytest.mark.parametrize("field", [48, 64, 72, 100])
def test_what_a_writer_learns_on_the_way_is_in_the_footer_alone(
    tmp_path: Path, field: int
) -> None:
    """The second directory, where grains begin, whether it was closed, and padding."""
    content = stream(tmp_path)
    content[len(content) - 1024 + field] ^= 1
    assert opened(content) == (tmp_path / "disk.raw").read_bytes()
    (tmp_path / "s.vmdk").write_bytes(content)
    assert len(check(tmp_path / "s.vmdk")) == 3 * 64 * KiB


def test_a_stream_whose_checksum_is_wrong(tmp_path: Path) -> None:
    content = stream(tmp_path)
    at = grain_at(content)
    length = vmdk.GrainMarker.unpack(bytes(content[at:])).length
    content[at + 12 + length - 1] ^= 1
    with pytest.raises(ImageMalformed, match="compressed data"):
        opened(content)


def test_a_bomb_is_no_more_than_a_grain(tmp_path: Path) -> None:
    content = stream(tmp_path)
    at = grain_at(content)
    bomb = zlib.compress(bytes(50 * MiB))
    struct.pack_into("<I", content, at + 8, len(bomb))
    content[at + 12 : at + 12 + len(bomb)] = bomb
    with pytest.raises(ImageMalformed, match="compressed data"):
        opened(content)


def test_a_whole_grain_at_the_end_of_the_disk(tmp_path: Path) -> None:
    """Of the last grain some store what the disk has of it, others all."""
    content = stream(tmp_path)
    header = replace(vmdk.SparseHeader.unpack(bytes(content)), capacity=3 * 128 - 1)
    content[:512] = header.pack()
    footer = vmdk.SparseHeader.unpack(bytes(content[-1024:]))
    content[-1024:-512] = replace(footer, capacity=3 * 128 - 1).pack()
    assert len(opened(content)) == 3 * 64 * KiB - SECTOR


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    return [made(folder, kind, name=kind) for kind in ALONE]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 1),
    st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=8)), max_size=6),
    st.booleans(),
)
def test_any_damage_is_an_error_or_a_disk(
    samples: list[Path], which: int, changes: list[tuple[int, bytes]], late: bool
) -> None:
    content = bytearray(samples[which].read_bytes())
    for at, new in changes:
        place = at if not late else 21 * SECTOR + at
        content[place : place + len(new)] = new
    content += bytes(-len(content) % SECTOR)
    error = failure(bytes(content))
    assert error is None or "\n" not in str(error)


def failure(content: bytes) -> SourceError | None:
    try:
        disk = open_image(engine.MemorySource(content), "vmdk")
        disk.read_into(0, memoryview(bytearray(min(disk.size, MiB))))
    except SourceError as error:
        return error
    return None

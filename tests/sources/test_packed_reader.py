"""Reading raw in gzip, zstd and tar archives, as real tools and as we make them."""

import gzip
import os
import random
import subprocess
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pyzstd
from support import disks, engine
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.peers import assert_qemu_img
from support.reading import guest
from support.variants import PACKED

import imgconv
from imgconv.errors import FormatMismatch, ImageUnsupported
from imgconv.sources import open_image
from imgconv.sources.options import ReadOptions
from imgconv.sources.streams import StreamedDisk
from imgconv.units import SECTOR, GiB, KiB, MiB, TiB

SIZE = 9 * MiB + 5 * KiB
CONTENTS = {
    "holes": disks.holes,
    "runs": disks.random_runs,
    "empty": disks.empty,
    "last": disks.last_byte,
    "dense": disks.dense,
}
# What makes $1 of $0, in the folder in which both are.
TOOLS = {
    "gzip": ("d.raw.gz", "gzip -c $0 > $1"),
    "gzip-fast": ("d.img.gz", "gzip -1c < $0 > $1"),
    "pigz": ("d.raw.gz", "pigz -c $0 > $1"),
    "pigz-independent": ("d.raw.gz", "pigz -ic $0 > $1"),
    "gzip-members": ("d.raw.gz", "split -b 1300000 --filter='gzip -c' $0 > $1"),
    "gzip-padded": ("d.raw.gz", "(gzip -c $0; head -c 99999 /dev/zero) > $1"),
    "zstd": ("d.raw.zst", "zstd -q $0 -o $1"),
    "zstd-parallel": ("d.raw.zst", "zstd -q -T2 -B1048576 --no-check $0 -o $1"),
    "zstd-pipe": ("d.img.zst", "zstd -q -19 < $0 > $1"),
    "zstd-frames": ("d.raw.zst", "split -b 1300000 --filter='zstd -q' $0 > $1"),
    "pzstd": ("d.raw.zst", "pzstd -q -p 2 $0 -o $1"),
    "oldgnu": ("d.tar.gz", "tar --format=oldgnu -czf $1 $0"),
    "oldgnu-sparse": ("d.tar.gz", "tar --format=oldgnu -Sczf $1 $0"),
    "gnu-sparse": ("d.tgz", "tar --format=gnu -Sczf $1 ./$0"),
    "ustar": ("d.tar.gz", "tar --format=ustar -czf $1 $0"),
    "pax": ("d.tar.gz", "tar --format=posix -czf $1 $0"),
    "pax-sparse": ("d.raw.tar.gz", "tar --format=posix -Sczf $1 $0"),
    "bsdtar": ("d.tar.gz", "bsdtar -czf $1 $0"),
    "bsdtar-pax": ("d.tar.gz", "bsdtar --format pax -czf $1 $0"),
    "tar-pigz": ("d.tar.gz", "tar -Sc $0 | pigz -c > $1"),
}


def made_by(tool: str, raw: Path) -> Path:
    name, script = TOOLS[tool]
    subprocess.run(["bash", "-ec", script, raw.name, name], cwd=raw.parent, check=True)
    return raw.parent / name


def opened(content: bytes, format_name: str, **options: int) -> StreamedDisk:
    padded = content + bytes(-len(content) % SECTOR)
    disk = open_image(engine.MemorySource(padded), format_name, ReadOptions(**options))  # type: ignore[arg-type]
    assert isinstance(disk, StreamedDisk)
    return disk


def whole(disk: StreamedDisk, piece: int = MiB) -> bytes:
    buffer = bytearray(disk.size)
    for at in range(0, disk.size, piece):
        disk.read_into(at, memoryview(buffer)[at : at + piece])
    return bytes(buffer)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("content", ["runs", "empty", "last"])
def test_what_tools_make(tmp_path: Path, content: str, tool: str) -> None:
    raw = CONTENTS[content](tmp_path / "disk.raw", SIZE)
    image = made_by(tool, raw)
    assert guest(image) == raw.read_bytes()


@pytest.mark.parametrize("variant", PACKED)
@pytest.mark.parametrize("content", ["holes", "runs", "dense"])
def test_what_we_make_comes_back(tmp_path: Path, content: str, variant: str) -> None:
    raw, options = CONTENTS[content](tmp_path / "disk.raw", SIZE), PACKED[variant]
    image = tmp_path / f"d.{options.name}"
    imgconv.convert(raw, image, options=options)
    report = imgconv.convert(image, tmp_path / "back.raw")
    rounded = GiB if variant == "tar.gz-google" else SIZE
    assert (report.source_format, report.virtual_size) == (options.name, rounded)
    with open(tmp_path / "back.raw", "rb") as back:
        assert back.read(SIZE) == raw.read_bytes()
        assert not any(back.read(64 * MiB))


def test_the_same_as_of_the_unpacked_raw(tmp_path: Path) -> None:
    raw = disks.file_system(tmp_path / "disk.raw", 48 * MiB)
    assert_qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "theirs.qcow2")
    plain = tmp_path / "plain.qcow2"
    imgconv.convert(raw, plain, identity="x")
    for tool in ("gzip", "zstd", "pzstd", "pax-sparse"):
        image, ours = made_by(tool, raw), tmp_path / "ours.qcow2"
        for threads in (1, 2, 7):
            imgconv.convert(image, ours, identity="x", threads=threads)
            assert ours.read_bytes() == plain.read_bytes()
        image.unlink()
    assert_qemu_img("compare", ours, tmp_path / "theirs.qcow2")


@pytest.mark.parametrize("tool", ["gzip", "zstd", "zstd-frames", "pax-sparse"])
@pytest.mark.parametrize("threads", [1, 5])
def test_any_order_of_reading(tmp_path: Path, tool: str, threads: int) -> None:
    """Also backwards, and everywhere at once."""
    raw = disks.random_runs(tmp_path / "disk.raw", 24 * MiB)
    wanted, rng = raw.read_bytes(), random.Random(threads)
    with imgconv.open(made_by(tool, raw)) as disk:

        def check(at: int) -> bool:
            length = rng.randrange(1, 700 * KiB)
            return disk.read(at, min(length, disk.size - at)) == wanted[at : at + length]

        places = [*range(0, 24 * MiB, 700 * KiB), *(rng.randrange(24 * MiB) for _ in range(30))]
        places += sorted(places, reverse=True)[::3]
        with ThreadPoolExecutor(threads) as pool:
            assert all(pool.map(check, places))


def test_what_was_passed_is_kept_for_those_who_come_later(tmp_path: Path) -> None:
    """One frame, nothing to restart from: a reader far ahead must not cost a second pass."""
    raw = disks.dense(tmp_path / "disk.raw", 24 * MiB)
    packed = made_by("zstd", raw).read_bytes()
    reads = Counting(packed + bytes(-len(packed) % SECTOR))
    disk = open_image(reads, "raw.zst")
    reads.count = 0
    buffer = memoryview(bytearray(MiB))
    for at in (0, 8, 4, 1, 5, 9, 2, 3, 6, 7, 10, 23, 22, 21, *range(11, 21)):
        disk.read_into(at * MiB, buffer)
        assert buffer == raw.read_bytes()[at * MiB : (at + 1) * MiB]
    assert reads.count <= reads.size + MiB


class Counting(engine.MemorySource):
    """Counts the bytes that are read."""

    count = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.count += len(buffer)
        super().read_into(offset, buffer)


def test_without_the_fast_libraries(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    image = made_by("pigz", raw)
    (tmp_path / "zlib_ng.py").write_text("raise ImportError")
    (tmp_path / "isal.py").write_text("raise ImportError")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    done = command("compare", raw, image, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["raw.gz", "raw.zst", "tar.gz"])
def test_lengths_that_are_no_multiple_of_a_sector(tmp_path: Path, name: str) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(random.Random(1).randbytes(100_001))
    tool = {"raw.gz": "gzip", "raw.zst": "zstd", "tar.gz": "ustar"}[name]
    with imgconv.open(made_by(tool, raw)) as disk:
        assert disk.size == 100_352
        assert disk.read(0, disk.size) == raw.read_bytes() + bytes(351)
        assert "length 100001 is not a multiple of 512; padded with 351" in disk.warnings[0]


def test_holes_are_neither_decoded_nor_read(tmp_path: Path) -> None:
    raw = disks.islands(tmp_path / "disk.raw", 2 * GiB, 9)
    for name in ("raw.gz", "raw.zst", "raw.tar.gz"):
        imgconv.convert(raw, tmp_path / f"d.{name}")
        with imgconv.open(tmp_path / f"d.{name}") as disk:
            data = sum(stop - start for start, stop, is_data in disk.extents() if is_data)
            assert data < 32 * MiB
        assert imgconv.compare(raw, tmp_path / f"d.{name}").identical


@pytest.mark.parametrize("name", ["raw.gz", "raw.zst", "raw.tar.gz"])
def test_from_a_store(tmp_path: Path, name: str) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    imgconv.convert(raw, tmp_path / f"d.{name}")
    assert imgconv.compare(raw, f"file://{tmp_path}/d.{name}").identical


@pytest.mark.parametrize("options", [{}, {"checksum_flag": 1}])
@pytest.mark.parametrize("frame", [100 * KiB, 3 * MiB])
def test_a_seekable_file_of_others(tmp_path: Path, frame: int, options: object) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    image = tmp_path / "d.raw.zst"
    with pyzstd.SeekableZstdFile(image, "w", max_frame_content_size=frame) as file:
        file.write(raw.read_bytes())
    assert imgconv.compare(raw, image).identical


def test_a_seek_table_with_checksums() -> None:
    content = random.Random(1).randbytes(MiB)
    frames = [pyzstd.compress(content[at : at + 256 * KiB]) for at in range(0, MiB, 256 * KiB)]
    table = b"".join(
        len(frame).to_bytes(4, "little") + (256 * KiB).to_bytes(4, "little") + b"sum!"
        for frame in frames
    )
    footer = len(frames).to_bytes(4, "little") + b"\x80" + bytes.fromhex("b1ea928f")
    size = (len(table) + len(footer)).to_bytes(4, "little")
    front = b"".join(frames) + bytes.fromhex("5e2a4d18") + size
    assert whole(opened(front + table + footer, "raw.zst")) == content


def test_names_decide_between_what_content_leaves_open(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", SIZE)
    for tool, named, found in [
        ("gzip", "d.tar.gz", "raw.gz"),
        ("ustar", "d.raw.gz", "raw.tar.gz"),
        ("zstd", "d.raw.gz", "raw.zst"),
        ("gzip", "d.qcow2", "raw.gz"),
    ]:
        image = made_by(tool, raw).rename(tmp_path / named)
        with pytest.raises(FormatMismatch, match=f"looks like {found} but is named like"):
            imgconv.open(image)
    image = made_by("ustar", raw).rename(tmp_path / "anything")
    report = imgconv.convert(image, tmp_path / "o.raw")
    assert (report.source_format, report.virtual_size) == ("raw.tar.gz", SIZE)


def test_an_image_inside_is_not_taken_for_a_raw_disk(tmp_path: Path) -> None:
    inner = tmp_path / "disk.raw"
    assert_qemu_img("create", "-f", "qcow2", inner, "8M")
    for tool in ("gzip", "zstd", "ustar"):
        image = made_by(tool, inner)
        with pytest.raises(FormatMismatch, match="holds what looks like qcow2; unpack it"):
            imgconv.open(image)
        name = {"gzip": "raw.gz", "zstd": "raw.zst", "ustar": "tar.gz"}[tool]
        with imgconv.open(image, source_format=name) as disk:
            assert disk.read(0, 4) == b"QFI\xfb"
    subprocess.run(
        "tar -c disk.raw | zstd -q -o d.tar.zst", shell=True, cwd=tmp_path, check=True
    )
    with pytest.raises(FormatMismatch, match="holds what looks like tar"):
        imgconv.open(tmp_path / "d.tar.zst")


# Archives of more than one thing.


def archive(folder: Path, *names: str, format_name: str = "gnu") -> Path:
    words = ["tar", f"--format={format_name}", "-Sczf", "d.tar.gz", "-C", "in", *names]
    subprocess.run(words, cwd=folder, check=True)
    return folder / "d.tar.gz"


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    disks.holes(folder / "disk.raw", SIZE)
    disks.holes(folder / "sub" / ("n" * 150 + ".raw"), SIZE)
    (folder / "._disk.raw").write_bytes(b"what a Mac adds")
    (folder / "manifest.json").write_text("{}")
    (folder / "nothing").touch()
    os.symlink("/etc/passwd", folder / "link.raw")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize("format_name", ["gnu", "oldgnu", "posix"])
@pytest.mark.parametrize(
    "names",
    [
        ["disk.raw"],
        ["./disk.raw"],
        ["manifest.json", "disk.raw", "._disk.raw"],
        ["link.raw", "pipe", "nothing", "disk.raw"],
        ["sub"],
    ],
)
def test_the_one_disk_is_found(
    tmp_path: Path, inside: Path, names: list[str], format_name: str
) -> None:
    image = archive(tmp_path, *names, format_name=format_name)
    assert imgconv.compare(inside / "disk.raw", image).identical


def test_two_disks_are_told_by_name(tmp_path: Path, inside: Path) -> None:
    os.link(inside / "disk.raw", inside / "other")
    (inside / "bad\x1b[31m\n.raw").write_bytes(b"x" * 512)
    image = archive(tmp_path, "disk.raw", "bad\x1b[31m\n.raw", "manifest.json")
    done = command(image, tmp_path / "o.qcow2")
    assert_one_line_error(
        done, r"which file in the archive is the disk? 'disk.raw', 'bad\x1b[31m\n.raw'"
    )
    with pytest.raises(ImageUnsupported, match="there is no file in the archive"):
        imgconv.open(archive(tmp_path, "link.raw", "pipe", "nothing"))


@pytest.mark.parametrize("version", ["0.0", "0.1"])
def test_older_sparse_formats_are_refused_by_name(
    tmp_path: Path, inside: Path, version: str
) -> None:
    words = ["--format=posix", f"--sparse-version={version}", "-Sczf", tmp_path / "d.tar.gz"]
    subprocess.run(["tar", *words, "disk.raw"], cwd=inside, check=True)
    with pytest.raises(ImageUnsupported, match=r"'disk.raw' is sparse in a format of GNU's"):
        imgconv.open(tmp_path / "d.tar.gz")


@pytest.mark.parametrize("format_name", ["oldgnu", "posix"])
def test_a_sparse_member_of_many_pieces(tmp_path: Path, format_name: str) -> None:
    """More than a header's four, than a block's 21, and than 64 KiB of text."""
    (tmp_path / "in").mkdir()
    raw = disks.checkered(tmp_path / "in" / "disk.raw", 64 * MiB)
    image = archive(tmp_path, "disk.raw", format_name=format_name)
    assert imgconv.compare(raw, image).identical


def test_more_than_8_gib_in_an_archive(tmp_path: Path) -> None:
    """Octal digits do not suffice for its size."""
    (tmp_path / "in").mkdir()
    raw = disks.islands(tmp_path / "in" / "disk.raw", 9 * GiB, 3)
    for format_name in ("oldgnu", "posix"):
        assert imgconv.compare(
            raw, archive(tmp_path, "disk.raw", format_name=format_name)
        ).identical


def test_a_declared_size_beyond_belief(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    disks.empty(tmp_path / "in" / "disk.raw", 2 * TiB)
    image = archive(tmp_path, "disk.raw")
    with imgconv.open(image) as disk:
        assert disk.size == 2 * TiB
    done = command(image, tmp_path / "o.raw", "--max-virtual-size", "1T")
    assert_one_line_error(done, "at most 1099511627776 are believed")


Maker = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("name", "make"), [("raw.gz", gzip.compress), ("raw.zst", pyzstd.compress)]
)
def test_more_content_than_is_believed(name: str, make: Maker) -> None:
    with pytest.raises(ImageUnsupported, match="at most 1048576 are believed"):
        opened(make(bytes(9 * MiB)), name, max_virtual_size=MiB)


def test_every_point_is_one_to_begin_at() -> None:
    """A disk of so many points that most of them are dropped, read from the end."""
    from imgconv.sources import gzip_members
    from imgconv.sources.checked import ImageFile
    from imgconv.sources.survey import Points, survey

    content = random.Random(1).randbytes(32 * MiB)
    packed = zlib.compressobj(1, wbits=31)
    stream = packed.compress(content) + packed.flush()
    image = ImageFile(engine.MemorySource(stream + bytes(-len(stream) % SECTOR)), "raw.gz")
    members = gzip_members.Members(image, 0)
    points = Points(members.fork(), 3)
    survey(image, members, points)
    assert points.starts.tolist() == [0, 16 * MiB]
    for number, start in reversed(list(enumerate(points.starts.tolist()))):
        buffer = bytearray(MiB)
        assert points.resume(number).read_into(memoryview(buffer)) == MiB
        assert buffer == content[start : start + MiB]

"""Raw in gzip, zstd and tar: what the tools of these formats make of it."""

import gzip
import io
import random
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from isal import igzip
from pyzstd import SeekableZstdFile
from support import disks, engine
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.variants import PACKED

import imgconv
from imgconv.errors import OptionError
from imgconv.formats.base import Disk, EncodingWriter
from imgconv.formats.raw_packed import PackedWriter
from imgconv.identity import Identity
from imgconv.units import SECTOR, GiB, KiB, MiB, TiB

GZIP = [name for name in PACKED if name.startswith("gz")]
TAR = [name for name in PACKED if name.startswith("tar") and not name.endswith("google")]
CONTENTS = {
    "holes": lambda path: disks.holes(path, 9 * MiB),
    "runs": lambda path: disks.random_runs(path, 5 * MiB + 512),
    "empty": lambda path: disks.empty(path, 40 * MiB),
    "last-byte": lambda path: disks.last_byte(path, 3 * MiB + 1536),
    "sector": lambda path: disks.dense(path, SECTOR),
    "dense": lambda path: disks.dense(path, 4 * MiB + 512),
    "odd": lambda path: disks.write(path, 2 * MiB + 5, {MiB: b"text " * 999}),
}


@pytest.fixture(scope="module", params=CONTENTS)
def raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = CONTENTS[request.param](tmp_path_factory.mktemp("raw") / "disk.raw")
    return path


def convert(raw: Path, folder: Path, variant: str) -> Path:
    options = PACKED[variant]
    out = folder / f"out.{options.name}"
    imgconv.convert(raw, out, options=options)
    return out


def output(*words: object) -> bytes:
    """What a command prints; it must not complain."""
    done = subprocess.run([str(w) for w in words], capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout


@pytest.mark.parametrize("variant", GZIP)
def test_gzip_unpacks_it(tmp_path: Path, raw: Path, variant: str) -> None:
    out = convert(raw, tmp_path, variant)
    assert output("gzip", "-t", out) == b""
    wanted = raw.read_bytes()
    wanted += bytes(-len(wanted) % SECTOR)
    assert output("gzip", "-dc", out) == wanted
    assert output("pigz", "-dc", out) == wanted
    assert gzip.decompress(out.read_bytes()) == wanted


def test_zstd_unpacks_it(tmp_path: Path, raw: Path) -> None:
    for variant in ("zst", "zst-small"):
        out = convert(raw, tmp_path, variant)
        assert output("zstd", "-q", "-t", out) == b""
        wanted = raw.read_bytes()
        assert output("zstd", "-q", "-dc", out) == wanted + bytes(-len(wanted) % SECTOR)


@pytest.mark.parametrize("variant", TAR)
@pytest.mark.parametrize("tar", ["tar", "bsdtar"])
def test_tar_unpacks_it(tmp_path: Path, raw: Path, variant: str, tar: str) -> None:
    out, options = convert(raw, tmp_path, variant), PACKED[variant]
    assert isinstance(options, imgconv.RawTarGz)
    assert output(tar, "-tzf", out).decode() == f"{options.member}\n"
    wanted = raw.read_bytes()
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    assert output(tar, "-xzf", out, "-C", unpacked) == b""
    found = (unpacked / options.member).read_bytes()
    assert found == wanted + bytes(-len(wanted) % SECTOR)


def members(packed: bytes) -> Iterator[int]:
    """Yield the length of every gzip member's content."""
    while packed:
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        yield len(unpacker.decompress(packed))
        assert unpacker.eof
        packed = unpacker.unused_data


def test_there_is_one_member_unless_asked_otherwise(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", 9 * MiB)
    for variant in ("gz", "gz-fast", "gz-small", "tar.gz", "tar.gz-named"):
        assert len(list(members(convert(raw, tmp_path, variant).read_bytes()))) == 1
    for variant in ("gz-many", "tar.gz-many"):
        found = list(members(convert(raw, tmp_path, variant).read_bytes()))
        assert len(found) > 9
        assert max(found) <= MiB


def test_nothing_in_gzip_tells_of_time_or_name(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "disk.raw", MiB)
    for variant in GZIP + TAR:
        packed = convert(raw, tmp_path, variant).read_bytes()
        assert packed[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


def test_the_archive_is_what_clouds_import(tmp_path: Path) -> None:
    """Old GNU format, one regular file of nobody in particular, as old as the disk."""
    raw = disks.dense(tmp_path / "disk.raw", 3 * MiB)
    packed = convert(raw, tmp_path, "tar.gz").read_bytes()
    archive = gzip.decompress(packed)
    assert len(archive) % 10240 == 0
    assert archive[257:265] == b"ustar  \0"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (member,) = tar.getmembers()
    assert (member.name, member.size, member.type) == ("disk.raw", 3 * MiB, tarfile.REGTYPE)
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
    assert (member.mode, member.mtime) == (0o644, int(raw.stat().st_mtime))
    assert not any(archive[SECTOR + 3 * MiB :])
    imgconv.convert(raw, tmp_path / "o.tgz", identity="somebody")
    with tarfile.open(tmp_path / "o.tgz") as tar:
        assert tar.getmembers()[0].mtime == 0


def test_google_wants_whole_gibibytes(tmp_path: Path) -> None:
    raw = disks.write(tmp_path / "disk.raw", GiB + SECTOR, {GiB: b"end"})
    report = imgconv.convert(raw, tmp_path / "o.tgz", options=imgconv.RawTarGz(google=True))
    assert report.virtual_size == 2 * GiB
    with tarfile.open(tmp_path / "o.tgz", "r|gz") as tar:
        member = tar.next()
    assert member is not None
    assert (member.name, member.size) == ("disk.raw", 2 * GiB)
    unpacked = int.from_bytes((tmp_path / "o.tgz").read_bytes()[-4:], "little")
    assert unpacked == -(-(2 * GiB + 3 * SECTOR) // 10240) * 10240


def test_more_than_octal_digits_can_say(tmp_path: Path) -> None:
    """From 8 GiB on the size is in base 256; and the trailer counts modulo 4 GiB."""
    raw = disks.write(tmp_path / "disk.raw", 9 * GiB, {8 * GiB: b"beyond"})
    imgconv.convert(raw, tmp_path / "o.tgz")
    seen, step = 0, 4 * MiB
    with igzip.open(tmp_path / "o.tgz") as archive:
        member = tarfile.TarInfo.frombuf(archive.read(SECTOR), "utf-8", "strict")
        assert (member.name, member.size) == ("disk.raw", 9 * GiB)
        while seen < 9 * GiB:
            expected = b"beyond" if seen == 8 * GiB else b""
            assert archive.read(step) == expected.ljust(step, b"\0")
            seen += step
        assert not any(archive.read())


def test_seekable_zstd_is_read_at_any_offset(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", 150 * MiB + 512)
    out, rng = convert(raw, tmp_path, "zst"), random.Random(5)
    with SeekableZstdFile(out) as packed, open(raw, "rb") as file:
        assert packed.seek(0, io.SEEK_END) == raw.stat().st_size
        for at in [0, raw.stat().st_size - 1, *(rng.randrange(150 * MiB) for _ in range(60))]:
            packed.seek(at)
            file.seek(at)
            assert packed.read(70_000) == file.read(70_000)


def test_zstd_needs_little_memory(tmp_path: Path) -> None:
    """However long a frame of zeros is, its window is no larger than that of the others."""
    raw = disks.holes(tmp_path / "disk.raw", 300 * MiB)
    packed, seen = convert(raw, tmp_path, "zst").read_bytes(), 0
    while packed[:4] == zstandard.FRAME_HEADER:
        parameters = zstandard.get_frame_parameters(packed)
        assert parameters.window_size <= 512 * KiB
        assert parameters.has_checksum
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        assert len(unpacker.decompress(packed)) == parameters.content_size
        packed, seen = unpacker.unused_data, seen + parameters.content_size
    assert packed[:4] == bytes.fromhex("5e2a4d18")  # the seek table
    assert seen == 300 * MiB


@pytest.mark.parametrize("variant", PACKED)
def test_zeros_cost_next_to_nothing(variant: str) -> None:
    """A tebibyte of them is the same few pieces: no more is made than those."""
    source = engine.MemorySource(b"")
    source.size = TiB
    writer = engine.writer_for(source, PACKED[variant])
    assert isinstance(writer, PackedWriter)
    segments = [*writer.begin(), *writer.finish()]
    assert len({id(meta) for part in segments for meta in part.metas}) < 10
    assert sum(part.size for part in segments) < TiB / 900
    assert all(part.size <= 1100 * MiB for part in segments)


@pytest.mark.parametrize("variant", PACKED)
def test_the_bound_holds(variant: str) -> None:
    unit = PACKED[variant].writer(Disk(MiB, Identity("x"), "x")).unit
    noise, text = random.Random(3).randbytes(unit), b"ab" * (unit // 2)
    for pattern in ([noise, bytes(unit)], [bytes(unit), noise, noise], [text], [bytes(unit)]):
        content = b"".join(pattern) * 5 + noise[:SECTOR]
        source = engine.MemorySource(content)
        writer = engine.writer_for(source, PACKED[variant])
        assert isinstance(writer, EncodingWriter)
        count = sum(any(piece) for piece in pattern) * 5 + 1
        assert len(engine.one_pass(source, PACKED[variant])) <= writer.bound(count)


@pytest.mark.parametrize("variant", PACKED)
def test_how_units_are_told_does_not_show(variant: str) -> None:
    """One by one or all at once: the same segments follow one another."""

    def placed(step: int) -> list[tuple[int, int]]:
        disk = Disk(40 * MiB + SECTOR, Identity("x"), "x")
        writer = PACKED[variant].writer(disk)
        assert isinstance(writer, EncodingWriter)
        every = np.array([0, 1, 2, 7, 20, 21, 70, disk.size // writer.unit])
        units = every * writer.unit
        found = [
            (int(k), int(n))
            for part in writer.begin()
            for k, n in zip(part.kind, part.length, strict=True)
        ]
        for first in range(0, len(units), step):
            some = units[first : first + step]
            part = writer.place(some, some // writer.unit % 50 + 60, some % 977)
            found += [(int(k), int(n)) for k, n in zip(part.kind, part.length, strict=True)]
        tail = b""
        for part in writer.finish():
            found += [(int(k), int(n)) for k, n in zip(part.kind, part.length, strict=True)]
            tail = part.metas[-1].render() if part.metas else tail
        return [*found, (-1, int.from_bytes(tail[-8:], "little"))]

    assert placed(1) == placed(3) == placed(100)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RawGz", {"compression_level": 0}, "must be from 1 to 9"),
        ("RawGz", {"compress": "tiny"}, "must be one of"),
        ("RawGz", {"members": "two"}, r"must be one of one\|many"),
        ("RawZst", {"compression_level": 20}, "must be from 1 to 19"),
        ("RawTarGz", {"member": ""}, "bare name"),
        ("RawTarGz", {"member": "../disk.raw"}, "bare name"),
        ("RawTarGz", {"member": "a\nb"}, "bare name"),
        ("RawTarGz", {"member": "x" * 101}, "at most 100 bytes"),
        ("RawTarGz", {"member": "system.raw", "google": True}, "must be disk.raw"),
    ],
)
def test_bad_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        getattr(imgconv, name)(**options)


def test_the_name_chooses_the_container(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", 2 * MiB)
    for name, expected in {
        "o.raw.gz": "raw.gz",
        "o.img.gz": "raw.gz",
        "o.raw.zst": "raw.zst",
        "o.raw.tar.gz": "raw.tar.gz",
        "o.TGZ": "raw.tar.gz",
    }.items():
        assert imgconv.convert(raw, tmp_path / name).format == expected
    done = command(raw, tmp_path / "o.qcow2.gz")
    assert_one_line_error(done, "does not tell the format", status=2)


def test_the_command_line(tmp_path: Path) -> None:
    raw = disks.holes(tmp_path / "disk.raw", 2 * MiB)
    done = command(raw, tmp_path / "o.tar.gz", "--member", "root.raw", "--compress", "small")
    assert done.returncode == 0
    assert output("tar", "-tzf", tmp_path / "o.tar.gz") == b"root.raw\n"
    done = command(raw, tmp_path / "o.raw.gz", "--member", "root.raw")
    assert_one_line_error(done, "unknown option 'member'", status=2)
    done = command(raw, tmp_path / "o.raw", "-c")
    assert_one_line_error(done, "unknown option 'compress'", status=2)

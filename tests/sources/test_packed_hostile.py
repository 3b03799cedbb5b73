"""Packed disks that are damaged, cut off, or made to do harm."""

import gzip
import io
import random
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
import pyzstd
from hypothesis import given, settings
from hypothesis import strategies as st
from support import engine
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.packed_image import member, octal, old_gnu, packed, seekable, sparse_1_0

from imgconv.errors import Cancelled, SourceError
from imgconv.native import CRC32
from imgconv.ondisk import tar as ondisk
from imgconv.sources import open_image
from imgconv.sources.options import ReadOptions
from imgconv.units import SECTOR, KiB, MiB, TiB

CONTENT = random.Random(1).randbytes(100 * KiB) + bytes(300 * KiB) + b"end." * 128
PLAIN = gzip.compress(CONTENT, mtime=0)
FRAME = pyzstd.compress(CONTENT, {pyzstd.CParameter.checksumFlag: 1})


def read(content: bytes, format_name: str) -> bytes:
    """Open it and read everything in it."""
    padded = content + bytes(-len(content) % SECTOR)
    options = ReadOptions(max_virtual_size=64 * MiB)
    disk = open_image(engine.MemorySource(padded), format_name, options)
    buffer = bytearray(disk.size)
    for at in range(0, disk.size, 64 * KiB):
        disk.read_into(at, memoryview(buffer)[at : at + 64 * KiB])
    return bytes(buffer)


def test_the_helpers_make_what_can_be() -> None:
    """So that what is wrong above is what was meant."""
    assert read(PLAIN, "raw.gz") == read(FRAME, "raw.zst") == CONTENT
    twice = seekable((FRAME, len(CONTENT)), (FRAME, len(CONTENT)))
    assert read(twice, "raw.zst") == 2 * CONTENT
    found = read(old_gnu(4096, 512, 512, 512), "raw.tar.gz")
    assert found == bytes(512) + b"d" * 512 + bytes(3072)
    found = read(sparse_1_0(b"2\n512\n512\n4096\n0\n", b"d" * 512), "raw.tar.gz")
    assert found == bytes(512) + b"d" * 512 + bytes(3072)


def sparse(*fields: bytes) -> bytes:
    """An old GNU archive of 4 KiB with 512 bytes at 512, of which the map is such fields."""
    block = b"".join(fields).ljust(97, b"\0") + octal(4096)
    return packed(member(block, type=b"S", size=512), b"d" * 512)


@pytest.mark.parametrize(
    "field",
    [
        b"00000001000\0",
        b"00000001000 ",
        b"       1000 ",
        b"1000\0\0\0\0\0\0\0\0",
        b"1000\0garbage",
        b"\x80" + (512).to_bytes(11, "big"),
    ],
)
def test_a_sparse_map_in_every_writing(field: bytes) -> None:
    """As GNU tar writes numbers, and as older ones did, beside blanks."""
    found = read(sparse(field, octal(512), bytes(24), octal(4096), bytes(12)), "raw.tar.gz")
    assert found == bytes(512) + b"d" * 512 + bytes(3072)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"\xff" * 12, "a negative number"),
        (b"\x80" + (10**18).to_bytes(11, "big"), "beyond any disk"),
        (b"\x80\0\0\1" + bytes(8), "beyond any disk"),
        (b"00000001008\0", "no number"),
        (b"0000000100/\0", "no number"),
        (b"\0" * 11 + b"1", "not in order, or past it|512 are stored"),
    ],
)
def test_numbers_that_no_sparse_map_has(field: bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        read(sparse(octal(0), octal(256), field, octal(512)), "raw.tar.gz")


TINY = pyzstd.compress(b"x")


def test_a_bomb_of_a_gzip(tmp_path: Path) -> None:
    """10 MiB that unpack to 10 GiB, as an archive whose header speaks of 10 TiB."""
    deflater = zlib.compressobj(9, wbits=-15)
    zeros = deflater.compress(bytes(MiB)) + deflater.flush(zlib.Z_FULL_FLUSH)
    front, header = gzip.compress(b"")[:10], member(size=10 * TiB)
    deflater = zlib.compressobj(9, wbits=-15)
    first = deflater.compress(header) + deflater.flush(zlib.Z_FULL_FLUSH)
    crc = CRC32.zeros(CRC32.update(header), 10_000 * MiB)
    end = struct.pack("<HII", 3, crc, (10_000 * MiB + 512) % (1 << 32))
    bomb = tmp_path / "d.tar.gz"
    bomb.write_bytes(front + first + zeros * 10_000 + end)
    done = command(bomb, tmp_path / "o.qcow2")
    assert_one_line_error(done, "a member ends at 10995116278272, but there are 10485760512")
    done = command(bomb, tmp_path / "o.qcow2", "--max-virtual-size", "1G")
    assert_one_line_error(done, "at most 1073741824 are believed")
    assert list(tmp_path.iterdir()) == [bomb]


def test_it_can_be_cancelled_while_it_is_opened() -> None:
    with pytest.raises(Cancelled):
        open_image(
            engine.MemorySource(PLAIN + bytes(-len(PLAIN) % SECTOR)),
            "raw.gz",
            cancelled=lambda: True,
        )


def test_nothing_is_made_by_the_names_in_an_archive(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("../../escaped.raw")
        info.size = 512
        tar.addfile(info, io.BytesIO(b"d" * 512))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "d.tar.gz").write_bytes(gzip.compress(out.getvalue()))
    assert command("d.tar.gz", "o.raw", cwd=folder).returncode == 0
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["d.tar.gz", "o.raw"]


SMALL = random.Random(2).randbytes(3000) + bytes(200 * KiB) + b"text " * 2000
SPARSE = sparse_1_0(b"2\n512\n512\n4096\n0\n", b"d" * 512)
SEEDS = [
    ("raw.gz", gzip.compress(SMALL, mtime=0) + gzip.compress(SMALL[:999], mtime=0)),
    ("raw.zst", pyzstd.compress(SMALL, {pyzstd.CParameter.checksumFlag: 1})),
    ("raw.zst", seekable((pyzstd.compress(SMALL), len(SMALL)), (TINY, 1))),
]
changes = st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), max_size=6)


def damaged(content: bytes, spots: list[tuple[int, int]], cut: int | None) -> bytes:
    broken = bytearray(content)
    for at, value in spots:
        broken[at % len(broken)] = value
    return bytes(broken[:cut] if cut else broken)


def refusal(content: bytes, format_name: str) -> str:
    """What is said of it, nothing when it is read."""
    try:
        read(content, format_name)
    except SourceError as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None)
@given(seed=st.sampled_from(SEEDS), spots=changes, cut=st.none() | st.integers(1, 4000))
def test_damage_is_refused_or_harmless(
    seed: tuple[str, bytes], spots: list[tuple[int, int]], cut: int | None
) -> None:
    format_name, content = seed
    assert len(refusal(damaged(content, spots, cut), format_name).splitlines()) <= 1


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from([gzip.decompress(SPARSE), gzip.decompress(packed(member(size=0)))]),
    spots=changes,
    cut=st.none() | st.integers(1, 4000),
)
def test_a_damaged_archive_in_a_sound_gzip(
    seed: bytes, spots: list[tuple[int, int]], cut: int | None
) -> None:
    broken = bytearray(damaged(seed, spots, cut))
    for at in range(0, len(broken) - 511, 512):  # so that there is more to it than checksums
        if broken[at + 257 : at + 262] == b"ustar":
            sum_ = ondisk.checksum(bytes(broken[at : at + 512]))
            broken[at + 148 : at + 156] = b"%06o\0 " % sum_
    assert len(refusal(gzip.compress(bytes(broken), 1), "raw.tar.gz").splitlines()) <= 1


@pytest.mark.parametrize("tool", ["gzip", "zstd"])
def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, tool: str) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(random.Random(1).randbytes(9 * MiB))
    name = {"gzip": "d.raw.gz", "zstd": "d.raw.zst"}[tool]
    subprocess.run(f"{tool} -c {raw} > {name}", shell=True, cwd=tmp_path, check=True)
    from imgconv.sources.file import FileSource

    file = FileSource(str(tmp_path / name))
    disk = open_image(file, name[2:])
    with open(tmp_path / name, "r+b") as cut:
        cut.truncate(MiB)
    with pytest.raises(SourceError):
        disk.read_into(5 * MiB, memoryview(bytearray(MiB)))
    disk.close()

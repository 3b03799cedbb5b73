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

from imgconv.errors import Cancelled, ImageMalformed, ImageUnsupported, SourceError
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


def seekable(*frames: tuple[bytes, int], claimed: int | None = None) -> bytes:
    """Frames and a table that says what is claimed of their content."""
    table = b"".join(
        len(frame).to_bytes(4, "little") + size.to_bytes(4, "little") for frame, size in frames
    )
    count = len(frames) if claimed is None else claimed
    footer = count.to_bytes(4, "little") + b"\0" + bytes.fromhex("b1ea928f")
    size = (len(table) + len(footer)).to_bytes(4, "little")
    stored = b"".join(frame for frame, _ in frames)
    return stored + bytes.fromhex("5e2a4d18") + size + table + footer


def member(block: bytes = b"", **fields: object) -> bytes:
    """A tar header; `block` is bytes for the front of GNU's fields."""
    info = tarfile.TarInfo("disk.raw")
    for key, value in fields.items():
        setattr(info, key, value)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[386 : 386 + len(block)] = block
    raw[148:156] = b"%06o\0 " % ondisk.checksum(bytes(raw))
    return bytes(raw)


def packed(*parts: bytes) -> bytes:
    return gzip.compress(b"".join(parts) + bytes(1024), mtime=0)


def octal(*numbers: int) -> bytes:
    return b"".join(b"%011o\0" % number for number in numbers)


def old_gnu(size: int, stored: int, *pieces: int) -> bytes:
    """An archive of one sparse file."""
    fields = octal(*pieces).ljust(97, b"\0") + octal(size)
    return packed(member(fields, type=b"S", size=stored), b"d" * stored)


def pax(*records: bytes) -> bytes:
    content = b"".join(records)
    return member(type=b"x", size=len(content)) + content + bytes(-len(content) % 512)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


def sparse_1_0(text: bytes, stored: bytes = b"", size: int = 4096) -> bytes:
    content = text + bytes(-len(text) % 512) + stored
    keys = [(b"major", b"1"), (b"minor", b"0"), (b"realsize", b"%d" % size)]
    words = [record(b"GNU.sparse." + key, value) for key, value in keys]
    return packed(pax(*words), member(size=len(content)), content, bytes(-len(content) % 512))


DAMAGED = {
    "gz-cut": ("raw.gz", PLAIN[:50_000], "in the middle of a member"),
    "gz-cut-trailer": ("raw.gz", PLAIN[:-4].rstrip(b"\0"), "says otherwise|middle of a member"),
    "gz-crc": ("raw.gz", PLAIN[:-8] + b"\1\2\3\4" + PLAIN[-4:], "not that of the CRC-32"),
    "gz-size": ("raw.gz", PLAIN[:-4] + b"\1\2\3\4", "holds 410112 bytes, but says otherwise"),
    "gz-garbage": ("raw.gz", PLAIN + b"garbage", "there is no gzip member"),
    "gz-zeros-then": ("raw.gz", PLAIN + bytes(3000) + b"!", "what follows the last member"),
    "gz-second": ("raw.gz", PLAIN + PLAIN[:99], "compressed data|middle of a member"),
    "gz-method": ("raw.gz", PLAIN[:2] + b"\7" + PLAIN[3:], "has no method 7"),
    "gz-flags": ("raw.gz", PLAIN[:3] + b"\x80" + PLAIN[4:], "flags nobody knows"),
    "gz-name": ("raw.gz", PLAIN[:3] + b"\x08" + PLAIN[4:10] + b"n" * 99_999, "does not end"),
    "gz-header-crc": ("raw.gz", PLAIN[:3] + b"\2" + PLAIN[4:], "header's checksum is wrong"),
    "gz-code": ("raw.gz", PLAIN[:10] + b"\xff" * 99, "compressed data"),
    "gz-none": ("raw.gz", b"something", "there is no gzip member"),
    "gz-empty": ("raw.gz", gzip.compress(b""), "holds no byte"),
    "zst-cut": ("raw.zst", FRAME[:50_000], "in the middle of a frame"),
    "zst-sum": ("raw.zst", FRAME[:-1] + bytes([FRAME[-1] ^ 1]), "checksum"),
    "zst-garbage": ("raw.zst", FRAME + b"garbage", "no zstd frame"),
    "zst-zeros-then": ("raw.zst", FRAME + bytes(1500), "no zstd frame"),
    "zst-none": ("raw.zst", b"something", "no zstd frame"),
    "zst-empty": ("raw.zst", pyzstd.compress(b""), "holds no byte"),
    "zst-skip": ("raw.zst", bytes.fromhex("502a4d18") + b"\xff" * 4, "but the file has"),
    "zst-block": ("raw.zst", FRAME[:9] + b"\xff" + FRAME[10:], "no kind|middle|compressed"),
    "table-more": ("raw.zst", seekable((FRAME, len(CONTENT) + 1)), "before it should|too much"),
    "table-less": ("raw.zst", seekable((FRAME, len(CONTENT) - 1)), "holds too much"),
    "table-count": ("raw.zst", seekable((FRAME, 410112), claimed=2), "no table has as many"),
    "table-huge": ("raw.zst", seekable((FRAME, 410112), claimed=1 << 31), "lists 2147483648"),
    "table-hides": (
        "raw.zst",
        seekable((FRAME + FRAME, len(CONTENT)), (FRAME, len(CONTENT))),
        "do not end at",
    ),
    "table-elsewhere": ("raw.zst", FRAME + seekable((FRAME, 410112)), "but the table is at"),
    "tar-none": ("raw.tar.gz", PLAIN, "no header of a member"),
    "tar-cut": ("raw.tar.gz", packed(member(size=9999)), "a member ends at 10511"),
    "tar-claims": ("raw.tar.gz", packed(member(size=10 * TiB)), "a member ends at 1099"),
    "tar-number": (
        "raw.tar.gz",
        packed(member(size=512).replace(b"00000001000", b"0000000z000")),
        "no header of a member",
    ),
    "tar-map-order": ("raw.tar.gz", old_gnu(4096, 1024, 1024, 512, 0, 512), "not in order"),
    "tar-map-sum": ("raw.tar.gz", old_gnu(4096, 1024, 0, 512), "512 bytes, but 1024 are"),
    "tar-map-past": ("raw.tar.gz", old_gnu(256, 512, 0, 512), "past it"),
    "tar-map-endless": (
        "raw.tar.gz",
        gzip.compress(member(octal(0, 0).ljust(96, b"\0") + b"\1", type=b"S") + b"\1" * 4096),
        "ends in the middle of a sparse map",
    ),
    "pax-record": ("raw.tar.gz", packed(pax(b"99 a=b\n"), member(size=1)), "not whole"),
    "pax-length": ("raw.tar.gz", packed(pax(b"x a=b\n"), member(size=1)), "has no length"),
    "pax-size": ("raw.tar.gz", packed(pax(record(b"size", b"-1")), member()), "a size '-1'"),
    "pax-huge": ("raw.tar.gz", packed(member(type=b"x", size=2 * MiB)), "ends at|of 2097152"),
    "map-text": ("raw.tar.gz", sparse_1_0(b"1\n0\nfive\n", bytes(512)), "what is no number"),
    "map-count": ("raw.tar.gz", sparse_1_0(b"99999999\n"), "99999999 pieces"),
    "map-short": ("raw.tar.gz", sparse_1_0(b"5\n0\n"), "no number|does not end"),
    "map-sum": ("raw.tar.gz", sparse_1_0(b"1\n0\n512\n"), "but 0 are stored"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be(name: str) -> None:
    format_name, content, reason = DAMAGED[name]
    with pytest.raises(ImageMalformed, match=f"malformed {format_name} at offset .*({reason})"):
        read(content, format_name)


def test_the_helpers_make_what_can_be() -> None:
    """So that what is wrong above is what was meant."""
    assert read(PLAIN, "raw.gz") == read(FRAME, "raw.zst") == CONTENT
    twice = seekable((FRAME, len(CONTENT)), (FRAME, len(CONTENT)))
    assert read(twice, "raw.zst") == 2 * CONTENT
    found = read(old_gnu(4096, 512, 512, 512), "raw.tar.gz")
    assert found == bytes(512) + b"d" * 512 + bytes(3072)
    found = read(sparse_1_0(b"2\n512\n512\n4096\n0\n", b"d" * 512), "raw.tar.gz")
    assert found == bytes(512) + b"d" * 512 + bytes(3072)


TINY = pyzstd.compress(b"x")
UNSUPPORTED = {
    "tiny-members": ("raw.gz", gzip.compress(b"", mtime=0) * 70_000, "hold next to nothing"),
    "tiny-frames": ("raw.zst", TINY * 70_000, "hold next to nothing"),
    "skipped": ("raw.zst", (bytes.fromhex("502a4d18") + bytes(4)) * 70_000, "in a row"),
    "window": (
        "raw.zst",
        bytes.fromhex("28b52ffd0088010000"),
        "needs a history of 134217728",
    ),
    "dictionary": ("raw.zst", bytes.fromhex("28b52ffd0158aa") + bytes(9), "the dictionary"),
    "members": ("raw.tar.gz", packed(member() * 1500), "more than 1000 members"),
    "bomb-gz": ("raw.gz", gzip.compress(bytes(70 * MiB), 9), "at most 67108864"),
    "bomb-zst": ("raw.zst", pyzstd.compress(bytes(70 * MiB)), "at most 67108864"),
    "bomb-table": ("raw.zst", seekable((FRAME, 1 << 30)), "at most 67108864"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_read(name: str) -> None:
    format_name, content, reason = UNSUPPORTED[name]
    with pytest.raises(ImageUnsupported, match=reason):
        read(content, format_name)


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

"""Reading QCOW2: every option of qemu-img, what qemu-io leaves behind, and hostile images."""

import ctypes
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.peers import assert_qemu_img
from support.reading import as_qemu_reads_it
from zstandard import ZstdCompressor

import imgconv
from imgconv.codecs import inflate, system_zstd, unzlib, unzstd
from imgconv.errors import ImageMalformed, ImageUnsupported, SourceError
from imgconv.units import KiB, MiB

SIZE = 9 * MiB + 5 * KiB
CLUSTER = 64 * KiB
OPTIONS = [
    "compat=0.10",
    "compat=v3",
    "cluster_size=512",
    "cluster_size=2M",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "refcount_bits=1",
    "refcount_bits=64",
    "lazy_refcounts=on",
    "preallocation=metadata",
    "preallocation=full",
]
PACKED = [
    "compression_type=zlib",
    "compression_type=zstd",
    "cluster_size=512",
    "cluster_size=2M,compression_type=zstd",
    "extended_l2=on",
    "compat=0.10",
]


def check(image: Path) -> bytes:
    return as_qemu_reads_it(image, "qcow2")


def made(tmp_path: Path, options: str, *words: str) -> Path:
    raw = disks.random_runs(tmp_path / "disk.raw", SIZE)
    image = tmp_path / "disk.qcow2"
    assert_qemu_img("convert", *words, "-O", "qcow2", "-o", options, "-f", "raw", raw, image)
    return image


def qemu_io(image: Path, *lines: str) -> None:
    words = [word for line in lines for word in ("-c", line)]
    done = subprocess.run(
        ["qemu-io", "-f", "qcow2", *words, image],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("options", OPTIONS)
def test_what_qemu_makes(tmp_path: Path, options: str) -> None:
    assert check(made(tmp_path, options))[:SIZE] == (tmp_path / "disk.raw").read_bytes()


@pytest.mark.parametrize("options", PACKED)
def test_what_qemu_compresses(tmp_path: Path, options: str) -> None:
    assert check(made(tmp_path, options, "-c"))[:SIZE] == (tmp_path / "disk.raw").read_bytes()


def test_zstd_on_a_system_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> NoReturn:
        raise OSError(f"{name}: cannot open shared object file")

    image = made(tmp_path, "compression_type=zstd", "-c")
    system_zstd.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    try:
        assert system_zstd() is None
        assert check(image)[:SIZE] == (tmp_path / "disk.raw").read_bytes()
    finally:
        system_zstd.cache_clear()


@pytest.mark.parametrize("options", ["compat=0.10", "compat=v3", "extended_l2=on"])
def test_zeros_discards_and_snapshots(tmp_path: Path, options: str) -> None:
    image = made(tmp_path, options, "-c")
    qemu_io(image, "write -P 3 1M 300k", "write -z 1100k 64k", "discard 2M 128k")
    assert_qemu_img("snapshot", "-c", "before", image)
    qemu_io(image, "write -P 4 1M 10k", "write -P 5 4M 2k", "write -z 4097k 512")
    check(image)


@pytest.mark.parametrize(
    "output", [imgconv.Qcow2(), imgconv.Qcow2(compress="fast"), imgconv.Qcow2(cluster_size=512)]
)
def test_what_imgconv_makes(tmp_path: Path, output: imgconv.Qcow2) -> None:
    raw = disks.random_runs(tmp_path / "disk.raw", 5 * MiB)
    imgconv.convert(raw, tmp_path / "disk.qcow2", options=output)
    assert check(tmp_path / "disk.qcow2") == raw.read_bytes()


def test_a_size_that_is_no_multiple_of_a_sector(tmp_path: Path) -> None:
    image = made(tmp_path, "compat=v3")
    patch(image, 24, struct.pack(">Q", SIZE - 100))
    with imgconv.open(image) as disk:
        assert disk.size == SIZE
        assert disk.read(SIZE - 100, 100) == bytes(100)
        (warning,) = disk.warnings
        assert f"{SIZE - 100} bytes is no whole sectors; rounded up to {SIZE}" in warning
    found = imgconv.info(image)
    assert (found.virtual_size, found.warnings) == (SIZE, (warning,))


def test_a_dirty_image_is_read_with_a_warning(tmp_path: Path) -> None:
    image = made(tmp_path, "compat=v3")
    patch(image, 79, b"\x01")
    with imgconv.open(image) as disk:
        assert "not closed properly" in disk.warnings[0]


def patch(image: Path, at: int, content: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(content)


def word(image: Path, at: int) -> int:
    return int.from_bytes(image.read_bytes()[at : at + 8], "big")


def l1(image: Path) -> int:
    return word(image, 40)


def l2(image: Path) -> int:
    """Where the first entry in use of the first L2 table is."""
    start = word(image, l1(image)) & 0x00FFFFFFFFFFFE00
    return next(at for at in range(start, start + CLUSTER, 8) if word(image, at))


def set_word(
    place: Callable[[Path], int], value: Callable[[Path], int]
) -> Callable[[Path], None]:
    return lambda image: patch(image, place(image), struct.pack(">Q", value(image)))


def set_bytes(at: int, content: bytes) -> Callable[[Path], None]:
    return lambda image: patch(image, at, content)


MALFORMED: dict[str, Callable[[Path], None]] = {
    "cluster bits 0": set_bytes(20, bytes(4)),
    "cluster bits huge": set_bytes(20, b"\xff" * 4),
    "no size": set_bytes(24, bytes(8)),
    "L1 too short": set_bytes(36, bytes(4)),
    "L1 unaligned": set_bytes(40, struct.pack(">Q", 65536 + 512)),
    "L1 beyond the end": set_bytes(40, struct.pack(">Q", 1 << 40)),
    "no refcount table": set_bytes(56, bytes(4)),
    "refcount table beyond the end": set_bytes(48, struct.pack(">Q", 1 << 50)),
    "refcount order": set_bytes(96, struct.pack(">I", 7)),
    "header too short": set_bytes(100, struct.pack(">I", 103)),
    "header too long": set_bytes(100, struct.pack(">I", 1 << 20)),
    "zstd without its bit": set_bytes(104, b"\x01"),
    "bit without zstd": set_bytes(79, b"\x08"),
    "extension too long": set_bytes(112, b"\x12\x34\x56\x78\xff\xff\xff\xff"),
    "L2 beyond the end": set_word(l1, lambda _: 1 << 63 | 1 << 40),
    "L2 in the header": set_word(l1, lambda _: 1 << 63 | CLUSTER // 2),
    "L2 is the L1": set_word(l1, lambda image: 1 << 63 | l1(image)),
    "L1 reserved bits": set_word(l1, lambda image: word(image, l1(image)) | 2),
    "data reserved bits": set_word(l2, lambda image: word(image, l2(image)) | 2),
    "data unaligned": set_word(l2, lambda image: word(image, l2(image)) + 512),
    "data beyond the end": set_word(l2, lambda _: 1 << 63 | 1 << 40),
    "data is the L1": set_word(l2, lambda image: 1 << 63 | l1(image)),
    "data is its own table": set_word(
        l2, lambda image: 1 << 63 | (word(image, l1(image)) & 0x00FFFFFFFFFFFE00)
    ),
    "data twice": set_word(lambda image: l2(image) + 8, lambda image: word(image, l2(image))),
    "compressed beyond the end": set_word(l2, lambda _: 1 << 62 | 1 << 40),
    "compressed in the header": set_word(l2, lambda _: 1 << 62),
    "compressed in the L1": set_word(l2, lambda image: 1 << 62 | l1(image)),
}
UNSUPPORTED = {
    "version 1": (set_bytes(4, struct.pack(">I", 1)), "version 1"),
    "AES": (set_bytes(32, struct.pack(">I", 1)), "encrypted .AES"),
    "LUKS": (set_bytes(32, struct.pack(">I", 2)), "encrypted .LUKS"),
    "corrupt": (set_bytes(79, b"\x02"), "marked corrupt"),
    "data file": (set_bytes(79, b"\x04"), "another file"),
    "unknown feature": (set_bytes(72, b"\x80"), "not known"),
    "enormous": (set_bytes(24, struct.pack(">Q", 1 << 60)), "at most"),
    "L1 enormous": (set_bytes(36, b"\xff" * 4), "L1 table"),
    "backing file": (set_bytes(8, struct.pack(">QI", 4096, 3)), "backing file"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_images_are_refused(tmp_path: Path, case: str) -> None:
    image = made(tmp_path, "compat=v3")
    MALFORMED[case](image)
    with pytest.raises(ImageMalformed, match="qcow2"):
        imgconv.open(image)
    done = command(image, tmp_path / "out.raw")
    assert_one_line_error(done, str(image))
    assert not (tmp_path / "out.raw").exists()


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_cannot_be_read_is_named(tmp_path: Path, case: str) -> None:
    image = made(tmp_path, "compat=v3")
    change, words = UNSUPPORTED[case]
    change(image)
    with pytest.raises(ImageUnsupported, match=words):
        imgconv.open(image)


def test_a_zero_flag_in_version_2(tmp_path: Path) -> None:
    image = made(tmp_path, "compat=0.10")
    set_word(l2, lambda disk: word(disk, l2(disk)) | 1)(image)
    with pytest.raises(ImageMalformed, match="reserved"):
        imgconv.open(image)


@pytest.mark.parametrize("bitmap", [0x0000000100000001, 0xFFFFFFFFFFFFFFFF])
def test_subclusters_both_allocated_and_zero(tmp_path: Path, bitmap: int) -> None:
    image = made(tmp_path, "extended_l2=on")
    set_word(lambda disk: l2(disk) + 8, lambda _: bitmap)(image)
    with pytest.raises(ImageMalformed, match="both"):
        imgconv.open(image)


def test_names_inside_an_image_are_escaped_and_not_opened(tmp_path: Path) -> None:
    base = disks.dense(tmp_path / "secret", MiB)
    image = tmp_path / "disk.qcow2"
    assert_qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", image)
    at = image.read_bytes().index(b"secret")
    patch(image, at, b"\x1b]0;x\n")
    done = command(image, tmp_path / "out.raw")
    assert_one_line_error(done, "backing file", "\\x1b]0;x\\n")


def test_a_broken_stream_is_told_with_its_place(tmp_path: Path) -> None:
    image = made(tmp_path, "compat=v3", "-c")
    at = next(a for a in range(l2(image), l2(image) + CLUSTER, 8) if word(image, a) >> 62 & 1)
    where = word(image, at) & (1 << 54) - 1
    patch(image, where, b"\xff" * 16)
    done = command(image, tmp_path / "out.raw")
    assert_one_line_error(done, f"offset {where}", "compressed data")
    assert not (tmp_path / "out.raw").exists()


def test_a_file_that_ends_within_its_last_cluster(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    assert_qemu_img("create", "-f", "qcow2", image, "1M")
    qemu_io(image, "write -P 7 0 64k")
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size - 1024)
    with imgconv.open(image) as disk:
        assert "ends within a cluster" in disk.warnings[0]
        assert disk.read(0, CLUSTER) == b"\x07" * (CLUSTER - 1024) + bytes(1024)


@pytest.mark.parametrize(("cluster", "size"), [("512", "600M"), ("64k", "1T")])
def test_a_full_disk_in_order_needs_no_memory_for_its_tables(
    tmp_path: Path, cluster: str, size: str
) -> None:
    image = tmp_path / "disk.qcow2"
    options = f"preallocation=metadata,cluster_size={cluster}"
    assert_qemu_img("create", "-f", "qcow2", "-o", options, image, size)
    tracemalloc.start()
    try:
        with imgconv.open(image) as disk:
            extents = list(disk.extents())  # some data: file system blocks with L2 tables
            assert (extents[0][0], extents[-1][1]) == (0, disk.size)
            assert len(extents) == 1 or cluster == "512"
        assert tracemalloc.get_traced_memory()[1] < 48 * MiB
    finally:
        tracemalloc.stop()


CONTENT = bytes(range(256)) * 16


@pytest.mark.parametrize(
    "stream",
    [
        ZstdCompressor().compress(CONTENT),
        ZstdCompressor(write_content_size=False).compress(CONTENT),
        ZstdCompressor(write_checksum=True).compress(CONTENT) + b"garbage",
        ZstdCompressor().compress(CONTENT[:100]) + ZstdCompressor().compress(CONTENT[100:]),
        struct.pack("<II", 0x184D2A50, 3) + b"abc" + ZstdCompressor().compress(CONTENT),
        ZstdCompressor().compress(CONTENT[:9]) + ZstdCompressor().compress(CONTENT[9:]) + b"x",
    ],
)
def test_frames_of_every_kind(stream: bytes) -> None:
    assert unzstd(memoryview(stream), len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"not a frame",
        ZstdCompressor().compress(CONTENT[:-1]),
        ZstdCompressor().compress(CONTENT + b"x"),
        ZstdCompressor(write_content_size=False).compress(CONTENT + b"x"),
        ZstdCompressor().compress(CONTENT)[:-5],
        ZstdCompressor().compress(bytes(1 << 30))[:100],
    ],
)
def test_frames_that_hold_something_else(stream: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unzstd(memoryview(stream), len(CONTENT))


@given(st.binary(max_size=300))
def test_any_bytes_are_no_more_than_a_bad_stream(stream: bytes) -> None:
    for decode in (
        unzstd,
        inflate,
        lambda s, n: unzlib(s, n, n),
    ):
        with suppress(ValueError):
            assert len(decode(memoryview(stream), 512)) == 512


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    raw = disks.random_runs(folder / "disk.raw", MiB)
    image = folder / "disk.qcow2"
    options = "cluster_size=4k,compression_type=zstd"
    assert_qemu_img("convert", "-c", "-O", "qcow2", "-o", options, "-f", "raw", raw, image)
    qemu_io(image, "write -P 3 100k 50k", "write -z 120k 8k")
    return image


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 120), st.integers(0, 80 * KiB)),
            st.binary(min_size=1, max_size=12),
        ),
        min_size=1,
        max_size=4,
    ),
    st.one_of(st.none(), st.integers(1, 90 * KiB)),
)
def test_damaged_images_are_read_or_refused(
    sample: Path, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    image = sample.with_name("damaged.qcow2")
    content = bytearray(sample.read_bytes())
    for at, piece in changes:
        content[at : at + len(piece)] = piece
    image.write_bytes(content[:cut])
    with suppress(SourceError), imgconv.open(image, source_format="qcow2") as disk:
        for start, stop, _ in disk.extents():
            disk.read(start, min(stop - start, MiB))

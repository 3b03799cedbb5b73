"""Compressed QCOW2: what its options ask for, where clusters lie, and how large it gets."""

import random
import struct
from pathlib import Path

import pytest
from support import disks, engine
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.peers import assert_same_guest

import imgconv
from imgconv.errors import OptionError
from imgconv.formats.base import Disk, EncodingWriter
from imgconv.formats.qcow2_compressed import SPAN
from imgconv.identity import Identity
from imgconv.units import KiB, MiB

CLUSTER = 64 * KiB


def test_any_of_three_options_compresses() -> None:
    assert imgconv.Qcow2().codec is None
    assert imgconv.Qcow2(compress="fast").codec == "zlib"
    assert imgconv.Qcow2(compression_level=4).codec == "zlib"
    assert imgconv.Qcow2(compression_type="zstd").codec == "zstd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress": "best"}, r"must be one of fast\|balanced\|small"),
        ({"compression_type": "lzma"}, r"must be one of zlib\|zstd"),
        ({"compression_level": 10}, "from 1 to 9 for zlib"),
        ({"compression_type": "zstd", "compression_level": 20}, "from 1 to 19 for zstd"),
        ({"compression_type": "zstd", "compat": "0.10"}, "compat=0.10 has only zlib"),
        ({"compress": "fast", "refcount_bits": 8}, "compressed clusters need 16 or more"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        imgconv.Qcow2(**options)  # type: ignore[arg-type]


def test_only_one_kind_of_vmdk_is_compressed() -> None:
    with pytest.raises(OptionError, match="add subformat=streamOptimized"):
        imgconv.Vmdk(compress="fast")


def test_zstd_is_said_in_the_header() -> None:
    source = engine.MemorySource(b"\x01" * MiB)
    image = engine.one_pass(source, imgconv.Qcow2(compression_type="zstd"))
    assert struct.unpack_from(">Q", image, 72) == (8,)
    assert image[104] == 1
    image = engine.one_pass(source, imgconv.Qcow2(compress="fast"))
    assert struct.unpack_from(">Q", image, 72) == (0,)
    assert image[104] == 0


def checkered(count: int) -> bytes:
    """Clusters of noise and of text in turn: each of the first kind leaves a gap before it."""
    text = b"compressible " * 5042
    return b"".join(
        random.Random(i).randbytes(CLUSTER) if i % 2 else text[: CLUSTER - 1] + b"\n"
        for i in range(count)
    )


@pytest.mark.parametrize("cluster", [512, 4 * KiB, CLUSTER])
def test_the_bound_holds(cluster: int) -> None:
    content = checkered(64)
    options = imgconv.Qcow2(compress="balanced", cluster_size=cluster)
    writer = options.writer(Disk(len(content), Identity("x"), "x"))
    assert isinstance(writer, EncodingWriter)
    image = engine.one_pass(engine.MemorySource(content), options)
    assert len(image) <= writer.bound(len(content) // cluster)


def scattered(count: int) -> bytes:
    """Clusters of which every fifth is noise, and the others shrink to any length."""
    rng = random.Random(7)
    noise = [CLUSTER if i % 5 == 4 else rng.randrange(100, 50_000) for i in range(count)]
    return b"".join(rng.randbytes(length).ljust(CLUSTER, b".") for length in noise)


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_plain_clusters_leave_small_gaps(tmp_path: Path, codec: str) -> None:
    """On their own 38 of them would leave half a cluster each."""
    content = scattered(6 * SPAN // CLUSTER)
    options = imgconv.Qcow2(compression_type=codec)
    writer = options.writer(Disk(len(content), Identity("x"), "x"))
    assert isinstance(writer, EncodingWriter)
    clusters = (content[at : at + CLUSTER] for at in range(0, len(content), CLUSTER))
    stored = sum(len(writer.encode(0, memoryview(cluster))) for cluster in clusters)

    whole = engine.one_pass(engine.MemorySource(content), options, threads=1)
    metadata = 5 * CLUSTER  # header, L2, L1, refcounts and their table
    assert 0 <= len(whole) - stored - metadata < CLUSTER + 6 * CLUSTER // 8

    pieces = [[(at, at + 3 * CLUSTER) for at in range(0, len(content), 3 * CLUSTER)]]
    for threads in (2, 5):
        source = engine.MemorySource(content, pieces)
        assert engine.one_pass(source, options, threads=threads) == whole
    raw, image = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(content)
    image.write_bytes(whole)
    assert_same_guest(raw, image, "qcow2")


def test_noise_costs_what_it_costs_uncompressed() -> None:
    source = engine.MemorySource(random.Random(1).randbytes(4 * MiB))
    plain = engine.one_pass(source, imgconv.Qcow2())
    assert len(engine.one_pass(source, imgconv.Qcow2(compress="small"))) == len(plain)


@pytest.mark.parametrize("cluster", [512, CLUSTER, 2 * MiB])
@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_thousands_of_streams_in_a_cluster(tmp_path: Path, codec: str, cluster: int) -> None:
    """The shortest streams there are, each of which counts once."""
    count = 600 if cluster > CLUSTER else 5000
    raw = disks.write(tmp_path / "disk.raw", cluster * count, {0: b"\xff" * cluster * count})
    options = imgconv.Qcow2(compression_type=codec, cluster_size=cluster)
    imgconv.convert(raw, tmp_path / "disk.qcow2", options=options)
    assert_same_guest(raw, tmp_path / "disk.qcow2", "qcow2")


@pytest.mark.parametrize("words", [["-c"], ["--compress", "small"], ["-c", "-f", "raw"]])
def test_the_command_compresses(tmp_path: Path, words: list[str]) -> None:
    raw = disks.write(tmp_path / "d.raw", 4 * MiB, {MiB: b"again and again " * 60_000})
    image = tmp_path / "d.qcow2"
    assert command(*words, raw, image, "-q").returncode == 0
    assert_same_guest(raw, image, "qcow2")
    assert image.stat().st_size < 7 * CLUSTER


def test_the_command_says_what_it_cannot_compress(tmp_path: Path) -> None:
    raw = disks.write(tmp_path / "d.raw", MiB, {0: b"x"})
    done = command("-c", raw, tmp_path / "d.vdi")
    assert_one_line_error(done, "unknown option 'compress'", status=2)

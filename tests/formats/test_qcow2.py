"""QCOW2 facts: geometry, limits, refcounts of every width."""

import struct

import numpy as np
import pytest
from support import engine

import imgconv
from imgconv.errors import OutputTooLarge
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.formats.qcow2_plain import _render_ones
from imgconv.formats.qcow2_tables import Geometry, refcount_clusters
from imgconv.identity import Identity
from imgconv.ranges import Ranges
from imgconv.units import GiB, KiB, MiB, TiB


@pytest.mark.parametrize(
    ("cluster", "limit"),
    [(512, 128 * GiB), (64 * KiB, 2048 * TiB), (2 * MiB, 2048 * TiB * 1024)],
)
def test_limits_are_those_of_qemu(cluster: int, limit: int) -> None:
    assert imgconv.Qcow2(cluster_size=cluster).max_size == limit


def test_the_header_of_version_3() -> None:
    image = engine.one_pass(engine.MemorySource(b"\x01" * MiB), imgconv.Qcow2())
    assert image[:8] == b"QFI\xfb\0\0\0\x03"
    l1_size, l1, reftable, clusters = struct.unpack_from(">IQQI", image, 36)
    assert (l1_size, clusters) == (1, 1)
    assert struct.unpack_from(">QQQII", image, 72) == (0, 0, 0, 4, 112)
    assert l1 % 65536 == reftable % 65536 == len(image) % 65536 == 0


def test_the_header_of_version_2_is_72_bytes() -> None:
    options = imgconv.Qcow2(compat="0.10")
    image = engine.one_pass(engine.MemorySource(b"\x01" * MiB), options)
    assert image[4:8] == b"\0\0\0\x02"
    assert not any(image[72:65536])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("count", [0, 1, 3, 7, 8, 9, 500])
def test_refcounts_of_every_width(bits: int, count: int) -> None:
    raw = _render_ones(count, bits)
    if bits < 8:
        fields = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        values = [int(v) for v in fields[::bits]]
        assert sum(int(v) for v in fields) == count, "no other bit is set"
    else:
        values = [
            v[0]
            for v in struct.iter_unpack(f">{ {8: 'B', 16: 'H', 32: 'I', 64: 'Q'}[bits] }", raw)
        ]
    assert values[:count] == [1] * count
    assert not any(values[count:])


@pytest.mark.parametrize("cluster", [512, 64 * KiB, 2 * MiB])
@pytest.mark.parametrize("bits", [1, 16, 64])
def test_refcount_blocks_count_themselves_and_no_more(cluster: int, bits: int) -> None:
    geometry = Geometry.of(TiB // 64, cluster, bits)
    for counted in [1, 5, geometry.refcounts_per_block - 2, geometry.refcounts_per_block * 7]:
        blocks, tables = refcount_clusters(counted, geometry)
        total = counted + blocks + tables
        assert blocks * geometry.refcounts_per_block >= total
        assert tables * cluster >= blocks * 8
        assert (blocks - 1) * geometry.refcounts_per_block < total


def test_a_file_that_refcounts_cannot_count_is_refused_while_it_grows() -> None:
    """64-bit refcounts in 512-byte clusters count 32 GiB of file and no more."""
    options = imgconv.Qcow2(cluster_size=512, refcount_bits=64)
    writer = options.writer(Disk(128 * GiB, Identity("x"), "x"))
    assert isinstance(writer, PlannedWriter)
    for start in range(0, 31 * GiB, GiB):
        writer.place(Ranges.single(start, start + GiB))
    with pytest.raises(OutputTooLarge, match="choose larger clusters"):
        writer.place(Ranges.single(31 * GiB, 32 * GiB))

"""Estimates of compressed outputs: how near they come, and how little they read."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import disks, engine
from support.cli import imgconv as command
from support.variants import COMPRESSED, PACKED, VARIANTS

import imgconv
from imgconv.estimate import Estimate, _Units, estimate, sample_size
from imgconv.formats.base import EncodingWriter, Format
from imgconv.tally import Tally
from imgconv.units import KiB, MiB, TiB
from imgconv.workers import Stop

ENCODED = {name: VARIANTS[name] for name in COMPRESSED} | PACKED
SMALL_UNITS = imgconv.Qcow2(cluster_size=4 * KiB, compress="fast")


def patchwork(seed: int, size: int) -> engine.MemorySource:
    """Text, noise and zeros, in stretches of all lengths."""
    rng, content = random.Random(seed), bytearray()
    while len(content) < size:
        length = int(rng.expovariate(1 / (300 * KiB))) + 1
        word = rng.randbytes(rng.choice([3, 40, 900]))
        noise, text = rng.randbytes(length), (word * (length // len(word) + 1))[:length]
        content += rng.choice([bytes(length), noise, text])
    return engine.MemorySource(bytes(content[:size]))


def estimated(
    source: engine.MemorySource, options: Format, threads: int = 2
) -> Estimate | None:
    writer = engine.writer_for(source, options)
    assert isinstance(writer, EncodingWriter)
    return estimate(source, writer, threads=threads, stop=Stop(), tally=Tally())


def test_the_truth_is_within_the_error() -> None:
    """In 95 of 100 cases; of three, all within twice as much."""
    for seed in range(3):
        source = patchwork(seed, 33 * MiB)
        found = estimated(source, SMALL_UNITS)
        assert found is not None
        exact = len(engine.one_pass(source, SMALL_UNITS))
        assert 0 < found.error < exact / 20
        assert abs(found.size - exact) < 2 * found.error
        assert found.allocated <= found.size


def test_threads_do_not_show() -> None:
    source = patchwork(7, 33 * MiB)
    assert estimated(source, SMALL_UNITS, 1) == estimated(source, SMALL_UNITS, 5)


class VastSource(engine.MemorySource):
    """A tebibyte of data, of which little is ever looked at."""

    def __init__(self) -> None:
        super().__init__(b"", [[(0, TiB)]])
        self.size = TiB
        self.read = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        half = len(buffer) // 2
        buffer[:half] = (b"%d " % offset * half)[:half]
        buffer[half:] = random.Random(offset).randbytes(len(buffer) - half)
        self.read += len(buffer)


@pytest.mark.parametrize("variant", ["vmdk-stream", "qcow2-zstd", "zst", "tar.gz"])
def test_of_a_vast_disk_little_is_read(variant: str) -> None:
    source = VastSource()
    found = estimated(source, ENCODED[variant], threads=1)
    assert found is not None
    unit = engine.writer_for(source, ENCODED[variant]).unit
    assert source.read == sample_size(unit) * unit <= 256 * MiB
    assert 0.50 * TiB < found.size < 0.53 * TiB
    assert found.error < found.size / 1000  # one unit is like the other
    assert found.data == TiB


@pytest.mark.parametrize("variant", ENCODED)
def test_what_is_small_is_measured_exactly(tmp_path: Path, variant: str) -> None:
    raw = disks.holes(tmp_path / "disk.raw", 3 * MiB)
    measured = imgconv.measure(raw, ENCODED[variant])
    assert measured.error == 0
    assert measured == imgconv.measure(raw, ENCODED[variant], exact=True)


@given(st.sets(st.integers(0, 400), max_size=20), st.integers(1, 9))
def test_units_are_numbered_in_order(edges: set[int], unit: int) -> None:
    points = sorted(edges)
    extents = list(zip(points[::2], points[1::2], strict=False))
    source = engine.MemorySource(bytes(401), [extents])
    units = _Units(source, unit)
    wanted = [
        at
        for at in range(0, 401, unit)
        if any(start < at + unit and at < stop for start, stop in extents)
    ]
    assert units.count == len(wanted)
    assert units.offsets(np.arange(units.count)).tolist() == wanted


def test_the_command_tells_the_error(tmp_path: Path) -> None:
    source = patchwork(3, 33 * MiB)
    (tmp_path / "d.raw").write_bytes(source.content)
    how = [tmp_path / "d.raw", "-O", "qcow2", "-o", "cluster_size=4k", "-c"]
    done = command("measure", *how)
    assert done.returncode == 0
    size, sign, error = done.stdout.splitlines()[0].split()[1:4]
    assert sign == "+-"
    assert 0 < int(error) < int(size) / 20
    exact = command("measure", *how, "--exact", "--json")
    found = json.loads(exact.stdout)
    assert found["error"] == 0
    assert abs(found["size"] - int(size)) < 2 * int(error)
    dry = command(how[0], tmp_path / "o.qcow2", *how[3:], "-n")
    assert dry.stdout == done.stdout
    assert not (tmp_path / "o.qcow2").exists()

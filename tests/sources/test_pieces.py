"""Disks of which pieces are in a file: one call reads and scans what plain reading finds."""

import os
import random
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from support import disks

from imgconv.opening import open_location
from imgconv.ranges import Ranges
from imgconv.readahead import reading
from imgconv.sources.base import ScanningSource
from imgconv.sources.file import FileSource
from imgconv.sources.joined import JoinedSource, Part
from imgconv.sources.mapped import MappedSource, Mapping
from imgconv.units import SECTOR, KiB, MiB

SIZE = 24 * MiB


def scattered(rng: random.Random, step: int) -> Mapping:
    """Pieces of multiples of `step` bytes, in any order in a file."""
    guest, where, at = [], [], 0
    for slot in rng.sample(range(SIZE // (256 * KiB)), 60):
        at += rng.choice([0, 0, rng.randrange(300 * KiB) // step * step])
        length = min(rng.randrange(step, 256 * KiB) // step * step, SIZE - at)
        if length > 0:
            guest.append((at, at + length))
            where.append(slot * 256 * KiB)
        at += length
    return Mapping(Ranges.of(guest), np.array(where))


def content(source: ScanningSource, granule: int, batch: int) -> bytes:
    """The whole disk, put together from what batches would get."""
    disk = bytearray(source.size)
    extents = Ranges.concat(source.extents()).aligned(granule, source.size)
    for at in range(0, source.size, batch):
        part = extents.window(at, at + batch)
        found = source.read_runs(part, granule, memoryview(bytearray(part.total)))
        assert not (found.data.start % granule).any()
        for (start, stop), where in zip(found.data, found.where.tolist(), strict=True):
            disk[start:stop] = found.buffer[where : where + stop - start]
            assert any(disk[start : start + granule])
    return bytes(disk)


def plainly(source: ScanningSource) -> bytes:
    disk = bytearray(source.size)
    source.read_into(0, memoryview(disk))
    return bytes(disk)


@pytest.mark.parametrize("patience", [None, 0, 0.05])
@pytest.mark.parametrize("seed", range(8))
def test_pieces_are_read_as_they_are_read_one_by_one(
    tmp_path: Path, seed: int, patience: float | None
) -> None:
    rng = random.Random(seed)
    path = disks.holes(tmp_path / "file", SIZE)
    mapping = scattered(rng, rng.choice([SECTOR, 4 * KiB, 64 * KiB]))
    with nullcontext() if patience is None else reading(str(path)):
        time.sleep(patience or 0)
        disk = MappedSource(FileSource(str(path)), SIZE, mapping)
        granule = rng.choice([4 * KiB, 4 * KiB, 64 * KiB])
        assert content(disk, granule, rng.choice([MiB, 8 * MiB])) == plainly(disk)
        assert any(plainly(disk))
        disk.close()


def test_holes_of_an_images_file_are_not_read(tmp_path: Path) -> None:
    raw = disks.write(tmp_path / "d.raw", 64 * MiB, {MiB: os.urandom(64 * KiB)})
    image = tmp_path / "d.vhd"
    options = ["-O", "vpc", "-o", "force_size=on"]
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, raw, image], check=True)
    disk, _, _ = open_location(str(image), "vhd", None, None, None)
    extents = Ranges.concat(disk.extents())
    assert 64 * KiB <= extents.total < MiB
    assert isinstance(disk, ScanningSource)
    assert content(disk, 4 * KiB, 8 * MiB) == raw.read_bytes()
    disk.close()


@pytest.mark.parametrize("first", [MiB, MiB + SECTOR])
def test_disks_behind_one_another_are_read_each_in_its_own_way(
    tmp_path: Path, first: int
) -> None:
    rng = random.Random(first)
    a, b = (
        MappedSource(
            FileSource(str(disks.holes(tmp_path / name, SIZE))), SIZE, scattered(rng, 4 * KiB)
        )
        for name in "ab"
    )
    disk = JoinedSource(a.file, (Part(first, a, 0), Part(MiB), Part(SIZE // 2, b, 4 * KiB)))
    assert content(disk, 4 * KiB, 3 * MiB) == plainly(disk)
    disk.close_parts()

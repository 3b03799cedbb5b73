"""Batches tile the disk, keep units whole and stay within their capacity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgconv.batches import AHEAD, MAX_EXTENTS, Pace, batch_capacity, batches
from imgconv.ranges import Ranges
from imgconv.units import KiB, MiB


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Ranges]]:
    size = draw(st.integers(1, 60 * MiB // 512)) * 512
    edges = sorted(draw(st.sets(st.integers(0, size), max_size=24)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    cut = draw(st.integers(0, len(pairs)))
    return size, [Ranges.of(pairs[:cut]), Ranges.of([]), Ranges.of(pairs[cut:])]


@given(disks(), st.sampled_from([512, 4 * KiB, 64 * KiB, 2 * MiB]))
def test_batches_tile_the_disk(disk: tuple[int, list[Ranges]], unit: int) -> None:
    size, groups = disk
    granule = min(unit, 4 * KiB)
    at, covered = 0, []
    for batch in batches(groups, size, unit, granule, Pace(unit, 2)):
        assert batch.start == at
        assert batch.start % unit == 0
        assert batch.extents.total <= batch_capacity(unit)
        assert all(batch.start <= a and b <= batch.stop for a, b in batch.extents)
        assert all(a % granule == 0 for a, _ in batch.extents)
        covered.append(batch.extents)
        at = batch.stop
    assert at == size
    wanted = Ranges.concat(groups).aligned(granule, size)
    assert list(Ranges.concat(covered).merged()) == list(wanted)


def test_tiny_extents_fill_a_batch_by_number() -> None:
    starts = np.arange(0, 40 * MiB, 2 * KiB)
    group = Ranges(starts, starts + 512)
    counts = [len(b.extents) for b in batches([group], 40 * MiB, 512, 512, Pace(512, 2))]
    assert sum(counts) == len(group)
    assert max(counts) <= MAX_EXTENTS + 1


@pytest.mark.parametrize("size", [512, 10 * MiB])
def test_a_disk_without_data_is_one_batch(size: int) -> None:
    (batch,) = batches([], size, 64 * KiB, 4 * KiB, Pace(64 * KiB, 2))
    assert (batch.start, batch.stop, len(batch.extents)) == (0, size, 0)


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_batches_grow_while_there_are_only_zeros(threads: int) -> None:
    pace, size = Pace(64 * KiB, threads), 1024 * MiB
    lengths = []
    for batch in batches([Ranges.single(0, size)], size, 64 * KiB, 4 * KiB, pace):
        lengths.append(batch.extents.total)
        pace.note(batch.extents, Ranges.of([]))
    assert sum(lengths) == size
    assert max(lengths) == pace.most == max(AHEAD // threads, pace.least)
    pace.note(Ranges.single(0, pace.most), Ranges.single(0, pace.most))
    assert pace.capacity == pace.least


def test_batches_are_cut_for_the_data_in_them() -> None:
    """Of a disk that is one quarter data, four times what would do for data alone."""
    pace, size = Pace(64 * KiB, 2), 1024 * MiB
    for batch in batches([Ranges.single(0, size)], size, 64 * KiB, 4 * KiB, pace):
        pace.note(batch.extents, Ranges.single(0, batch.extents.total // 4))
    assert pace.capacity == 4 * pace.least < pace.most

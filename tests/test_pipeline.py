"""The drivers give the same bytes, whatever the cut into batches, the threads or the sink."""

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import engine
from support.variants import COMPRESSED, EVERY, VARIANTS

from imgconv.batches import AHEAD
from imgconv.errors import Cancelled, ReadFailed, SourceTruncated
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.identity import Identity
from imgconv.layout import LayoutBuilder
from imgconv.pipeline import stream
from imgconv.ranges import Ranges
from imgconv.render import render
from imgconv.segments import Data, Meta
from imgconv.tally import Tally
from imgconv.units import SECTOR, KiB, MiB, TiB
from imgconv.workers import Stop

PLANNED = [name for name in VARIANTS if name not in COMPRESSED]
LIGHT = [name for name in PLANNED if name != "vhdx-256m"]  # vhdx-8m, but 256 MiB of zeros


@st.composite
def disks(draw: st.DrawFn) -> engine.MemorySource:
    """A disk of a few MiB with runs of data and of written zeros, told in groups."""
    size = draw(st.integers(1, 9 * MiB // SECTOR)) * SECTOR
    content = bytearray(size)
    edges = sorted(draw(st.sets(st.integers(0, size), max_size=12)))
    extents = list(zip(edges[::2], edges[1::2], strict=False))
    rng = random.Random(draw(st.integers(0, 9)))
    for start, stop in extents:
        data_stop = start + (stop - start) * draw(st.integers(0, 2)) // 2
        content[start:data_stop] = rng.randbytes(data_stop - start)
    cut = draw(st.integers(0, len(extents)))
    return engine.MemorySource(bytes(content), [extents[:cut], extents[cut:]])


@given(disks(), st.sampled_from(LIGHT), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_plan_one_pass_upload_and_windows_agree(
    disk: engine.MemorySource, variant: str, rng: random.Random
) -> None:
    options = VARIANTS[variant]
    direct = engine.one_pass(disk, options, threads=3)
    layout = engine.planned(disk, options)
    assert layout.size == len(direct)
    assert engine.emitted(disk, layout) == direct
    assert engine.uploaded(disk, options) == direct
    for _ in range(5):
        start = rng.randrange(layout.size)
        window = bytearray(rng.randrange(1, min(layout.size - start, MiB) + 1))
        render(layout, disk, start, memoryview(window))
        assert window == direct[start : start + len(window)]


@given(disks(), st.sampled_from(list(EVERY)))
@settings(max_examples=60, deadline=None)
def test_threads_and_extents_do_not_show(disk: engine.MemorySource, variant: str) -> None:
    """What the source declares as data is a hint for speed; the content decides."""
    options = EVERY[variant]
    expected = engine.one_pass(disk, options, threads=1)
    all_data = engine.MemorySource(disk.content)
    for threads in (2, 7):
        assert engine.one_pass(all_data, options, threads=threads) == expected


def rendered(variant: str, units: set[int], step: int) -> list[tuple[int, object]]:
    """Place the units, `step` at a time; data as (output offset, guest byte) columns."""
    options = VARIANTS[variant]
    unit = options.writer(Disk(MiB, Identity("x"), "x")).unit
    writer = options.writer(Disk(401 * unit, Identity("x"), "x"))
    assert isinstance(writer, PlannedWriter)
    starts = np.array(sorted(units), dtype=np.int64) * unit
    builder = LayoutBuilder()
    for first in range(0, len(starts), step):
        part = starts[first : first + step]
        builder.append(writer.place(Ranges(part, part + unit).merged()))
    for segments in writer.finish():
        builder.append(segments)
    layout = builder.build(writer.head())
    found: list[tuple[int, object]] = [(layout.size, "size")]
    for at, segment in layout.window(0, layout.size):
        match segment:
            case Meta():
                found.append((at, segment.render()))
            case Data(start, length):
                found += [(at + n, start + n) for n in range(0, length, 512)]
    return found


@given(st.sets(st.integers(0, 400), max_size=40), st.sampled_from(PLANNED))
@settings(max_examples=60, deadline=None)
def test_placing_in_other_steps_gives_the_same_layout(units: set[int], variant: str) -> None:
    assert rendered(variant, units, 1) == rendered(variant, units, 1000)


@pytest.mark.parametrize("variant", EVERY)
@pytest.mark.parametrize(("fault", "threads"), [("EIO", 1), ("short", 3)])
def test_a_source_that_fails_fails_the_conversion(
    variant: str, fault: str, threads: int
) -> None:
    content = random.Random(1).randbytes(20 * MiB)
    for at in (0, 9 * MiB + 5, 20 * MiB - 1):
        source = engine.FaultySource(content, fault, at)
        with pytest.raises((ReadFailed, SourceTruncated), match=str(at)):
            engine.one_pass(source, EVERY[variant], threads=threads)


def test_cancelling_from_outside() -> None:
    source = engine.MemorySource(random.Random(1).randbytes(20 * MiB))
    tally = Tally()
    stop = Stop(lambda: tally.written > 0)
    writer = engine.writer_for(source, VARIANTS["qcow2"])
    with pytest.raises(Cancelled):
        stream(source, writer, engine.MemorySink(), threads=2, stop=stop, tally=tally)


class BigSource(engine.MemorySource):
    """16 TiB with an island of 4 KiB every 4 GiB, made up as it is read."""

    def __init__(self) -> None:
        super().__init__(b"")
        self.size = 16 * TiB

    def extents(self) -> object:
        starts = np.arange(0, self.size, 4 << 30, dtype=np.int64)
        yield Ranges(starts, starts + 4 * KiB)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = b"\x01" * len(buffer)


@pytest.mark.parametrize("variant", ["raw", "qcow2", "vhd-fixed", "vdi"])
def test_planning_16_tib_needs_little_memory(variant: str) -> None:
    tracemalloc.start()
    try:
        layout = engine.planned(BigSource(), VARIANTS[variant])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layout.size > 0
    # numpy counts the untouched pages of batches, and of the VDI map (64 MiB), as well.
    assert peak - AHEAD < (50 if variant != "vdi" else 120) * MiB


class DenseSource(BigSource):
    """1 TiB without a hole."""

    def __init__(self) -> None:
        super().__init__()
        self.size = TiB // 64

    def extents(self) -> object:
        yield Ranges.single(0, self.size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[0::4096] = b"\x01" * len(buffer[0::4096])


def test_the_layout_of_a_dense_disk_stays_small() -> None:
    layout = engine.planned(DenseSource(), VARIANTS["qcow2"])
    assert len(layout.segments) < 3 * (TiB // 64 // (512 * MiB)) + 20


def test_progress_ends_at_the_total_and_never_goes_back() -> None:
    source = engine.MemorySource(random.Random(1).randbytes(20 * MiB))
    seen = []
    tally = Tally(seen.append)
    writer = engine.writer_for(source, VARIANTS["qcow2"])
    stream(source, writer, engine.MemorySink(), threads=3, stop=Stop(), tally=tally)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].data) == (20 * MiB,) * 3
    assert seen[-1].written > 20 * MiB

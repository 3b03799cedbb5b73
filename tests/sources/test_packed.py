"""Which compressed units are read together, and that they end up where they belong."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import engine

from imgconv.errors import ImageMalformed
from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import Mapping
from imgconv.sources.packed import (
    GAP,
    MOST,
    TOGETHER,
    Packed,
    PackedSource,
    UnpackMany,
    one_by_one,
)

UNIT = 65536


def packed(where: list[int], length: int) -> Packed:
    start = np.arange(len(where), dtype=np.int64) * UNIT
    lengths = np.full(len(where), length, dtype=np.int64)
    return Packed(Ranges(start, start + UNIT), np.array(where, dtype=np.int64), lengths)


def portions(units: Packed) -> list[list[int]]:
    found = units.portions(range(len(units.where)))
    return [[unit.start // UNIT for unit in some] for some in found]


@pytest.mark.parametrize(
    ("where", "length", "expected"),
    [
        pytest.param([200, 0, 300, 100], 100, [[1, 3, 0, 2]], id="out-of-order"),
        pytest.param([0, 100 + GAP, 50], 100, [[0, 2, 1]], id="a-gap"),
        pytest.param([0, 100 + TOGETHER], 100, [[0, 1]], id="a-wide-gap"),
        pytest.param([0, TOGETHER - 1], 2, [[0, 1]], id="not-quite-too-much"),
        pytest.param([0, 2 * TOGETHER, TOGETHER], TOGETHER, [[0], [2], [1]], id="too-much"),
        pytest.param([0, 10], 3 * TOGETHER, [[0], [1]], id="too-long"),
        pytest.param([], 1, [], id="none"),
    ],
)
def test_portions(where: list[int], length: int, expected: list[list[int]]) -> None:
    assert portions(packed(where, length)) == expected


def test_as_many_as_memory_is_for() -> None:
    units = packed(list(range(2 * MOST + 1)), 1)
    assert [len(some) for some in portions(units)] == [MOST, MOST, 1]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 3 * UNIT, range(3)),
        (1, 3 * UNIT, range(1, 3)),
        (0, 3 * UNIT - 1, range(2)),
        (1, 2 * UNIT - 1, range(1, 1)),
        (UNIT + 1, 2 * UNIT - 1, range(2, 2)),
    ],
)
def test_whole(start: int, stop: int, expected: range) -> None:
    units = packed([0, 1, 2], 1)
    assert units.whole(units.rows(start, stop), start, stop) == expected


CONTENT = random.Random(3).randbytes(4 * UNIT)


def take(*counts: int) -> UnpackMany:
    """Return what decodes so many units of each portion: a stream is its unit's content."""
    left = list(counts)

    def unpack_many(
        streams: memoryview,
        where: Column,
        length: Column,
        buffer: memoryview,
        place: Column,
        size: Column,
    ) -> int:
        done = min(left.pop() if left else 0, len(where))
        for row in range(done):
            assert length[row] == size[row]
            stream = streams[where[row] : where[row] + length[row]]
            buffer[place[row] : place[row] + size[row]] = stream
        return done

    return unpack_many


@given(st.data())
def test_units_end_up_where_they_belong(data: st.DataObject) -> None:
    """Streams lie anywhere, on one another, too, and are read whole or in part."""
    lengths = np.array(data.draw(st.lists(st.integers(1, 999), min_size=1, max_size=9)))
    edges = np.concatenate(([0], np.cumsum(lengths)))
    size = int(edges[-1])
    where = np.array([data.draw(st.integers(0, len(CONTENT) - 999)) for _ in lengths])
    units = Packed(Ranges(edges[:-1], edges[1:]), where, lengths)
    mapping = Mapping(Ranges.of([]), np.empty(0, np.int64))
    image = ImageFile(engine.MemorySource(CONTENT), "any")
    many = data.draw(st.sampled_from([one_by_one, take(1), take(99), take(3, 2)]))
    disk = PackedSource(
        image, size, mapping, units, lambda stream, _, wanted: stream[:wanted], (), many
    )
    expected = b"".join(CONTENT[a : a + n] for a, n in zip(where, lengths, strict=True))
    start = data.draw(st.integers(0, size))
    buffer = bytearray(data.draw(st.integers(0, size - start)))
    disk.read_into(start, memoryview(buffer))
    assert buffer == expected[start : start + len(buffer)]


def test_a_unit_left_by_many_is_the_one_that_is_told_of() -> None:
    def unpack(stream: memoryview, start: int, wanted: int) -> memoryview:
        raise ValueError("is rotten")

    units = packed([4 * UNIT - 3, 2 * UNIT, 0], 3)
    image = ImageFile(engine.MemorySource(CONTENT), "any")
    mapping = Mapping(Ranges.of([]), np.empty(0, np.int64))
    disk = PackedSource(image, 3 * UNIT, mapping, units, unpack, (), lambda *_: 1)
    with pytest.raises(ImageMalformed, match=f"offset {2 * UNIT}: compressed data: is rotten"):
        disk.read_into(0, memoryview(bytearray(3 * UNIT)))

"""Which compressed units are read together: parallel writers leave them in any order."""

import numpy as np
import pytest

from imgconv.ranges import Ranges
from imgconv.sources.packed import GAP, MOST, TOGETHER, Packed

UNIT = 65536


def packed(where: list[int], length: int) -> Packed:
    start = np.arange(len(where), dtype=np.int64) * UNIT
    lengths = np.full(len(where), length, dtype=np.int64)
    return Packed(Ranges(start, start + UNIT), np.array(where, dtype=np.int64), lengths)


def groups(units: Packed) -> list[list[int]]:
    found = units.neighbours(range(len(units.where)))
    return [[unit.start // UNIT for unit in some] for some in found]


@pytest.mark.parametrize(
    ("where", "length", "expected"),
    [
        pytest.param([200, 0, 300, 100], 100, [[1, 3, 0, 2]], id="out-of-order"),
        pytest.param([0, 100 + GAP, 50], 100, [[0, 2, 1]], id="a-gap"),
        pytest.param([0, 101 + GAP], 100, [[0], [1]], id="too-wide-a-gap"),
        pytest.param([0, 2 * TOGETHER, TOGETHER], TOGETHER, [[0], [2], [1]], id="too-much"),
        pytest.param([0, 10], 3 * TOGETHER, [[0], [1]], id="too-long"),
        pytest.param([], 1, [], id="none"),
    ],
)
def test_neighbours(where: list[int], length: int, expected: list[list[int]]) -> None:
    assert groups(packed(where, length)) == expected


def test_as_many_as_memory_is_for() -> None:
    units = packed(list(range(2 * MOST + 1)), 1)
    assert [len(some) for some in groups(units)] == [MOST, MOST, 1]


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

"""Column operations against plain sets of byte numbers."""

from itertools import groupby, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imgconv.ranges import Ranges, firsts, overlaps

LIMIT = 200


@st.composite
def ranges(draw: st.DrawFn) -> Ranges:
    """Ascending, disjoint ranges below LIMIT, some of which touch."""
    edges = sorted(draw(st.sets(st.integers(0, LIMIT), max_size=20)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    if draw(st.booleans()):
        pairs = list(pairwise(edges))[:: draw(st.integers(1, 3))]
    return Ranges.of(pairs)


def members(found: Ranges) -> set[int]:
    pairs = list(found)
    assert all(start < stop for start, stop in pairs)
    assert all(a[1] <= b[0] for a, b in pairwise(pairs))
    return {n for start, stop in pairs for n in range(start, stop)}


@given(ranges(), st.integers(0, LIMIT), st.integers(0, LIMIT))
def test_window(found: Ranges, start: int, stop: int) -> None:
    assert members(found.window(start, stop)) == members(found) & set(range(start, stop))


@given(ranges())
def test_merged_keeps_the_bytes_and_joins_all_that_touch(found: Ranges) -> None:
    merged = found.merged()
    assert members(merged) == members(found)
    assert all(a < b for a, b in zip(merged.stop, merged.start[1:], strict=False))


@given(ranges(), st.integers(1, 40))
def test_merged_joins_what_is_less_than_so_many_bytes_apart(found: Ranges, apart: int) -> None:
    merged = found.merged(apart)
    gaps = merged.start[1:] - merged.stop[:-1]
    assert (gaps >= apart).all()
    added = members(merged) - members(found)
    between = list(zip(found.stop.tolist()[:-1], found.start.tolist()[1:], strict=True))
    assert added == {n for a, b in between if b - a < apart for n in range(a, b)}


@given(ranges(), st.sampled_from([1, 4, 16, 64]))
def test_aligned_covers_every_unit_touched(found: Ranges, unit: int) -> None:
    expected = {
        n
        for m in members(found)
        for n in range(m // unit * unit, min(m // unit * unit + unit, LIMIT))
    }
    assert members(found.aligned(unit, LIMIT)) == expected


@given(ranges(), st.integers(1, 50))
def test_split_cuts_at_every_multiple(found: Ranges, span: int) -> None:
    split = found.split(span)
    assert members(split) == members(found)
    assert all(start // span == (stop - 1) // span for start, stop in split)


@given(ranges(), st.sampled_from([1, 4, 16]))
def test_units_numbers_each_unit_once(found: Ranges, unit: int) -> None:
    aligned = found.aligned(unit, LIMIT)
    assert aligned.units(unit).tolist() == sorted({n // unit for n in members(found)})


@given(ranges(), ranges())
def test_overlaps(a: Ranges, b: Ranges) -> None:
    in_a, in_b, shared = overlaps(a, b)
    assert members(shared) == members(a) & members(b)
    assert np.all(a.start[in_a] <= shared.start)
    assert np.all(shared.stop <= a.stop[in_a])
    assert np.all(b.start[in_b] <= shared.start)
    assert np.all(shared.stop <= b.stop[in_b])


def test_totals_and_concat() -> None:
    whole = Ranges.concat([Ranges.of([(0, 3)]), Ranges.of([]), Ranges.of([(5, 9)])])
    assert list(whole) == [(0, 3), (5, 9)]
    assert whole.total == 7
    assert len(Ranges.concat([])) == 0
    assert list(Ranges.single(4, 4)) == []


@given(st.lists(st.integers(-3, 3)))
def test_firsts(values: list[int]) -> None:
    lengths = [len(list(group)) for _, group in groupby(values)]
    expected = [sum(lengths[:i]) for i in range(len(lengths))]
    assert firsts(np.array(values, dtype=np.int64)).tolist() == expected

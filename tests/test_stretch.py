"""A stretch, seen whole, by its gaps and piece by piece, is always the same bytes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imgconv.stretch import Stretch


@st.composite
def stretches(draw: st.DrawFn) -> tuple[Stretch, bytes]:
    offset = draw(st.integers(0, 1 << 40))
    contents = draw(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4))
    rows, expected = [], b""
    for _ in range(draw(st.integers(0, 8))):
        expected += bytes(draw(st.integers(0, 5)))
        origin = draw(st.integers(0, len(contents) - 1))
        where = draw(st.integers(0, len(contents[origin]) - 1))
        size = draw(st.integers(1, len(contents[origin]) - where))
        rows.append((offset + len(expected), size, where, origin))
        expected += contents[origin][where : where + size]
    expected += bytes(draw(st.integers(0, 5)))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    views = tuple(memoryview(content) for content in contents)
    return Stretch(offset, len(expected), *columns, views), expected


@given(stretches())
def test_iterating_gives_every_byte_once(made: tuple[Stretch, bytes]) -> None:
    stretch, expected = made
    at, content = stretch.offset, b""
    for offset, length, views in stretch:
        assert offset == at
        assert length > 0
        content += b"".join(views) if views else bytes(length)
        at += length
    assert content == expected


@given(stretches())
def test_gaps_and_pieces_cover_it(made: tuple[Stretch, bytes]) -> None:
    stretch, expected = made
    covered = {stretch.offset + i for i in range(len(expected))}
    for offset, length in stretch.gaps():
        here = set(range(offset, offset + length))
        assert here <= covered
        covered -= here
        low = offset - stretch.offset
        assert not any(expected[low : low + length])
    assert len(covered) == stretch.written


def test_views_back_to_back() -> None:
    stretch = Stretch.of(5, [memoryview(b"ab"), memoryview(b""), memoryview(b"c")])
    assert [(at, n, b"".join(v)) for at, n, v in stretch] == [(5, 3, b"abc")]
    assert list(stretch.gaps()) == []
    assert list(Stretch.zeros(3, 4)) == [(3, 4, [])]
    assert list(Stretch.zeros(3, 4).gaps()) == [(3, 4)]

"""Segments and layouts against the bytes they stand for."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from imgconv.layout import Layout, LayoutBuilder
from imgconv.segments import Data, Meta, Segment, Segments, Zeros

GUEST = bytes(range(256)) * 2

lengths = st.integers(1, 30)
segments = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30).map(Meta.of),
        st.builds(Data, st.integers(0, len(GUEST) - 30), lengths),
        st.builds(Zeros, lengths),
    ),
    max_size=30,
)


def bytes_of(segment: Segment) -> bytes:
    match segment:
        case Meta():
            return segment.render()
        case Data(start, length):
            return GUEST[start : start + length]
        case Zeros(length):
            return bytes(length)


def joined(parts: list[Segment]) -> bytes:
    return b"".join(map(bytes_of, parts))


@given(segments)
def test_columns_keep_segments_and_order(parts: list[Segment]) -> None:
    columns = Segments.of(parts)
    assert list(columns) == parts
    assert columns.size == len(joined(parts))


@given(segments, segments)
def test_concat_renumbers_metadata(first: list[Segment], second: list[Segment]) -> None:
    assert list(Segments.concat([Segments.of(first), Segments.of(second)])) == first + second


@given(segments)
def test_coalescing_changes_no_byte(parts: list[Segment]) -> None:
    columns = Segments.of(parts).coalesced()
    assert joined(list(columns)) == joined(parts)
    assert len(columns) <= len(parts)


def test_adjacent_data_and_zeros_become_one() -> None:
    columns = Segments.of([Data(0, 4), Data(4, 4), Zeros(3), Zeros(5), Data(9, 1)])
    assert list(columns.coalesced()) == [Data(0, 8), Zeros(8), Data(9, 1)]


@given(segments, st.data())
def test_any_window_of_a_layout(parts: list[Segment], data: st.DataObject) -> None:
    builder = LayoutBuilder()
    for part in parts:
        builder.append(Segments.of([part]))
    layout = builder.build(head=[Segments.of([Zeros(5)])])
    whole = bytes(5) + joined(parts)
    assert layout.size == len(whole)
    start = data.draw(st.integers(0, layout.size))
    stop = data.draw(st.integers(start, layout.size))
    found = list(layout.window(start, stop))
    assert b"".join(bytes_of(segment) for _, segment in found) == whole[start:stop]
    at = start
    for offset, segment in found:
        assert offset == at
        at += segment.length


@given(segments)
def test_a_layout_can_be_sent_to_another_process(parts: list[Segment]) -> None:
    layout = Layout.of([Segments.of(parts)])
    again = pickle.loads(pickle.dumps(layout))
    assert joined([s for _, s in again.window(0, layout.size)]) == joined(parts)


def test_empty_segments_vanish() -> None:
    assert len(Segments.of([Zeros(0), Meta.of(b""), Data(3, 0)])) == 0

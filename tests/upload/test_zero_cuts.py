"""Cuts around zeros: within the store's limits, and nothing but zeros in the long parts."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgconv.errors import OptionError
from imgconv.objectstore import Limits
from imgconv.ranges import Ranges
from imgconv.units import GiB, KiB, MiB, TiB
from imgconv.upload.cuts import plan_cuts
from imgconv.upload.zero_cuts import ListedCuts, cut_around_zeros

S3 = Limits(min_part=5 * MiB, max_part=5 * GiB, max_parts=10_000, max_object=48 * TiB)
OSS = replace(S3, min_part=100 * KiB)


def between(data: list[tuple[int, int]], size: int) -> Ranges:
    """What data leave of a disk."""
    edges = [0, *(edge for pair in data for edge in pair), size]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return Ranges.of([(a, b) for a, b in gaps if a < b])


def lengths(cuts: ListedCuts) -> list[int]:
    return [cuts.length(number) for number in range(1, len(cuts.starts) + 1)]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 2 * TiB), min_size=2, max_size=60, unique=True),
    st.sampled_from([5 * MiB, 16 * MiB, 100 * MiB]),
    st.sampled_from([S3, OSS]),
)
def test_any_disk(edges: list[int], part: int, limits: Limits) -> None:
    edges, size = sorted(edges), 2 * TiB + 5
    edges = edges[: len(edges) // 2 * 2]
    zeros = between(list(zip(edges[::2], edges[1::2], strict=True)), size)
    cuts = cut_around_zeros(limits, size, zeros, part)
    if cuts is None:
        return
    assert cuts.starts[0] == 0
    assert len(cuts.starts) <= limits.max_parts
    found = lengths(cuts)
    assert sum(found) == size
    assert min([*found[:-1], limits.min_part]) == limits.min_part
    assert max(found) <= limits.max_part
    for number in {1, 2, len(found) // 2 + 1, len(found)} & {*range(1, len(found) + 1)}:
        assert cuts.number(cuts.start(number)) == number
        assert cuts.number(cuts.start(number + 1) - 1) == number


def sent(cuts: ListedCuts, zeros: Ranges) -> int:
    """The bytes of all parts that do not lie in the zeros."""
    parts = [(cuts.start(n), length) for n, length in enumerate(lengths(cuts), 1)]
    return sum(n for at, n in parts if zeros.window(at, at + n).total < n)


def test_a_terabyte_with_a_gibibyte_of_data_sends_about_a_gibibyte() -> None:
    starts = [i * 16 * GiB + 12345 * KiB for i in range(64)]
    zeros = between([(at, at + 16 * MiB) for at in starts], TiB)
    cuts = cut_around_zeros(S3, TiB, zeros, 16 * MiB)
    assert cuts is not None
    assert sent(cuts, zeros) < 1.4 * GiB
    assert cuts.zero_length < 256 * MiB  # that much is sent to have something to copy


def test_a_dense_disk_has_nothing_to_gain() -> None:
    assert cut_around_zeros(S3, TiB, Ranges.of([(GiB, 1100 * MiB)]), 16 * MiB) is None
    assert cut_around_zeros(S3, TiB, Ranges.of([]), 16 * MiB) is None


def test_where_parts_must_be_alike_or_a_head_comes_last_they_are_regular() -> None:
    zeros = Ranges.of([(GiB, TiB)])
    for limits, head in ((replace(S3, uniform=True), 0), (S3, 4096)):
        cuts = plan_cuts(limits, head_size=head, bound=TiB, part_size=None, zeros=zeros)
        assert not isinstance(cuts, ListedCuts)
    cuts = plan_cuts(S3, head_size=0, bound=TiB, part_size=None, zeros=zeros)
    assert isinstance(cuts, ListedCuts)


def test_a_wanted_part_size_must_serve_here_too() -> None:
    zeros = Ranges.of([(GiB, TiB)])
    with pytest.raises(OptionError, match="this store takes"):
        plan_cuts(S3, head_size=0, bound=TiB, part_size=MiB, zeros=zeros)


def test_the_text_for_the_journal_tells_cuts_apart() -> None:
    one, other = ListedCuts((0, 5), 9, 1), ListedCuts((0, 6), 9, 1)
    assert str(one) != str(other)
    assert len(str(one)) < 80

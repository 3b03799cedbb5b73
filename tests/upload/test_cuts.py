"""Where an output is cut: without gaps, the same every time, within every store's limits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgconv.errors import LimitExceeded, OptionError
from imgconv.objectstore import Limits
from imgconv.units import GiB, KiB, MiB, TiB
from imgconv.upload.cuts import Cuts, RegularCuts, plan_cuts

S3 = Limits(min_part=5 * MiB, max_part=5 * GiB, max_parts=10_000, max_object=48 * TiB)
OSS = replace(S3, min_part=100 * KiB)
UNIFORM = replace(S3, uniform=True)


def plan(limits: Limits, bound: int | None, head: int = 0, part: int | None = None) -> Cuts:
    return plan_cuts(limits, head_size=head, bound=bound, part_size=part)


@given(
    st.integers(1, 20 * MiB),
    st.integers(1, 20 * MiB),
    st.booleans(),
    st.integers(1, 9_999),
)
def test_parts_follow_one_another(first: int, size: int, growing: bool, number: int) -> None:
    cuts = RegularCuts(first, size, growing)
    end = cuts.start(number) + cuts.length(number)
    assert cuts.start(number + 1) == end
    assert cuts.number(cuts.start(number)) == number
    assert cuts.number(end - 1) == number
    assert cuts.number(end) == number + 1


@given(st.integers(1, 48 * TiB), st.integers(0, 200 * MiB), st.sampled_from([S3, OSS, UNIFORM]))
def test_any_object_fits(bound: int, head: int, limits: Limits) -> None:
    cuts = plan(limits, bound, head)
    last = cuts.number(bound - 1)
    assert last <= limits.max_parts
    lengths = {cuts.length(number) for number in (1, 2, last)}
    assert min(lengths) >= limits.min_part
    assert max(lengths) <= limits.max_part
    assert not limits.uniform or cuts.first == cuts.size


def test_parts_are_no_larger_than_need_be() -> None:
    assert plan(S3, 10 * GiB).size == 16 * MiB
    assert plan(S3, TiB).size == 105 * MiB
    assert plan(S3, 150 * GiB).size == 16 * MiB


def test_the_first_part_is_just_the_head() -> None:
    """Else it would hold body bytes in memory until the end."""
    assert plan(S3, GiB, 64 * KiB).first == 5 * MiB
    assert plan(OSS, GiB, 64 * KiB).first == MiB
    assert plan(OSS, GiB, 3 * MiB + 1).first == 4 * MiB
    assert plan(OSS, GiB).first == 16 * MiB
    assert plan(OSS, GiB, 100 * MiB).first == 16 * MiB
    assert plan(UNIFORM, GiB, 64 * KiB).first == 16 * MiB


def test_parts_grow_when_nobody_knows_the_size() -> None:
    cuts = plan(S3, None)
    assert cuts.length(999) == cuts.length(1000) == 16 * MiB
    assert cuts.length(1001) == 32 * MiB
    assert cuts.start(10_000) > 15 * TiB
    assert not plan(UNIFORM, None).growing


def test_wanted_part_sizes_must_serve() -> None:
    assert plan(S3, GiB, part=5 * MiB) == RegularCuts(5 * MiB, 5 * MiB)
    with pytest.raises(OptionError, match="this store takes 5242880 to"):
        plan(S3, GiB, part=5 * MiB - 1)
    with pytest.raises(OptionError, match="10000 parts do not hold 1099511627776 bytes"):
        plan(S3, TiB, part=16 * MiB)
    with pytest.raises(LimitExceeded, match="object store"):
        plan(S3, 49 * TiB)

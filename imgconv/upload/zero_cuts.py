"""Cuts around long stretches of zeros: what a store copies may be cut coarsely, so that
there are parts enough to cut the rest finely. A disk of 1 TiB in parts of one size would
need 105 MiB for each, and a few bytes of data in one mean that all of it is sent.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from imgconv.objectstore import Limits
from imgconv.ranges import Ranges
from imgconv.units import MiB, div_ceil, round_up

# Stores keep what they hold in chunks, and copy whole ones best; SeaweedFS has 4 MiB.
CHUNK = 4 * MiB
LEAST_ZERO = 64 * MiB  # larger copies cost no less by the byte
_WORTH_IT = 4  # zero parts, before it pays


@dataclass(frozen=True, slots=True)
class ListedCuts:
    """Each part begins where `starts` says; what comes after `stop` is in the last."""

    starts: tuple[int, ...]
    stop: int
    zero_length: int

    def __str__(self) -> str:
        digest = sha256(repr((self.starts, self.stop)).encode()).hexdigest()
        return f"{len(self.starts)} parts around zeros, {digest[:16]}"

    def length(self, number: int) -> int:
        """Return the length of a part."""
        return self.start(number + 1) - self.start(number)

    def start(self, number: int) -> int:
        """Return where a part begins."""
        return self.starts[number - 1] if number <= len(self.starts) else self.stop

    def number(self, offset: int) -> int:
        """Return the number of the part that holds an offset."""
        return bisect_right(self.starts, offset)


def cut_around_zeros(limits: Limits, bound: int, zeros: Ranges, size: int) -> ListedCuts | None:
    """Cut an output of `bound` bytes: data into parts of about `size`, zeros into longer ones.

    Returns None when there are too few zeros for that to pay, or too many parts.
    """
    most = limits.max_parts
    length = max(LEAST_ZERO, round_up(div_ceil(zeros.total, most // 2), CHUNK))
    while length <= limits.max_part:
        long = zeros.where(zeros.length >= 2 * max(size, limits.min_part) + CHUNK)
        if long.total < _WORTH_IT * length:
            return None
        starts = tuple(_starts(bound, long, size, length, limits.min_part))
        if len(starts) <= most:
            return ListedCuts(starts, bound, length)
        size *= 2
    return None


def _starts(bound: int, zeros: Ranges, size: int, zero_size: int, least: int) -> Iterator[int]:
    """Yield where parts begin; no part but the last is shorter than `least`."""
    at = 0
    for start, stop in zeros:
        while at < start:  # data, up to where the zeros begin or a little beyond
            yield at
            at += max(min(size, start - at), least)
        while (left := (stop - at) // CHUNK * CHUNK) >= max(least, CHUNK):
            yield at
            at += min(zero_size, left)
    yield from range(at, bound, size)

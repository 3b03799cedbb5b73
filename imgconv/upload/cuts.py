"""Where an output is cut into parts: known before the first byte is made.

The cuts must not depend on what has been sent so far, or a resumed upload would cut
elsewhere. They follow from the store's limits and from what metadata tell of the output.
"""

from dataclasses import dataclass
from typing import Protocol

from imgconv.errors import LimitExceeded, OptionError
from imgconv.objectstore import Limits
from imgconv.ranges import Ranges
from imgconv.units import MiB, div_ceil, round_up
from imgconv.upload.zero_cuts import cut_around_zeros

DEFAULT_SIZE = 16 * MiB
TIER = 1000  # parts of one size, where parts grow


class Cuts(Protocol):
    """Parts follow one another without gaps; the last one is as long as what is left."""

    @property
    def zero_length(self) -> int:
        """The length of the longest part that may be nothing but zeros."""
        ...

    def length(self, number: int) -> int:
        """Return the length of a part, 1 and up, unless it is the last."""
        ...

    def start(self, number: int) -> int:
        """Return the output offset at which a part begins."""
        ...

    def number(self, offset: int) -> int:
        """Return the number of the part that holds an output offset."""
        ...


@dataclass(frozen=True, slots=True)
class RegularCuts:
    """The first part has `first` bytes; the others `size`, doubled every 1000 parts
    (counting the first) if they are `growing`."""

    first: int
    size: int
    growing: bool = False

    def __str__(self) -> str:
        growth = ", growing" if self.growing else ""
        return f"parts of {self.first}, then {self.size} bytes{growth}"

    @property
    def zero_length(self) -> int:
        """All parts are alike."""
        return self.size

    def length(self, number: int) -> int:
        """Return the length of a part."""
        if number == 1:
            return self.first
        return self.size << (number - 1) // TIER if self.growing else self.size

    def start(self, number: int) -> int:
        """Return where a part begins."""
        if number == 1:
            return 0
        before = number - 2  # parts of the regular sizes
        if not self.growing:
            return self.first + before * self.size
        tiers, rest = divmod(number - 1, TIER)
        whole = TIER * self.size * ((1 << tiers) - 1)  # as if the first were regular too
        return self.first - self.size + whole + rest * (self.size << tiers)

    def number(self, offset: int) -> int:
        """Return the number of the part that holds an offset."""
        if offset < self.first:
            return 1
        if not self.growing:
            return 2 + (offset - self.first) // self.size
        at, tier = offset - self.first + self.size, 0
        while at >= TIER * (self.size << tier):
            at -= TIER * (self.size << tier)
            tier += 1
        return 1 + tier * TIER + at // (self.size << tier)


def plan_cuts(
    limits: Limits,
    *,
    head_size: int,
    bound: int | None,
    part_size: int | None,
    zeros: Ranges | None = None,
) -> Cuts:
    """Choose the cuts of an output of at most `bound` bytes, None when that is unknown.

    Where parts may differ in size, the first one is just the head: a part that holds a
    piece of the head and a piece of the body has to be kept in memory until the end.
    `zeros` are stretches that will be nothing but zeros and had better be parts of their
    own. Raises LimitExceeded when the store takes no object of that size, and OptionError
    when a wanted `part_size` does not serve.
    """
    if bound is not None and bound > limits.max_object:
        raise LimitExceeded("this object store", bound, limits.max_object)
    if part_size is not None and not limits.min_part <= part_size <= limits.max_part:
        raise OptionError(
            f"part_size={part_size}: this store takes {limits.min_part} to "
            f"{limits.max_part} bytes"
        )
    if zeros is not None and bound is not None and head_size == 0 and not limits.uniform:
        wanted = part_size or max(DEFAULT_SIZE, limits.min_part)
        if (listed := cut_around_zeros(limits, bound, zeros, wanted)) is not None:
            return listed
    return _regular_cuts(limits, head_size, bound, part_size)


def _regular_cuts(
    limits: Limits, head_size: int, bound: int | None, part_size: int | None
) -> RegularCuts:
    if part_size is not None:
        _check(limits, part_size, bound or 0)
        size, growing = part_size, False
    else:
        needed = div_ceil(bound or 0, max(limits.max_parts - 1, 1))
        size = max(DEFAULT_SIZE, limits.min_part, round_up(needed, MiB))
        growing = bound is None and not limits.uniform
    first = round_up(max(head_size, limits.min_part), MiB)
    if limits.uniform or head_size == 0 or first > size:
        first = size
    return RegularCuts(first, size, growing)


def _check(limits: Limits, size: int, bound: int) -> None:
    # One less, as the first part may be shorter than the others.
    if size * max(limits.max_parts - 1, 1) < bound:
        least = round_up(div_ceil(bound, max(limits.max_parts - 1, 1)), MiB)
        raise OptionError(
            f"part_size={size}: {limits.max_parts} parts do not hold {bound} bytes; "
            f"{least} would do"
        )

"""What a running conversion tells whoever watches it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a conversion; all counts in bytes.

    `done` of `total` grows only when the work on those bytes is over. In the phase
    "scan" and "convert" they count the guest disk, in the phase "emit" (a planned output
    being streamed) the output. `data` is guest data found so far, `written` what the
    sink was given.
    """

    phase: Literal["scan", "convert", "emit"]
    done: int
    total: int
    data: int
    written: int


Watcher: TypeAlias = Callable[[Progress], object]
"""Called with every change, never by two threads at once; must be quick."""

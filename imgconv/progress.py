"""What a running conversion tells whoever watches it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Phase: TypeAlias = Literal["scan", "convert", "emit", "compare", "check"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a conversion; all counts in bytes.

    `done` of `total` grows only when the work on those bytes is over. In the phases "scan",
    "convert" and "compare" they count the guest disk, in the phase "emit" (a planned output
    being streamed) the output, in the phase "check" what is looked at of an image. `data` is
    guest data found so far, `written` what the sink was given. Of an upload, `wire` is what
    was handed to the network, `parts` counts those the store has, and `retries` requests that
    were repeated.
    """

    phase: Phase
    done: int
    total: int
    data: int
    written: int
    wire: int = 0
    parts: int = 0
    retries: int = 0


Watcher: TypeAlias = Callable[[Progress], object]
"""Called with every change, never by two threads at once; must be quick."""


class Counters(NamedTuple):
    """How far an upload is: bytes handed to the network, repeated ones included; parts the
    store holds, of which `kept` were there before and `copied` made by it; and requests
    that were repeated."""

    wire: int = 0
    parts: int = 0
    kept: int = 0
    copied: int = 0
    retries: int = 0

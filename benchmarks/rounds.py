"""Rounds in which commands take turns, so that a drifting machine slows all of them."""

import mmap
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import Usage, run
from settings import Settings

HEADROOM = 1 << 30  # bytes; what a tool needs at full scale beside the pages of its output


@dataclass(frozen=True)
class Sample(Usage):
    """One run of one command, and the bytes of what it made: by its length, and on disk."""

    size: int
    allocated: int


def alternate(
    commands: Mapping[str, Sequence[str]],
    out: Path,
    settings: Settings,
    verify: Callable[[str], None],
) -> dict[str, list[Sample]]:
    """Let the commands take turns at making `out`, each round beginning with another.

    The first round is not counted; after each command of it `verify` is called with its
    name, to look at what it made. What was made is deleted before the next command.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    names = list(commands)
    most = 0  # bytes that an output has taken so far
    for turn in range(settings.runs + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if out.exists():
                raise SystemExit(f"{out} exists already; a benchmark overwrites nothing")
            _touch(most + int(settings.scale * HEADROOM))
            sample = _sample(commands[name], out)
            most = max(most, sample.allocated)
            if turn == 0:
                verify(name)
            else:
                samples[name].append(sample)
            out.unlink(missing_ok=True)
    return samples


def _touch(size: int) -> None:
    """Use so many bytes of memory and let go of them, before a run and outside its time.

    A virtual machine may hand memory that is free back to its host. Whoever uses it next
    waits for the host, up to eight times as long as for the work itself.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, size, flags=flags).close()


def _sample(command: Sequence[str], out: Path) -> Sample:
    usage = run(command)
    size = allocated = 0
    if out.exists():
        found = out.stat()
        size, allocated = found.st_size, found.st_blocks * 512
    return Sample(**vars(usage), size=size, allocated=allocated)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the five numbers of a box plot."""
    quartiles = statistics.quantiles(values, method="inclusive") if len(values) > 1 else values
    low, high = quartiles[0], quartiles[-1]
    median = statistics.median(values)
    return {"min": min(values), "q1": low, "median": median, "q3": high, "max": max(values)}

"""Decoding what is compressed, in all threads: does every stream hold what it should?"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from imgconv.checks.inspection import Inspection
from imgconv.ranges import Column
from imgconv.workers import Turn, run

GROUP = 64  # streams that are one task
MAX_STREAM = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """Where streams begin, how many bytes may belong to each, where in the file it is said
    that they are there, and the guest offsets of what they hold."""

    where: Column
    length: Column
    said_at: Column
    guest: Column

    def groups(self, size: int) -> "Iterable[Streams]":
        """Yield them, so many at once."""
        for low in range(0, len(self.where), size):
            columns = self.where, self.length, self.said_at, self.guest
            yield Streams(*(column[low : low + size] for column in columns))


# Takes a stream and the guest offset of its unit; returns what is wrong, as severity, rule
# and text, or None.
Try = Callable[[memoryview, int], tuple[str, str, str] | None]


def decode_all(inspection: Inspection, streams: Iterable[Streams], attempt: Try) -> None:
    """Decode streams; findings come in their order, however many threads there are."""

    def work(task: Streams, turn: Turn) -> None:
        found = []
        columns = (c.tolist() for c in (task.where, task.length, task.said_at, task.guest))
        for where, length, said_at, guest in zip(*columns, strict=True):
            inspection.stop.check()
            raw = inspection.read(where, min(length, MAX_STREAM))
            wrong = attempt(memoryview(raw), guest)
            if wrong is not None:
                found.append((where, said_at, wrong))
        with turn:
            for where, said_at, (severity, rule, text) in found:
                told = f"{text} (said at {said_at})"
                inspection.findings.add(severity, rule, where, told)
            inspection.decoded += len(task.where)
            inspection.tally.advance(int(task.length.sum()))

    tasks = (group for each in streams for group in each.groups(GROUP))
    run(tasks, lambda: work, threads=inspection.threads, stop=inspection.stop)

"""Collects what is found: everything is counted, the first few of each rule are kept."""

from collections import Counter
from collections.abc import Callable

from imgconv.checks.report import Finding
from imgconv.ranges import Column


class Findings:
    """Findings in the order they come, up to `limit` of each rule; memory is bounded by that."""

    def __init__(self, limit: int):
        self._limit = limit
        self._kept = list[Finding]()
        self._of_rule = Counter[str]()
        self._kept_of_rule = Counter[str]()
        self._of_severity = Counter[str]()

    def add(self, severity: str, rule: str, offset: int, text: str, *, count: int = 1) -> None:
        """Record one finding, or as many as one line tells of."""
        self._of_severity[severity] += count
        self._of_rule[rule] += count
        if self._kept_of_rule[rule] < self._limit:
            self._kept.append(Finding(severity, rule, offset, text))
            self._kept_of_rule[rule] += count

    def add_all(
        self, severity: str, rule: str, offsets: Column, text: Callable[[int], str]
    ) -> None:
        """Record one finding for each offset; `text` is asked for those that are kept, by row."""
        count = len(offsets)
        room = max(self._limit - self._kept_of_rule[rule], 0)
        for row, offset in enumerate(offsets[:room].tolist()):
            self._kept.append(Finding(severity, rule, offset, text(row)))
        self._of_severity[severity] += count
        self._of_rule[rule] += count
        self._kept_of_rule[rule] += min(count, room)

    def count(self, severity: str) -> int:
        """Return how many there are of a severity."""
        return self._of_severity[severity]

    @property
    def kept(self) -> tuple[Finding, ...]:
        """Those that were kept."""
        return tuple(self._kept)

    @property
    def omitted(self) -> dict[str, int]:
        """How many there are of each rule besides."""
        more = {rule: n - self._kept_of_rule[rule] for rule, n in self._of_rule.items()}
        return {rule: count for rule, count in more.items() if count > 0}

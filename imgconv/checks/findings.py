"""Collects what is found: everything is counted, the first few of each rule are kept."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from imgconv.checks.report import Finding
from imgconv.ranges import Column

_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Makes the text of a row: `pattern` is filled in with its value."""

    pattern: str
    values: Column

    def __call__(self, row: int) -> str:
        """Return the text of a row."""
        return self.pattern.format(int(self.values[row]) & _WORD)


class Findings:
    """Findings in the order they come, up to `limit` of each rule are kept."""

    def __init__(self, limit: int):
        self._limit = limit
        self._kept = list[Finding]()
        self._of_rule = Counter[str]()
        self._kept_of_rule = Counter[str]()
        self._of_severity = Counter[str]()

    def about(self, name: str) -> "Findings":
        """Return what collects findings of another file here, under its name."""
        return _Named(self, name)

    def add(self, severity: str, rule: str, offset: int, text: str, *, count: int = 1) -> None:
        """Record one finding, or as many as one line tells of."""
        self._of_severity[severity] += count
        self._of_rule[rule] += 1
        if self._kept_of_rule[rule] < self._limit:
            self._kept.append(Finding(severity, rule, offset, text))
            self._kept_of_rule[rule] += 1

    def add_all(
        self,
        severity: str,
        rule: str,
        offsets: Column,
        text: Callable[[int], str],
        *,
        total: int | None = None,
    ) -> None:
        """Record one finding for each offset; `text` is asked for those that are kept, by row.

        `total` is what they count for if that is more than one each.
        """
        count = len(offsets)
        room = max(self._limit - self._kept_of_rule[rule], 0)
        for row, offset in enumerate(offsets[:room].tolist()):
            self._kept.append(Finding(severity, rule, offset, text(row)))
        self._of_severity[severity] += count if total is None else total
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


class _Named(Findings):
    """Puts a name before what it is told, and hands it on."""

    def __init__(self, findings: Findings, name: str):
        super().__init__(1)
        self._findings, self._name = findings, ascii(name)

    def add(self, severity: str, rule: str, offset: int, text: str, *, count: int = 1) -> None:
        """Record a finding of that file."""
        self._findings.add(severity, rule, offset, f"{self._name}: {text}", count=count)

    def add_all(
        self,
        severity: str,
        rule: str,
        offsets: Column,
        text: Callable[[int], str],
        *,
        total: int | None = None,
    ) -> None:
        """Record findings of that file."""
        named = self._name
        self._findings.add_all(
            severity, rule, offsets, lambda row: f"{named}: {text(row)}", total=total
        )

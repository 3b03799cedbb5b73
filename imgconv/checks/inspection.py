"""One image under inspection: reading it, and saying what is wrong, without ever stopping."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from imgconv.checks.findings import Findings
from imgconv.checks.report import CORRUPTION, ERROR, WARNING
from imgconv.errors import ImageMalformed, ImageUnsupported
from imgconv.ranges import Column, Mask
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.tally import Tally
from imgconv.workers import Stop


@dataclass(slots=True, eq=False, kw_only=True)
class Inspection:
    """What a check of any format needs.

    `data` says whether to decode what is compressed, too, which `decoded` counts.
    """

    image: ImageFile
    findings: Findings
    data: bool
    threads: int
    stop: Stop
    tally: Tally
    decoded: int = 0

    @property
    def file(self) -> Source:
        """The image's file."""
        return self.image.file

    @property
    def size(self) -> int:
        """Bytes of the file, in whole sectors."""
        return self.image.file.size

    def corruption(self, rule: str, offset: int, text: str, *, count: int = 1) -> None:
        """Record something that cannot be, or because of which data are wrong."""
        self.findings.add(CORRUPTION, rule, offset, text, count=count)

    def error(self, rule: str, offset: int, text: str) -> None:
        """Record that something could not be checked."""
        self.findings.add(ERROR, rule, offset, text)

    def warning(self, rule: str, offset: int, text: str) -> None:
        """Record something odd that does no harm by itself."""
        self.findings.add(WARNING, rule, offset, text)

    def require(self, holds: bool, rule: str, offset: int, text: str) -> bool:
        """Record a corruption unless it holds; return whether it does."""
        if not holds:
            self.corruption(rule, offset, text)
        return holds

    def advise(self, holds: bool, rule: str, offset: int, text: str) -> bool:
        """Record a warning unless it holds; return whether it does."""
        if not holds:
            self.warning(rule, offset, text)
        return holds

    def noting(self, rule: str, offset: int) -> "Noting":
        """Record what a reader refuses, which ends the block: a corruption of that rule, or,
        of what is merely not read, an error at that offset."""
        return Noting(self, rule, offset)

    def corruptions(
        self, rule: str, wrong: Mask, offsets: Column, text: Callable[[int], str]
    ) -> None:
        """Record a corruption for every row that is `wrong`; `text` is given its number."""
        rows = wrong.nonzero()[0]
        if len(rows):
            self.findings.add_all(CORRUPTION, rule, offsets[rows], lambda n: text(int(rows[n])))

    def warnings(
        self, rule: str, odd: Mask, offsets: Column, text: Callable[[int], str]
    ) -> None:
        """Record a warning for every row that is `odd`; `text` is given its number."""
        rows = odd.nonzero()[0]
        if len(rows):
            self.findings.add_all(WARNING, rule, offsets[rows], lambda n: text(int(rows[n])))

    def holds(self, start: int, length: int) -> bool:
        """Say whether a range lies in the file."""
        return start >= 0 and length >= 0 and start + length <= self.size

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the file; what lies beyond its end is zeros.

        Raises what reading the file raises. At most as much is made as the caller checked.
        """
        buffer = bytearray(length)
        there = max(min(length, self.size - start), 0)
        if there:
            self.file.read_into(start, memoryview(buffer)[:there])
        return bytes(buffer)


@dataclass(frozen=True, slots=True, eq=False)
class Noting:
    """Makes findings of what readers raise, in a block."""

    inspection: Inspection
    rule: str
    offset: int

    def __enter__(self) -> None:
        """Nothing is wrong so far."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Record the error if it is about the image; others pass."""
        if isinstance(error, ImageMalformed):
            self.inspection.corruption(self.rule, error.offset, error.reason)
        elif isinstance(error, ImageUnsupported):
            self.inspection.error("unsupported", self.offset, str(error))
        else:
            return False
        return True

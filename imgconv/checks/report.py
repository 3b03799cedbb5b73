"""What a check tells: plain values, of which `as_json` makes what programs read."""

from dataclasses import asdict, dataclass, field
from typing import Any

CORRUPTION, LEAK, ERROR, WARNING = "corruption", "leak", "error", "warning"
CLEAN, INCOMPLETE, CORRUPT, LEAKING = 0, 1, 2, 3  # exit codes, those of qemu-img check


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    `severity` is "corruption" (readers get wrong data, or may refuse the image), "leak"
    (space that nothing uses), "error" (something could not be checked) or "warning" (odd, but
    every byte of the disk is told). `rule` is a stable name of what was broken, `offset` where
    in the image's file, in bytes, and `text` one line about it.
    """

    severity: str
    rule: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How much of an image is in use, as far as its format tells; None where it does not.

    Clusters are the units of the format; `image_end_offset` is where what is in use ends, in
    bytes of the file.
    """

    total_clusters: int | None = None
    allocated_clusters: int | None = None
    compressed_clusters: int | None = None
    fragmented_clusters: int | None = None
    image_end_offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The structure of an image: all findings counted, the first few of each rule kept.

    `omitted` tells of every rule with more findings than were kept how many there are
    besides. `decoded` counts the compressed units that were unpacked.
    """

    filename: str
    format: str
    corruptions: int
    leaks: int
    check_errors: int
    warnings: int
    usage: Usage = field(default_factory=Usage)
    decoded: int = 0
    findings: tuple[Finding, ...] = ()
    omitted: dict[str, int] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """What `qemu-img check` would exit with: 0 clean, 1 incomplete, 2 corrupt, 3 leaks."""
        if self.corruptions:
            return CORRUPT
        if self.check_errors:
            return INCOMPLETE
        return LEAKING if self.leaks else CLEAN

    def as_json(self) -> dict[str, Any]:
        """Return an object with the keys of `qemu-img check --output=json`, and ours."""
        shown = asdict(self)
        shown |= {k: v for k, v in shown.pop("usage").items() if v is not None}
        return {name.replace("_", "-"): value for name, value in shown.items()}

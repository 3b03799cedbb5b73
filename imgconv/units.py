"""Sizes in bytes: names, rounding, and the text people write them in."""

import re

SECTOR = 512
KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30
TiB = 1 << 40

_SUFFIXES = "kmgtpe"
_SIZE = re.compile(rf"([0-9]{{1,20}})\s*(?:([{_SUFFIXES}])(?:i?b)?|b)?", re.IGNORECASE)


def div_ceil(value: int, by: int) -> int:
    """Return value / by, rounded up."""
    return -(-value // by)


def round_up(value: int, to: int) -> int:
    """Return the smallest multiple of `to` that is not below `value`."""
    return div_ceil(value, to) * to


def is_power_of_two(value: int) -> bool:
    """Say whether value is 1, 2, 4, 8, ..."""
    return value > 0 and value & (value - 1) == 0


def parse_size(text: str) -> int:
    """Read "65536", "64k", "64KiB" or "2M" as bytes; suffixes are powers of 1024.

    Raises ValueError when the text is not such a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 65536, 64k or 2M")
    exponent = _SUFFIXES.index(match[2].lower()) + 1 if match[2] else 0
    return int(match[1]) << 10 * exponent


def format_size(size: float) -> str:
    """Write bytes for people: "64 KiB", "1.5 GiB"."""
    value, names = float(size), ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB", "B"]
    while value >= 1024 and len(names) > 1:
        value /= 1024
        names.pop()
    return f"{value:.2f}".rstrip("0").rstrip(".") + f" {names[-1]}"

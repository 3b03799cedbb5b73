"""The map of a disk as text: as JSON of the shape of qemu-img's, or as a table.

Rows are rendered many at once: each has one of a few patterns, and the numbers for all of
them go in with one operation. Anything done row by row would take most of the time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from imgconv.diskmap import DiskMap
from imgconv.errors import one_line
from imgconv.sources.located import ABSENT, DATA, NOWHERE, PACKED, Located

_ROW = (
    '{{ "start": %d, "length": %d, "depth": %d, "present": {present}, "zero": {zero}, '
    '"data": {data}, "compressed": {packed}{offset}}}'
)
_WORDS = ("false", "true")
_WIDTH = 16
_HEAD = f"{'Offset':16}{'Length':16}{'Mapped to':16}File\n"


def json_text(disk: DiskMap) -> Iterator[str]:
    """Yield the parts of a JSON array with an object a line."""
    yield "["
    between = ""
    for group in disk.groups():
        if len(group.kind):
            yield between + _json_rows(group)
            between = ",\n"
    yield "]\n"


def _json_patterns() -> list[str]:
    """Return the pattern of each kind, without and with an offset."""
    return [
        _ROW.format(
            present=_WORDS[kind != ABSENT],
            zero=_WORDS[kind not in (DATA, PACKED)],
            data=_WORDS[kind in (DATA, PACKED)],
            packed=_WORDS[kind == PACKED],
            offset=offset,
        )
        for kind in range(ABSENT + 1)
        for offset in ("", ', "offset": %d')
    ]


def _json_rows(group: Located) -> str:
    there = group.where != NOWHERE
    numbers = [group.guest.start, group.guest.length, group.depth, group.where]
    used = np.ones((len(there), len(numbers)), dtype=np.bool_)
    used[:, 3] = there
    return _rendered(_json_patterns(), 2 * group.kind + there, numbers, used, ",\n")


def table_text(disk: DiskMap) -> Iterator[str]:
    """Yield the parts of a table of what holds data."""
    yield _HEAD
    for group in disk.groups():
        shown = group.rows((group.kind == DATA) | (group.kind == PACKED))
        if len(shown.kind):
            yield _table_rows(shown, disk.files)


def _table_patterns(files: list[str]) -> list[str]:
    """Return, for each file, the patterns with and without a zero at the start and offset.

    The last one is for what has no offset.
    """
    number, zero = f"%-#{_WIDTH}x", f"{0:<{_WIDTH}}"
    names = [one_line(name).replace("%", "%%") for name in files]
    some = [
        f"{start}{number}{offset}{name}\n"
        for name in names
        for start in (zero, number)
        for offset in (zero, number)
    ]
    return [*some, *(f"{start}{number}{'compressed':{_WIDTH}}-\n" for start in (zero, number))]


def _table_rows(group: Located, files: list[str]) -> str:
    there, inner = group.where != NOWHERE, group.guest.start > 0
    numbers = [group.guest.start, group.guest.length, group.where]
    used = np.ones((len(there), len(numbers)), dtype=np.bool_)
    used[:, 0], used[:, 2] = inner, group.where > 0
    chosen = np.where(there, 4 * group.file + 2 * inner + used[:, 2], 4 * len(files) + inner)
    return _rendered(_table_patterns(files), chosen, numbers, used, "")


def _rendered(
    patterns: list[str], chosen: Any, numbers: list[Any], used: Any, between: str
) -> str:
    """Fill the chosen patterns with the numbers that are used, row by row."""
    values = np.stack(numbers, axis=1)[used]
    rows = map(patterns.__getitem__, chosen.tolist())
    return between.join(rows) % tuple(values.tolist())

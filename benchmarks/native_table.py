"""The table of the native functions, from the records of native_functions.py."""

import json
import statistics
from pathlib import Path

from markdown import table
from results import Record
from tools import OURS

from imgconv.units import format_size

LOADS = "loads"  # what the names of the loops that only load begin with
OTHER_FUNCTION = "("  # and those of contenders that compute something else


def read_native(folder: Path) -> list[Record]:
    """Return the newest record of each function and size of buffer, of one machine."""
    path = folder / "native_functions.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    alike = [r for r in records if all(r[s] == records[-1][s] for s in ("cpu", "imgconv"))]
    return list({(r["function"], r["size"]): r for r in alike}.values())


def native_table(records: list[Record]) -> list[str]:
    """A row for each function, a column for each size of buffer; nothing without records."""
    if not records:
        return []
    sizes = sorted({r["size"] for r in records})
    cells = {(r["function"], r["size"]): cell(r) for r in records}
    head = ["", *(format_size(size) for size in sizes)]
    rows = [
        [function, *(cells.get((function, size), "") for size in sizes)]
        for function in {r["function"]: None for r in records}
    ]
    text = (
        f"The native functions ({records[-1]['imgconv']}) by the size of the buffer: speed, "
        "and how many times that of the best library and of the best loop that only loads."
    )
    return [text, table(head, rows)]


def cell(record: Record) -> str:
    speeds = {
        name: statistics.median(samples)
        for name, samples in record["samples"].items()
        if not name.startswith(OTHER_FUNCTION)
    }
    ours = speeds.pop(OURS)
    loads = max(speed for name, speed in speeds.items() if name.startswith(LOADS))
    library = max((n for n in speeds if not n.startswith(LOADS)), key=speeds.__getitem__)
    return (
        f"{ours / 1e9:.1f} GB/s<br>{ours / speeds[library]:.1f}x {library}, "
        f"{ours / loads:.2f}x loads"
    )

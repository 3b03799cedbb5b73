"""Records of measurements: JSON lines, one file for each kind of record."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processes import BUSY, commit, file_system, machine, others_share
from rounds import Sample, spread
from settings import Settings
from tools import OURS, QEMU_IMG

Record = dict[str, Any]
COORDINATES = {
    "matrix": ("corpus", "format"),
    "scaling": ("axis", "format", "virtual_size", "data", "threads"),
    "startup": ("format",),
    "compression": ("case",),
    "reading": ("case",),
}


class Recorder:
    """Appends the records of one kind, each with all there is to know about its making."""

    def __init__(self, kind: str, settings: Settings) -> None:
        self._path = settings.results / f"{kind}.jsonl"
        self._circumstances: Record = {
            "kind": kind,
            "utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "scale": settings.scale,
            "runs": settings.runs,
            "commit": commit(),
            "machine": machine(settings.bin),
            "file_system": file_system(settings.folder),
        }

    def add(
        self,
        cell: Record,
        commands: Mapping[str, Sequence[str]],
        samples: Mapping[str, Sequence[Sample]],
    ) -> Record:
        """Write down a cell: its coordinates, and what each command took."""
        everything = [s for some in samples.values() for s in some]
        share = others_share(everything)
        record: Record = {**self._circumstances, **cell, "others_cpu_share": share}
        record["tools"] = {
            name: {
                "command": shlex.join([Path(word).name for word in commands[name]]),
                "seconds": spread([s.seconds for s in some]),
                "samples": [asdict(s) for s in some],
            }
            for name, some in samples.items()
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if share > BUSY:
            print(f"warning: others took {share:.0%} of this machine during the next cell")
        return record


def read(folder: Path, kind: str, scale: float) -> list[Record]:
    """Return the newest record of each cell, as far as the machine is that of the newest.

    Records of other scales are left out, and so are those made elsewhere or with other
    versions: what stands beside each other in a table shall be comparable.
    """
    path = folder / f"{kind}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [r for r in map(json.loads, lines) if r["scale"] == scale]
    cells = {
        tuple(r[coordinate] for coordinate in COORDINATES[kind]): r
        for r in records
        if all(r[same] == records[-1][same] for same in ("machine", "file_system"))
    }
    return list(cells.values())


def median(record: Record, tool: str) -> float:
    """Return the median of a tool's times, in seconds."""
    return record["tools"][tool]["seconds"]["median"]


def most(record: Record, tool: str, what: str) -> int:
    """Return the greatest of a tool's samples of something in bytes."""
    return max(sample[what] for sample in record["tools"][tool]["samples"])


def best_of_qemu_img(record: Record) -> float:
    """Return the better of the medians of qemu-img's settings, in seconds."""
    return min(median(record, tool) for tool in QEMU_IMG if tool in record["tools"])


def ratio(record: Record) -> float:
    """Say how many times faster than the better setting of qemu-img we are."""
    return best_of_qemu_img(record) / median(record, OURS)

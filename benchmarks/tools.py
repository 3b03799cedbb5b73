"""The tools that are compared: which formats they write, and how they are called."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from imgconv.units import GiB, KiB, TiB

FORMATS = ("raw", "qcow2", "vhd", "vmdk", "vdi")
QEMU_NAMES = {"vhd": "vpc"}
LARGEST = {"vhd": 2040 * GiB, "vmdk": 2 * TiB - 64 * KiB}  # disks, in bytes


@dataclass(frozen=True)
class Tool:
    """A command with {places}, and the formats it writes."""

    name: str
    command: str
    formats: tuple[str, ...] = FORMATS

    def arguments(self, **places: object) -> list[str]:
        return [word.format_map(places) for word in self.command.split()]


OURS = "imgconv"
QEMU_IMG = ("qemu-img", "qemu-img -m 16 -W")
_CONVERT = "qemu-img convert -f raw -O {qemu_format}"
CONVERTERS = (
    Tool(OURS, "{bin}/imgconv {source} {out} -O {format} -q"),
    Tool(QEMU_IMG[0], f"{_CONVERT} {{source}} {{out}}"),
    Tool(QEMU_IMG[1], f"{_CONVERT} -m 16 -W {{source}} {{out}}"),
)
COPIERS = (
    Tool("nbdcopy", "nbdcopy {source} {out}", ("raw",)),
    Tool("cp --sparse=always", "cp --sparse=always {source} {out}", ("raw",)),
)
TOOLS = (*CONVERTERS, *COPIERS)
WITH_THREADS = (
    Tool(OURS, "{bin}/imgconv {source} {out} -O {format} -q -m {threads}"),
    Tool("qemu-img -W", f"{_CONVERT} -m {{threads}} -W {{source}} {{out}}"),
)


def commands(
    tools: tuple[Tool, ...], bin: Path, source: Path, out: Path, format: str, threads: int = 0
) -> dict[str, list[str]]:
    """Return the command of each tool that can convert `source` into `out`."""
    places = {"bin": bin, "source": source, "out": out, "format": format, "threads": threads}
    places["qemu_format"] = QEMU_NAMES.get(format, format)
    return {t.name: t.arguments(**places) for t in tools if format in t.formats}


def verify(source: Path, out: Path, format: str, tool: str) -> None:
    """End the benchmark if the output is ours and has not the content of the source.

    The others are believed: for some formats a comparison takes longer than all runs.
    """
    if tool == OURS:
        compare(source, out, format)


def compare(source: Path, out: Path, format: str) -> None:
    """End the benchmark if an output has not the content of the source."""
    known = QEMU_NAMES.get(format, format)
    command = ["qemu-img", "compare", "-q", "-f", "raw", "-F", known, str(source), str(out)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"{out} differs from {source}")

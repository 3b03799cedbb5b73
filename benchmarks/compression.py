"""Compressed outputs of a real file system beside those of other tools: time, size, memory."""

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import corpora
from results import Record, Recorder, median, most
from rounds import alternate
from settings import parser, settings_of
from tools import compare

from imgconv.units import format_size

WORDS = ("fast", "balanced", "small")
_QEMU = "qemu-img convert -f raw {source} {out}"


@dataclass(frozen=True)
class Case:
    """A kind of output: how imgconv is asked for it, and the commands that make the like.

    The first ones are what speed and size are compared with. `unpack` prints the disk.
    """

    name: str
    corpus: str
    ours: str
    references: tuple[str, ...]
    others: tuple[str, ...] = ()
    unpack: str = "qemu-img convert -O raw {out} {copy}"

    def commands(self, bin: Path, source: Path, out: Path) -> dict[str, list[str]]:
        """Return every command by its name; a shell runs those that need a pipe."""
        ours = {
            f"imgconv --compress {word}": f"{self.ours} --compress {word}" for word in WORDS
        }
        found = {}
        for name, text in ours.items():
            found[name] = shlex.split(f"{bin}/imgconv {source} {out} -q {text}")
        for text in (*self.references, *self.others):
            command = text.format(source=source, out=out)
            name = text.replace(" {source}", "").replace(" > {out}", "").replace(" {out}", "")
            name = name.replace(" -f raw", "")
            shell = any(sign in command for sign in "|>")
            found[name] = ["sh", "-c", command] if shell else shlex.split(command)
        return found

    def reference_names(self) -> list[str]:
        every = list(self.commands(Path(), Path(), Path()))
        return every[len(WORDS) : len(WORDS) + len(self.references)]


def _qemu(options: str) -> tuple[str, str]:
    return f"{_QEMU} {options}", f"{_QEMU} {options} -m 16 -W"


CASES = (
    Case("qcow2 zlib", "filesystem", "-O qcow2", _qemu("-O qcow2 -c")),
    Case(
        "qcow2 zstd",
        "filesystem",
        "-O qcow2 -o compression_type=zstd",
        _qemu("-O qcow2 -c -o compression_type=zstd"),
    ),
    Case(
        "vmdk streamOptimized",
        "filesystem",
        "-O vmdk -o subformat=streamOptimized",
        _qemu("-O vmdk -o subformat=streamOptimized"),
    ),
    Case(
        "raw.gz",
        "filesystem",
        "-O raw.gz",
        ("pigz -c {source} > {out}",),
        ("pigz -1 -c {source} > {out}",),
        "gzip -dc {out} > {copy}",
    ),
    Case(
        "raw.zst",
        "filesystem",
        "-O raw.zst",
        ("zstd -q -T0 {source} -o {out}",),
        ("zstd -q -T0 -1 {source} -o {out}",),
        "zstd -q -dc {out} > {copy}",
    ),
    Case(
        "raw.tar.gz",
        "vast",
        "-O raw.tar.gz",
        ("tar -S -c {source} | gzip -1 > {out}",),
        ("tar -S -c {source} | pigz -1 > {out}",),
        "tar -xSzOf {out} > {copy}",
    ),
)

# How many times faster, and by which share larger at most, than the first of the others.
AIMS: dict[tuple[str, str], tuple[float, float | None]] = {
    ("qcow2 zlib", "fast"): (8.0, 0.06),
    ("qcow2 zlib", "balanced"): (4.0, 0.03),
    ("qcow2 zstd", "balanced"): (1.3, 0.0),
    ("vmdk streamOptimized", "balanced"): (12.0, 0.03),
    ("raw.tar.gz", "fast"): (10.0, None),
}


def verify(source: Path, out: Path, case: Case, tool: str) -> None:
    """End the benchmark if an output of ours does not unpack to the source."""
    if not tool.startswith("imgconv") or case.corpus == "vast":  # 64 GiB would not fit
        return
    copy = out.with_name("copy")
    subprocess.run(["sh", "-c", case.unpack.format(out=out, copy=copy)], check=True)
    compare(source, copy, "raw")
    copy.unlink()


@dataclass(frozen=True)
class Row:
    """One tool in one case: medians, and how they compare with the reference's."""

    tool: str
    seconds: float
    speed: float
    size: int
    larger: float
    memory: int


def rows(record: Record) -> Iterator[Row]:
    """Yield a row for each tool."""
    best = min(record["references"], key=lambda name: median(record, name))
    for name in record["tools"]:
        size = most(record, name, "size")
        yield Row(
            name,
            median(record, name),
            median(record, best) / median(record, name),
            size,
            size / most(record, best, "size") - 1,
            most(record, name, "peak_memory"),
        )


def lines(record: Record) -> Iterator[str]:
    """Yield one line per tool for the terminal."""
    for row in rows(record):
        yield (
            f"{record['case']:20} {row.tool:62} {row.seconds:7.2f} s {row.speed:6.2f}x "
            f"{format_size(row.size):>10} {row.larger:+7.2%} {format_size(row.memory):>10}"
        )


def main() -> None:
    arguments = parser(__doc__)
    names: Sequence[str] = [case.name for case in CASES]
    arguments.add_argument("--case", choices=names, action="append")
    chosen = arguments.parse_args()
    settings = settings_of(chosen)
    recorder = Recorder("compression", settings)
    cases = [case for case in CASES if case.name in (chosen.case or names)]
    with settings.workplace() as folder:
        for corpus in dict.fromkeys(case.corpus for case in cases):
            source, out = folder / f"{corpus}.raw", folder / "out"
            corpora.make(corpus, source, settings.scale)
            about = {
                "corpus": corpus,
                "virtual_size": source.stat().st_size,
                "data": corpora.data_bytes(source),
            }
            for case in (c for c in cases if c.corpus == corpus):
                every = case.commands(settings.bin, source, out)
                check = partial(verify, source, out, case)
                samples = alternate(every, out, settings, check)
                cell = {"case": case.name, **about, "references": case.reference_names()}
                for line in lines(recorder.add(cell, every, samples)):
                    print(line, flush=True)
            source.unlink()


if __name__ == "__main__":
    main()

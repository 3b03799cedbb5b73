"""Corpus x format x tool: times of whole processes, memory, and what is on disk."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import corpora
from results import Record, Recorder, median, most, ratio
from rounds import alternate
from settings import Settings, parser, settings_of
from tools import FORMATS, OURS, TOOLS, commands, verify

from imgconv.units import format_size

CORPORA = ("zeros", "dense", "mixed", "huge", "filesystem")


def cells(
    source: Path, formats: Sequence[str], settings: Settings, recorder: Recorder
) -> Iterator[Record]:
    """Convert one corpus into each format with every tool that can."""
    out, size = source.with_name("out"), source.stat().st_size
    about = {"corpus": source.stem, "virtual_size": size, "data": corpora.data_bytes(source)}
    for format in formats:
        every = commands(TOOLS, settings.bin, source, out, format)
        check = partial(verify, source, out, format)
        samples = alternate(every, out, settings, check)
        yield recorder.add({**about, "format": format}, every, samples)


def line(record: Record) -> str:
    """One line for the terminal: the ratio, then every tool's median and peak memory."""
    tools = "   ".join(
        f"{name} {median(record, name):.3f} s, {format_size(most(record, name, 'peak_memory'))}"
        for name in record["tools"]
    )
    excess = most(record, OURS, "allocated") - record["data"]
    return (
        f"{record['corpus']:10} {record['format']:5} {ratio(record):5.2f}x   {tools}   "
        f"on disk: the data and {format_size(excess)}"
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--corpus", choices=CORPORA, action="append")
    arguments.add_argument("--format", choices=FORMATS, action="append")
    chosen = arguments.parse_args()
    settings = settings_of(chosen)
    recorder = Recorder("matrix", settings)
    with settings.workplace() as folder:
        for name in chosen.corpus or CORPORA:
            source = folder / f"{name}.raw"
            corpora.make(name, source, settings.scale)
            for record in cells(source, chosen.format or FORMATS, settings, recorder):
                print(line(record), flush=True)
            source.unlink()


if __name__ == "__main__":
    main()

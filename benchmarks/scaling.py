"""Time and memory against the virtual size, against the data, and against the threads."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby, product
from pathlib import Path

import corpora
from results import Record, Recorder, median, most
from rounds import alternate
from settings import Settings, parser, settings_of
from tools import CONVERTERS, FORMATS, LARGEST, WITH_THREADS, Tool, commands, verify

from imgconv.units import GiB, MiB, format_size

# Along each axis one coordinate grows and the others stay. Sizes and data are in bytes;
# data are scaled, sizes are not, for they are nearly free. No threads: as many as each
# tool takes by itself. More points or formats would make `make bench` a matter of hours.
AXES: dict[str, list[tuple[int, int, int]]] = {
    "size": [(GiB << shift, 128 * MiB, 0) for shift in range(0, 15, 2)],
    "data": [(64 * GiB, 16 * MiB << shift, 0) for shift in range(0, 7, 2)],
    "threads": [(64 * GiB, 512 * MiB, threads) for threads in (1, 2, 4)],
}
USUAL_FORMATS = ("qcow2", "vdi")
PEERS: dict[str, tuple[Tool, ...]] = {
    "size": CONVERTERS,
    "data": CONVERTERS,
    "threads": WITH_THREADS,
}


def points(
    axis: str, formats: Sequence[str], settings: Settings, recorder: Recorder, folder: Path
) -> Iterator[Record]:
    """Measure along an axis; a source is made once for all points that share it."""
    source, out = folder / "islands.raw", folder / "out"
    for (size, data), group in groupby(AXES[axis], key=lambda point: point[:2]):
        corpora.make_islands(source, size, int(data * settings.scale))
        about = {"axis": axis, "virtual_size": size, "data": corpora.data_bytes(source)}
        for (_, _, threads), format in product(group, formats):
            if size <= LARGEST.get(format, size):
                every = commands(PEERS[axis], settings.bin, source, out, format, threads)
                check = partial(verify, source, out, format)
                samples = alternate(every, out, settings, check)
                here = {**about, "threads": threads, "format": format}
                yield recorder.add(here, every, samples)
        source.unlink()


def line(record: Record) -> str:
    size, data = format_size(record["virtual_size"]), format_size(record["data"])
    threads = f"{record['threads']} threads" if record["threads"] else ""
    tools = "   ".join(
        f"{name} {median(record, name):.3f} s, {format_size(most(record, name, 'peak_memory'))}"
        for name in record["tools"]
    )
    return f"{record['axis']:8} {size:>8} {data:>8} {threads:9} {record['format']:5}   {tools}"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--axis", choices=AXES, action="append")
    arguments.add_argument("--format", choices=FORMATS, action="append")
    chosen = arguments.parse_args()
    settings = settings_of(chosen)
    recorder = Recorder("scaling", settings)
    with settings.workplace() as folder:
        for axis in chosen.axis or AXES:
            for record in points(
                axis, chosen.format or USUAL_FORMATS, settings, recorder, folder
            ):
                print(line(record), flush=True)


if __name__ == "__main__":
    main()

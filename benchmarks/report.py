"""The tables that README.md shows, made from the records: printed, or put into a file."""

from collections.abc import Iterator, Sequence
from os.path import relpath
from pathlib import Path

from compression import AIMS, CASES, Row, rows
from markdown import put, table
from matrix import CORPORA
from native_table import native_table, read_native
from reading import rows as read_images
from results import Record, best_of_qemu_img, median, most, ratio, read
from settings import parser
from startup import NUMPY
from tools import FORMATS, OURS, QEMU_IMG

from imgconv.units import MiB, format_size

REQUIRED = {  # how many times faster than qemu-img, in the order of FORMATS
    "zeros": (1.3, 1.3, 1.3, 1.3, 1.3),
    "dense": (1.2, 1.3, 1.5, 3.5, 1.8),
    "mixed": (1.1, 1.4, 1.8, 4.0, 4.0),
    "huge": (1.0, 4.0, 2.0, 2.5, 5.0),
}
GOAL = 2.0  # where nothing is required
MOST_MEMORY = 256 * MiB
MOST_EXCESS = 0.02  # of the file on disk over the data, as a share of the data
MOST_STARTUP = 1.5  # times `import numpy`
PLOTS = {
    "matrix.png": "times of every tool for every corpus and format",
    "scaling-qcow2.png": "time and memory against size, data and threads, raw to qcow2",
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--into", type=Path, help="a file with the two comments")
    arguments.add_argument("--plots", type=Path, help="a folder with plots to show, too")
    chosen = arguments.parse_args()
    matrix = read(chosen.results, "matrix", chosen.scale)
    startup = read(chosen.results, "startup", chosen.scale)
    compression = read(chosen.results, "compression", chosen.scale)
    reading = read(chosen.results, "reading", chosen.scale)
    parts = [*sections(matrix, startup), *reading_table(reading), *compressed(compression)]
    parts += native_table(read_native(chosen.results))
    if chosen.plots:
        beside = chosen.into.parent if chosen.into else Path()
        parts += images(chosen.plots, beside)
    if chosen.into:
        put("\n\n".join(parts), chosen.into, "benchmarks")
    else:
        print("\n\n".join(parts))


def sections(matrix: Sequence[Record], startup: Sequence[Record]) -> Iterator[str]:
    """Yield paragraphs and tables, as far as there are records for them."""
    if matrix:
        yield circumstances(matrix)
        yield matrix_table(matrix)
        yield bounds(matrix)
    if startup:
        yield startup_table(startup)


def images(folder: Path, beside: Path) -> list[str]:
    """Link the plots that are there, as seen from the folder of the document."""
    return [
        f"![{text}]({relpath(folder / name, beside)})"
        for name, text in PLOTS.items()
        if (folder / name).exists()
    ]


def circumstances(records: Sequence[Record]) -> str:
    """Say how, on what and with what all of this was measured."""
    newest = records[-1]
    machine = newest["machine"]
    scale = "" if newest["scale"] == 1 else f", corpora at {newest['scale']:g} of their size"
    tools = ", ".join(f"{name} {machine[name]}" for name in ("qemu-img", "nbdcopy", "cp"))
    runs = min(r["runs"] for r in records)
    return (
        f"Whole processes on {machine['cpu']}, {machine['cores']} cores, "
        f"{format_size(round(machine['memory'], -9))} of memory, Linux {machine['kernel']}, "
        f"source and target on {newest['file_system']}{scale}: medians of {runs} runs in "
        f"alternating rounds, {newest['utc'][:10]}. imgconv {machine['imgconv']} at "
        f"{commits(records)}, Python {machine['python']}, numpy {machine['numpy']}; "
        f"{tools}.\n\n"
        f"How many times faster than the better of `{QEMU_IMG[0]} convert` and "
        f"`{QEMU_IMG[1]}`, beside what is aimed at; below, imgconv's and qemu-img's time. "
        "Bold is short of the aim."
    )


def commits(records: Sequence[Record]) -> str:
    """Name what was measured."""
    return ", ".join({r["commit"]: None for r in records if r["commit"]})


def matrix_table(records: Sequence[Record]) -> str:
    """A row for each corpus, a column for each format."""
    cells = {(r["corpus"], r["format"]): r for r in records}
    corpora = [name for name in CORPORA if any(corpus == name for corpus, _ in cells)]
    rows = []
    for corpus in corpora:
        row = [cells.get((corpus, name)) for name in FORMATS]
        rows.append([title(row), *(speed(r) if r else "" for r in row)])
    return table(["", *FORMATS], rows)


def title(row: Sequence[Record | None]) -> str:
    first = next(r for r in row if r)
    data = f"{format_size(first['data'])} of data" if first["data"] else "no data"
    return f"`{first['corpus']}`<br>{format_size(first['virtual_size'])}, {data}"


def speed(record: Record) -> str:
    """Our speed over qemu-img's and the aim, then both medians."""
    required = REQUIRED.get(record["corpus"])
    aim = required[FORMATS.index(record["format"])] if required else GOAL
    found = ratio(record)
    times = f"{median(record, OURS):.2f} s, {best_of_qemu_img(record):.2f} s"
    return f"{judged(f'{found:.2f}x', found >= aim)} / {aim:g}x<br>{times}"


def bounds(records: Sequence[Record]) -> str:
    """Name the cells that come nearest to the bounds of memory and of space on disk."""
    hungriest = max(records, key=lambda r: most(r, OURS, "peak_memory"))
    memory = most(hungriest, OURS, "peak_memory")
    text = (
        f"Peak memory: at most {judged(format_size(memory), memory < MOST_MEMORY)} "
        f"({place(hungriest)}), aim below {format_size(MOST_MEMORY)}. "
    )
    with_data = [r for r in records if r["data"]]
    if not with_data:
        return text
    largest = max(with_data, key=excess)
    share = excess(largest)
    return text + (
        f"Files on disk: at most the data and {judged(f'{share:.1%}', share <= MOST_EXCESS)} "
        f"({place(largest)}; qemu-img {excess(largest, QEMU_IMG[0]):.1%}), "
        f"aim {MOST_EXCESS:.0%}."
    )


def excess(record: Record, tool: str = OURS) -> float:
    """How much more than the data a file takes on disk, as a share of the data."""
    return most(record, tool, "allocated") / record["data"] - 1


def place(record: Record) -> str:
    return f"{record['corpus']} to {record['format']}"


def startup_table(records: Sequence[Record]) -> str:
    """An empty disk to every format, in times of `import numpy`."""
    cells = {r["format"]: r for r in records}
    names = [name for name in FORMATS if name in cells]

    def row(about: str, tool: str) -> list[str]:
        return [about, *(f"{median(cells[name], tool):.3f} s" for name in names)]

    found = [median(cells[name], OURS) / median(cells[name], NUMPY) for name in names]
    ratios = [judged(f"{x:.2f}x", x < MOST_STARTUP) + f" / {MOST_STARTUP:g}x" for x in found]
    return (
        f'An empty 1 TiB disk: the time beside that of `python -c "{NUMPY}"`, smaller is '
        "better.\n\n"
    ) + table(
        ["", *names],
        [
            ["imgconv / numpy", *ratios],
            row("imgconv", OURS),
            row(f"`{NUMPY}`", NUMPY),
            row("`imgconv --version`", "imgconv --version"),
            row("qemu-img", QEMU_IMG[0]),
        ],
    )


def compressed(records: Sequence[Record]) -> Iterator[str]:
    """A row for each tool of each case."""
    if not records:
        return
    names = [case.name for case in CASES]
    records = sorted(records, key=lambda r: names.index(r["case"]))
    usual = records[0]
    yield (
        f"Compressed, {format_size(usual['virtual_size'])} of ext4 with "
        f"{format_size(usual['data'])} of data where nothing else is said, "
        f"{usual['utc'][:10]}, imgconv at {commits(records)}; speed and size are against the "
        "faster of the tools named first below imgconv. Bold is short of the aim."
    )
    found = []
    for record in records:
        about = f"{record['case']}"
        if record["virtual_size"] != usual["virtual_size"]:
            about += f"<br>{format_size(record['virtual_size'])}"
        for row in rows(record):
            found.append([about, *compressed_row(record["case"], row)])
            about = ""
    yield table(["", "", "time", "speed", "size", "larger by", "memory"], found)


def compressed_row(case: str, row: Row) -> list[str]:
    """What a tool took, and made; beside aims where there are some."""
    speed, size = f"{row.speed:.2f}x", f"{row.larger:+.1%}"
    fastest, largest = AIMS.get((case, row.tool.split()[-1]), (None, None))
    if fastest is not None:
        speed = f"{judged(speed, row.speed >= fastest)} / {fastest:g}x"
    if largest is not None:
        size = f"{judged(size, row.larger <= largest)} / {largest:+.0%}"
    seconds = f"{row.seconds:.2f} s"
    return [
        "`{}`".format(row.tool.replace("|", "\\|")),  # or it would end the cell
        seconds,
        speed,
        format_size(row.size),
        size,
        format_size(row.memory),
    ]


def reading_table(records: Sequence[Record]) -> Iterator[str]:
    """A row for each kind of image that is read."""
    found = []
    for case, record in read_images(records):
        faster = ratio(record)
        found.append(
            [
                f"{case.name}, `{case.corpus}`",
                judged(f"{faster:.2f}x", faster >= case.aim) + f" / {case.aim:g}x",
                f"{median(record, OURS):.2f} s",
                f"{best_of_qemu_img(record):.2f} s",
                format_size(most(record, OURS, "peak_memory")),
            ]
        )
    if found:
        newest = records[-1]
        yield (
            "Images written by qemu-img, converted to raw (the last one: mapped), "
            f"{newest['utc'][:10]}, imgconv at {commits(records)}, against the better setting "
            "of qemu-img."
        )
        yield table(["", "speed", "imgconv", "qemu-img", "memory"], found)


def judged(text: str, reached: bool) -> str:
    return text if reached else f"**{text}**"


if __name__ == "__main__":
    main()

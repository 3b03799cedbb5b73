"""Plots of the records: `matrix.png` and, for each format, `scaling-FORMAT.png`."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, no display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from results import Record, most, read
from scaling import AXES
from settings import parser
from startup import NUMPY
from tools import CONVERTERS, FORMATS, TOOLS

from imgconv.units import MiB, format_size

# Colours that remain apart for the colour-blind and in print; a marker for each tool too.
MARKS = {
    "imgconv": ("#0072b2", "o"),
    "qemu-img": ("#e69f00", "s"),
    "qemu-img -m 16 -W": ("#d55e00", "D"),
    "qemu-img -W": ("#d55e00", "D"),
    "nbdcopy": ("#7f7f7f", "^"),
    "cp --sparse=always": ("#b0b0b0", "v"),
}
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#606060",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "savefig.dpi": 160,
}
REFERENCE = {"color": "#606060", "linewidth": 1, "linestyle": (0, (2, 2))}
LIMIT = 256 * MiB
STEP = 0.17  # between the marks of two tools in one row of the matrix
ROOM = 0.4  # above the rows, for a label


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--plots", type=Path, help="where the plots go (default: results)")
    chosen = arguments.parse_args()
    folder = chosen.plots or chosen.results
    matrix, startup, scaling = (
        read(chosen.results, kind, chosen.scale) for kind in ("matrix", "startup", "scaling")
    )
    with plt.rc_context(STYLE):
        if matrix:
            save(draw_matrix(matrix, startup), folder / "matrix.png")
        for name in FORMATS:
            records = [r for r in scaling if r["format"] == name]
            if records:
                save(draw_scaling(name, records), folder / f"scaling-{name}.png")


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    print(path)


def draw_matrix(matrix: Sequence[Record], startup: Sequence[Record]) -> Figure:
    """One panel for each corpus, a row for each format, a mark for each tool."""
    panels = {r["corpus"]: [s for s in matrix if s["corpus"] == r["corpus"]] for r in matrix}
    if startup:
        panels["empty"] = list(startup)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(3.6 * columns, 2.8 * rows + 0.8),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (corpus, records) in zip(grid.flat, panels.items(), strict=False):
        draw_corpus(axes, corpus, records)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    seconds_axis(grid[0, 0], "x", (1, 3))
    grid[-1, columns // 2].set_xlabel("time of the whole process: median, fastest to slowest")
    add_legend(figure, [tool.name for tool in TOOLS])
    return figure


def draw_corpus(axes: Axes, corpus: str, records: Sequence[Record]) -> None:
    by_format = {r["format"]: r for r in records}
    shown = [name for name in FORMATS if name in by_format]
    for row, name in enumerate(shown):
        draw_row(axes, row, by_format[name])
    size = format_size(records[0]["virtual_size"])
    data = records[0].get("data", 0)
    axes.set_title(f"{corpus}: {size}, {format_size(data) if data else 'no'} data", fontsize=10)
    if NUMPY in records[0]["tools"]:
        floor = records[0]["tools"][NUMPY]["seconds"]["median"]
        axes.axvline(floor, **REFERENCE)
        note(axes, NUMPY, (floor, 1), ("data", "axes fraction"), (4, -11))
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.5, -0.5 - ROOM)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def draw_row(axes: Axes, row: int, record: Record) -> None:
    """A mark at the median of each tool, on a line from its fastest to its slowest run."""
    if row % 2 == 0:
        axes.axhspan(row - 0.5, row + 0.5, color="#f6f6f6", zorder=0)
    present = [tool.name for tool in TOOLS if tool.name in record["tools"]]
    for place, tool in enumerate(present):
        y = row + (place - (len(present) - 1) / 2) * STEP
        found = record["tools"][tool]["seconds"]
        colour, marker = MARKS[tool]
        axes.plot([found["min"], found["max"]], [y, y], color=colour, linewidth=1.2)
        axes.plot(found["median"], y, marker, color=colour, markersize=5.5)


def draw_scaling(name: str, records: Sequence[Record]) -> Figure:
    """Time against each axis, and memory against the virtual size."""
    along = {axis: [r for r in records if r["axis"] == axis] for axis in AXES}
    figure, ((time_size, memory_size), (time_data, time_threads)) = plt.subplots(
        2, 2, figsize=(10, 7.6), layout="constrained"
    )
    for axes, axis, coordinate in (
        (time_size, "size", "virtual_size"),
        (time_data, "data", "data"),
        (time_threads, "threads", "threads"),
    ):
        if axes is not time_size:
            axes.sharey(time_size)
        draw_lines(axes, along[axis], coordinate, seconds)
        seconds_axis(axes, "y", (1, 2, 5))
        axes.set_ylabel("time of the whole process")
    draw_lines(memory_size, along["size"], "virtual_size", peak_memory)
    memory_axis(memory_size)
    describe(time_size, "Time against virtual size", "virtual size", along["size"], "data")
    describe(memory_size, "Memory against virtual size", "virtual size", along["size"], "data")
    describe(time_data, "Time against data", "data", along["data"], "virtual_size")
    describe(time_threads, "Time against threads", "threads (-m)", along["threads"], "data")
    figure.suptitle(f"raw to {name}", x=0.01, ha="left", fontsize=13, weight="bold")
    add_legend(figure, [tool.name for tool in CONVERTERS])
    return figure


def seconds(record: Record, tool: str) -> tuple[float, float, float]:
    """First quartile, median and third quartile of the time."""
    found = record["tools"][tool]["seconds"]
    return found["q1"], found["median"], found["q3"]


def peak_memory(record: Record, tool: str) -> tuple[float, float, float]:
    """The peak of all samples; there is no spread worth a band."""
    found = most(record, tool, "peak_memory")
    return found, found, found


def draw_lines(axes: Axes, records: Sequence[Record], coordinate: str, value: object) -> None:
    """A line for each tool through the medians, and a band between the quartiles."""
    tools = {name: None for record in records for name in record["tools"]}
    for tool in reversed(tools):  # ours on top
        colour, marker = MARKS[tool]
        of_tool = [r for r in records if tool in r["tools"]]
        places = [r[coordinate] for r in of_tool]
        low, middle, high = zip(*(value(r, tool) for r in of_tool), strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(places, middle, marker + "-", color=colour, linewidth=1.8, markersize=5)
    places = sorted({r[coordinate] for r in records})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    as_text = str if coordinate == "threads" else format_size
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: as_text(int(place))))


def describe(axes: Axes, title: str, label: str, records: Sequence[Record], kept: str) -> None:
    """Titles; and what did not change, in grey."""
    axes.set_title(title)
    axes.set_xlabel(label)
    if records:
        what = "of data" if kept == "data" else "virtual"
        axes.set_title(
            f"{format_size(records[0][kept])} {what}",
            loc="right",
            color="#808080",
            fontsize=9,
            weight="normal",
        )


def seconds_axis(axes: Axes, direction: str, labelled: Sequence[int]) -> None:
    """A logarithmic axis in seconds, labelled at these multiples of powers of ten."""
    getattr(axes, f"set_{direction}scale")("log")
    axis = getattr(axes, f"{direction}axis")
    axis.set_major_locator(LogLocator(subs=labelled))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))


def memory_axis(axes: Axes) -> None:
    """A logarithmic axis in powers of two bytes, with the limit we keep."""
    axes.set_yscale("log", base=2)
    axes.set_ylim(4 * MiB, 2 * LIMIT)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_size(value)))
    axes.axhline(LIMIT, **REFERENCE)
    limit = f"our limit, {format_size(LIMIT)}"
    note(axes, limit, (0, LIMIT), ("axes fraction", "data"), (6, 3))
    axes.set_ylabel("peak resident memory")


def note(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    units: tuple[str, str],
    away: tuple[int, int],
) -> None:
    """Write beside a line of reference, some points away from a place in these units."""
    axes.annotate(
        text,
        place,
        xycoords=units,
        xytext=away,
        textcoords="offset points",
        fontsize=8,
        color=REFERENCE["color"],
    )


def add_legend(figure: Figure, tools: Sequence[str]) -> None:
    marks = {
        tool: plt.Line2D([], [], color=MARKS[tool][0], marker=MARKS[tool][1], linewidth=1.8)
        for tool in tools
    }
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=len(marks))


if __name__ == "__main__":
    main()

"""What `imgconv export` and `imgconv tasks resume` have in common: showing how it goes."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgconv import terminal
from imgconv.arguments import whole
from imgconv.commands.shown import watching

if TYPE_CHECKING:
    from imgconv.exporting.events import Listener
    from imgconv.exporting.state import TaskState
    from imgconv.progress import Watcher


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told of an export under way."""

    progress: "Watcher | None"
    listener: "Listener"
    on_beat: "Callable[[TaskState], None]"


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add where tasks are remembered."""
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="where tasks are remembered (default: below ~/.local/state/imgconv)",
    )


def add_observing(parser: argparse.ArgumentParser) -> None:
    """Add who is to be told, and how many exports may run."""
    parser.add_argument("--log", metavar="FILE", help="append what happens, as lines of JSON")
    parser.add_argument(
        "--metrics", metavar="FILE", help="keep metrics in FILE, in the format of Prometheus"
    )
    parser.add_argument(
        "--max-exports",
        type=whole,
        metavar="N",
        help="exports at once (8; when one is resumed, as it was)",
    )


@contextmanager
def observing(arguments: argparse.Namespace) -> Iterator[Observers]:
    """Open what the user wants to be told by; say at the end what could not be written."""
    from imgconv.errors import WriteFailed
    from imgconv.exporting.events import EventLog, nobody
    from imgconv.exporting.metrics import write_metrics

    log = EventLog(arguments.log) if arguments.log is not None else None
    failures: dict[str, str] = {}

    def on_beat(state: "TaskState") -> None:
        if arguments.metrics is not None:
            try:
                write_metrics(arguments.metrics, [state])
            except WriteFailed as error:  # no reason for an export to fail
                failures["metrics"] = str(error)

    try:
        with watching(arguments) as watch:
            yield Observers(watch, log or nobody, on_beat)
    finally:
        if log is not None:
            log.close()
            if log.failed is not None:
                failures["log"] = log.failed
        for what, failure in failures.items():
            terminal.say(f"warning: {what}: {failure}")


def show_task(arguments: argparse.Namespace, state: "TaskState") -> None:
    """Show a task: one line for it, and one for each disk."""
    if arguments.json:
        terminal.print_json(record_of(state))
    elif not arguments.quiet:
        for line in task_lines(state):
            terminal.show(line)


def record_of(state: "TaskState") -> dict[str, object]:
    """Return a task as JSON shows it: without the tables of parts, which the manifest has."""
    from dataclasses import asdict

    record = asdict(state)
    for disk in record["disks"]:
        if disk["result"] and disk["result"]["receipt"]:
            disk["result"]["receipt"].pop("parts", None)
            del disk["result"]["receipt"]["part_fields"]
    return record | {"process": state.process, "done": state.done, "total": state.total}


def task_line(state: "TaskState") -> str:
    """Sum up a task in one line."""
    from imgconv.units import format_size

    status: str = state.status
    if not state.status.over and not state.active:
        status += " (interrupted)"
    elif state.cancelling and not state.status.over:
        status += " (cancelling)"
    done = f"{format_size(state.done)} of {format_size(state.total)}"
    line = f"{state.task_id}  {status}  {state.process}  {done}  {state.target}"
    return f"{line}  {state.code}: {state.message}" if state.code else line


def task_lines(state: "TaskState") -> Iterator[str]:
    """Describe a task and its disks."""
    from imgconv.units import format_size

    yield task_line(state)
    for disk in state.disks:
        line = f"  {disk.name}  {disk.status}  {disk.key}  {format_size(disk.total)}"
        if disk.result is not None:
            told = disk.result
            line += f", object {format_size(told['size'])}, {told['checksum']} {told['crc']}"
        elif disk.rate:
            line += f", {format_size(disk.rate)}/s"
        yield line

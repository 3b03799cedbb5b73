"""`imgconv tasks`: looking after exports."""

import argparse
from typing import TYPE_CHECKING

from imgconv import terminal
from imgconv.arguments import add_common, duration
from imgconv.commands.exporting import (
    add_observing,
    add_state,
    observing,
    record_of,
    show_task,
    task_line,
)
from imgconv.errors import UsageError

if TYPE_CHECKING:
    from imgconv.exporting.task import ExportTask

_OF_ALL = ("list", "metrics", "prune")
_OF_ONE = ("show", "cancel", "resume", "remove")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("action", choices=(*_OF_ALL, *_OF_ONE))
    parser.add_argument(
        "task", metavar="TASK", nargs="?", help=f"its id ({', '.join(_OF_ONE)})"
    )
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="AGE",
        help="prune: forget those that have been over for so long: 24h, 30d",
    )
    add_state(parser)
    add_observing(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look at tasks, cancel or resume or forget one; or do something with all of them."""
    if (arguments.task is None) != (arguments.action in _OF_ALL):
        which = "takes no task" if arguments.task else "needs a task; imgconv tasks list"
        raise UsageError(f"tasks {arguments.action} {which}")
    if (arguments.older_than is None) == (arguments.action == "prune"):
        raise UsageError("tasks prune needs --older-than AGE, and nothing else takes it")
    if arguments.action in _OF_ALL:
        return _all(arguments)
    from imgconv.exporting.service import export_task

    task = export_task(arguments.task, state=arguments.state)
    if arguments.action == "remove":
        task.forget()
        return 0
    if arguments.action == "cancel":
        task.cancel()
    elif arguments.action == "resume":
        _resume(arguments, task)
    show_task(arguments, task.state())
    return 0


def _resume(arguments: argparse.Namespace, task: "ExportTask") -> None:
    from imgconv.exporting.request import ExportLimits

    most = arguments.max_exports
    with observing(arguments) as observers:
        task.run(
            progress=observers.progress,
            listener=observers.listener,
            on_beat=observers.on_beat,
            limits=None if most is None else ExportLimits(exports=most),
        )


def _all(arguments: argparse.Namespace) -> int:
    from imgconv.exporting.metrics import metrics_text
    from imgconv.exporting.service import export_tasks, forget_export_tasks

    if arguments.action == "prune":
        count = forget_export_tasks(older_than=arguments.older_than, state=arguments.state)
        if not arguments.quiet:
            terminal.say(f"forgot {count} tasks")
        return 0
    tasks = export_tasks(state=arguments.state)
    if arguments.action == "metrics":
        for line in metrics_text(tasks).splitlines():
            terminal.show(line)
    elif arguments.json:
        terminal.print_json([record_of(task) for task in tasks])
    else:
        for task in tasks:
            terminal.show(task_line(task))
    return 0

"""`imgconv tasks`: looking after exports."""

import argparse

from imgconv import terminal
from imgconv.arguments import add_common
from imgconv.commands.exporting import (
    add_observing,
    add_state,
    observing,
    record_of,
    show_task,
    task_line,
)
from imgconv.errors import UsageError

_OF_ALL = ("list", "metrics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("action", choices=("list", "show", "cancel", "resume", "metrics"))
    parser.add_argument("task", metavar="TASK", nargs="?", help="its id (show, cancel, resume)")
    add_state(parser)
    add_observing(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """List tasks, show one, cancel it or go on with it; or print metrics of all."""
    if (arguments.task is None) != (arguments.action in _OF_ALL):
        which = "takes no task" if arguments.task else "needs a task; imgconv tasks list"
        raise UsageError(f"tasks {arguments.action} {which}")
    if arguments.action in _OF_ALL:
        return _all(arguments)
    from imgconv.exporting.service import export_task

    task = export_task(arguments.task, state=arguments.state)
    if arguments.action == "cancel":
        task.cancel()
    elif arguments.action == "resume":
        from imgconv.exporting.request import ExportLimits

        with observing(arguments) as observers:
            task.run(
                progress=observers.progress,
                listener=observers.listener,
                on_beat=observers.on_beat,
                limits=ExportLimits(exports=arguments.max_exports),
            )
    show_task(arguments, task.state())
    return 0


def _all(arguments: argparse.Namespace) -> int:
    from imgconv.exporting.metrics import metrics_text
    from imgconv.exporting.service import export_tasks

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

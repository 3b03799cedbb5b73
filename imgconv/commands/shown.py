"""What commands have in common in showing how they get on."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from imgconv import terminal

if TYPE_CHECKING:
    from imgconv.progress import Watcher


def watcher(arguments: argparse.Namespace) -> "tuple[Watcher | None, Callable[[], None]]":
    """Return what is told of progress, as far as anybody wants to see it, and what ends it."""
    if arguments.json:
        if arguments.progress:
            return terminal.progress_lines()
    elif arguments.progress or (sys.stderr.isatty() and not arguments.quiet):
        return terminal.progress_bar()
    return None, lambda: None


def warn(arguments: argparse.Namespace, warnings: Sequence[str]) -> None:
    """Say what is odd, unless nobody wants to know."""
    if not arguments.quiet:
        for warning in warnings:
            terminal.say(f"warning: {warning}")

"""What commands have in common in showing how they get on."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imgconv import terminal

if TYPE_CHECKING:
    from imgconv.progress import Watcher


@contextmanager
def watching(arguments: argparse.Namespace) -> "Iterator[Watcher | None]":
    """Have what is told of progress, as far as anybody wants to see it."""
    if arguments.json:
        yield terminal.progress_lines() if arguments.progress else None
    elif arguments.progress or (sys.stderr.isatty() and not arguments.quiet):
        with terminal.progress_bar() as watch:
            yield watch
    else:
        yield None


def warn(arguments: argparse.Namespace, warnings: Sequence[str]) -> None:
    """Say what is odd, unless nobody wants to know."""
    if not arguments.quiet:
        for warning in warnings:
            terminal.say(f"warning: {warning}")

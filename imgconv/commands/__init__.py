"""The commands, a module each, which says what the command takes and runs it.

Only the module of the command that is run is loaded.
"""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from imgconv.errors import UsageError
from imgconv.version import __version__

COMMANDS = {
    "convert": "convert IN to OUT (the default command)",
    "measure": "print the size OUT would have",
    "compare": "say whether two disks have the same content",
    "check": "check the structure of an image",
    "checksum": "print a digest of what a disk holds",
    "info": "say what an image is, from its headers",
    "map": "show which stretches of the disk are where",
    "uploads": "list or abort unfinished uploads",
    "grant": "print a ticket for one upload without credentials",
    "export": "export all disks of an image into a bucket, or none",
    "tasks": "look after exports: list, show, cancel, resume, metrics",
    "verify-export": "hold the objects of an export against its manifest",
}
# Exit codes of failures for which commands have another use, and what stands for these.
INSTEAD = {("compare", 1): 2, ("check", 2): 1}
_EPILOG = """\
Exit codes: 0 done; 1 the input or the output failed (of compare: the disks differ);
2 wrong usage, nothing was done (of check: the image is corrupt; 3: it leaks); 70 a defect
of imgconv; 75 the object store failed for now, trying again later may help; 129 hung up;
130 interrupted (Ctrl-C); 143 terminated (SIGTERM). However it ends, the output is either
whole or not there."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _help_width() -> int:
    """Return how many columns help may take.

    Argparse would ask shutil, which takes milliseconds to import, and not only to show help
    but for every argument that is added.
    """
    try:
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size().columns
    except (OSError, ValueError):
        columns = 0
    return (columns or 80) - 2


def run_command(words: Sequence[str]) -> int:
    """Parse the words, of which the first is a command or an option, and run the command.

    Returns the exit code; raises UsageError and what the command raises.
    """
    arguments = _make_parser(words[0] if words else "").parse_args(words)
    status: int = _module(arguments.command).run(arguments)
    return status


def _module(command: str) -> ModuleType:
    return import_module(f"imgconv.commands.{command.replace('-', '_')}")


def _make_parser(chosen: str) -> argparse.ArgumentParser:
    """Return a parser that knows all commands, and what the chosen one takes."""
    parser = _Parser(
        prog="imgconv",
        description="Convert disk images. The command may be left out: imgconv IN OUT. "
        "For the options see imgconv convert --help.",
        epilog=_EPILOG,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=_help_width()),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"imgconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=about,
            description=about,
            formatter_class=partial(argparse.HelpFormatter, width=_help_width()),
            allow_abbrev=False,
        )
        if name == chosen:
            _module(name).add_arguments(subparser)
    return parser

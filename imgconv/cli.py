"""The command line: arguments to option objects, errors to one line and an exit code.

Exit codes: 0 done; 1 the input or the output failed; 2 wrong usage, nothing was done;
70 a defect of imgconv; 129 hung up; 130 interrupted (Ctrl-C); 143 terminated (SIGTERM).
However it ends, the output is either whole or not there.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from imgconv import terminal
from imgconv.errors import Cancelled, ImgconvError, OutOfResources, UsageError
from imgconv.version import __version__

if TYPE_CHECKING:
    from imgconv.formats.base import Format
    from imgconv.progress import Watcher

COMMANDS = ("convert", "measure")
DEFECT = 70


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(number)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="raw file or block device")
    parser.add_argument("-f", metavar="FORMAT", dest="source_format", help="format of IN")
    parser.add_argument(
        "-O",
        metavar="FORMAT",
        dest="format",
        help="output format: raw, vhd (vpc), qcow2, vmdk, vdi",
    )
    parser.add_argument(
        "-o",
        metavar="KEY=VALUE,...",
        dest="options",
        action="append",
        default=[],
        help="options of the output format; -o help lists them",
    )
    parser.add_argument("-m", "--threads", type=_whole, metavar="N", help="number of workers")
    parser.add_argument("-p", "--progress", action="store_true", help="show progress")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "--json", action="store_true", help="print one report as JSON; with -p, progress too"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="imgconv",
        description="Convert disk images. The command may be left out: imgconv IN OUT. "
        "For the options see imgconv convert --help.",
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"imgconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    convert = commands.add_parser(
        "convert", help="convert IN to OUT (the default command)", allow_abbrev=False
    )
    _common(convert)
    convert.add_argument(
        "target", metavar="OUT", help="file, block device (raw), or - for standard output"
    )
    convert.add_argument("-n", "--dry-run", action="store_true", help="measure, write nothing")
    convert.add_argument("--no-clobber", action="store_true", help="refuse to replace OUT")
    convert.add_argument(
        "--identity",
        metavar="TEXT",
        help="name of the disk, from which all ids in OUT derive "
        "(default: base name, size and modification time of IN)",
    )

    measure = commands.add_parser(
        "measure", help="print the exact size OUT would have", allow_abbrev=False
    )
    _common(measure)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup's choice stands
                signal.signal(number, _terminate)
        return _run(words)
    except ImgconvError as error:
        if debug:
            raise
        return _fail(error, as_json="--json" in words)
    except KeyboardInterrupt:
        return _stopped(signal.SIGINT, "interrupted", words)
    except Terminated as error:
        return _stopped(error.number, "terminated", words)
    except MemoryError:
        return _fail(OutOfResources("out of memory"), as_json="--json" in words)
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        terminal.say(f"internal error: {kind}: {error}; --debug shows where")
        return DEFECT


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


def _stopped(number: int, word: str, words: list[str]) -> int:
    terminal.say(word)
    if "--json" in words:
        terminal.print_json(
            {"error": {"code": Cancelled.code, "message": word}}, to_stderr=True
        )
    return 128 + number


def _fail(error: ImgconvError, *, as_json: bool) -> int:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    terminal.say(f"error: {error}{notes}")
    if as_json:
        record = {"code": error.code, "message": f"{error}{notes}"}
        terminal.print_json({"error": record}, to_stderr=True)
    return error.exit_status


def _run(words: list[str]) -> int:
    if words and words[0] not in COMMANDS and words[0] not in ("-h", "--help", "--version"):
        words.insert(0, "convert")
    if _wants_option_help(words):
        return _option_help(words)
    arguments = make_parser().parse_args(words)
    return _measure(arguments) if arguments.command == "measure" else _convert(arguments)


def _wants_option_help(words: list[str]) -> bool:
    given = [word[2:].lstrip("=") for word in words if word.startswith("-o")]
    given += [after for word, after in pairwise(words) if word == "-o"]
    return any("help" in text.split(",") for text in given)


def _option_help(words: list[str]) -> int:
    """List the options of the format given with -O, or of all formats."""
    from imgconv.formats import format_class, format_names
    from imgconv.formats.options import describe_options

    chosen = [b for a, b in pairwise(words) if a == "-O"]
    for name in chosen or format_names():
        rows = describe_options(format_class(name))
        terminal.show(f"{name}:" if rows else f"{name}: no options")
        for accepts, default, about in rows:
            terminal.show(f"  {accepts}")
            terminal.show(f"      {about}" + (f" (default {default})" if default else ""))
    return 0


def _format(arguments: argparse.Namespace) -> "Format":
    """Make the options object that -O, -o and the output's name ask for."""
    from imgconv.api import format_for
    from imgconv.formats import format_from_text

    target = getattr(arguments, "target", None)
    name = arguments.format
    if name is None:
        if target is None or target == "-":
            raise UsageError("say the output format with -O raw, vhd, qcow2, vmdk or vdi")
        name = format_for(target).name
    return format_from_text(name, ",".join(arguments.options))


def _watcher(arguments: argparse.Namespace) -> "tuple[Watcher | None, terminal.Close]":
    if arguments.json:
        if arguments.progress:
            return terminal.progress_lines()
    elif arguments.progress or (sys.stderr.isatty() and not arguments.quiet):
        return terminal.progress_bar()
    return None, lambda: None


def _measure(arguments: argparse.Namespace) -> int:
    from imgconv.api import measure

    watch, close = _watcher(arguments)
    try:
        measured = measure(
            arguments.source,
            _format(arguments),
            source_format=arguments.source_format,
            threads=arguments.threads,
            progress=watch,
        )
    finally:
        close()
    _warn(arguments, measured.warnings)
    if arguments.json:
        terminal.print_json(asdict(measured))
    else:
        for line in terminal.measurement_lines(measured):
            terminal.show(line)
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from imgconv.api import convert
    from imgconv.outputs import is_stdout

    if arguments.dry_run:
        return _measure(arguments)
    watch, close = _watcher(arguments)
    try:
        report = convert(
            arguments.source,
            arguments.target,
            options=_format(arguments),
            source_format=arguments.source_format,
            identity=arguments.identity,
            threads=arguments.threads,
            clobber=not arguments.no_clobber,
            progress=watch,
        )
    finally:
        close()
    _warn(arguments, report.warnings)
    to_stderr = is_stdout(arguments.target)  # it carries the image
    if arguments.json:
        terminal.print_json(asdict(report), to_stderr=to_stderr)
    elif not arguments.quiet:
        terminal.show(terminal.report_text(report), to_stderr=to_stderr)
    return 0


def _warn(arguments: argparse.Namespace, warnings: Sequence[str]) -> None:
    if not arguments.quiet:
        for warning in warnings:
            terminal.say(f"warning: {warning}")

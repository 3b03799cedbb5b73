"""The arguments of the command line, and the option objects they stand for."""

import argparse
import os
import re
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from imgconv.errors import UsageError
from imgconv.units import parse_size
from imgconv.urls import scheme_of
from imgconv.version import __version__

if TYPE_CHECKING:
    from imgconv.formats.base import Format
    from imgconv.sources.options import ReadOptions
    from imgconv.stores import Store
    from imgconv.upload.options import UploadOptions

COMMANDS = ("convert", "measure", "compare", "checksum", "uploads", "grant")
_UPLOAD = (  # options that are in the namespace only if given
    "part_size",
    "concurrency",
    "patience",
    "rate_limit",
    "resume",
    "journal",
    "zero_copy",
    "content_md5",
    "store_receipt",
)
_READ = ("allow_references", "max_virtual_size", "snapshot")  # as above
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EPILOG = """\
Exit codes: 0 done; 1 the input or the output failed (of compare: the disks differ);
2 wrong usage, nothing was done; 70 a defect of imgconv; 75 the object store failed for
now, trying again later may help; 129 hung up; 130 interrupted (Ctrl-C); 143 terminated
(SIGTERM). However it ends, the output is either whole or not there."""


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


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _duration(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 24h or 7d")
    return int(match[1]) * _SECONDS[match[2] or "s"]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
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
    _convert(_command(commands, "convert", "convert IN to OUT (the default command)"))
    _measure(_command(commands, "measure", "print the size OUT would have"))
    _compare(_command(commands, "compare", "say whether two disks have the same content"))
    _checksum(_command(commands, "checksum", "print a digest of what a disk holds"))
    _uploads(_command(commands, "uploads", "list or abort unfinished uploads"))
    _grant(_command(commands, "grant", "print a ticket for one upload without credentials"))
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]", name: str, about: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=about,
        description=about,
        formatter_class=partial(argparse.HelpFormatter, width=_help_width()),
        allow_abbrev=False,
    )


def _convert(parser: argparse.ArgumentParser) -> None:
    _reading(parser)
    _format_options(parser)
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file, block device (raw), - for standard output, or s3://BUCKET/KEY, "
        "oss://BUCKET/KEY, file:///FOLDER/NAME, ticket:///FOLDER/TICKET",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="measure, write nothing")
    _exact(parser)
    clobber = parser.add_mutually_exclusive_group()
    clobber.add_argument(
        "--no-clobber",
        dest="clobber",
        action="store_const",
        const=False,
        help="refuse to replace OUT (the default for objects)",
    )
    clobber.add_argument(
        "--overwrite",
        dest="clobber",
        action="store_const",
        const=True,
        help="replace OUT if it exists (the default for files)",
    )
    parser.add_argument(
        "--identity",
        metavar="TEXT",
        help="name of the disk, from which all ids in OUT derive "
        "(default: base name, size and modification time of IN)",
    )
    _store(parser.add_argument_group("object stores"))
    _upload(
        parser.add_argument_group(
            "uploads, when OUT is an object", argument_default=argparse.SUPPRESS
        )
    )
    _common(parser)


def _exact(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exact", action="store_true", help="measure: compress all, not only a sample"
    )


def _measure(parser: argparse.ArgumentParser) -> None:
    _reading(parser)
    _format_options(parser)
    _exact(parser)
    _store(parser.add_argument_group("object stores"))
    _common(parser)


def _compare(parser: argparse.ArgumentParser) -> None:
    _reading(parser)
    parser.add_argument("other", metavar="OTHER", help="what to compare IN with")
    parser.add_argument(
        "-s", "--strict", action="store_true", help="sizes must be the same, too"
    )
    _store(parser.add_argument_group("object stores"))
    _common(parser)


def _checksum(parser: argparse.ArgumentParser) -> None:
    _reading(parser)
    _store(parser.add_argument_group("object stores"))
    _common(parser)


def _uploads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "abort"))
    parser.add_argument("prefix", metavar="URL", help="a bucket, or a bucket and a prefix")
    parser.add_argument(
        "--older-than",
        type=_duration,
        metavar="AGE",
        help="only uploads begun that long ago: 90s, 24h, 7d (abort: default 24h)",
    )
    _store(parser.add_argument_group("object stores"))
    _common(parser)


def _grant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the object to make, s3://BUCKET/KEY")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--size",
        type=_size,
        metavar="SIZE",
        help="of the disk: with so many parts as it takes (default: all the store allows)",
    )
    extent.add_argument("--parts", type=_whole, metavar="N", help="how many parts, instead")
    extent.add_argument(
        "--renew", metavar="FILE", help="sign the ticket in FILE anew, for the same upload"
    )
    parser.add_argument(
        "--expires",
        type=_duration,
        metavar="TIME",
        default=86400,
        help="how long the ticket is good for: 90s, 24h, at most 7d (24h)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="let it replace an object that exists"
    )
    _store(parser.add_argument_group("object stores"))
    _common(parser)


def _reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", help="file, block device, or URL (s3, oss, http, https)"
    )
    parser.add_argument("-f", metavar="FORMAT", dest="source_format", help="format of IN")
    group = parser.add_argument_group("reading images", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--snapshot", metavar="NAME", help="read an internal snapshot, by name or id"
    )
    group.add_argument(
        "--allow-references",
        metavar="FILES",
        help="which files that IN names (backing files, extents, parents) may be opened: "
        "none (default), same-folder, or PATH,... of files and folders",
    )
    group.add_argument(
        "--max-virtual-size",
        type=_size,
        metavar="SIZE",
        help="refuse an image of a larger disk (64T)",
    )
    parser.add_argument("-m", "--threads", type=_whole, metavar="N", help="number of workers")


def _format_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-O",
        metavar="FORMAT",
        dest="format",
        help="output format: raw, raw.gz, raw.zst, raw.tar.gz, vhd (vpc), qcow2, vmdk, vdi",
    )
    parser.add_argument(
        "-o",
        metavar="KEY=VALUE,...",
        dest="options",
        action="append",
        default=[],
        help="options of the output format; -o help lists them",
    )
    compress = parser.add_mutually_exclusive_group()
    compress.add_argument(
        "-c",
        action="store_const",
        const="balanced",
        dest="compress",
        help="compress (qcow2, vmdk with -o subformat=streamOptimized); --compress balanced",
    )
    parser.add_argument(
        "--member", metavar="NAME", help="of the disk in a raw.tar.gz (disk.raw)"
    )
    compress.add_argument(
        "--compress",
        metavar="WORD",
        dest="compress",
        help="compress for speed or for size: fast, balanced or small",
    )


def _store(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--endpoint-url", metavar="URL", help="where the store answers")
    group.add_argument("--region", metavar="NAME", help="region of the store")
    group.add_argument(
        "--store",
        metavar="KEY=VALUE,...",
        dest="store_options",
        action="append",
        default=[],
        help="more options of the store; --store help lists them",
    )


def _upload(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--part-size",
        type=_size,
        metavar="SIZE",
        help="of each part (default: 16M, or more where the store has too few parts)",
    )
    group.add_argument("--concurrency", type=_whole, metavar="N", help="requests at once (4)")
    group.add_argument(
        "--patience",
        type=_duration,
        metavar="TIME",
        help="how long a request is repeated while the store fails (5m)",
    )
    group.add_argument(
        "--rate-limit", type=_size, metavar="SIZE", help="bytes a second to send at most"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with an unfinished upload; if this one fails, keep what was sent",
    )
    group.add_argument(
        "--journal",
        metavar="FILE",
        help="where to remember what was sent (default: below ~/.local/state/imgconv)",
    )
    group.add_argument(
        "--zero-copy",
        choices=("auto", "on", "off"),
        help="let the store copy parts that are all zeros (auto: if no checksum is lost)",
    )
    group.add_argument("--content-md5", action="store_true", help="send an MD5 with each part")
    group.add_argument(
        "--receipt", metavar="FILE", default=None, help="write all about the object as JSON"
    )
    group.add_argument(
        "--store-receipt", action="store_true", help="store that as OUT.receipt.json, too"
    )


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--progress", action="store_true", help="show progress")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "--json", action="store_true", help="print one report as JSON; with -p, progress too"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def format_of(arguments: argparse.Namespace) -> "Format":
    """Make the options object that -O, -o and the output's name ask for."""
    from imgconv.api import format_for
    from imgconv.formats import format_from_text, format_names

    target = getattr(arguments, "target", None)
    name = arguments.format
    if name is None:
        if target is None or target == "-":
            raise UsageError(f"say the output format with -O: {', '.join(format_names())}")
        name = format_for(target).name
    texts = list(arguments.options)
    if arguments.compress is not None:
        texts.append(f"compress={arguments.compress}")
    if arguments.member is not None:
        texts.append(f"member={arguments.member}")
    return format_from_text(name, ",".join(texts))


def store_of(arguments: argparse.Namespace, *locations: str) -> "Store | None":
    """Make the store options for the one URL among the locations; None without a URL."""
    texts = list(arguments.store_options)
    for name in ("endpoint_url", "region"):
        if (value := getattr(arguments, name)) is not None:
            texts.append(f"{name}={value}")
    found = {scheme for location in locations if (scheme := scheme_of(location))}
    schemes = found - {"http", "https"}
    if len(schemes) == 1:
        from imgconv.stores import store_from_text

        return store_from_text(schemes.pop(), ",".join(texts))
    if texts:
        raise UsageError("options of a store need exactly one kind of store among the names")
    return None


def read_of(arguments: argparse.Namespace) -> "ReadOptions | None":
    """Make the options of reading; None when none are given."""
    given = {name: vars(arguments)[name] for name in _READ if name in arguments}
    if not given:
        return None
    from imgconv.sources.options import ReadOptions

    return ReadOptions(**given)


def upload_of(arguments: argparse.Namespace) -> "UploadOptions | None":
    """Make the upload options; None when none are given."""
    given = {name: vars(arguments)[name] for name in _UPLOAD if name in arguments}
    if not given:
        return None
    from imgconv.upload.options import UploadOptions
    from imgconv.upload.retry import Backoff

    if "patience" in given:
        given["backoff"] = Backoff(patience=given.pop("patience"))
    return UploadOptions(**given)

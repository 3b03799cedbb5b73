"""The arguments that commands share, and the option objects they stand for."""

import argparse
import re
from typing import TYPE_CHECKING

from imgconv.errors import UsageError
from imgconv.units import parse_size
from imgconv.urls import scheme_of

if TYPE_CHECKING:
    from imgconv.formats.base import Format
    from imgconv.sources.options import ReadOptions
    from imgconv.stores import Store
    from imgconv.upload.options import UploadOptions

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


def whole(text: str) -> int:
    """Take a whole number."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def size(text: str) -> int:
    """Take a size such as 16M, in bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def duration(text: str) -> int:
    """Take a duration such as 90s, 24h or 7d, in seconds."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 24h or 7d")
    return int(match[1]) * _SECONDS[match[2] or "s"]


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add IN and its format."""
    parser.add_argument(
        "source", metavar="IN", help="file, block device, or URL (s3, oss, http, https)"
    )
    add_source_format(parser)


def add_source_format(parser: argparse.ArgumentParser) -> None:
    """Add the format of what is read."""
    parser.add_argument("-f", metavar="FORMAT", dest="source_format", help="format of IN")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add IN, how to read it, and by how many."""
    add_source(parser)
    add_image_options(parser)
    add_threads(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the number of workers."""
    parser.add_argument("-m", "--threads", type=whole, metavar="N", help="number of workers")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add what to believe of images, and which files they may need."""
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
        type=size,
        metavar="SIZE",
        help="refuse an image of a larger disk (64T)",
    )


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Add the output format and its options."""
    parser.add_argument(
        "-O",
        metavar="FORMAT",
        dest="format",
        help="output format: raw, raw.gz, raw.zst, raw.tar.gz, vhd (vpc), qcow2, vmdk, vdi, "
        "vhdx",
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


def add_exact(parser: argparse.ArgumentParser) -> None:
    """Add --exact."""
    parser.add_argument(
        "--exact", action="store_true", help="measure: compress all, not only a sample"
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add how to reach the object store of a URL."""
    group = parser.add_argument_group("object stores")
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


def add_upload(parser: argparse.ArgumentParser) -> None:
    """Add how to send an object."""
    group = parser.add_argument_group(
        "uploads, when OUT is an object", argument_default=argparse.SUPPRESS
    )
    group.add_argument(
        "--part-size",
        type=size,
        metavar="SIZE",
        help="of each part (default: 16M, or more where the store has too few parts)",
    )
    group.add_argument("--concurrency", type=whole, metavar="N", help="requests at once (4)")
    group.add_argument(
        "--patience",
        type=duration,
        metavar="TIME",
        help="how long a request is repeated while the store fails (5m)",
    )
    group.add_argument(
        "--rate-limit", type=size, metavar="SIZE", help="bytes a second to send at most"
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


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every command has."""
    parser.add_argument("-p", "--progress", action="store_true", help="show progress")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "--json", action="store_true", help="print one report as JSON; with -p, progress too"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def format_of(arguments: argparse.Namespace) -> "Format":
    """Make the options object that -O, -o and the output's name ask for."""
    from imgconv.conversion import format_for
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


def output_of(text: str) -> "tuple[str, Format]":
    """Take [FORMAT[,KEY=VALUE,...]:]OUT to pieces: OUT, and the options object.

    Without a FORMAT that imgconv knows, all of it is OUT, whose name tells the format.
    """
    from imgconv.conversion import format_for
    from imgconv.formats import format_from_text, format_names
    from imgconv.names import canonical

    described, colon, target = text.partition(":")
    name, _, options = described.partition(",")
    if not colon or canonical(name) not in format_names() or target.startswith("//"):
        return text, format_for(text)
    return target, format_from_text(name, options)


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

"""`imgconv convert`, the command that need not be named."""

import argparse
from typing import TYPE_CHECKING, Any

from imgconv import terminal
from imgconv.arguments import (
    add_common,
    add_exact,
    add_format_options,
    add_reading,
    add_store,
    add_upload,
    format_of,
    output_of,
    read_of,
    store_of,
    upload_of,
)
from imgconv.commands import measure
from imgconv.commands.shown import warn, watching
from imgconv.errors import UsageError, WriteFailed

if TYPE_CHECKING:
    from imgconv.progress import Watcher
    from imgconv.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_reading(parser)
    add_format_options(parser)
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file, block device (raw), - for standard output, or s3://BUCKET/KEY, "
        "oss://BUCKET/KEY, file:///FOLDER/NAME, ticket:///FOLDER/TICKET",
    )
    parser.add_argument(
        "--also",
        action="append",
        metavar="[FORMAT[,KEY=VALUE...]:]OUT",
        default=[],
        help="another output, made in the same pass over IN; may be given again. All are "
        "there in the end, or none",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="measure, write nothing")
    add_exact(parser)
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
    parser.add_argument(
        "--verify", action="store_true", help="read OUT back and compare it with IN"
    )
    add_store(parser)
    add_upload(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert IN to OUT, reading it while the rest of the program is loaded."""
    from imgconv.readahead import reading

    if arguments.also:
        _refuse_for_several(arguments)
    with reading(arguments.source):
        return measure.run(arguments) if arguments.dry_run else _convert(arguments)


def _convert(arguments: argparse.Namespace) -> int:
    from imgconv.outputs import is_stdout

    with watching(arguments) as watch:
        several = bool(arguments.also)
        reports = _many(arguments, watch) if several else (_one(arguments, watch),)
    warn(arguments, list(dict.fromkeys(w for report in reports for w in report.warnings)))
    if arguments.receipt is not None:
        _write_receipt(arguments.receipt, reports[0])
    to_stderr = any(is_stdout(report.output) for report in reports)  # it carries the image
    if arguments.json:
        shown = [_brief(report) for report in reports]
        terminal.print_json(shown if several else shown[0], to_stderr=to_stderr)
    elif not arguments.quiet:
        for report in reports:
            terminal.show(terminal.report_text(report), to_stderr=to_stderr)
    return 0


def _one(arguments: argparse.Namespace, watch: "Watcher | None") -> "Report":
    from imgconv import api

    return api.convert(
        arguments.source,
        arguments.target,
        options=format_of(arguments),
        source_format=arguments.source_format,
        read=read_of(arguments),
        identity=arguments.identity,
        threads=arguments.threads,
        clobber=arguments.clobber,
        store=store_of(arguments, arguments.source, arguments.target),
        upload=upload_of(arguments),
        verify=arguments.verify,
        progress=watch,
    )


def _many(arguments: argparse.Namespace, watch: "Watcher | None") -> "tuple[Report, ...]":
    from imgconv.fanout import Output, fan_out

    targets = [(arguments.target, format_of(arguments))]
    targets += [output_of(text) for text in arguments.also]
    names = [target for target, _ in targets]
    store, upload = store_of(arguments, arguments.source, *names), upload_of(arguments)
    return fan_out(
        arguments.source,
        [Output(name, kind, arguments.clobber, store, upload) for name, kind in targets],
        source_format=arguments.source_format,
        read=read_of(arguments),
        identity=arguments.identity,
        threads=arguments.threads,
        store=store,
        verify=arguments.verify,
        progress=watch,
    )


def _refuse_for_several(arguments: argparse.Namespace) -> None:
    """Refuse what is about one output."""
    given = {
        "-n": arguments.dry_run,
        "--receipt": arguments.receipt is not None,
        "--journal": "journal" in arguments,
    }
    for option in (option for option, is_given in given.items() if is_given):
        raise UsageError(f"{option} is for one output, and --also makes several")


def _brief(report: "Report") -> dict[str, Any]:
    """Leave the table of parts to the receipt: it may have ten thousand rows."""
    from dataclasses import asdict

    shown = asdict(report)
    if shown["upload"] is not None:
        shown["upload"]["parts"] = len(shown["upload"]["parts"])
    return shown


def _write_receipt(path: str, report: "Report") -> None:
    import json
    from dataclasses import asdict

    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(asdict(report), file, indent=1)
            file.write("\n")
    except OSError as error:
        reason = f"{error.strerror}; the export itself succeeded"
        raise WriteFailed(path, reason) from error

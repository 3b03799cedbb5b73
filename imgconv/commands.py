"""The commands: each takes parsed arguments, calls the library and shows what came of it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from imgconv import terminal
from imgconv.arguments import format_of, read_of, store_of, upload_of
from imgconv.errors import WriteFailed

if TYPE_CHECKING:
    from imgconv.progress import Watcher
    from imgconv.report import Report

DIFFERENT = 1  # what qemu-img compare says, too


def convert(arguments: argparse.Namespace) -> int:
    """Convert IN to OUT, reading it while the rest of the program is loaded."""
    from imgconv.readahead import reading

    with reading(arguments.source):
        return measure(arguments) if arguments.dry_run else _convert(arguments)


def _convert(arguments: argparse.Namespace) -> int:
    from imgconv import api
    from imgconv.outputs import is_stdout

    watch, close = _watcher(arguments)
    try:
        report = api.convert(
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
            progress=watch,
        )
    finally:
        close()
    _warn(arguments, report.warnings)
    if arguments.receipt is not None:
        _write_receipt(arguments.receipt, report)
    to_stderr = is_stdout(arguments.target)  # it carries the image
    if arguments.json:
        terminal.print_json(_brief(report), to_stderr=to_stderr)
    elif not arguments.quiet:
        terminal.show(terminal.report_text(report), to_stderr=to_stderr)
    return 0


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


def measure(arguments: argparse.Namespace) -> int:
    """Print the size OUT would have."""
    from imgconv import api

    watch, close = _watcher(arguments)
    try:
        measured = api.measure(
            arguments.source,
            format_of(arguments),
            exact=arguments.exact,
            source_format=arguments.source_format,
            read=read_of(arguments),
            threads=arguments.threads,
            store=store_of(arguments, arguments.source),
            progress=watch,
        )
    finally:
        close()
    _warn(arguments, measured.warnings)
    if arguments.json:
        terminal.print_json(measured)
    else:
        for line in terminal.measurement_lines(measured):
            terminal.show(line)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Say whether two disks have the same content."""
    from imgconv import api

    watch, close = _watcher(arguments)
    try:
        found = api.compare(
            arguments.source,
            arguments.other,
            strict=arguments.strict,
            source_format=arguments.source_format,
            read=read_of(arguments),
            threads=arguments.threads,
            store=store_of(arguments, arguments.source, arguments.other),
            progress=watch,
        )
    finally:
        close()
    if arguments.json:
        terminal.print_json(found)
    elif not arguments.quiet:
        terminal.show(terminal.comparison_text(found))
    return 0 if found.identical else DIFFERENT


def checksum(arguments: argparse.Namespace) -> int:
    """Print a digest of what a disk holds."""
    from imgconv import api

    watch, close = _watcher(arguments)
    try:
        found = api.checksum(
            arguments.source,
            source_format=arguments.source_format,
            read=read_of(arguments),
            threads=arguments.threads,
            store=store_of(arguments, arguments.source),
            progress=watch,
        )
    finally:
        close()
    if arguments.json:
        terminal.print_json(found)
    else:
        terminal.show(f"{found.algorithm}:{found.digest}  {arguments.source}")
    return 0


def uploads(arguments: argparse.Namespace) -> int:
    """List or abort unfinished uploads."""
    from imgconv.uploads import DAY, abort_uploads, unfinished_uploads

    store = store_of(arguments, arguments.prefix)
    if arguments.action == "list":
        age = arguments.older_than or 0
        found = unfinished_uploads(arguments.prefix, store=store, older_than=age)
    else:
        age = DAY if arguments.older_than is None else arguments.older_than
        found = abort_uploads(arguments.prefix, store=store, older_than=age)
    if arguments.json:
        terminal.print_json(found)
    else:
        for upload in found:
            terminal.show(terminal.upload_line(upload))
        if arguments.action == "abort" and not arguments.quiet:
            terminal.say(f"aborted {len(found)} of the unfinished uploads")
    return 0


def grant(arguments: argparse.Namespace) -> int:
    """Print a ticket for one upload."""
    from imgconv.stores.s3_ticket import issue_ticket, renew_ticket
    from imgconv.stores.ticket_file import read_ticket

    store = store_of(arguments, arguments.url)
    if arguments.renew is not None:
        old = read_ticket(arguments.renew)
        ticket = renew_ticket(arguments.url, old.text(), expires=arguments.expires, store=store)
    else:
        ticket = issue_ticket(
            arguments.url,
            parts=arguments.parts,
            size=arguments.size,
            expires=arguments.expires,
            store=store,
            exclusive=not arguments.overwrite,
        )
    terminal.show(ticket)
    return 0


def wants_option_help(words: list[str]) -> bool:
    """Say whether -o or --store asks for help."""
    return _asks_help("-o", words) or _asks_help("--store", words)


def _asks_help(option: str, words: list[str]) -> bool:
    given = [w.removeprefix(option).lstrip("=") for w in words if w.startswith(option)]
    given += [after for word, after in pairwise(words) if word == option]
    return any("help" in text.split(",") for text in given)


def option_help(words: list[str]) -> int:
    """List the options of the format given with -O, or of all, or those of the stores."""
    from imgconv.formats import format_class, format_names
    from imgconv.stores import TABLE, store_class

    if _asks_help("--store", words):
        for name in TABLE:
            _describe(name, store_class(name))
        return 0
    chosen = [b for a, b in pairwise(words) if a == "-O"]
    for name in chosen or format_names():
        _describe(name, format_class(name))
    return 0


def _describe(name: str, kind: type[object]) -> None:
    from imgconv.options import describe_options

    rows = describe_options(kind)
    terminal.show(f"{name}:" if rows else f"{name}: no options")
    for accepts, default, about in rows:
        terminal.show(f"  {accepts}")
        terminal.show(f"      {about}" + (f" (default {default})" if default else ""))


def _watcher(arguments: argparse.Namespace) -> "tuple[Watcher | None, Callable[[], None]]":
    if arguments.json:
        if arguments.progress:
            return terminal.progress_lines()
    elif arguments.progress or (sys.stderr.isatty() and not arguments.quiet):
        return terminal.progress_bar()
    return None, lambda: None


def _warn(arguments: argparse.Namespace, warnings: Sequence[str]) -> None:
    if not arguments.quiet:
        for warning in warnings:
            terminal.say(f"warning: {warning}")

"""`imgconv check`: is the structure of an image sound?"""

import argparse
from typing import TYPE_CHECKING

from imgconv import terminal
from imgconv.arguments import add_common, add_reading, add_store, read_of, store_of, whole
from imgconv.commands.shown import watching

if TYPE_CHECKING:
    from imgconv.checks.report import CheckReport

_SAID = {
    "corruptions": "{} errors were found on the image.\n"
    "Data may be corrupted, or further writes to the image may corrupt it.",
    "leaks": "{} leaked clusters were found on the image.\n"
    "This means waste of disk space, but no harm to data.",
    "check_errors": "{} internal errors have occurred during the check.",
    "warnings": "{} warnings.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_reading(parser)
    parser.add_argument(
        "--no-data",
        dest="data",
        action="store_false",
        help="check tables only, do not decode what is compressed",
    )
    parser.add_argument(
        "--limit",
        type=whole,
        metavar="N",
        default=20,
        help="findings of each rule to show (20); all are counted",
    )
    add_store(parser)
    add_common(parser)
    parser.epilog = (
        "Exit codes, as of qemu-img check: 0 sound; 1 the check could not be completed; "
        "2 corrupt; 3 leaks only; 63 the format has nothing to check."
    )


def run(arguments: argparse.Namespace) -> int:
    """Check an image and show what was found."""
    from imgconv import questions

    with watching(arguments) as watch:
        report = questions.check(
            arguments.source,
            data=arguments.data,
            limit=arguments.limit,
            source_format=arguments.source_format,
            read=read_of(arguments),
            threads=arguments.threads,
            store=store_of(arguments, arguments.source),
            progress=watch,
        )
    if arguments.json:
        terminal.print_json(report.as_json())
    elif not arguments.quiet:
        for line in _lines(report):
            terminal.show(line)
    return report.exit_status


def _lines(report: "CheckReport") -> list[str]:
    """Describe every finding, sum up in the words of qemu-img, and tell what is in use."""
    lines = [
        f"{found.severity} {found.rule} at offset {found.offset}: {found.text}"
        for found in report.findings
    ]
    lines += [f"... and {count} more of {rule}" for rule, count in report.omitted.items()]
    counts = {name: getattr(report, name) for name in _SAID}
    if not any(counts[name] for name in ("corruptions", "leaks", "check_errors")):
        lines.append("No errors were found on the image.")
    for name, text in _SAID.items():
        if counts[name]:
            lines += text.format(counts[name]).split("\n")
    return lines + _usage_lines(report)


def _usage_lines(report: "CheckReport") -> list[str]:
    lines, usage = list[str](), report.usage
    if usage.total_clusters and usage.allocated_clusters is not None:
        total, allocated = usage.total_clusters, usage.allocated_clusters
        share = f"{allocated}/{total} = {allocated * 100 / total:.2f}% allocated"
        parts = (
            (usage.fragmented_clusters, "fragmented"),
            (usage.compressed_clusters, "compressed"),
        )
        for count, word in parts:
            if count is not None and allocated:
                share += f", {count * 100 / allocated:.2f}% {word}"
        lines.append(share + " clusters")
    if usage.image_end_offset is not None:
        lines.append(f"Image end offset: {usage.image_end_offset}")
    return lines

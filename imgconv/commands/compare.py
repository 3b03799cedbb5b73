"""`imgconv compare`: do two disks hold the same?"""

import argparse

from imgconv import terminal
from imgconv.arguments import (
    add_common,
    add_reading,
    add_store,
    read_of,
    store_of,
)
from imgconv.commands.shown import watching

DIFFERENT = 1  # what qemu-img compare says, too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_reading(parser)
    parser.add_argument("other", metavar="OTHER", help="what to compare IN with")
    parser.add_argument("-F", metavar="FORMAT", dest="other_format", help="format of OTHER")
    parser.add_argument(
        "-s", "--strict", action="store_true", help="sizes must be the same, too"
    )
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Say whether two disks have the same content."""
    from imgconv import questions

    with watching(arguments) as watch:
        found = questions.compare(
            arguments.source,
            arguments.other,
            strict=arguments.strict,
            source_format=arguments.source_format,
            other_format=arguments.other_format,
            read=read_of(arguments),
            threads=arguments.threads,
            store=store_of(arguments, arguments.source, arguments.other),
            progress=watch,
        )
    if arguments.json:
        terminal.print_json(found)
    elif not arguments.quiet:
        terminal.show(terminal.comparison_text(found))
    return 0 if found.identical else DIFFERENT

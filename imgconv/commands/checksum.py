"""`imgconv checksum`: a digest of what a disk holds."""

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_reading(parser)
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a digest of what a disk holds."""
    from imgconv import questions

    with watching(arguments) as watch:
        found = questions.checksum(
            arguments.source,
            source_format=arguments.source_format,
            read=read_of(arguments),
            threads=arguments.threads,
            store=store_of(arguments, arguments.source),
            progress=watch,
        )
    if arguments.json:
        terminal.print_json(found)
    else:
        terminal.show(f"{found.algorithm}:{found.digest}  {arguments.source}")
    return 0

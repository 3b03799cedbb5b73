"""`imgconv measure`: how large an output would be."""

import argparse

from imgconv import terminal
from imgconv.arguments import (
    add_common,
    add_exact,
    add_format_options,
    add_reading,
    add_store,
    format_of,
    read_of,
    store_of,
)
from imgconv.commands.shown import warn, watching


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_reading(parser)
    add_format_options(parser)
    add_exact(parser)
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the size OUT would have."""
    from imgconv import api

    with watching(arguments) as watch:
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
    warn(arguments, measured.warnings)
    if arguments.json:
        terminal.print_json(measured)
    else:
        for line in terminal.measurement_lines(measured):
            terminal.show(line)
    return 0

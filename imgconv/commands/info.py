"""`imgconv info`: what is this image?"""

import argparse

from imgconv import terminal
from imgconv.arguments import add_common, add_source, add_store, store_of
from imgconv.commands.shown import warn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_source(parser)
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what the image's headers say; what it names is not opened."""
    from imgconv import questions
    from imgconv.commands.info_text import info_lines

    found = questions.info(
        arguments.source,
        source_format=arguments.source_format,
        store=store_of(arguments, arguments.source),
    )
    if arguments.json:
        terminal.print_json(found)
        return 0
    warn(arguments, found.warnings)
    for line in info_lines(found):
        terminal.show(line)
    return 0

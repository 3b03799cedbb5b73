"""`imgconv map`: what of the disk is where?"""

import argparse

from imgconv import terminal
from imgconv.arguments import (
    add_common,
    add_image_options,
    add_source,
    add_store,
    read_of,
    size,
    store_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_source(parser)
    parser.add_argument(
        "-s",
        "--start-offset",
        type=size,
        metavar="OFFSET",
        default=0,
        help="begin there in the disk (0)",
    )
    parser.add_argument(
        "-l",
        "--max-length",
        type=size,
        metavar="SIZE",
        help="of so much of the disk (default: to its end)",
    )
    add_image_options(parser)
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the map of a disk, from metadata alone."""
    from imgconv import questions
    from imgconv.commands.map_text import json_text, table_text

    with questions.open_disk(
        arguments.source,
        source_format=arguments.source_format,
        read=read_of(arguments),
        store=store_of(arguments, arguments.source),
    ) as disk:
        found = disk.map(arguments.start_offset, arguments.max_length)
        for text in json_text(found) if arguments.json else table_text(found):
            if not terminal.write(text):
                break
    return 0

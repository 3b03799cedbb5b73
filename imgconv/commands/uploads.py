"""`imgconv uploads`: what interrupted exports have left in a store."""

import argparse

from imgconv import terminal
from imgconv.arguments import (
    add_common,
    add_store,
    duration,
    store_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("action", choices=("list", "abort"))
    parser.add_argument("prefix", metavar="URL", help="a bucket, or a bucket and a prefix")
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="AGE",
        help="only uploads begun that long ago: 90s, 24h, 7d (abort: default 24h)",
    )
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
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

"""`imgconv grant`: a ticket, with which somebody without credentials may upload."""

import argparse

from imgconv import terminal
from imgconv.arguments import (
    add_common,
    add_store,
    duration,
    size,
    store_of,
    whole,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("url", metavar="URL", help="the object to make, s3://BUCKET/KEY")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--size",
        type=size,
        metavar="SIZE",
        help="of the disk: with so many parts as it takes (default: all the store allows)",
    )
    extent.add_argument("--parts", type=whole, metavar="N", help="how many parts, instead")
    extent.add_argument(
        "--renew", metavar="FILE", help="sign the ticket in FILE anew, for the same upload"
    )
    parser.add_argument(
        "--expires",
        type=duration,
        metavar="TIME",
        default=86400,
        help="how long the ticket is good for: 90s, 24h, at most 7d (24h)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="let it replace an object that exists"
    )
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
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

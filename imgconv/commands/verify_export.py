"""`imgconv verify-export`: are the objects of an export there, and what was sent?"""

import argparse

from imgconv import terminal
from imgconv.arguments import add_common, add_store, store_of, whole

DIFFERENT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("manifest", metavar="URL", help="of the manifest")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compare what the store says of the objects, do not read them",
    )
    parser.add_argument(
        "--concurrency", type=whole, metavar="N", default=4, help="requests at once (4)"
    )
    add_store(parser)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify every object that the manifest names."""
    from imgconv.exporting.verification import verify_export

    found = verify_export(
        arguments.manifest,
        store=store_of(arguments, arguments.manifest),
        quick=arguments.quick,
        concurrency=arguments.concurrency,
    )
    if arguments.json:
        terminal.print_json(found)
    elif not arguments.quiet:
        for one in found.objects:
            verdict = (
                one.problem or f"{one.checksum} {one.crc} {'read' if one.read else 'told'}"
            )
            terminal.show(f"{'BAD ' if one.problem else 'good'}  {one.url}: {verdict}")
    return 0 if found.good else DIFFERENT

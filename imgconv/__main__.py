"""`python -m imgconv`, and the `imgconv` command."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C while it is still being loaded is no traceback either."""
    try:
        from imgconv import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

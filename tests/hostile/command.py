"""The command, watched.

`python -m hostile.command FD ARGUMENTS` runs `imgconv ARGUMENTS` within the bounds of the
worker and writes the paths of all files it opens to a descriptor.
"""

import os
import runpy
import sys
from typing import Any

from hostile.worker import bounded, opened_path


def main() -> None:
    wire = int(sys.argv.pop(1))

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if path := opened_path(event, arguments):
            os.write(wire, os.fsencode(path) + b"\0")

    sys.addaudithook(hear)
    bounded()
    runpy.run_module("imgconv", run_name="__main__")


if __name__ == "__main__":
    main()

"""Reads images as the command would, in a process of its own that is watched and bounded.

    python -m hostile.worker FOLDER

converts each file named on standard input to FOLDER/out.raw, and answers with a line of JSON:
what was raised, which files were opened, what was left behind.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import imgconv
from imgconv import ReadOptions
from imgconv.errors import ImgconvError
from imgconv.units import GiB

ROOM = 2 * GiB  # of addresses; what is in use at once is asserted by the test
SECONDS = 60  # of processor time for all images of a process: a guard against loops


class Watch:
    """Notes which files the process opens, while it is told to."""

    def __init__(self) -> None:
        self.opened: list[str] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self.opened is not None and isinstance(arguments[0], str):
            self.opened.append(arguments[0])


def bounded() -> None:
    """Let what loops or grows without end be killed by the system."""
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def main(folder: Path) -> None:
    bounded()
    watch, out = Watch(), folder / "out.raw"
    for line in sys.stdin:
        order = json.loads(line)
        before = set(os.listdir(folder)), descriptors()
        watch.opened = []
        answer = convert(order, out)
        answer["opened"], watch.opened = watch.opened, None
        answer["left"] = sorted(set(os.listdir(folder)) - before[0])
        answer["leaked"] = descriptors() - before[1]
        out.unlink(missing_ok=True)
        print(json.dumps(answer), flush=True)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def convert(order: dict[str, str], out: Path) -> dict[str, Any]:
    read = ReadOptions(allow_references=order["allowed"], snapshot=order.get("snapshot"))
    declared = order["format"] or None
    try:
        imgconv.convert(order["image"], out, source_format=declared, read=read, threads=1)
    except ImgconvError as error:
        return {"code": error.code, "message": str(error), "status": error.exit_status}
    except BaseException as error:
        return {"code": f"DEFECT {type(error).__name__}", "message": str(error), "status": 70}
    return {"code": "read", "message": "", "status": 0}


if __name__ == "__main__":
    main(Path(sys.argv[1]))

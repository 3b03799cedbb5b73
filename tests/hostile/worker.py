"""Reads images as the command would, in a process of its own that is watched and bounded.

    python -m hostile.worker FOLDER

converts each file named on standard input to FOLDER/out.raw, and answers with a line of JSON:
what was raised, which files were opened, what was left behind, how many seconds of processor
time it took and how much memory the process has had so far. The time counts from the start of
a process that has the file alone: what was spent up to the end of the first is added to all.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import imgconv
from imgconv import ReadOptions
from imgconv.errors import ImgconvError
from imgconv.sources.options import MAX_VIRTUAL_SIZE
from imgconv.units import GiB

ROOM = 2 * GiB  # of addresses; what is in use at once is asserted by the test
SECONDS = 60  # of processor time for all images of a process: a guard against loops


class Watch:
    """Notes which files the process opens, while it is told to."""

    def __init__(self) -> None:
        self.opened: list[str] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.opened is not None and (path := opened_path(event, arguments)):
            self.opened.append(path)


def opened_path(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return what an event says was opened; relative if a descriptor says where that is.

    Descriptors with O_PATH do not count: nothing can be read from them; nor do new files.
    """
    if event != "open" or not isinstance(arguments[0], str):
        return None
    path, _, flags = arguments
    new = flags & os.O_TMPFILE == os.O_TMPFILE
    return None if new or flags & os.O_PATH else path


def bounded() -> None:
    """Let what loops or grows without end be killed by the system."""
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def main(folder: Path) -> None:
    bounded()
    watch, out, loading = Watch(), folder / "out.raw", 0.0
    for line in sys.stdin:
        order = json.loads(line)
        before = set(os.listdir(folder)), descriptors()
        watch.opened, begun = [], time.process_time()
        answer = convert(order, out)
        now = time.process_time()
        answer["opened"], watch.opened = watch.opened, None
        answer["seconds"] = now - begun + (loading or begun)
        loading = loading or now
        answer["memory"] = peak_memory()
        answer["left"] = sorted(set(os.listdir(folder)) - before[0])
        answer["leaked"] = descriptors() - before[1]
        out.unlink(missing_ok=True)
        print(json.dumps(answer), flush=True)


def peak_memory() -> int:
    """Bytes of this program at its largest, not of the process that it was made from."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def convert(order: dict[str, Any], out: Path) -> dict[str, Any]:
    read = ReadOptions(
        allow_references=order["allowed"],
        snapshot=order.get("snapshot"),
        max_virtual_size=order.get("size") or MAX_VIRTUAL_SIZE,
    )
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

"""Keep inputs as seeds: those that lead to lines where no seed leads, the smallest first.

python -m fuzz.keep TARGET FOLDER
"""

import hashlib
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import imgconv
from fuzz.targets import KEPT, TARGETS, run_one

MOST = 24 << 10  # bytes of all that are kept of a target
SOURCES = str(Path(imgconv.__file__).parent / "sources")


def steps(target: Any, content: bytes) -> set[tuple[str, int, int]]:
    """Run a target; return which lines of the readers followed which."""
    found, last = set[tuple[str, int, int]](), dict[FrameType, int]()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        if event == "line":
            place = frame.f_code.co_filename, last.get(frame, 0), frame.f_lineno
            found.add(place)
            last[frame] = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        run_one(target, content)
    finally:
        sys.settrace(None)
    return found


def main() -> None:
    target, folder = TARGETS[sys.argv[1]], Path(sys.argv[2])
    known = set[tuple[str, int, int]]().union(*(steps(target, one) for one in target.seeds()))
    out = KEPT / target.name
    room = MOST - sum(path.stat().st_size for path in out.glob("*"))
    for path in sorted(folder.glob("*"), key=lambda path: (path.stat().st_size, path.name)):
        content = path.read_bytes()
        if len(content) <= room and (new := steps(target, content) - known):
            out.mkdir(parents=True, exist_ok=True)
            (out / hashlib.sha1(content).hexdigest()[:12]).write_bytes(content)
            known, room = known | new, room - len(content)
            print(f"{path.name}: {len(content)} bytes, {len(new)} steps")


if __name__ == "__main__":
    main()

"""Running commands as whole processes, and saying on what machine."""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stopwatch import processor_seconds

STOPWATCH = Path(__file__).with_name("stopwatch.py")
OTHERS = ("qemu-img", "nbdcopy", "cp")
BUSY = 0.1  # the share of the processors that others may take without being mentioned


@dataclass(frozen=True)
class Usage:
    """What commands that ran one after the other took.

    `peak_memory` is that of the largest, in bytes; `written` counts the bytes they gave to
    system calls; `others_cpu_seconds` is what other processes took meanwhile.
    """

    seconds: float
    cpu_seconds: float
    others_cpu_seconds: float
    peak_memory: int
    written: int


def run(*commands: Sequence[str]) -> Usage:
    """Run the commands in turn; a failure ends the benchmark."""
    usages = [_run(command) for command in commands]
    return Usage(
        sum(u.seconds for u in usages),
        sum(u.cpu_seconds for u in usages),
        sum(u.others_cpu_seconds for u in usages),
        max(u.peak_memory for u in usages),
        sum(u.written for u in usages),
    )


def _run(command: Sequence[str]) -> Usage:
    stopwatch = [sys.executable, "-I", "-S", str(STOPWATCH), *command]
    done = subprocess.run(stopwatch, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"failed: {shlex.join(command)}")
    return Usage(**json.loads(done.stdout))


def others_share(samples: Sequence[Usage]) -> float:
    """Which part of all processors others took while these were running, from 0 to 1."""
    available = len(os.sched_getaffinity(0)) * sum(s.seconds for s in samples)
    return sum(s.others_cpu_seconds for s in samples) / available


def warn_if_busy(seconds: float = 0.5) -> None:
    """Do nothing for a while, and say so if the processors do something."""
    busy = processor_seconds()
    time.sleep(seconds)
    share = (processor_seconds() - busy) / seconds / len(os.sched_getaffinity(0))
    if share > BUSY:
        print(f"warning: others take {share:.0%} of this machine; figures will be off")


ABOUT_PYTHON = """
import json, platform, numpy
from imgconv.kernels import kernel
from imgconv.version import __version__
versions = {"imgconv": f"{__version__} ({kernel()})", "python": platform.python_version()}
print(json.dumps(versions | {"numpy": numpy.__version__}))
"""


def machine(bin: Path = Path(sys.executable).parent) -> dict[str, str | int]:
    """Describe the machine, and the versions of all tools, of which imgconv is in `bin`.

    The cores are those we may use; the memory is in bytes.
    """
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        **json.loads(_output(str(bin / "python"), "-c", ABOUT_PYTHON)),
        **{tool: _version(tool) for tool in OTHERS if shutil.which(tool)},
    }


def file_system(folder: Path) -> str:
    """Name the type of the file system a folder is on, such as tmpfs."""
    return _output("stat", "--file-system", "--format=%T", str(folder)).strip()


def commit() -> str:
    """Name the commit of this tree, with a mark if it was changed; nothing outside git."""
    command = ["git", "-C", str(STOPWATCH.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    # not every architecture tells
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(tool: str) -> str:
    found = re.search(r"\d+(\.\d+)+", _output(tool, "--version"))
    return found[0] if found else "unknown"


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

"""Running commands as whole processes, and saying on what machine."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from imgconv.kernels import kernel
from imgconv.version import __version__


@dataclass(frozen=True)
class Usage:
    """What commands that ran one after the other took: seconds, and bytes of the largest."""

    seconds: float
    cpu_seconds: float
    peak_memory: int


def run(*commands: Sequence[str]) -> Usage:
    """Run the commands in turn; a failure ends the benchmark."""
    began, cpu, peak = time.perf_counter(), 0.0, 0
    for command in commands:
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss * 1024)
    return Usage(time.perf_counter() - began, cpu, peak)


def machine() -> dict[str, str]:
    version = subprocess.run(
        ["qemu-img", "--version"], capture_output=True, text=True, check=True
    )
    return {
        "cpu": platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "imgconv": f"{__version__} ({kernel()})",
        "qemu-img": version.stdout.split()[2],
    }

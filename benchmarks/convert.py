"""Whole-process times of imgconv beside qemu-img; see README.md in this folder."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import corpora

from imgconv.native import kernel
from imgconv.version import __version__

FORMATS = ("raw", "qcow2", "vhd", "vmdk", "vdi")
QEMU_NAMES = {"vhd": "vpc"}


@dataclass
class Sample:
    """One run of one command: seconds and bytes."""

    seconds: float
    cpu_seconds: float
    peak_memory: int
    size: int
    allocated: int


def commands(source: Path, out: Path, name: str) -> dict[str, list[str]]:
    known = QEMU_NAMES.get(name, name)
    qemu = ["qemu-img", "convert", "-f", "raw", "-O", known]
    best = ["-m", "16", "-W"]
    return {
        "imgconv": [sys.executable, "-m", "imgconv", str(source), str(out), "-O", name, "-q"],
        "qemu-img": [*qemu, str(source), str(out)],
        "qemu-img -m 16 -W": [*qemu, *best, str(source), str(out)],
    }


def run(command: list[str], out: Path) -> Sample:
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    found = out.stat()
    out.unlink()
    cpu = usage.ru_utime + usage.ru_stime
    return Sample(seconds, cpu, usage.ru_maxrss * 1024, found.st_size, found.st_blocks * 512)


def measure(source: Path, name: str, runs: int) -> dict[str, list[Sample]]:
    """Alternate the tools; one round that is not counted comes first."""
    out = source.with_name("out")
    tools = commands(source, out, name)
    samples: dict[str, list[Sample]] = {tool: [] for tool in tools}
    for counted in range(-1, runs):
        for tool, command in tools.items():
            sample = run(command, out)
            if counted >= 0:
                samples[tool].append(sample)
    return samples


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--corpus", choices=corpora.CORPORA, action="append")
    parser.add_argument("--format", choices=FORMATS, action="append")
    parser.add_argument("--folder", default="/dev/shm", help="where the corpora go")
    arguments = parser.parse_args()
    results = Path(__file__).parent / "results" / "convert.jsonl"
    results.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in arguments.corpus or corpora.CORPORA:
            source = Path(folder) / f"{name}.raw"
            corpora.make(name, source, arguments.scale)
            for target in arguments.format or FORMATS:
                samples = measure(source, target, arguments.runs)
                medians = {
                    t: statistics.median(s.seconds for s in x) for t, x in samples.items()
                }
                best = min(v for t, v in medians.items() if t != "imgconv")
                shown = "  ".join(f"{t} {v:.3f} s" for t, v in medians.items())
                print(
                    f"{name:6} {target:6} {best / medians['imgconv']:5.2f}x  {shown}",
                    flush=True,
                )
                record = {
                    "corpus": name,
                    "scale": arguments.scale,
                    "format": target,
                    **machine(),
                }
                record["samples"] = {t: [asdict(s) for s in x] for t, x in samples.items()}
                with open(results, "a") as file:
                    file.write(json.dumps(record) + "\n")
            source.unlink()


if __name__ == "__main__":
    main()

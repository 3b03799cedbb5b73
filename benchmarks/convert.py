"""Whole-process times of imgconv beside qemu-img; see README.md in this folder."""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import corpora
from processes import Usage, machine, run

FORMATS = ("raw", "qcow2", "vhd", "vmdk", "vdi")
QEMU_NAMES = {"vhd": "vpc"}


@dataclass(frozen=True)
class Sample:
    """One run of one command: what it took, and the bytes of what it made."""

    usage: Usage
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


def sample_of(command: list[str], out: Path) -> Sample:
    usage = run(command)
    found = out.stat()
    out.unlink()
    return Sample(usage, found.st_size, found.st_blocks * 512)


def measure(source: Path, name: str, runs: int) -> dict[str, list[Sample]]:
    """Alternate the tools; one round that is not counted comes first."""
    out = source.with_name("out")
    tools = commands(source, out, name)
    samples: dict[str, list[Sample]] = {tool: [] for tool in tools}
    for counted in range(-1, runs):
        for tool, command in tools.items():
            sample = sample_of(command, out)
            if counted >= 0:
                samples[tool].append(sample)
    return samples


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
                    t: statistics.median(s.usage.seconds for s in x) for t, x in samples.items()
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

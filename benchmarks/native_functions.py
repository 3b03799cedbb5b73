"""Speed of the native functions beside the best libraries and a loop that only loads.

    python benchmarks/native_functions.py [--size 4M ...] [--rounds 9]

Needs `pip install -e '.[bench]'`. All contenders for one function read one buffer in one
process, turn by turn; the figure is the median of the rounds, in processor time, so that
other processes count only for the memory they read. Every call is made from Python and
pays for the crossing, the load loop too. IMGCONV_KERNEL chooses the kernel.
"""

import argparse
import importlib.util
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anycrc
import awscrt.checksums
import crc32c
import crcmod
import google_crc32c
import numpy as np
from cffi import FFI
from isal import isal_zlib
from native_table import LOADS
from processes import machine
from tools import OURS

from imgconv import native
from imgconv.units import KiB, MiB, format_size, parse_size

SIZES = (4 * KiB, 64 * KiB, 4 * MiB, 256 * MiB)
SAMPLE = 32 * MiB  # a sample repeats its call until it has read about so much
HERE = Path(__file__).parent

Contenders = dict[str, Callable[[bytes], Any]]


def load_loops() -> Contenders:
    """The loops of `load_loop.c` that this processor runs, compiled now."""
    ffi = FFI()
    ffi.cdef("int load_loop(int width, const uint8_t *p, size_t n);")
    ffi.set_source("load_loop", (HERE / "load_loop.c").read_text(), extra_compile_args=["-O3"])
    with tempfile.TemporaryDirectory() as folder:
        spec = importlib.util.spec_from_file_location("load_loop", ffi.compile(folder))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    loop = module.lib.load_loop

    def of_width(width: int) -> Callable[[bytes], Any]:
        return lambda buffer: loop(width, module.ffi.from_buffer(buffer), len(buffer))

    return {f"{LOADS} {w}": of_width(w) for w in (128, 256, 512) if of_width(w)(bytes(512))}


def zero_contenders(size: int) -> Contenders:
    zeros = zero_buffer(size)
    return {
        OURS: native.is_zero,
        "numpy any": lambda b: not np.frombuffer(b, dtype=np.uint64).any(),
        "bytes ==": lambda b: b == zeros,
    }


def runs_contenders(granule: int) -> Contenders:
    def by_numpy(buffer: bytes) -> bool:
        granules = np.frombuffer(buffer, dtype=np.uint64).reshape(-1, granule // 8)
        return not granules.any(axis=1).any()

    return {OURS: lambda b: len(native.data_runs(b, granule)) == 0, "numpy any": by_numpy}


def checksum_contenders() -> dict[str, Contenders]:
    """Libraries by checksum, each with the name of its package."""
    return {
        "CRC-32C": {
            OURS: native.CRC32C.update,
            "awscrt": awscrt.checksums.crc32c,
            "google-crc32c": lambda b: google_crc32c.extend(0, b),
            "crc32c": crc32c.crc32c,
            "anycrc": anycrc.Model("CRC32-ISCSI").calc,
        },
        "CRC-64/XZ": {
            OURS: native.CRC64_XZ.update,
            "anycrc": anycrc.Model("CRC64-XZ").calc,
            "crcmod": crcmod.mkCrcFun(0x142F0E1EBA9EA3693, 0, True, (1 << 64) - 1),
        },
        "CRC-64/NVME": {
            OURS: native.CRC64_NVME.update,
            "awscrt": awscrt.checksums.crc64nvme,
            "anycrc": anycrc.Model("CRC64-NVME").calc,
        },
    }


# Not the same value, and so not in the ratios: isal offers the CRC-32 of gzip alone.
UNCOUNTED: Contenders = {"(isal CRC-32)": isal_zlib.crc32}


def zero_buffer(size: int) -> bytes:
    """Zeros that were written; bytes(size) would map the system's one zero page many times."""
    return b"\0" * size


def random_buffer(size: int) -> bytes:
    block = random.Random(7).randbytes(min(size, MiB))
    return block * (size // len(block))


@dataclass(frozen=True)
class Cell:
    """One function at one size: samples in bytes per second."""

    function: str
    size: int
    samples: dict[str, list[float]]

    def speed(self, contender: str) -> float:
        return statistics.median(self.samples[contender])

    def best(self, accepted: Callable[[str], bool]) -> str:
        return max(filter(accepted, self.samples), key=self.speed)

    def row(self) -> str:
        loads = self.best(lambda name: name.startswith(LOADS))
        library = self.best(
            lambda name: not name.startswith(LOADS) and name not in (OURS, *UNCOUNTED)
        )
        ours = self.speed(OURS)
        others = "  ".join(f"{n} {self.speed(n) / 1e9:.1f}" for n in self.samples if n != OURS)
        return (
            f"{self.function:18} {format_size(self.size):>7} {ours / 1e9:8.1f}"
            f" {ours / self.speed(library):7.2f} {library:13}"
            f" {ours / self.speed(loads):6.2f}   {others}"
        )


def measure(contenders: Contenders, buffer: bytes, rounds: int) -> dict[str, list[float]]:
    """Let all take turns, after a first call of each, which shows that they agree."""
    repeats = max(1, SAMPLE // len(buffer))
    results = {
        n: call(buffer)
        for n, call in contenders.items()
        if n not in UNCOUNTED and not n.startswith(LOADS)
    }
    assert len(set(results.values())) == 1, f"not the same function: {results}"
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            began = time.thread_time()
            for _ in range(repeats):
                call(buffer)
            samples[name].append(repeats * len(buffer) / (time.thread_time() - began))
    return samples


def cells(sizes: list[int], rounds: int) -> Iterator[Cell]:
    loops = load_loops()
    for size in sizes:
        zeros, content = zero_buffer(size), random_buffer(size)
        yield Cell("is_zero", size, measure(zero_contenders(size) | loops, zeros, rounds))
        for granule in (4 * KiB, 64 * KiB):
            if granule <= size:
                found = measure(runs_contenders(granule) | loops, zeros, rounds)
                yield Cell(f"data_runs {format_size(granule)}", size, found)
        for function, contenders in checksum_contenders().items():
            extra = UNCOUNTED if function == "CRC-32C" else {}
            yield Cell(function, size, measure(contenders | extra | loops, content, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=parse_size, action="append", help="of the buffer")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    facts = machine()
    results = HERE / "results" / "native_functions.jsonl"
    results.parent.mkdir(exist_ok=True)
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{'':18} {'':>7} {'GB/s':>8} {'x best':>7} {'library':13} {'x load':>6}   others")
    with open(results, "a") as file:
        for cell in cells(arguments.size or list(SIZES), arguments.rounds):
            print(cell.row(), flush=True)
            record = {"function": cell.function, "size": cell.size, **facts}
            file.write(json.dumps(record | {"samples": cell.samples}) + "\n")


if __name__ == "__main__":
    main()

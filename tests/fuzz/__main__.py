"""Fuzz the reader of a format, guided by coverage: `make fuzz FORMAT=qcow2 TIME=600`.

    python -m fuzz FORMAT SECONDS [RUNS]

What it finds is left in `build/fuzz/`; once mended it belongs into `crashers/`.
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["imgconv"]):
    from fuzz.targets import CRASHERS, TARGETS, run_one
    from imgconv.sources import TABLE

    for place in TABLE.values():  # which would be loaded later, without instruments
        import_module(place.partition(":")[0])


def main() -> None:
    target, seconds, runs = TARGETS[sys.argv[1]], sys.argv[2], [*sys.argv[3:], "-1"][0]
    found = Path("build/fuzz") / target.format
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds()):
            (Path(folder) / str(number)).write_bytes(seed)
        words = [f"-max_total_time={seconds}", f"-runs={runs}", "-max_len=70000", "-timeout=10"]
        words += ["-rss_limit_mb=1024", "-print_final_stats=1", f"-artifact_prefix={found}/"]
        known = [str(p) for p in (CRASHERS / target.format,) if p.exists()]
        atheris.Setup(
            ["fuzz", *words, folder, *known], lambda content: run_one(target, content)
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()

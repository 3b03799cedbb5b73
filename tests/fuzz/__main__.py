"""Fuzz a reader, guided by coverage: `make fuzz FORMAT=qcow2 TIME=600`.

    python -m fuzz TARGET SECONDS [RUNS]

In rounds of a minute, as instrumented code leaks some MiB a second. What it finds is left in
`build/fuzz/TARGET/`; once mended it belongs into `seeds/TARGET/`. The inputs that led to new
places are left in `build/corpus/TARGET/`, of which `keep.py` takes what is worth it.
"""

import subprocess
import sys
from pathlib import Path

from fuzz.targets import TARGETS

ROUND = 60  # seconds


def main() -> int:
    target, seconds, runs = TARGETS[sys.argv[1]], int(sys.argv[2]), [*sys.argv[3:], "-1"][0]
    corpus = Path("build/corpus") / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    while seconds > 0:
        limits = [str(min(seconds, ROUND)), runs]
        words = [sys.executable, "-m", "fuzz.guided", target.name, *limits, str(corpus)]
        if status := subprocess.run(words, check=False).returncode:
            return status
        seconds -= seconds if len(sys.argv) > 3 else ROUND
    return 0


if __name__ == "__main__":
    sys.exit(main())

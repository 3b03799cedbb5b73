"""Fuzz the reader of a format, guided by coverage: `make fuzz FORMAT=qcow2 TIME=600`.

    python -m fuzz FORMAT SECONDS [RUNS]

In rounds of a minute, as instrumented code leaks some MiB a second. What it finds is left in
`build/fuzz/`; once mended it belongs into `crashers/`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.targets import TARGETS

ROUND = 60  # seconds


def main() -> int:
    target, seconds, runs = TARGETS[sys.argv[1]], int(sys.argv[2]), [*sys.argv[3:], "-1"][0]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        while seconds > 0:
            limits = [str(min(seconds, ROUND)), runs]
            words = [sys.executable, "-m", "fuzz.guided", target.format, *limits, corpus]
            if status := subprocess.run(words, check=False).returncode:
                return status
            seconds -= seconds if len(sys.argv) > 3 else ROUND
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A bounded run of every fuzzer: the same images each time, and some guided by coverage."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import KEPT, TARGETS

RUNS = 1000
GUIDED = 600
ROOT = Path(__file__).parent.parent.parent

HARMLESS = """
import random, sys
from fuzz.targets import TARGETS, damaged, run_one
target, rng = TARGETS[sys.argv[1]], random.Random(sys.argv[1])
seeds = target.seeds()
for content in seeds:
    run_one(target, content)
for _ in range(int(sys.argv[2])):
    run_one(target, damaged(rng.choice(seeds), rng))
print("done")
"""


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT}:{ROOT / 'tests'}"
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_images_are_read_or_refused(tmp_path: Path, name: str) -> None:
    done = python("-c", HARMLESS, name, str(RUNS), cwd=tmp_path)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("name", TARGETS)
def test_guided_by_coverage(tmp_path: Path, name: str) -> None:
    done = python("-m", "fuzz", name, "60", str(GUIDED), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    executed = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert executed is not None
    assert int(executed[1]) >= GUIDED  # it ends what it is at, so there may be some more
    assert not [*tmp_path.glob("build/fuzz/*/*")]


def test_the_kept_seeds_are_few_and_of_targets() -> None:
    paths = [path for path in KEPT.rglob("*") if path.is_file()]
    assert {path.parent.name for path in paths} == set(TARGETS)
    assert sum(path.stat().st_size for path in paths) < 200 << 10


def test_a_finding_is_found(tmp_path: Path) -> None:
    """That the tests above can fail: what a reader raises that is no error of ours gets out."""
    wrong = (
        "import fuzz.targets as f; "
        "f.run_one(f.Target(name='none', format='none', made=list), b'x')"
    )
    done = python("-c", wrong, cwd=tmp_path)
    assert "KeyError" in done.stderr

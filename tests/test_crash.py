"""kill -9, Ctrl-C and SIGTERM at random moments: all or nothing, and no litter."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import disks
from support.cli import COMMAND
from support.peers import assert_same_guest

from imgconv.units import MiB

ROUNDS = 6


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.dense(tmp_path_factory.mktemp("raw") / "disk.raw", 384 * MiB)


def duration(raw: Path, out: Path) -> float:
    began = time.monotonic()
    subprocess.run([*COMMAND, raw, out, "-q"], check=True)
    took = time.monotonic() - began
    out.unlink()
    return took


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["qcow2", "vmdk"])
def test_a_signal_at_any_moment(tmp_path: Path, raw: Path, name: str, number: int) -> None:
    rng, out = random.Random(number), tmp_path / f"o.{name}"
    whole = duration(raw, out)
    finished = 0
    for _ in range(ROUNDS):
        process = subprocess.Popen([*COMMAND, raw, out, "-q"], stderr=subprocess.PIPE)
        time.sleep(rng.uniform(0, whole))
        process.send_signal(number)
        _, message = process.communicate(timeout=60)
        # Before our main runs, Ctrl-C is the interpreter's to report.
        assert not re.search(rb'imgconv/__main__\.py", line \d+, in main\b', message)
        left = [p.name for p in tmp_path.iterdir()]
        assert left in ([], [out.name])
        if out.name in left:
            finished += 1
            assert_same_guest(raw, out, name)
            out.unlink()
        elif b"Traceback" not in message:
            assert process.returncode in (-number, 128 + number)
    assert finished < ROUNDS, "not one signal came in time"
    subprocess.run([*COMMAND, raw, out, "-q"], check=True)
    assert_same_guest(raw, out, name)

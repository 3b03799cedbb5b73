"""The command line as a real process."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "imgconv"]


def imgconv(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def assert_one_line_error(
    done: subprocess.CompletedProcess[str], *words: str, status: int = 1
) -> None:
    """The command failed with one line that names the problem, and no traceback."""
    assert done.returncode == status, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("imgconv: error: "), done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""

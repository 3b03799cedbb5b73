"""Loop devices and mounted file systems; both need root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def loop_device(path: Path, *options: str) -> Iterator[str]:
    done = subprocess.run(
        ["losetup", "--find", "--show", *options, path],
        check=True,
        capture_output=True,
        text=True,
    )
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def mounted(folder: Path, *command: str | Path) -> Iterator[Path]:
    """Mount onto a new folder with a command that takes it as its last argument."""
    folder.mkdir()
    subprocess.run([*command, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)

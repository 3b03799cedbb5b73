"""Images that qemu-img makes, and what else it is asked."""

from __future__ import annotations

import subprocess
from pathlib import Path


def qemu(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> int:
    command = ["qemu-img", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in codes, done.stderr
    return done.returncode


def qemu_qcow2(folder: Path, options: str, data: bytes) -> Path:
    raw, image = folder / "raw", folder / "qcow2"
    raw.write_bytes(data)
    qemu("convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, image)
    return image


def complete_last_cluster(image: Path, cluster_size: int) -> None:
    """qemu leaves the end of the last cluster out of the file; the strict rule does not."""
    length = image.stat().st_size
    with image.open("r+b") as file:
        file.truncate(-(-length // cluster_size) * cluster_size)

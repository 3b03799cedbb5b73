"""A 1 TiB disk with 0.5 GiB of data converts within 256 MiB, and measure knew the size."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import disks
from support.cli import COMMAND
from support.seaweed import BUCKET, running_seaweed

from imgconv.units import GiB, KiB, MiB, TiB


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("huge") / "disk.raw"
    yield disks.islands(path, TiB, 8192, 64 * KiB)
    path.unlink()


# A child is charged with the memory of whoever starts it until it becomes another program,
# so a small process in between starts the command and reports the command's peak.
BETWEEN = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(done.returncode)
"""


def run(*arguments: str | Path, **environment: str) -> tuple[bytes, int]:
    """Run the command; return what it printed and its peak memory in bytes."""
    command = [sys.executable, "-c", BETWEEN, *COMMAND, *arguments]
    surroundings = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, check=True, env=surroundings)
    return done.stdout, int(done.stderr) * 1024


@pytest.mark.parametrize("name", ["raw", "vhd", "qcow2", "vmdk", "vdi", "vhdx"])
def test_a_terabyte(tmp_path: Path, raw: Path, name: str) -> None:
    out = tmp_path / f"o.{name}"
    measured, peak_of_measure = run("measure", raw, "-O", name, "--json")
    _, peak = run(raw, out, "-q")
    assert json.loads(measured)["size"] == out.stat().st_size
    assert peak < 256 * MiB
    assert peak_of_measure < 256 * MiB
    # Each island needs at least a page of some table of its own, two with vmdk.
    assert out.stat().st_blocks * 512 < 680 * MiB
    out.unlink()


@pytest.mark.parametrize("name", ["raw.gz", "raw.zst", "raw.tar.gz", "qcow2", "vmdk"])
def test_a_terabyte_compressed(tmp_path: Path, raw: Path, name: str) -> None:
    """Its zeros, too, where they are not left out: a GiB of them in gzip."""
    out = tmp_path / f"o.{name}"
    options = ["-o", "subformat=streamOptimized"] if name == "vmdk" else ["--compress", "fast"]
    estimated, peak_of_measure = run("measure", raw, "-O", name, *options, "--json")
    _, peak = run(raw, out, "-q", "-O", name, *options)
    assert peak < 256 * MiB
    assert peak_of_measure < 256 * MiB
    found = json.loads(estimated)
    assert abs(found["size"] - out.stat().st_size) <= 2 * found["error"] + 20 * MiB
    out.unlink()


@pytest.mark.parametrize("name", ["raw.zst", "raw.tar.gz"])
def test_a_packed_disk_of_64_gib(tmp_path: Path, name: str) -> None:
    """Islands far apart, and much data in a row."""
    raw = disks.islands(tmp_path / "disk.raw", 64 * GiB, 2000)
    with open(raw, "r+b") as file:
        file.seek(3 * GiB)
        for _ in range(256):
            file.write(os.urandom(MiB))
    packed, out = tmp_path / f"d.{name}", tmp_path / "o.qcow2"
    run(raw, packed, "-q", "--compress", "fast")
    _, peak = run(packed, out, "-q")
    assert peak < 256 * MiB
    run("compare", raw, out)


@pytest.mark.parametrize("name", ["qcow2", "vmdk", "vdi"])
def test_a_terabyte_to_a_store(raw: Path, tmp_path: Path, name: str) -> None:
    """A large share of them waits for the store, which is slower than the disk."""
    url = f"s3://{BUCKET}/memory.{name}"
    with running_seaweed(tmp_path / "seaweed") as seaweed:  # its objects end with it
        options = ["--endpoint-url", seaweed.endpoint_url, "-q"]
        _, peak = run(raw, url, *options, **seaweed.environment)
    assert peak < 256 * MiB


def test_a_terabyte_into_several_at_once(tmp_path: Path) -> None:
    """Two uploads, a file, and one that compresses, in one pass."""
    raw = disks.islands(tmp_path / "disk.raw", TiB, 1500, 64 * KiB)
    also = [w for name in ("b.vdi", "c.vhd") for w in ("--also", f"file://{tmp_path}/{name}")]
    also += ["--also", f"qcow2,compress=fast:{tmp_path}/d.qcow2"]
    _, peak = run(raw, tmp_path / "a.vmdk", *also, "-q")
    assert peak < 256 * MiB
    for path in tmp_path.iterdir():
        path.unlink()


def test_a_terabyte_to_a_pipe(raw: Path) -> None:
    """The plan driver."""
    printed, peak = run(raw, "-", "-O", "qcow2", "-q")
    assert peak < 256 * MiB
    assert len(printed) == json.loads(run("measure", raw, "-O", "qcow2", "--json")[0])["size"]

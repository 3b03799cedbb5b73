"""Fixtures that every test may use, and the rule about missing peers."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import disks
from support.seaweed import WEED, Seaweed, running_seaweed

from imgconv.units import GiB

ROOM = 6 * GiB  # that the tests need at their largest, with some to spare
PEERS = ("qemu-img", "qemu-io", "mkfs.ext4", "fuse2fs", "sfdisk", "losetup", "mount", "nbdcopy")


def pytest_configure(config: pytest.Config) -> None:
    """A missing peer would make the suite prove less than it says, so it is an error."""
    missing = [name for name in PEERS if shutil.which(name) is None]
    missing += [] if WEED.exists() else ["weed"]
    if missing:
        raise pytest.UsageError(f"missing: {', '.join(missing)}; make test installs them")
    # Ignored where a shell put us into the background; what we run would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # workers follow the process that started them
        _find_room()


def _find_room() -> None:
    """Work in memory where the disk is nearly full; hundreds of tests would fail otherwise."""
    folders = [tempfile.gettempdir(), "/dev/shm"]
    free = {folder: shutil.disk_usage(folder).free for folder in folders}
    roomy = [folder for folder in folders if free[folder] >= ROOM]
    if not roomy:
        raise pytest.UsageError(f"the tests need {ROOM} bytes of disk; there are {free}")
    tempfile.tempdir = os.environ["TMPDIR"] = roomy[0]


@pytest.fixture
def root() -> None:
    """For what only root may do (mounts, loop devices); CI has to be root."""
    if os.geteuid() != 0:
        if os.environ.get("IMGCONV_REQUIRE_ALL"):
            pytest.fail("this test needs root, and CI may not skip")
        pytest.skip("needs root")


@pytest.fixture
def roomy() -> Iterator[Path]:
    """A folder whose file system takes files of any size (ext4 ends below 16 TiB)."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def file_system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT disk with a real ext4 file system full of real files."""
    return disks.file_system(tmp_path_factory.mktemp("fs") / "disk.raw")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server; one per test process, so tests choose keys of their own."""
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server

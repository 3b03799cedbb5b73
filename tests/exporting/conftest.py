"""Images to export, and where to: a real S3 server, a loopback OSS server, a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import disks
from support.exporting import Place, oss_place, planned, s3_place
from support.oss_client import set_environment
from support.oss_server import OssServer
from support.seaweed import Seaweed

from imgconv.exporting.plan import Plan
from imgconv.units import KiB, MiB


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A system disk and four data disks, all different."""
    folder = tmp_path_factory.mktemp("image")
    found = {"system": disks.random_runs(folder / "system.raw", 12 * MiB)}
    found["data:xvdb"] = disks.holes(folder / "b.raw", 6 * MiB)
    found["data:xvdc"] = disks.dense(folder / "c.raw", 3 * MiB)
    found["data:xvdd"] = disks.empty(folder / "d.raw", 5 * MiB)
    found["data:/dev/xvde"] = disks.last_byte(folder / "e.raw", 2 * MiB)
    return found


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A system disk of eight parts for OSS and a data disk of twelve, all data."""
    folder = tmp_path_factory.mktemp("pair")
    return {
        "system": disks.dense(folder / "system.raw", 800 * KiB),
        "data:xvdb": disks.random_runs(folder / "b.raw", 1200 * KiB),
    }


@pytest.fixture
def plan(pair: dict[str, Path]) -> Plan:
    return planned(pair, "m-1")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tasks.sqlite"


@pytest.fixture
def oss_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    set_environment(monkeypatch)
    with OssServer(tmp_path / "oss") as server:
        yield server


@pytest.fixture
def oss(oss_server: OssServer) -> Place:
    return oss_place(oss_server)


@pytest.fixture
def s3(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    return s3_place(seaweed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file:// store's folder, with the bucket "exports" in it."""
    (tmp_path / "store" / "exports").mkdir(parents=True)
    return tmp_path / "store"

"""What the tests of the OSS store share: a server, and a store in a clean environment."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.oss_client import at, opened, set_environment
from support.oss_server import OssServer

from imgconv.objectstore import PartStore


@pytest.fixture
def oss_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch)


@pytest.fixture
def server(tmp_path: Path, oss_environment: None) -> Iterator[OssServer]:
    with OssServer(tmp_path / "oss") as server:
        yield server


@pytest.fixture
def store(server: OssServer) -> Iterator[PartStore]:
    with opened(at(server)) as store:
        yield store

"""Where exports go: a real S3 server, bare and behind a proxy, and a loopback OSS server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.oss_client import at, set_environment
from support.oss_server import OssServer
from support.seaweed import Seaweed
from support.targets import HoldingProxy, OssTarget, S3Target

from imgconv.stores import Store
from imgconv.stores.s3 import S3


@pytest.fixture
def s3(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    return S3(endpoint_url=seaweed.endpoint_url, region="us-east-1", profile="seaweedfs")


@pytest.fixture
def oss(oss_server: OssServer) -> Store:
    return at(oss_server)


@pytest.fixture
def oss_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    set_environment(monkeypatch)
    with OssServer(tmp_path / "oss") as server:
        yield server


@pytest.fixture
def s3_target(s3: S3, seaweed: Seaweed, tmp_path: Path) -> Iterator[S3Target]:
    assert s3.endpoint_url is not None
    port = int(s3.endpoint_url.rpartition(":")[2])
    with HoldingProxy("127.0.0.1", port) as proxy:
        yield S3Target(seaweed, proxy, f"{tmp_path.parent.name}/{tmp_path.name}/disk.raw")


@pytest.fixture
def oss_target(oss_server: OssServer) -> OssTarget:
    return OssTarget(oss_server, "images/disk.raw")

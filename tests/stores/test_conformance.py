"""The suite that stores of third parties are held to holds for our own; the folder store
has it in its own module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.oss_client import at, opened, set_environment
from support.oss_server import OssServer
from support.seaweed import BUCKET, Seaweed

from imgconv.objectstore import PartStore
from imgconv.stores.s3 import S3
from imgconv.testing import PartStoreConformance


class TestS3(PartStoreConformance):
    many_parts = 30

    @pytest.fixture
    def store(self, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[PartStore]:
        for name, value in seaweed.environment.items():
            monkeypatch.setenv(name, value)
        options = S3(endpoint_url=seaweed.endpoint_url, profile="seaweedfs")
        store = options.open(BUCKET)
        yield store
        store.close()


class TestOss(PartStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PartStore]:
        set_environment(monkeypatch)
        with OssServer(tmp_path / "oss") as server, opened(at(server)) as store:
            yield store

"""A ticket to SeaweedFS, which checks signatures, and no credentials anywhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_proxy import FaultProxy
from support.seaweed import Seaweed
from support.tickets import SMALLEST, Place

from imgconv.objectstore import PartStore

SECRETS = ("AWS_", "BOTO")


@pytest.fixture
def place(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in [name for name in os.environ if name.startswith(SECRETS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    port = int(seaweed.endpoint_url.rpartition(":")[2])
    with FaultProxy("127.0.0.1", port) as proxy:
        yield Place(seaweed, proxy, tmp_path / "ticket.json")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Six parts: five whole ones and a piece."""
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(5 * SMALLEST + 4096))
    return path


@pytest.fixture
def store(place: Place) -> Iterator[PartStore]:
    place.issue()
    store = place.open(read_timeout=5)
    yield store
    store.close()

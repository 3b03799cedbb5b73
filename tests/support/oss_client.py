"""Buckets of a loopback OSS server, opened as users open them, and what goes into them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imgconv.body import Body
from imgconv.native import CRC64_XZ
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores.oss import Oss
from imgconv.units import KiB
from support.oss_server import KEYS, REGION, OssServer

KEY = "images/disk.raw"
MIN_PART = 100 * KiB
_FOREIGN = ("OSS_SESSION_TOKEN", "OSS_REGION", "OSS_ENDPOINT", "REQUESTS_CA_BUNDLE", "NETRC")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def set_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of the server, and nothing of the machine's own settings."""
    for name in (*_FOREIGN, *_PROXIES, *map(str.lower, _PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "imgconv")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", KEYS["imgconv"].secret)


@contextmanager
def opened(options: Oss) -> Iterator[PartStore]:
    store = options.open("exports")
    try:
        yield store
    finally:
        store.close()


def at(server: OssServer) -> Oss:
    return Oss(endpoint_url=server.endpoint_url, region=REGION)


def noise(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


def body(content: bytes, piece: int = 64 * KiB) -> Body:
    """A body of several buffers."""
    return Body([memoryview(content)[i : i + piece] for i in range(0, len(content), piece)])


def put(store: PartStore, upload: Upload, number: int, content: bytes) -> Part:
    crc = CRC64_XZ.update(content)
    return store.put_part(upload, number, body(content), crc=crc, md5=None)


def save(store: PartStore, content: bytes) -> None:
    store.put(KEY, content, {}, exclusive=False)

"""Where an export goes in tests: a key in a real server, and a look at it from the side."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import imgconv
from imgconv.body import Body
from imgconv.native import CRC64_NVME
from imgconv.objects import opened_store
from imgconv.objectstore import Upload
from imgconv.stores import parse_url
from imgconv.stores.s3 import S3
from imgconv.units import KiB, MiB
from support.fault_proxy import FaultProxy, Predicate, Request, is_begin, is_put_part
from support.oss_client import at
from support.oss_server import OssServer
from support.seaweed import BUCKET, Seaweed

BACKOFF = imgconv.Backoff(base=0.01, most=0.05, patience=5.0)
FOR_EVER = 1_000_000  # times
PATIENCE = 60.0  # seconds until a test that waits for something gives up


class Target:
    """A key that nobody else uses; what is beside it there is an orphan."""

    url: str
    store: Any
    part_size: int

    def export(self, source: Path, **upload: Any) -> imgconv.UploadReport:
        """Convert and upload; arguments that are no upload options are those of `convert`."""
        ours = {n: upload.pop(n) for n in ("store", "clobber", "progress") if n in upload}
        upload = {"part_size": self.part_size, "backoff": BACKOFF, **upload}
        options = imgconv.UploadOptions(**upload)
        ours = {"store": self.store, **ours}
        report = imgconv.convert(source, self.url, upload=options, **ours)
        assert report.upload is not None
        return report.upload

    def objects(self) -> dict[str, bytes]:
        """What is there under names that begin like the key; the key itself is ""."""
        raise NotImplementedError

    def unfinished(self) -> list[str]:
        """The ids of the unfinished uploads to it."""
        raise NotImplementedError

    def held(self) -> set[int]:
        """The numbers of the parts of its one unfinished upload."""
        raise NotImplementedError

    def sent(self) -> list[int]:
        """The numbers of the parts in requests so far, in order."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget the requests so far."""
        raise NotImplementedError

    def assert_whole(self, expected: Path) -> None:
        """The object is there, right and alone."""
        objects = self.objects()
        assert list(objects) == [""]
        assert objects[""] == expected.read_bytes()
        assert self.unfinished() == []

    def assert_clean(self) -> None:
        """Nothing is there at all."""
        assert (self.objects(), self.unfinished()) == ({}, [])

    def assert_kept(self) -> None:
        """No object is there, and one upload to go on with."""
        assert self.objects() == {}
        assert len(self.unfinished()) == 1


class HoldingProxy(FaultProxy):
    """Tells when a fault makes it hold a request, or the answer to it, back."""

    def __init__(self, host: str, port: int):
        super().__init__(host, port)
        self.holding = threading.Event()

    def pause(self, seconds: float) -> None:
        if seconds:
            self.holding.set()
        super().pause(seconds)


@dataclass
class S3Target(Target):
    """In SeaweedFS, through a proxy that breaks requests on order."""

    seaweed: Seaweed
    proxy: HoldingProxy
    key: str
    part_size: int = 5 * MiB
    _from: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.url = f"s3://{BUCKET}/{self.key}"
        self.store = self.options()
        self.direct = S3(endpoint_url=self.seaweed.endpoint_url, profile="seaweedfs")

    def options(self, **more: Any) -> S3:
        return S3(endpoint_url=self.proxy.endpoint_url, profile="seaweedfs", **more)

    @cached_property
    def client(self) -> Any:
        return self.seaweed.client()

    def objects(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=self.key)
        return {
            row["Key"].removeprefix(self.key): self._content(row["Key"])
            for row in listed.get("Contents", ())
        }

    def _content(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def put(self, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=self.key, Body=content)

    def delete(self, suffix: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=self.key + suffix)

    def unfinished(self) -> list[str]:
        listed = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=self.key)
        return [row["UploadId"] for row in listed.get("Uploads", ())]

    def replace_part(self, number: int, content: bytes) -> None:
        """Do what another client might, to the one unfinished upload."""
        (upload_id,) = self.unfinished()
        with opened_store(parse_url(self.url), self.direct) as store:
            crc = CRC64_NVME.update(content)
            body = Body([memoryview(content)])
            store.put_part(Upload(self.key, upload_id), number, body, crc=crc, md5=None)

    def abort_all(self) -> None:
        for upload_id in self.unfinished():
            self.client.abort_multipart_upload(Bucket=BUCKET, Key=self.key, UploadId=upload_id)

    def held(self) -> set[int]:
        (upload_id,) = self.unfinished()
        listed = self.client.list_parts(Bucket=BUCKET, Key=self.key, UploadId=upload_id)
        return {row["PartNumber"] for row in listed.get("Parts", ())}

    def log(self, when: Predicate) -> list[Any]:
        """The requests of a kind since the last `forget`."""
        return [one for one in self.proxy.log[self._from :] if when(one.request)]

    def sent(self) -> list[int]:
        return [int(one.query["partNumber"]) for one in self.log(is_put_part())]

    def begun(self) -> int:
        return len(self.log(is_begin))

    def forget(self) -> None:
        self._from = len(self.proxy.log)


@dataclass
class OssTarget(Target):
    """In a loopback server that speaks OSS."""

    server: OssServer
    key: str = "images/disk"
    part_size: int = 100 * KiB
    _from: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.url = f"oss://{BUCKET}/{self.key}"
        self.store = at(self.server)

    def objects(self) -> dict[str, bytes]:
        found = self.server.objects.values()
        return {one.key.removeprefix(self.key): one.content() for one in found}

    def unfinished(self) -> list[str]:
        return list(self.server.uploads)

    def held(self) -> set[int]:
        (upload,) = self.server.uploads.values()
        return set(upload.parts)

    def count(self, operation: str) -> int:
        log = self.server.log[self._from :]
        return sum(entry.operation == operation for entry in log)

    def sent(self) -> list[int]:
        log = self.server.log[self._from :]
        return [entry.number for entry in log if entry.operation == "UploadPart"]

    def forget(self) -> None:
        self._from = len(self.server.log)


def before(when: Predicate, act: Callable[[], object]) -> Predicate:
    """Match nothing, but act once, when the first such request has come.

    Neither it nor any later one goes on before the act is done, so that must not need
    the proxy.
    """
    left = [act]

    def matches(request: Request) -> bool:
        if left and when(request):
            left.pop()()
        return False

    return matches

"""A key behind a proxy, a ticket to it, and what an upload by it looks like."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import imgconv
from imgconv.body import Body
from imgconv.errors import ImgconvError
from imgconv.native import CRC64_NVME
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores.s3 import S3
from imgconv.stores.s3_ticket import issue_ticket, renew_ticket
from imgconv.stores.ticket import Ticket
from imgconv.units import MiB
from support.fault_proxy import FaultProxy, Predicate
from support.seaweed import BUCKET, Seaweed
from support.targets import BACKOFF

SMALLEST = 5 * MiB


@dataclass
class Place:
    """A key of its own in the server, behind a proxy, and a file for a ticket to it."""

    seaweed: Seaweed
    proxy: FaultProxy
    file: Path
    key: str = field(default_factory=lambda: f"test/{uuid4()}/disk")

    def __post_init__(self) -> None:
        self.object = f"s3://{BUCKET}/{self.key}"
        self.url = f"ticket://{self.file}"

    def options(self, **more: Any) -> S3:
        return S3(**{"endpoint_url": self.proxy.endpoint_url, "profile": "seaweedfs"} | more)

    def issue(self, *, parts: int = 20, profile: str = "seaweedfs", **more: Any) -> None:
        """Put a new ticket into the file."""
        with self._credentials():
            options = self.options(profile=profile)
            self.file.write_text(issue_ticket(self.object, parts=parts, store=options, **more))

    def renew(self, **more: Any) -> None:
        """Put the ticket, signed anew, into the file."""
        with self._credentials():
            old = self.file.read_text()
            self.file.write_text(renew_ticket(self.object, old, store=self.options(), **more))

    @contextmanager
    def _credentials(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.seaweed.environment.items():
                patch.setenv(name, value)
            yield

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads(self.file.read_text())
        change(document)
        self.file.write_text(json.dumps(document))

    def open(self, **more: Any) -> PartStore:
        return Ticket(**more).open(str(self.file))

    def convert(
        self, disk: Path, *, format: str = "raw", clobber: bool | None = None, **upload: Any
    ) -> imgconv.UploadReport:
        upload = {"part_size": SMALLEST, "backoff": BACKOFF, **upload}
        report = imgconv.convert(
            disk,
            self.url,
            options=format,
            clobber=clobber,
            upload=imgconv.UploadOptions(**upload),
        )
        assert report.upload is not None
        return report.upload

    def content(self) -> bytes | None:
        client = self.seaweed.client()
        rows = client.list_objects_v2(Bucket=BUCKET, Prefix=self.key).get("Contents", ())
        assert [row["Key"] for row in rows] in ([], [self.key])
        if not rows:
            return None
        content: bytes = client.get_object(Bucket=BUCKET, Key=self.key)["Body"].read()
        return content

    def put(self, content: bytes) -> None:
        self.seaweed.client().put_object(Bucket=BUCKET, Key=self.key, Body=content)

    def unfinished(self) -> list[str]:
        listed = self.seaweed.client().list_multipart_uploads(Bucket=BUCKET, Prefix=self.key)
        return [row["UploadId"] for row in listed.get("Uploads", ())]

    def sent(self, when: Predicate) -> int:
        return sum(1 for one in self.proxy.log if when(one.request))


def put(
    store: PartStore, upload: Upload, number: int, content: bytes, *, crc: int | None = None
) -> Part:
    view = memoryview(content)
    body = Body([view[at : at + MiB] for at in range(0, len(view), MiB)])
    if store.limits.checksum is None:
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        return store.put_part(upload, number, body, crc=None, md5=md5)
    crc = CRC64_NVME.update(content) if crc is None else crc
    return store.put_part(upload, number, body, crc=crc, md5=None)


@contextmanager
def raises(kind: type[ImgconvError], match: str) -> Iterator[None]:
    """Expect an error of exactly this kind: one line, and no URL that lets one in."""
    with pytest.raises(kind, match=match) as caught:
        yield
    assert type(caught.value) is kind
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "X-Amz" not in text
    assert "127.0.0.1" not in text


def signatures(place: Place) -> list[str]:
    return re.findall("X-Amz-Signature=([0-9a-f]{64})", place.file.read_text())

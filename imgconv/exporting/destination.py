"""Where objects go: a store, and the way from a bucket and a name to a URL."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from imgconv.errors import OptionError, UsageError
from imgconv.exporting.errors import (
    BucketEncrypted,
    BucketNotFound,
    BucketNotMatched,
)
from imgconv.exporting.request import ExportRequest
from imgconv.objects import opened_store
from imgconv.objectstore import BucketInspector, PartStore
from imgconv.options import parse_options
from imgconv.stores import Store, parse_url, store_class
from imgconv.upload.client import Client
from imgconv.upload.retry import Backoff
from imgconv.upload.state import Meter
from imgconv.urls import split_url

_ENDPOINT = re.compile(r"(https?://)?([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?")
_WHERE_ELSE = {  # an endpoint is looked for, by scheme
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "oss": ("OSS_ENDPOINT",),
}
_PUBLIC = {"s3": "amazonaws.com", "oss": "aliyuncs.com"}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


StopAsked: TypeAlias = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Destination:
    """A bucket of a store; `folder` is where buckets are folders, else empty."""

    store: Store
    bucket: str
    folder: str = ""

    def url(self, key: str) -> str:
        """Return the URL of an object, or, with "", the beginning of them all."""
        return f"{self.store.scheme}://{self.folder}{self.bucket}/{key}"

    def bucket_called(self, name: str) -> "Destination":
        """Return another bucket of the same store."""
        return replace(self, bucket=name)

    def lock(self, key: str) -> str:
        """Return what says where an object is, however its store was spelt.

        Two services have two; all endpoints of a public one, in which a bucket's name is
        one, have the same. Of a host that has several names nothing is known.
        """
        if self.folder:
            folder = os.path.realpath(self.folder + self.bucket)
            return f"{self.store.scheme}://{folder}/{key}"
        return f"{self.url(key)} at {self._service()}"

    def _service(self) -> str:
        scheme = self.store.scheme
        elsewhere = [os.environ.get(name) for name in _WHERE_ELSE.get(scheme, ())]
        named = (getattr(self.store, "endpoint_url", None), *elsewhere)
        endpoint = next(filter(None, named), None)
        if endpoint is None:
            return _PUBLIC.get(scheme, scheme)
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        host, port = parts.hostname or endpoint, parts.port
        for domain in _PUBLIC.values():
            if f".{host}".endswith(f".{domain}"):
                return domain
        return host if port in (None, 80, 443) else f"{host}:{port}"

    @contextmanager
    def opened(self) -> Iterator[PartStore]:
        """Open the bucket for a while."""
        with opened_store(parse_url(self.url(""), key_needed=False), self.store) as opened:
            yield opened

    def record(self) -> dict[str, Any]:
        """Return what a task remembers of it; there are no secrets among options."""
        options = asdict(self.store)  # type: ignore[call-overload]
        return {
            "scheme": self.store.scheme,
            "options": options,
            "bucket": self.bucket,
            "folder": self.folder,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Destination":
        """Return what was remembered."""
        store = store_class(record["scheme"])(**record["options"])
        return cls(store, record["bucket"], record["folder"])


def destination_of(
    request: ExportRequest, store: Store | str, options: str = ""
) -> Destination:
    """Return where a request's objects go.

    `store` is a store's options object, or text: oss://ENDPOINT, s3://ENDPOINT or
    file:///FOLDER, where a bucket is a folder; ENDPOINT may begin with http://, and may be
    left out where the service has a public one. `options` are more of the store's.
    Raises UsageError, and BucketNotFound for a name that no bucket can have.
    """
    folder = ""
    if isinstance(store, str):
        store, folder = _parsed(store, options)
    elif store.scheme == "file":
        raise UsageError("a store of folders is given as text: file:///folder")
    store = _completed(store, request)
    for bucket in map(request.bucket_of, request.formats):
        if not is_bucket_name(bucket):
            raise BucketNotFound(f"{bucket!r}: no bucket has such a name")
    return Destination(store, request.bucket, folder)


def is_bucket_name(text: str) -> bool:
    """Say whether a bucket may be called so; no name leads out of a store of folders."""
    return _BUCKET.fullmatch(text) is not None


def _parsed(text: str, options: str) -> tuple[Store, str]:
    parts = split_url(text)
    if parts is None:
        raise UsageError(f"{text}: a store is oss://ENDPOINT, s3://ENDPOINT or file:///FOLDER")
    scheme, rest = parts
    if scheme == "file":
        if not rest.startswith("/"):
            raise UsageError(f"{text}: a folder needs an absolute path, file:///folder")
        return parse_options(store_class(scheme), options), rest.rstrip("/") + "/"
    if scheme == "ticket":
        raise UsageError(f"{text}: a ticket is for one object, and an image has several")
    kind = store_class(scheme)
    if rest and not _ENDPOINT.fullmatch(rest):
        raise UsageError(f"{text}: {rest!r} is no endpoint, such as storage.example.com:9000")
    if rest:
        url = rest if "://" in rest else f"https://{rest}"
        options = ",".join(filter(None, (f"endpoint_url={url.rstrip('/')}", options)))
    return parse_options(kind, options), ""


def _completed(store: Store, request: ExportRequest) -> Store:
    """Return the store with the region and the role of the request."""
    known = {field.name for field in fields(store)}  # type: ignore[arg-type]
    changes: dict[str, str] = {}
    if request.role is not None:
        if "role" not in known:
            raise OptionError(f"role={request.role}: {store.scheme}:// knows no roles")
        changes["role"] = request.role
    if request.region is not None and "region" in known and not _value(store, "region"):
        changes["region"] = request.region
    return replace(store, **changes) if changes else store  # type: ignore[type-var]


def _value(store: Store, name: str) -> object:
    return getattr(store, name)


def client_of(opened: PartStore, backoff: Backoff, stop: StopAsked | None = None) -> Client:
    """Return what makes single requests with patience."""
    return Client(opened, backoff, concurrency=1, cancelled=stop, meter=Meter())


def check_bucket(destination: Destination, region: str | None, backoff: Backoff) -> None:
    """Raise what the service answers for a bucket that it does not export to.

    BucketNotMatched unless it is in `region`, BucketEncrypted, and StoreErrors: among them
    BucketMissing, BucketElsewhere and AccessDenied.
    """
    with destination.opened() as opened:
        if not isinstance(opened, BucketInspector):
            return
        found = client_of(opened, backoff).request(opened.inspect)
        if region and found.region and found.region != region:
            raise BucketNotMatched(f"{opened.name}: is in {found.region}, not in {region}")
        if found.encryption is not None:
            raise BucketEncrypted(f"{opened.name}: encrypts objects with {found.encryption}")

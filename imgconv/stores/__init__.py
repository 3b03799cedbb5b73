"""The object stores: one table, loaded on use.

Each row names a frozen options class; calling `open(bucket)` on an instance of it makes
the store. Other packages add stores with entry points in the group `imgconv.stores`, named
after their URL scheme; those cannot shadow a built-in one.
"""

from dataclasses import dataclass
from posixpath import split
from typing import ClassVar, Protocol

from imgconv.errors import UsageError
from imgconv.loading import load
from imgconv.objectstore import PartStore
from imgconv.options import parse_options
from imgconv.urls import split_url

TABLE = {
    "file": "imgconv.stores.local:Local",
    "s3": "imgconv.stores.s3:S3",
    "oss": "imgconv.stores.oss:Oss",
    "ticket": "imgconv.stores.ticket:Ticket",
}


class Store(Protocol):
    """The options of one kind of store; the object that `store=` takes."""

    scheme: ClassVar[str]

    def open(self, bucket: str) -> PartStore:
        """Return the store of a bucket; nothing is sent yet.

        Raises UsageError when the library it needs is not installed.
        """
        ...


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """Where an object is: "s3://bucket/a/key"; of a file, the folder is the bucket, and
    of a ticket, which is for one object, the ticket's own path."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket.rstrip('/')}/{self.key}"


def parse_url(url: str, *, key_needed: bool = True) -> ObjectUrl:
    """Take an object's URL to pieces; UsageError when bucket or key are missing.

    Without `key_needed` the key may be empty or the beginning of one. A ticket is read, as
    the key is in it.
    """
    parts = split_url(url)
    if parts is None:
        raise UsageError(f"{url}: is not a URL")
    scheme, rest = parts
    if scheme == "file":
        if not rest.startswith("/"):
            raise UsageError(f"{url}: a file URL needs an absolute path, file:///folder/name")
        bucket, key = split(rest)
    elif scheme == "ticket":
        from imgconv.stores.ticket import key_of_ticket  # rarely needed

        bucket, key = rest, key_of_ticket(rest)
    else:
        bucket, _, key = rest.partition("/")
    if not bucket or (key_needed and not key):
        raise UsageError(f"{url}: needs a bucket and a key, {scheme}://bucket/key")
    return ObjectUrl(scheme, bucket, key)


def store_class(scheme: str) -> type[Store]:
    """Return the options class of a store by its URL scheme; UsageError when unknown."""
    target = TABLE.get(scheme)
    if target is not None:
        found: type[Store] = load(target)
        return found
    from importlib import metadata  # slow, and rarely needed

    for entry in metadata.entry_points(group="imgconv.stores", name=scheme):
        loaded: type[Store] = entry.load()
        return loaded
    known = ", ".join(f"{name}://" for name in TABLE)
    raise UsageError(f"unknown kind of store {scheme}://; known are {known}")


def store_from_text(scheme: str, options: str = "") -> Store:
    """Make a store from its URL scheme and "key=value,..." options."""
    return parse_options(store_class(scheme), options)

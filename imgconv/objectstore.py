"""The contract of an object store: bare multipart protocol, no policy.

A store makes one attempt per call and says truthfully how it ended; whether to try again,
with how many requests at once, what to resume and what to believe is decided by its
callers (`imgconv/upload/`). All sizes are in bytes, all checksums finished integers.

Every failure is one of these, whatever the service calls it:

    StoreUnavailable    no or half an answer, a time-out, a failing server: worth a retry
    StoreThrottled      too many requests: worth a retry, later and with fewer at once
    CredentialsExpired  worth one retry after `renew`
    ContentDamaged      what arrived is not what was sent: worth a retry
    UploadGone          the store does not know the upload (any more)
    OutputExists        an exclusive `complete` or `put` found an object of that name
    ObjectMissing       there is no such object
    ObjectChanged       the object is no longer the one whose ETag was given
    StoreCannot         the service does not do this at all (copies, conditions)
    AccessDenied        no credentials, or none that permit it
    BucketMissing       there is no such bucket
    BucketElsewhere     it is in another region
    StoreRefused        all else: wrong clock, full, ...
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from imgconv.body import Body

ChecksumName: TypeAlias = Literal["crc64-nvme", "crc64-xz"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a service bears and keeps.

    A part is at least `min_part` (the last one may be shorter) and at most `max_part`
    bytes; with `uniform` all but the last must be equally long. `checksum` is the one in
    which the service verifies parts and, unless it was told otherwise, whole objects; None
    when it knows none: then parts are protected by Content-MD5. `exclusive` says that
    `complete` and `put` can be made to fail when the object exists, `copies` that
    `copy_part` works. With `etag_is_md5` the ETag of a part that was put is the MD5 of its
    bytes. `concurrency` is the most requests at once it bears; `lifetime` how many seconds
    an unfinished upload is kept, None for ever.
    """

    min_part: int
    max_part: int
    max_parts: int
    max_object: int
    uniform: bool = False
    checksum: ChecksumName | None = None
    exclusive: bool = True
    copies: bool = True
    etag_is_md5: bool = False
    concurrency: int = 16
    lifetime: int | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished multipart upload; `started` is in seconds since 1970, 0 if unknown.

    `token` is only there when `begin` could not put the one it was given into the object's
    metadata, because somebody else had begun the upload: it is the one the object will have.
    """

    key: str
    id: str
    started: float = 0.0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part the store holds.

    `etag` is the store's own text, without quotes, compared without regard to case; `crc`
    is in the checksum of `Limits.checksum`, None when the store does not tell it.
    """

    number: int
    length: int
    etag: str
    crc: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object the store holds; `metadata` has lower-case keys without any prefix."""

    size: int
    etag: str
    crc: int | None = None
    version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketInfo:
    """A bucket: its region, None when the service does not tell, and the name of the method
    by which it encrypts every object with a key that its owner chose, None if it does not."""

    region: str | None = None
    encryption: str | None = None


class ObjectReader(Protocol):
    """One object, read by range from any number of threads."""

    @property
    def name(self) -> str:
        """The URL of the object, without secrets, as messages show it."""
        ...

    @property
    def info(self) -> ObjectInfo:
        """The object as it was when it was opened."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset` on, of the object with the ETag of `info`.

        One attempt. Raises StoreErrors: ObjectChanged when the object was replaced, and
        StoreUnavailable when the answer ended early.
        """
        ...

    def close(self) -> None:
        """Release connections; harmless when repeated."""
        ...


class PartStore(Protocol):
    """A bucket, or what is like one. Safe for use by many threads."""

    @property
    def name(self) -> str:
        """The URL of the bucket ("s3://exports"), as messages show it."""
        ...

    @property
    def limits(self) -> Limits:
        """What the service bears and keeps."""
        ...

    def begin(self, key: str, metadata: Mapping[str, str]) -> Upload:
        """Begin a multipart upload; the object will carry `metadata`."""
        ...

    def put_part(
        self, upload: Upload, number: int, body: Body, *, crc: int | None, md5: bytes | None
    ) -> Part:
        """Send a part, number 1 and up, in any order; a repeated one replaces the earlier.

        `crc` is the body's checksum in `Limits.checksum`, `md5` its MD5 (16 bytes); what
        is given is sent along so that the store refuses a damaged part, or, where it only
        answers with its own value, compared here.
        """
        ...

    def copy_part(
        self, upload: Upload, number: int, source_key: str, start: int, length: int
    ) -> Part:
        """Make a part of a range of another object in the same bucket, on the server."""
        ...

    def list_parts(self, upload: Upload) -> Iterator[Part]:
        """Yield the parts the store holds, by number; a number may come more than once."""
        ...

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield unfinished uploads whose key begins with `prefix`."""
        ...

    def complete(
        self,
        upload: Upload,
        parts: Sequence[Part],
        *,
        size: int,
        crc: int | None,
        exclusive: bool,
    ) -> ObjectInfo:
        """Publish the object made of `parts`, in ascending order of their numbers.

        With `crc`, the store is asked to verify the whole object where it can.
        """
        ...

    def abort(self, upload: Upload) -> None:
        """Throw an upload and its parts away; one that is gone is no error."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None when there is none."""
        ...

    def put(
        self, key: str, content: bytes, metadata: Mapping[str, str], *, exclusive: bool
    ) -> ObjectInfo:
        """Store a small object in one request."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...

    def open(self, key: str) -> ObjectReader:
        """Open an object for reading; ObjectMissing when there is none."""
        ...

    def renew(self) -> bool:
        """Fetch credentials anew; false when there is nowhere to fetch them from."""
        ...

    def close(self) -> None:
        """Release connections; harmless when repeated."""
        ...


@runtime_checkable
class BucketInspector(Protocol):
    """A store that can tell of its bucket; not every one can."""

    def inspect(self) -> BucketInfo:
        """Look the bucket up, in one attempt.

        Raises StoreErrors: BucketMissing, BucketElsewhere, AccessDenied, ...
        """
        ...

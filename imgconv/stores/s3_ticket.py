"""Issuing tickets: an upload is begun, and a URL is signed for each request it will take."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import time
from typing import Any, Protocol

from imgconv.errors import OptionError, StoreError, UsageError
from imgconv.objectstore import Limits, PartStore, Upload
from imgconv.stores import ObjectUrl, Store, parse_url
from imgconv.stores.profiles import PROFILES
from imgconv.stores.s3 import S3
from imgconv.stores.ticket_file import LEAST_PARTS, PAGE, SignedUpload, parse_ticket
from imgconv.units import div_ceil
from imgconv.upload.cuts import DEFAULT_SIZE
from imgconv.upload.session import TOKEN

DAY = 24 * 3600
LONGEST = 7 * DAY  # what a signature bears

# A signature would have to cover the checksum of a part, which nobody knows yet. These
# compute it by themselves and answer with it; others are sent a Content-MD5, which no
# signature covers.
_COMPUTING = (PROFILES["aws"], PROFILES["seaweedfs"])


class _Signer(PartStore, Protocol):
    """What a bucket of S3 can do beyond the contract; its class needs boto3."""

    @property
    def announces(self) -> bool: ...

    def begin(
        self, key: str, metadata: Mapping[str, str], *, announce: bool = True
    ) -> Upload: ...

    def sign(
        self, operation: str, key: str, expires: int, parameters: Mapping[str, object]
    ) -> str: ...


def issue_ticket(
    url: str,
    *,
    parts: int | None = None,
    size: int | None = None,
    expires: int = DAY,
    store: Store | None = None,
    exclusive: bool = True,
) -> str:
    """Begin an upload to s3://bucket/key, and return a ticket to carry it out: JSON text.

    Whoever has it can make that one object, until `expires` seconds from now (at most a
    week, and no longer than the credentials that signed it), and needs neither credentials
    nor boto3: `imgconv.convert(disk, "ticket:///path/to/ticket.json", options="qcow2")`.

    The upload may have as many parts as `parts` says, or as an output of `size` bytes
    takes; default: as many as the service allows, which makes a ticket of some MB. An
    `exclusive` one fails in the end if the object exists, where the service can do that.
    Raises UsageError and StoreErrors.
    """
    _check_time(expires)
    with _bucket(url, store) as (place, bucket):
        limits = _limits(bucket, _count(bucket.limits, parts, size), exclusive)
        token = os.urandom(16).hex()
        upload = bucket.begin(place.key, {TOKEN: token}, announce=limits.checksum is not None)
        try:
            upload = replace(upload, token=token)
            return _signed(bucket, place, upload, limits, expires).text()
        except BaseException:
            with suppress(StoreError):
                bucket.abort(upload)
            raise


def renew_ticket(
    url: str, ticket: str, *, expires: int = DAY, store: Store | None = None
) -> str:
    """Sign the URLs of a ticket's text anew, for the same upload, and return the new text.

    A worker takes it up in mid-upload when it replaces the file of the old one. Raises
    UsageError, also when the ticket is not for the object at `url`, and StoreErrors.
    """
    _check_time(expires)
    old = parse_ticket(ticket, "the ticket")
    with _bucket(url, store) as (place, bucket):
        if old.object != str(place):
            raise UsageError(f"the ticket is for {old.object}, not for {place}")
        upload = Upload(old.key, old.upload, token=old.token)
        return _signed(bucket, place, upload, old.limits, expires).text()


def _check_time(expires: int) -> None:
    if not 1 <= expires <= LONGEST:
        raise OptionError(f"expires={expires}: must be from 1 second to {LONGEST}, a week")


@contextmanager
def _bucket(url: str, store: Store | None) -> Iterator[tuple[ObjectUrl, _Signer]]:
    place = parse_url(url)
    options = store or S3()
    if place.scheme != S3.scheme or not isinstance(options, S3) or not url.isprintable():
        raise UsageError(f"{url!r}: tickets are for s3://bucket/key alone")
    bucket = _opened(place.bucket, options)
    try:
        yield place, bucket
    finally:
        bucket.close()


def _opened(name: str, options: S3) -> _Signer:
    bucket: Any = options.open(name)
    at_aws = options.profile == "auto" and bucket.limits == PROFILES["aws"]
    if at_aws and options.path_style == "auto":
        # signs for a host that is not in the region, and redirects when the bucket is new
        bucket.close()
        return _opened(name, replace(options, path_style="off"))
    signer: _Signer = bucket
    return signer


def _count(limits: Limits, parts: int | None, size: int | None) -> int:
    if parts is not None and size is not None:
        raise OptionError("give the number of parts or the size of the output, not both")
    if size is not None:  # and some more: an output has a head, and metadata
        parts = min(div_ceil(size, DEFAULT_SIZE) + LEAST_PARTS, limits.max_parts)
    count = limits.max_parts if parts is None else parts
    if not LEAST_PARTS <= count <= limits.max_parts:
        raise OptionError(
            f"parts={count}: must be from {LEAST_PARTS} to {limits.max_parts} at this service"
        )
    return count


def _limits(bucket: _Signer, parts: int, exclusive: bool) -> Limits:
    computes = bucket.announces and bucket.limits in _COMPUTING
    return replace(
        bucket.limits,
        max_parts=parts,
        copies=False,
        exclusive=bucket.limits.exclusive and exclusive,
        checksum="crc64-nvme" if computes else None,
    )


def _signed(
    bucket: _Signer, place: ObjectUrl, upload: Upload, limits: Limits, expires: int
) -> SignedUpload:
    key, inside = place.key, {"UploadId": upload.id}
    condition = {"IfNoneMatch": "*"} if limits.exclusive else {}
    parts = range(1, limits.max_parts + 1)
    return SignedUpload(
        object=str(place),
        upload=upload.id,
        token=upload.token,
        expires=int(time()) + expires,
        limits=limits,
        head=bucket.sign("head_object", key, expires, {"ChecksumMode": "ENABLED"}),
        complete=bucket.sign("complete_multipart_upload", key, expires, inside | condition),
        abort=bucket.sign("abort_multipart_upload", key, expires, inside),
        pages=tuple(
            bucket.sign("list_parts", key, expires, {**inside, "PartNumberMarker": after})
            for after in range(0, limits.max_parts, PAGE)
        ),
        parts=tuple(
            bucket.sign("upload_part", key, expires, {**inside, "PartNumber": number})
            for number in parts
        ),
    )

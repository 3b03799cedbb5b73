"""A bucket of Alibaba Cloud OSS, through its SDK with all policy switched off.

The SDK signs, builds and parses. It neither retries nor computes checksums (its CRC-64 is
one of Python loops and holds the interpreter lock): the CRC-64/XZ that OSS answers with is
compared with the caller's.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import alibabacloud_oss_v2 as oss
from alibabacloud_oss_v2.transport import RequestsHttpClient

from imgconv.body import Body
from imgconv.errors import (
    ContentDamaged,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    UploadGone,
)
from imgconv.objectstore import BucketInfo, Limits, ObjectInfo, Part, Upload
from imgconv.stores.oss import Oss
from imgconv.stores.oss_credentials import (
    EnvironmentKeys,
    FirstFound,
    InstanceRole,
    Source,
)
from imgconv.stores.oss_errors import store_errors
from imgconv.stores.oss_object import OssReader
from imgconv.units import GiB, KiB
from imgconv.version import __version__

LIMITS = Limits(
    min_part=100 * KiB,
    max_part=5 * GiB,
    max_parts=10_000,
    max_object=10_000 * 5 * GiB,
    checksum="crc64-xz",
    exclusive=True,
    copies=True,
    etag_is_md5=True,
)
_CONTENT_TYPE = "application/octet-stream"  # else guessed: .raw would be a photograph
_CONNECTIONS = 64  # kept open, more than anybody has requests at once


class OssStore:
    """One bucket; see `objectstore.PartStore`."""

    limits = LIMITS

    def __init__(self, bucket: str, options: Oss):
        self.name, self._bucket = f"oss://{bucket}", bucket
        self._source = _source(options)
        self._slow = options.complete_timeout
        self._http = _http_client(options)
        self._client = oss.Client(_config(options, self._source, self._http))

    def begin(self, key: str, metadata: Mapping[str, str]) -> Upload:
        """Begin a multipart upload."""
        what = self._what(key, "cannot begin an upload")
        with store_errors(what):
            reply = self._client.initiate_multipart_upload(
                oss.InitiateMultipartUploadRequest(
                    bucket=self._bucket,
                    key=key,
                    content_type=_CONTENT_TYPE,
                    metadata=_sent_metadata(metadata),
                )
            )
        return Upload(key, _told(reply.upload_id, what))

    def put_part(
        self, upload: Upload, number: int, body: Body, *, crc: int | None, md5: bytes | None
    ) -> Part:
        """Send a part; ContentDamaged when the store received something else."""
        what = self._what(upload.key, f"cannot send part {number}")
        with store_errors(what):
            reply = self._client.upload_part(
                oss.UploadPartRequest(
                    bucket=self._bucket,
                    key=upload.key,
                    upload_id=upload.id,
                    part_number=number,
                    body=body.reader(),
                    content_md5=None if md5 is None else base64.b64encode(md5).decode(),
                )
            )
        stored = _crc(reply.hash_crc64)
        if crc is not None and stored is not None and crc != stored:
            raise ContentDamaged(
                f"{what}: CRC-64 {stored:016x} was received, not {crc:016x} "
                f"(request {reply.request_id})"
            )
        return Part(number, len(body), _etag(_told(reply.etag, what)), stored)

    def copy_part(
        self, upload: Upload, number: int, source_key: str, start: int, length: int
    ) -> Part:
        """Make a part of a range of another object; the store tells no CRC of it."""
        what = self._what(upload.key, f"cannot copy part {number} from {source_key}")
        with store_errors(what):
            reply = self._client.upload_part_copy(
                oss.UploadPartCopyRequest(
                    bucket=self._bucket,
                    key=upload.key,
                    upload_id=upload.id,
                    part_number=number,
                    source_key=source_key,
                    source_range=f"bytes={start}-{start + length - 1}",
                ),
                readwrite_timeout=self._slow,
            )
        return Part(number, length, _etag(_told(reply.etag, what)))

    def list_parts(self, upload: Upload) -> Iterator[Part]:
        """Yield the parts the store holds, by number."""
        request = oss.ListPartsRequest(bucket=self._bucket, key=upload.key, upload_id=upload.id)
        what = self._what(upload.key, "cannot list the parts")
        more = True
        while more:
            with store_errors(what):
                page = self._client.list_parts(request)
            for row in page.parts or ():
                etag = _etag(_told(row.etag, what))
                yield Part(row.part_number, row.size, etag, _crc(row.hash_crc64))
            here = request.part_number_marker
            more = _has_more(what, page, here, page.next_part_number_marker)
            request.part_number_marker = page.next_part_number_marker

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield unfinished uploads whose key begins with `prefix`."""
        request = oss.ListMultipartUploadsRequest(bucket=self._bucket, prefix=prefix)
        what = f"{self.name}: cannot list the uploads"
        more = True
        while more:
            with store_errors(what):
                page = self._client.list_multipart_uploads(request)
            for row in page.uploads or ():
                started = row.initiated.timestamp() if row.initiated else 0.0
                yield Upload(row.key, row.upload_id, started)
            here = request.key_marker, request.upload_id_marker
            there = page.next_key_marker, page.next_upload_id_marker
            more = _has_more(what, page, here, there)
            request.key_marker, request.upload_id_marker = there

    def complete(
        self,
        upload: Upload,
        parts: Sequence[Part],
        *,
        size: int,
        crc: int | None,
        exclusive: bool,
    ) -> ObjectInfo:
        """Publish the object; OSS verifies no CRC but tells the one it has."""
        what = self._what(upload.key, "cannot complete the upload")
        rows = [oss.UploadPart(part_number=p.number, etag=f'"{p.etag}"') for p in parts]
        with store_errors(what):
            reply = self._client.complete_multipart_upload(
                oss.CompleteMultipartUploadRequest(
                    bucket=self._bucket,
                    key=upload.key,
                    upload_id=upload.id,
                    complete_multipart_upload=oss.CompleteMultipartUpload(parts=rows),
                    forbid_overwrite=exclusive or None,
                ),
                readwrite_timeout=self._slow,
            )
        etag, stored = _etag(_told(reply.etag, what)), _crc(reply.hash_crc64)
        return ObjectInfo(size=size, etag=etag, crc=stored, version=reply.version_id)

    def abort(self, upload: Upload) -> None:
        """Throw an upload and its parts away; one that is gone is no error."""
        try:
            with store_errors(self._what(upload.key, "cannot abort the upload")):
                self._client.abort_multipart_upload(
                    oss.AbortMultipartUploadRequest(
                        bucket=self._bucket, key=upload.key, upload_id=upload.id
                    )
                )
        except UploadGone:
            pass

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None when there is none."""
        what = self._what(key, "cannot be looked up")
        try:
            with store_errors(what):
                reply = self._client.head_object(
                    oss.HeadObjectRequest(bucket=self._bucket, key=key)
                )
        except ObjectMissing:
            return None
        return ObjectInfo(
            size=int(_told(reply.content_length, what)),
            etag=_etag(_told(reply.etag, what)),
            crc=_crc(reply.hash_crc64),
            version=reply.version_id,
            metadata={k.lower(): unquote(v) for k, v in (reply.metadata or {}).items()},
        )

    def put(
        self, key: str, content: bytes, metadata: Mapping[str, str], *, exclusive: bool
    ) -> ObjectInfo:
        """Store a small object in one request, protected by its MD5."""
        what = self._what(key, "cannot be stored")
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        with store_errors(what):
            reply = self._client.put_object(
                oss.PutObjectRequest(
                    bucket=self._bucket,
                    key=key,
                    body=content,
                    content_md5=base64.b64encode(digest).decode(),
                    content_type=_CONTENT_TYPE,
                    metadata=_sent_metadata(metadata),
                    forbid_overwrite=exclusive or None,
                )
            )
        return ObjectInfo(
            size=len(content),
            etag=_etag(_told(reply.etag, what)),
            crc=_crc(reply.hash_crc64),
            version=reply.version_id,
            metadata=dict(metadata),
        )

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        try:
            with store_errors(self._what(key, "cannot be deleted")):
                self._client.delete_object(
                    oss.DeleteObjectRequest(bucket=self._bucket, key=key)
                )
        except ObjectMissing:
            pass

    def open(self, key: str) -> OssReader:
        """Open an object for reading; ObjectMissing when there is none."""
        info = self.head(key)
        if info is None:
            raise ObjectMissing(self._what(key, "there is no such object"))
        return OssReader(self._client, self._bucket, key, info)

    def inspect(self) -> BucketInfo:
        """Look the bucket up: its region, and whether it encrypts what it is given."""
        with store_errors(f"{self.name}: where it is cannot be told"):
            place = self._client.get_bucket_location(
                oss.GetBucketLocationRequest(bucket=self._bucket)
            )
        with store_errors(f"{self.name}: cannot be looked up"):
            reply = self._client.get_bucket_info(oss.GetBucketInfoRequest(bucket=self._bucket))
        found = reply.bucket_info
        rule = found.sse_rule if found is not None else None
        method = rule.sse_algorithm if rule is not None else None
        return BucketInfo(
            region=(place.location or "").removeprefix("oss-") or None,
            encryption=None if method in (None, "", "None") else method,
        )

    def renew(self) -> bool:
        """Forget the credentials in use; false when requests are anonymous."""
        if self._source is None:
            return False
        self._source.renew()
        return True

    def close(self) -> None:
        """Close all connections, which the library leaves to the garbage collector."""
        adapter = self._http.adapter
        for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  (they cannot be iterated over)
                manager.pools[key].close()
        self._http.close()

    def _what(self, key: str, failure: str) -> str:
        """Return how messages begin; StoreRefused for a key that would be sent as another."""
        shown = f"{self.name}/{key if key.isprintable() else repr(key)}"
        if not {".", ".."}.isdisjoint(key.split("/")):
            raise StoreRefused(f"{shown}: a key with . or .. between slashes cannot be reached")
        return f"{shown}: {failure}"


def _source(options: Oss) -> Source | None:
    """Return where credentials come from, None for anonymous requests."""
    environment = EnvironmentKeys()
    role = InstanceRole(options.metadata_url, options.role)
    sources: dict[str, Source | None] = {
        "auto": FirstFound(environment, role),
        "environment": environment,
        "ram-role": role,
        "anonymous": None,
    }
    return sources[options.credentials]


def _http_client(options: Oss) -> RequestsHttpClient:
    client = RequestsHttpClient(
        max_connections=_CONNECTIONS,
        connect_timeout=options.connect_timeout,
        readwrite_timeout=options.read_timeout,
    )
    client.open()  # now: on first use, threads would race to make the session
    client.session.auth = lambda request: request  # else a ~/.netrc replaces signatures
    return client


def _config(options: Oss, source: Source | None, http: RequestsHttpClient) -> oss.Config:
    config = oss.config.load_default()
    config.region = options.signing_region()
    config.endpoint = options.endpoint()
    config.use_path_style = options.bucket_in_path()
    config.credentials_provider = _provider(source)
    config.http_client = http
    config.readwrite_timeout = options.read_timeout
    config.retry_max_attempts = 1
    config.disable_upload_crc64_check = True
    config.disable_download_crc64_check = True
    config.user_agent = f"imgconv/{__version__}"
    return config


def _provider(source: Source | None) -> oss.credentials.CredentialsProvider:
    """Return what the SDK asks for credentials before every attempt."""
    if source is None:
        return oss.credentials.AnonymousCredentialsProvider()

    def fetch() -> oss.credentials.Credentials:
        key = source.get()
        return oss.credentials.Credentials(key.id, key.secret, key.token)

    return oss.credentials.CredentialsProviderFunc(fetch)


def _sent_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as headers can carry them: ASCII, no spaces at the ends."""
    return {key: quote(value, safe="/:+=,@") for key, value in metadata.items()}


def _told(value: Any, what: str) -> Any:
    """Return what an answer must have; StoreUnavailable when it is only half of one."""
    if value is None:
        raise StoreUnavailable(f"{what}: the answer is incomplete")
    return value


def _etag(text: Any) -> str:
    return str(text).strip('"')


def _crc(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _has_more(what: str, page: Any, here: Any, there: Any) -> bool:
    """Say whether a list goes on, as a whole page of one tells.

    One that goes on where it was would never end.
    """
    return bool(_told(page.is_truncated, what)) and here != there

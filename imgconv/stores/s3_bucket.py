"""A bucket of a service that speaks S3. Needs boto3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import md5 as new_md5
from typing import Any

from imgconv.body import Body
from imgconv.errors import (
    AccessDenied,
    ContentDamaged,
    CredentialsExpired,
    ObjectMissing,
    StoreCannot,
    StoreError,
    StoreRefused,
    UploadGone,
)
from imgconv.native import CRC64_NVME
from imgconv.objectstore import (
    BucketInfo,
    Limits,
    ObjectInfo,
    ObjectReader,
    Part,
    Upload,
)
from imgconv.stores.s3_client import Clients, Connector
from imgconv.stores.s3_errors import code_of, explained
from imgconv.stores.s3_object import S3Object
from imgconv.stores.s3_wire import checksums, crc_of, etag_of, object_info, quoted, told
from imgconv.units import MiB
from imgconv.workers import Lock

_TYPE = "application/octet-stream"
# SeaweedFS keeps text compressed, also in parts that are copied from it: a part of zeros
# then costs it next to nothing.
_SMALL_TYPE = "text/plain"
_KMS = "aws:kms"  # and "aws:kms:dsse"; with keys of its own, AWS encrypts everything
_NOT_UNDERSTOOD = ("InvalidArgument", "InvalidRequest", "NotImplemented")


class Bucket:
    """A PartStore over S3.

    With `announce`, each upload is begun with the name of its checksum, and the service
    keeps and verifies one of the whole object; without, SeaweedFS verifies those of the
    parts alone. `page` is the most rows that one answer lists.
    """

    def __init__(
        self, bucket: str, connector: Connector, *, announce: bool = True, page: int = 1000
    ):
        self._bucket, self._connector, self._page = bucket, connector, page
        self._clients = connector.connect()
        self._limits = connector.limits(self._clients)
        self._announces = announce and self._limits.checksum is not None
        self._lock = Lock()
        self._worn_out: set[object] = set()  # identities the service takes no longer

    @property
    def name(self) -> str:
        """The URL of the bucket."""
        return f"s3://{self._bucket}"

    @property
    def limits(self) -> Limits:
        """What the service bears, by its profile."""
        return self._limits

    @property
    def announces(self) -> bool:
        """Whether uploads are begun with the name of their checksum."""
        return self._announces

    def begin(self, key: str, metadata: Mapping[str, str], *, announce: bool = True) -> Upload:
        """Begin a multipart upload; StoreCannot when the service keeps no such checksum.

        Without `announce`, parts need no checksum of their own.
        """
        announced = (
            {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
            if self._announces and announce
            else {}
        )
        try:
            with self._calling(f"{key}: begin") as clients:
                answer = clients.quick.create_multipart_upload(
                    **self._at(key), ContentType=_TYPE, Metadata=dict(metadata), **announced
                )
                return Upload(key, told(answer, "UploadId"))
        except (StoreCannot, StoreRefused) as error:
            if announced and code_of(error) in _NOT_UNDERSTOOD:
                raise StoreCannot(f"{error}; profile=plain does without checksums") from error
            raise

    def put_part(
        self, upload: Upload, number: int, body: Body, *, crc: int | None, md5: bytes | None
    ) -> Part:
        """Send a part; ContentDamaged when something else arrived."""
        with self._calling(f"{upload.key}: part {number}") as clients:
            answer = clients.quick.upload_part(
                **self._in(upload),
                PartNumber=number,
                Body=body.reader(),
                ContentLength=len(body),
                **checksums(crc, md5),
            )
            part = Part(number, len(body), etag_of(answer), crc_of(answer))
        self._compare(upload, part, crc, md5)
        return part

    def copy_part(
        self, upload: Upload, number: int, source_key: str, start: int, length: int
    ) -> Part:
        """Make a part of a range of another object; the client that waits minutes asks."""
        what = f"{upload.key}: part {number}: copy of {source_key}"
        if not self._limits.copies:
            raise StoreCannot(f"{self.name}/{what}: this service copies no parts")
        with self._calling(what) as clients:
            reply = clients.patient.upload_part_copy(
                **self._in(upload),
                PartNumber=number,
                CopySource=self._at(source_key),
                CopySourceRange=f"bytes={start}-{start + length - 1}",
            )
            answer = told(reply, "CopyPartResult")
            return Part(number, length, etag_of(answer), crc_of(answer))

    def list_parts(self, upload: Upload) -> Iterator[Part]:
        """Yield the parts the service holds, by number.

        Where it lists replaced parts too, some of those may be left out at page ends.
        """
        marker = 0
        while True:
            with self._calling(f"{upload.key}: list parts") as clients:
                answer = clients.quick.list_parts(
                    **self._in(upload), PartNumberMarker=marker, MaxParts=self._page
                )
                found = [
                    Part(row["PartNumber"], row["Size"], etag_of(row), crc_of(row))
                    for row in answer.get("Parts", ())
                ]
            yield from found
            following = answer.get("NextPartNumberMarker", 0)
            if not answer.get("IsTruncated") or following <= marker:
                return
            marker = following

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield unfinished uploads whose key begins with `prefix`."""
        markers: dict[str, str] = {}
        while True:
            with self._calling(f"{prefix}*: list uploads") as clients:
                answer = clients.quick.list_multipart_uploads(
                    Bucket=self._bucket, Prefix=prefix, MaxUploads=self._page, **markers
                )
            for row in answer.get("Uploads", ()):
                yield Upload(row["Key"], row["UploadId"], row["Initiated"].timestamp())
            following = {
                "KeyMarker": answer.get("NextKeyMarker", ""),
                "UploadIdMarker": answer.get("NextUploadIdMarker", ""),
            }
            if not answer.get("IsTruncated") or following == markers:
                return
            markers = following

    def complete(
        self,
        upload: Upload,
        parts: Sequence[Part],
        *,
        size: int,
        crc: int | None,
        exclusive: bool,
    ) -> ObjectInfo:
        """Publish the object; the client that waits minutes asks.

        An exclusive one is unconditional where `limits.exclusive` is false.
        """
        verified: dict[str, object] = {}
        if self._announces:
            verified = {"MpuObjectSize": size, **checksums(crc, None)}
            verified |= {"ChecksumType": "FULL_OBJECT"} if crc is not None else {}
        rows = [{"PartNumber": part.number, "ETag": quoted(part.etag)} for part in parts]
        with self._calling(f"{upload.key}: complete") as clients:
            answer = clients.patient.complete_multipart_upload(
                **self._in(upload),
                MultipartUpload={"Parts": rows},
                **verified,
                **self._condition(exclusive),
            )
            info = object_info(answer, size)
        return self._published(upload.key, info)

    def abort(self, upload: Upload) -> None:
        """Throw an upload and its parts away; one that is gone is no error."""
        with suppress(UploadGone), self._calling(f"{upload.key}: abort") as clients:
            clients.quick.abort_multipart_upload(**self._in(upload))

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None when there is none."""
        with suppress(ObjectMissing):
            return self._look(key)
        return None

    def put(
        self, key: str, content: bytes, metadata: Mapping[str, str], *, exclusive: bool
    ) -> ObjectInfo:
        """Store a small object in one request; meant for helpers, so its type is text."""
        view = memoryview(content)
        body = Body([view[at : at + MiB] for at in range(0, len(view), MiB)])
        sums = (
            checksums(CRC64_NVME.update(content), None)
            if self._limits.checksum
            else checksums(None, new_md5(content, usedforsecurity=False).digest())
        )
        with self._calling(f"{key}: put") as clients:
            answer = clients.quick.put_object(
                **self._at(key),
                Body=body.reader(),
                ContentLength=len(body),
                ContentType=_SMALL_TYPE,
                Metadata=dict(metadata),
                **sums,
                **self._condition(exclusive),
            )
            return object_info({**answer, "Metadata": metadata}, len(content))

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        with suppress(ObjectMissing), self._calling(f"{key}: delete") as clients:
            clients.quick.delete_object(**self._at(key))

    def open(self, key: str) -> ObjectReader:
        """Open an object for reading; ObjectMissing when there is none."""
        return S3Object(f"{self.name}/{key}", self._at(key), self._look(key), self._calling)

    def inspect(self) -> BucketInfo:
        """Look the bucket up; what the service does not tell, or not us, stays unknown."""
        with self._calling(": get location") as clients:
            answer = clients.quick.get_bucket_location(Bucket=self._bucket)
            region = answer.get("LocationConstraint") or None
        method = None
        # of a bucket without a rule, services say that the rule is missing
        with (
            suppress(ObjectMissing, StoreCannot, AccessDenied),
            self._calling(": get encryption") as clients,
        ):
            answer = clients.quick.get_bucket_encryption(Bucket=self._bucket)
            rules = answer["ServerSideEncryptionConfiguration"].get("Rules", ())
            named = (r.get("ApplyServerSideEncryptionByDefault", {}) for r in rules)
            found = [rule.get("SSEAlgorithm", "") for rule in named]
            method = next((name for name in found if name.startswith(_KMS)), None)
        return BucketInfo(region=region, encryption=method)

    def renew(self) -> bool:
        """Fetch credentials anew.

        True when they are others than those that wore out, whoever fetched them first.
        """
        with self._lock:
            fresh = self._connector.connect()
            others = fresh.identity != self._clients.identity
            if others:
                self._clients = fresh  # calls under way end with the clients they have
            return others or (bool(self._worn_out) and fresh.identity not in self._worn_out)

    def sign(
        self, operation: str, key: str, expires: int, parameters: Mapping[str, object]
    ) -> str:
        """Return a URL with which anybody may make one kind of request for `expires` seconds.

        `operation` and `parameters` are what the library calls them; those that are headers
        have to be sent along.
        """
        with self._calling(f"{key}: sign") as clients:
            signed: str = clients.quick.generate_presigned_url(
                operation, Params={**self._at(key), **parameters}, ExpiresIn=expires
            )
        return signed

    def close(self) -> None:
        """Release connections; harmless when repeated."""
        self._clients.close()

    @contextmanager
    def _calling(self, what: str, *, reading: bool = False) -> Iterator[Clients]:
        """Lend the clients; errors begin with the bucket's URL and `what`."""
        clients = self._clients
        try:
            with explained(f"{self.name}/{what}", reading=reading):
                yield clients
        except CredentialsExpired:
            self._worn_out.add(clients.identity)
            raise

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": key}

    def _in(self, upload: Upload) -> dict[str, Any]:
        return {**self._at(upload.key), "UploadId": upload.id}

    def _condition(self, exclusive: bool) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if exclusive and self._limits.exclusive else {}

    def _look(self, key: str) -> ObjectInfo:
        """Return what is known of an object; ObjectMissing when there is none."""
        mode = {"ChecksumMode": "ENABLED"} if self._limits.checksum else {}
        try:
            with self._calling(f"{key}: head") as clients:
                answer = clients.quick.head_object(**self._at(key), **mode)
                return object_info(answer, told(answer, "ContentLength"))
        except (ObjectMissing, StoreRefused):
            # no body, no reason: another key, another bucket, an old token all look alike
            with self._calling(f"{key}: get") as clients:
                clients.quick.get_object(**self._at(key), Range="bytes=0-0")["Body"].close()
            raise

    def _compare(self, upload: Upload, part: Part, crc: int | None, md5: bytes | None) -> None:
        """Raise ContentDamaged unless the service's own sums of a part are ours."""
        differs = crc is not None and part.crc is not None and part.crc != crc
        if md5 is not None and self._limits.etag_is_md5:
            differs = differs or part.etag.lower() != md5.hex()
        if differs:
            where = f"{self.name}/{upload.key}: part {part.number}"
            raise ContentDamaged(f"{where}: the service received something else")

    def _published(self, key: str, info: ObjectInfo) -> ObjectInfo:
        """Return `info`, with the checksum from the object where the answer had none."""
        if info.crc is None and self._announces:
            with suppress(StoreError):  # it is published, whatever a second answer says
                found = self._look(key)
                return found if found.etag == info.etag else info
        return info

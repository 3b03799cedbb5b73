"""The operations of the OSS multipart API, carried out on the state of a loopback server."""

import base64
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from imgconv.native import CRC64_XZ
from support.faults import Fault
from support.loopback import Connection, Headers, Reply, Request
from support.oss_auth import Refusal
from support.oss_state import PendingUpload, Piece, State, StoredObject

MIN_PART = 102400
REGION = "cn-hangzhou"


def _xml(name: str, inner: str, status: int = 200, headers: Headers = ()) -> Reply:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}>{inner}</{name}>'
    return Reply(status, (("Content-Type", "application/xml"), *headers), text.encode())


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


class Call:
    """One request in the works."""

    def __init__(
        self, state: State, connection: Connection, request: Request, bucket: str, key: str
    ):
        self.connection, self.request, self.bucket, self.key = connection, request, bucket, key
        self.state, self.params = state, request.params
        self.fault, self.id = Fault(), os.urandom(12).hex().upper()

    def carry_out(self, operation: str) -> Reply:
        fault = self.fault
        if fault.status is not None:
            if fault.body is not None:
                return Reply(fault.status, fault.headers, fault.body)
            raise Refusal(fault.status, fault.code, "Made up.", fault.ec)
        if self.bucket in self.state.missing_buckets:
            raise Refusal(404, "NoSuchBucket", "The bucket does not exist.", "0015-00000101")
        if self.bucket in self.state.locations and operation != "GetBucketLocation":
            raise Refusal(
                403,
                "AccessDenied",
                "The bucket you are attempting to access must be addressed elsewhere.",
                "0003-00001403",
            )
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        reply: Reply = getattr(self, name)()
        return reply

    def refusal(self, refusal: Refusal) -> Reply:
        elements = {"Code": refusal.code, "Message": refusal.message, "RequestId": self.id}
        elements |= {"HostId": self.request.headers.get("host", ""), **refusal.more}
        elements["EC"] = refusal.ec
        inner = "".join(f"<{k}>{escape(str(v))}</{k}>" for k, v in elements.items())
        headers = ("x-oss-ec", refusal.ec), *self.fault.headers
        if self.request.method == "HEAD":
            text = base64.b64encode(f"<Error>{inner}</Error>".encode()).decode()
            return Reply(refusal.status, (("x-oss-err", text), *headers))
        return _xml("Error", inner, refusal.status, headers)

    # buckets

    def get_bucket_location(self) -> Reply:
        region = self.state.locations.get(self.bucket, REGION)
        return _xml("LocationConstraint", f"oss-{region}")

    def get_bucket_info(self) -> Reply:
        rule = self.state.encryption.get(self.bucket, "None")
        rule = f"<SSEAlgorithm>{rule}</SSEAlgorithm>"
        inner = f"<Name>{self.bucket}</Name><Location>oss-{REGION}</Location>"
        inner += f"<ServerSideEncryptionRule>{rule}</ServerSideEncryptionRule>"
        return _xml("BucketInfo", f"<Bucket>{inner}</Bucket>")

    # uploads

    def initiate_multipart_upload(self) -> Reply:
        upload = self.state.begin(self.bucket, self.key, self._kept_headers())
        return _xml("InitiateMultipartUploadResult", self._names(upload))

    def upload_part(self) -> Reply:
        upload, number = self._upload(), self._number()
        path = self.state.receive(upload.id, number, self._body())
        self._check_md5(path)
        piece = self.state.add_part(upload, path)
        return Reply(headers=_sums(f'"{piece.etag}"', piece.crc))

    def upload_part_copy(self) -> Reply:
        upload, number = self._upload(), self._number()
        source = unquote(self.request.headers["x-oss-copy-source"]).removeprefix("/")
        bucket, _, key = source.partition("/")
        found = self.state.objects.get((bucket, key))
        if found is None:
            raise Refusal(404, "NoSuchKey", "No such source object.", "0026-00000001")
        text = self.request.headers.get(
            "x-oss-copy-source-range", f"bytes=0-{found.length - 1}"
        )
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", text).groups())
        if last >= found.length:
            raise Refusal(416, "InvalidRange", "The range is past the end.")
        body = found.read(first, last + 1 - first)
        piece = self.state.add_part(upload, self.state.receive(upload.id, number, body))
        inner = (
            f"<LastModified>{_date(time.time())}</LastModified><ETag>&quot;{piece.etag}&quot;"
        )
        return _xml("CopyPartResult", f"{inner}</ETag>")

    def list_parts(self) -> Reply:
        upload = self._upload()
        marker = int(self.params.get("part-number-marker", 0))
        limit = min(int(self.params.get("max-parts", 1000)), self.state.page)
        numbers = sorted(number for number in upload.parts if number > marker)
        page = numbers[:limit]
        rows = "".join(
            f"<Part><PartNumber>{p.number}</PartNumber><LastModified>{_date(p.time_ns / 1e9)}"
            f"</LastModified><ETag>&quot;{p.etag}&quot;</ETag><HashCrc64ecma>{p.crc}"
            f"</HashCrc64ecma><Size>{p.length}</Size></Part>"
            for p in map(upload.parts.__getitem__, page)
        )
        inner = f"{self._names(upload)}<MaxParts>{limit}</MaxParts>"
        inner += f"<NextPartNumberMarker>{page[-1] if page else 0}</NextPartNumberMarker>"
        return _xml("ListPartsResult", inner + _more(len(numbers) > limit) + rows)

    def list_multipart_uploads(self) -> Reply:
        prefix = self.params.get("prefix", "")
        marker = self.params.get("key-marker", ""), self.params.get("upload-id-marker", "")
        limit = min(int(self.params.get("max-uploads", 1000)), self.state.page)
        with self.state.lock:
            uploads = [u for u in self.state.uploads.values() if u.bucket == self.bucket]
        uploads = [u for u in uploads if u.key.startswith(prefix) and (u.key, u.id) > marker]
        uploads.sort(key=lambda u: (u.key, u.id))
        page = uploads[:limit]
        rows = "".join(
            f"<Upload><Key>{quote(u.key)}</Key><UploadId>{u.id}</UploadId>"
            f"<Initiated>{_date(u.time)}</Initiated></Upload>"
            for u in page
        )
        inner = f"<EncodingType>url</EncodingType><Bucket>{self.bucket}</Bucket>"
        if len(uploads) > limit:
            inner += f"<NextKeyMarker>{quote(page[-1].key)}</NextKeyMarker>"
            inner += f"<NextUploadIdMarker>{page[-1].id}</NextUploadIdMarker>"
        return _xml("ListMultipartUploadsResult", inner + _more(len(uploads) > limit) + rows)

    def complete_multipart_upload(self) -> Reply:
        wanted = self._wanted()
        with self.state.lock:
            upload = self._upload()
            self._check_absent()
            pieces = tuple(_chosen(upload, wanted))
            digest = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in pieces))
            crc = 0
            for piece in pieces:
                crc = CRC64_XZ.combine(crc, piece.crc, piece.length)
            etag = f"{digest.hexdigest().upper()}-{len(pieces)}"
            self._publish(upload.id, pieces, etag, crc, upload.headers)
        inner = f"<EncodingType>url</EncodingType><Bucket>{self.bucket}</Bucket>"
        inner += f"<Key>{quote(self.key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
        return _xml("CompleteMultipartUploadResult", inner, headers=_sums(f'"{etag}"', crc))

    def abort_multipart_upload(self) -> Reply:
        self.state.abort(self._upload())
        return Reply(204)

    # objects

    def put_object(self) -> Reply:
        name = os.urandom(16).hex().upper()
        path = self.state.receive(name, 1, self._body())
        self._check_md5(path)
        with self.state.lock:
            self._check_absent()
            piece = self.state.keep(path)
            self._publish(name, (piece,), piece.etag, piece.crc, self._kept_headers())
        return Reply(headers=_sums(f'"{piece.etag}"', piece.crc))

    def get_object(self) -> Reply:
        found = self.state.objects.get((self.bucket, self.key))
        if found is None:
            raise Refusal(404, "NoSuchKey", "The key does not exist.", "0026-00000001")
        wanted = self.request.headers.get("if-match")
        if wanted is not None and wanted.strip('"').upper() != found.etag:
            raise Refusal(412, "PreconditionFailed", "The ETag differs.", "0016-00000801")
        headers = _sums(f'"{found.etag}"', found.crc) + tuple(found.headers.items())
        headers += (("Last-Modified", formatdate(found.time, usegmt=True)),)
        text = self.request.headers.get("range", "")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
        if match is None or int(match[1]) >= found.length:
            if match and self.request.headers.get("x-oss-range-behavior") == "standard":
                raise Refusal(416, "InvalidRange", "The range is past the end.")
            content = found.read(0, found.length)
            return Reply(200, headers, content=content, length=found.length)
        first, last = int(match[1]), min(int(match[2] or found.length), found.length - 1)
        headers += (("Content-Range", f"bytes {first}-{last}/{found.length}"),)
        length = last + 1 - first
        return Reply(206, headers, content=found.read(first, length), length=length)

    head_object = get_object

    def delete_object(self) -> Reply:
        self.state.delete(self.bucket, self.key)
        return Reply(204)

    # what they share

    def _body(self) -> Iterator[memoryview]:
        for view in self.connection.body():
            if self.fault.flipped:
                view[0] ^= 1
                self.fault = replace(self.fault, flipped=False)
            yield view

    def _kept_headers(self) -> dict[str, str]:
        given = self.request.headers.items()
        return {k: v for k, v in given if k.startswith("x-oss-meta-") or k == "content-type"}

    def _names(self, upload: PendingUpload) -> str:
        return (
            f"<EncodingType>url</EncodingType><Bucket>{upload.bucket}</Bucket>"
            f"<Key>{quote(upload.key)}</Key><UploadId>{upload.id}</UploadId>"
        )

    def _upload(self) -> PendingUpload:
        upload = self.state.uploads.get(self.params.get("uploadId", ""))
        if upload is None or (upload.bucket, upload.key) != (self.bucket, self.key):
            raise Refusal(404, "NoSuchUpload", "No such upload.", "0042-00000002")
        return upload

    def _number(self) -> int:
        number = int(self.params["partNumber"])
        if not 1 <= number <= 10000:
            raise Refusal(400, "InvalidArgument", "Part numbers are 1 to 10000.")
        return number

    def _check_md5(self, path: Path) -> None:
        told, etag = self.request.headers.get("content-md5"), path.name.split("-")[4][:32]
        if told and base64.b64decode(told) != bytes.fromhex(etag):
            path.unlink()
            raise Refusal(400, "InvalidDigest", "The Content-MD5 is not the body's.")

    def _check_absent(self) -> None:
        forbidden = self.request.headers.get("x-oss-forbid-overwrite") == "true"
        if forbidden and (self.bucket, self.key) in self.state.objects:
            raise Refusal(409, "FileAlreadyExists", "The object exists.", "0026-00000101")

    def _wanted(self) -> list[tuple[int, str]]:
        text = b"".join(map(bytes, self.connection.body()))
        try:
            rows = list(ElementTree.fromstring(text).iter("Part"))
            wanted = [(int(r.findtext("PartNumber")), r.findtext("ETag")) for r in rows]
        except (ElementTree.ParseError, TypeError, ValueError):
            wanted = []
        if not wanted:
            raise Refusal(400, "MalformedXML", "The list of parts is not well-formed.")
        return wanted

    def _publish(
        self, name: str, pieces: tuple[Piece, ...], etag: str, crc: int, headers: dict[str, str]
    ) -> None:
        length = sum(piece.length for piece in pieces)
        place = self.bucket, self.key, name
        self.state.publish(
            StoredObject(*place, length, etag, crc, headers, time.time(), pieces)
        )


def _chosen(upload: PendingUpload, wanted: list[tuple[int, str]]) -> Iterator[Piece]:
    if [number for number, _ in wanted] != sorted({number for number, _ in wanted}):
        raise Refusal(400, "InvalidPartOrder", "The parts are not in ascending order.")
    for number, etag in wanted:
        piece = upload.parts.get(number)
        if piece is None or piece.etag != (etag or "").strip('"').upper():
            raise Refusal(400, "InvalidPart", "A part is not there.", PartNumber=number)
        if number != wanted[-1][0] and piece.length < MIN_PART:
            raise Refusal(400, "EntityTooSmall", "A part is too small.", PartNumber=number)
        yield piece


def _sums(etag: str, crc: int) -> Headers:
    return ("ETag", etag), ("x-oss-hash-crc64ecma", str(crc))


def _more(truncated: bool) -> str:
    return f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"

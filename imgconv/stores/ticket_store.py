"""A store of one object: each request goes to a URL that a ticket has ready for it."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import NoReturn
from xml.etree.ElementTree import Element

from imgconv.body import Body, BodyReader
from imgconv.errors import (
    ContentDamaged,
    CredentialsExpired,
    ObjectMissing,
    StoreCannot,
    StoreRefused,
    StoreUnavailable,
    UploadGone,
    UsageError,
)
from imgconv.objectstore import Limits, ObjectInfo, ObjectReader, Part, Upload
from imgconv.stores.s3_codes import Refusal
from imgconv.stores.s3_wire import crc_of, etag_of, object_info
from imgconv.stores.s3_xml import (
    completion,
    fields_of,
    fields_of_headers,
    goes_on,
    is_error,
    parsed,
    parts_in,
)
from imgconv.stores.ticket_file import SignedUpload, read_ticket
from imgconv.stores.transport import Answer, Transport
from imgconv.units import MiB
from imgconv.workers import Lock

_HEAD_HEADERS = {"x-amz-checksum-mode": "ENABLED"}
_EXCLUSIVE_HEADERS = {"If-None-Match": "*"}

_MINUTES = 300.0  # how long a service may take to put an object together, in seconds
_MAX_ANSWER = 16 * MiB  # a page of ten thousand parts has 3


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer that says yes, read to its end."""

    what: str
    headers: Mapping[str, str]
    content: bytes

    def document(self) -> Element:
        """Return the XML in it."""
        with self.understood():
            return parsed(self.content)

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Raise StoreUnavailable for a ValueError: half an answer is as good as none."""
        try:
            yield
        except ValueError as error:
            raise StoreUnavailable(f"{self.what}: {error}") from error


class TicketStore:
    """A PartStore whose bucket holds one object, that of the ticket in the file `path`.

    It knows no credentials, adds nothing to a request that its signature would have to
    cover, and cannot read. The file may be replaced while an upload is under way.
    """

    def __init__(self, path: str, transport: Transport):
        self._path, self._transport = path, transport
        self._ticket = read_ticket(path)
        self._limits = self._ticket.limits
        self._lock = Lock()
        self._worn_out: SignedUpload | None = None  # the ticket that was refused last

    @property
    def name(self) -> str:
        """The URL of the bucket that the object will be in."""
        return f"s3://{self._ticket.bucket}"

    @property
    def limits(self) -> Limits:
        """What the service bears, by the ticket."""
        return self._limits

    def begin(self, key: str, metadata: Mapping[str, str]) -> Upload:
        """Return the upload the ticket is for, once it is certain that the service has it.

        Its `metadata` is what it was given when the ticket was issued.
        """
        ticket = self._ticket
        if ticket.key != key:
            self._cannot(f"upload {key}")
        upload = Upload(key, ticket.upload, token=ticket.token)
        next(self.list_parts(upload), None)
        return upload

    def put_part(
        self, upload: Upload, number: int, body: Body, *, crc: int | None, md5: bytes | None
    ) -> Part:
        """Send a part; ContentDamaged when something else arrived.

        An MD5 is sent along. A CRC cannot be, so the service has to answer with its own.
        """
        ticket, what = self._of(upload), f"part {number}"
        if not 1 <= number <= len(ticket.parts):
            raise StoreRefused(f"{ticket.object}: {what}: the ticket has {len(ticket.parts)}")
        reply = self._ask(
            ticket,
            what,
            "PUT",
            ticket.parts[number - 1],
            {"Content-Length": str(len(body)), **_content_md5(md5)},
            body.reader(),
        )
        fields = fields_of_headers(reply.headers)
        with reply.understood():
            part = Part(number, len(body), etag_of(fields), crc_of(fields))
        if crc is not None and part.crc != crc:
            _refuse_checksum(reply.what, part.crc)
        return part

    def copy_part(
        self, upload: Upload, number: int, source_key: str, start: int, length: int
    ) -> Part:
        """Raise StoreCannot: the ticket is about no other object."""
        self._cannot("copy a part")

    def list_parts(self, upload: Upload) -> Iterator[Part]:
        """Yield the parts the service holds, by number.

        Where it lists replaced parts too, some may be left out at page ends.
        """
        ticket, last = self._of(upload), 0
        for url in ticket.pages:
            reply = self._ask(ticket, "list parts", "GET", url)
            page = reply.document()
            with reply.understood():
                found = [part for part in parts_in(page) if part.number > last]
            yield from found
            if not goes_on(page):
                return
            last = max((part.number for part in found), default=last)

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the ticket's upload if its key begins with `prefix` and it is not over."""
        ticket = self._ticket
        if ticket.key.startswith(prefix):
            with suppress(UploadGone):
                yield self.begin(ticket.key, {})

    def complete(
        self,
        upload: Upload,
        parts: Sequence[Part],
        *,
        size: int,
        crc: int | None,
        exclusive: bool,
    ) -> ObjectInfo:
        """Publish the object; whether conditionally, the ticket decides.

        Instead of `crc`, which cannot be sent, the checksums of the parts are.
        """
        ticket = self._of(upload)
        reply = self._ask(
            ticket,
            "complete",
            "POST",
            ticket.complete,
            {"Content-Type": "application/xml"}
            | (_EXCLUSIVE_HEADERS if ticket.limits.exclusive else {}),
            completion(parts, with_checksums=ticket.limits.checksum is not None),
            patience=_MINUTES,
        )
        root = reply.document()
        if is_error(root):  # the service had said yes before it knew
            self._refuse(ticket, reply.what, 200, reply.headers, root)
        version = fields_of_headers(reply.headers)["VersionId"]
        with reply.understood():
            return object_info({**fields_of(root), "VersionId": version}, size)

    def abort(self, upload: Upload) -> None:
        """Throw the upload and its parts away; one that is gone is no error."""
        with suppress(UploadGone):
            ticket = self._of(upload)
            self._ask(ticket, "abort", "DELETE", ticket.abort)

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of the object, None when there is none, as of any other."""
        ticket = self._ticket
        if key != ticket.key:
            return None
        try:
            reply = self._ask(ticket, "head", "HEAD", ticket.head, _HEAD_HEADERS)
        except ObjectMissing:
            return None
        size = reply.headers.get("content-length", "")
        if not (size.isascii() and size.isdigit()):
            raise StoreUnavailable(f"{reply.what}: the service does not tell the size")
        with reply.understood():
            return object_info(fields_of_headers(reply.headers), int(size))

    def put(
        self, key: str, content: bytes, metadata: Mapping[str, str], *, exclusive: bool
    ) -> ObjectInfo:
        """Raise StoreCannot: the ticket is about no other object."""
        self._cannot(f"store {key}")

    def delete(self, key: str) -> None:
        """Raise StoreCannot; others than the ticket's object are not there, for all we know."""
        if key == self._ticket.key:
            self._cannot("delete the object")

    def open(self, key: str) -> ObjectReader:
        """Raise StoreCannot."""
        self._cannot("read")

    def renew(self) -> bool:
        """Read the ticket anew.

        True when it is another than the one that wore out, whoever read it first.
        """
        with self._lock:
            before = self._ticket
            with suppress(UsageError):  # it may be there the next time
                self._ticket = read_ticket(self._path)
            worn_out = self._worn_out
            return self._ticket != (before if worn_out is None else worn_out)

    def close(self) -> None:
        """Release connections; harmless when repeated."""
        self._transport.close()

    def _of(self, upload: Upload) -> SignedUpload:
        """Return the ticket for an upload."""
        ticket = self._ticket
        if (ticket.key, ticket.upload) != (upload.key, upload.id):
            raise UploadGone(f"{self.name}/{upload.key}: the ticket is for another upload")
        return ticket

    def _cannot(self, what: str) -> NoReturn:
        raise StoreCannot(f"{self._ticket.object}: no ticket lets one {what}")

    def _ask(
        self,
        ticket: SignedUpload,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: BodyReader | bytes | None = None,
        *,
        patience: float = 0.0,
    ) -> _Reply:
        """Send a request; return the answer unless it says no."""
        what = f"{ticket.object}: {what}"
        with self._transport.exchange(
            what, method, url, headers or {}, body, patience=patience
        ) as answer:
            content = _content(what, answer)
            if answer.status == 404 and method != "HEAD" and not content:
                raise StoreUnavailable(f"{what}: the answer is empty")  # half of NoSuchUpload?
            if answer.status not in (200, 204):
                root = _error_in(content)
                self._refuse(ticket, what, answer.status, answer.headers, root)
            return _Reply(what, answer.headers, content)

    def _refuse(
        self,
        ticket: SignedUpload,
        what: str,
        status: int,
        headers: Mapping[str, str],
        document: Element | None,
    ) -> NoReturn:
        """Raise what an answer means that says no."""
        told = {} if document is None else fields_of(document)
        code, message = told.get("Code", ""), told.get("Message", "")
        if "Signature=" in message or not code:  # it quotes the URL, or there is none
            message = f"HTTP {status}"
        error = Refusal(code, message, status, headers).error(what)
        # the answer to a HEAD has no code, and not every service tells an old URL from others
        denied = status == 403 and code in ("", "AccessDenied")
        old = "expired" in message.lower() or _now(headers) >= ticket.expires
        if isinstance(error, CredentialsExpired) or (denied and old):
            self._worn_out = ticket
            raise CredentialsExpired(f"{error}; a new ticket is needed")
        raise error


def _content_md5(md5: bytes | None) -> dict[str, str]:
    return {} if md5 is None else {"Content-MD5": b64encode(md5).decode()}


def _refuse_checksum(what: str, crc: int | None) -> NoReturn:
    if crc is None:
        raise StoreCannot(
            f"{what}: the service does not answer with a checksum of its own; a ticket "
            "issued with profile=plain does without"
        )
    raise ContentDamaged(f"{what}: the service received something else")


def _content(what: str, answer: Answer) -> bytes:
    content = answer.read(_MAX_ANSWER + 1, decode_content=False)
    if len(content) > _MAX_ANSWER:
        raise StoreUnavailable(f"{what}: the answer does not end")
    return content


def _error_in(content: bytes) -> Element | None:
    """Return the document about an error, None for whatever else a server or proxy says."""
    with suppress(ValueError):
        root = parsed(content)
        return root if is_error(root) else None
    return None


def _now(headers: Mapping[str, str]) -> float:
    """Return the time by the server's clock, which is the one that counts, or by ours."""
    with suppress(ValueError):
        return parsedate_to_datetime(headers.get("date", "")).timestamp()
    return time()

"""What a ticket holds: an unfinished upload, and a signed URL for each request it takes.

One JSON document. It is as good as a password for the one object it is about, until its
URLs expire, and worthless for everything else.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from imgconv.errors import UsageError
from imgconv.objectstore import Limits
from imgconv.units import MiB

VERSION = 1
MAX_SIZE = 64 * MiB  # ten thousand URLs with long session tokens have 20
PAGE = 1000  # parts: the most that every service lists at once
LEAST_PARTS = 2  # what the engine needs: one for the head, one for the rest

_OBJECT = re.compile("s3://([^/]+)/(.+)")
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_URL = re.compile(rf"https?://{_HOST}/[!-~]*\?[!-~]*X-Amz-Signature=[0-9a-f]{{64}}[!-~]*")
_NUMBER = re.compile("[?&]partNumber=([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedUpload:
    """A ticket. `object` is the URL of what the upload makes, s3://bucket/key, `upload` its
    id, and `token` is in the object's metadata; `expires` is in seconds since 1970.

    `limits` are those of the service, but for the parts, of which there are as many as
    `parts` has URLs; with `limits.exclusive` completing fails if the object exists, whoever
    asks. `pages` list the parts after the 0th, 1000th, 2000th and so on.
    """

    object: str
    upload: str
    token: str
    expires: int
    limits: Limits
    head: str = field(repr=False)
    complete: str = field(repr=False)
    abort: str = field(repr=False)
    pages: tuple[str, ...] = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)

    @property
    def bucket(self) -> str:
        """The name of the object's bucket."""
        return self._place()[0]

    @property
    def key(self) -> str:
        """The object's key."""
        return self._place()[1]

    def _place(self) -> tuple[str, str]:
        match = _OBJECT.fullmatch(self.object)
        if match is None or not self.object.isprintable():
            raise ValueError("its object is not s3://bucket/key")
        return match[1], match[2]

    def text(self) -> str:
        """Return the JSON document, in one line."""
        return json.dumps({"imgconv-ticket": VERSION, **asdict(self)})


def read_ticket(path: str) -> SignedUpload:
    """Read a ticket; UsageError, in one line without any URL, when it cannot be used."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no file name"
        raise UsageError(f"{path!r}: {reason}") from error
    return parse_ticket(content, path)


def parse_ticket(content: bytes | str, name: str) -> SignedUpload:
    """Take a ticket's text for what it says; `name` begins the UsageError if it is none."""
    try:
        if len(content) > MAX_SIZE:
            raise ValueError(f"is larger than {MAX_SIZE} bytes")
        return _ticket(json.loads(content))
    except json.JSONDecodeError:
        raise UsageError(f"{name}: is not a ticket: it is not JSON") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: is not a ticket of use here: {error}") from None


def _ticket(document: Any) -> SignedUpload:
    match document:
        case {"imgconv-ticket": version} if version != VERSION:
            raise ValueError("it was made by another version of imgconv")
        case {
            "imgconv-ticket": _,
            "object": str(name),
            "upload": str(upload),
            "token": str(token),
            "expires": int(expires),
            "limits": dict(limits),
            "head": str(head),
            "complete": str(complete),
            "abort": str(abort),
            "pages": list(pages),
            "parts": list(parts),
        }:
            ticket = SignedUpload(
                object=name,
                upload=upload,
                token=token,
                expires=expires,
                limits=_limits(limits),
                head=head,
                complete=complete,
                abort=abort,
                pages=tuple(pages),
                parts=tuple(parts),
            )
            _check(ticket)
            return ticket
    raise ValueError("it lacks something, or has something else in its place")


def _limits(found: dict[str, Any]) -> Limits:
    try:
        limits = Limits(**found)
    except TypeError:
        raise ValueError("its limits are not those of a store") from None
    counts = (limits.min_part, limits.max_part, limits.max_object, limits.concurrency)
    switches = (limits.uniform, limits.exclusive, limits.copies, limits.etag_is_md5)
    if not (
        all(type(count) is int and count > 0 for count in (*counts, limits.max_parts))
        and all(type(switch) is bool for switch in switches)
        and limits.checksum in (None, "crc64-nvme")
        and not limits.copies
    ):
        raise ValueError("its limits make no sense")
    return limits


def _check(ticket: SignedUpload) -> None:
    """Raise ValueError when things do not fit together, above all the parts' numbers."""
    ticket._place()
    if not ticket.upload or not ticket.token:
        raise ValueError("it names no upload")
    if not LEAST_PARTS <= len(ticket.parts) == ticket.limits.max_parts:
        raise ValueError("its limits tell another number of parts")
    if len(ticket.pages) != -(-len(ticket.parts) // PAGE):
        raise ValueError("it cannot list its parts")
    for url in (ticket.head, ticket.complete, ticket.abort, *ticket.pages, *ticket.parts):
        if not isinstance(url, str) or _URL.fullmatch(url) is None:
            raise ValueError("what should be a signed URL is none")
    for number, url in enumerate(ticket.parts, start=1):
        if _NUMBER.findall(url) != [str(number)]:
            raise ValueError(f"its URL for part {number} is for another one")

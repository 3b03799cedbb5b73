"""Objects behind plain http and https URLs, for reading.

Nothing a server says is taken on trust: each answer must be for the range that was asked
for, of the length it should have, and of the object that was opened. Messages show scheme,
host and path alone, because logins and query strings carry secrets.
"""

import base64
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from http.client import responses
from time import monotonic
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from imgconv.errors import (
    ObjectChanged,
    ObjectMissing,
    StoreError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UsageError,
)
from imgconv.objectstore import ObjectInfo, ObjectReader
from imgconv.stores.transport import Answer, Transport, retry_after
from imgconv.units import KiB

SCHEMES = ("http", "https")
MAX_REDIRECTS = 5
MAX_SIZE = (1 << 63) - 1
SLOWEST = 8 * KiB  # bytes a second; a server that dribbles is as good as gone

_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 256 * KiB
_CONTENT_RANGE = re.compile("bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_TAG = re.compile('(?:W/)?"[!#-~]{0,256}"')  # printable, as it ends up in reports
_DATE = re.compile("[ -~]{1,64}")


def open_http(url: str, *, timeout: float = 60.0) -> ObjectReader:
    """Open the object behind a URL; `timeout` is the longest silence in seconds.

    A login in the URL ("https://user:password@host/") is sent to that host alone. Raises
    UsageError for what is no such URL or without the urllib3 library, ObjectMissing, and
    StoreRefused for a server that does not read by range or tell the size.
    """
    return HttpReader(url, timeout)


@dataclass(frozen=True, slots=True)
class _Link:
    """Where requests go, and what messages call that."""

    name: str
    url: str
    authorization: str | None = None

    @classmethod
    def parse(cls, url: str) -> "_Link":
        parts = _split(url)
        if parts is None:
            raise UsageError("not a URL such as https://host/path")
        name = urlunsplit((parts.scheme, _host(parts), parts.path, "", ""))
        return cls(name, _bare(parts), _basic(parts))

    def follow(self, location: str) -> "_Link":
        """Return where a redirect leads; credentials stay with the server they are for."""
        try:
            parts = _split(urljoin(self.url, location))
        except ValueError:
            parts = None
        if parts is None:
            raise StoreRefused(f"{self.name}: redirects to what is no http or https URL")
        here = urlsplit(self.url)
        if here.scheme == "https" and parts.scheme == "http":
            raise StoreRefused(f"{self.name}: redirects from https to http")
        same = (here.scheme, here.netloc) == (parts.scheme, _host(parts))
        kept = self.authorization if same else None
        return replace(self, url=_bare(parts), authorization=kept)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:  # its text quotes the URL
        return None
    return parts if usable else None


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _bare(parts: SplitResult) -> str:
    return urlunsplit((parts.scheme, _host(parts), parts.path or "/", parts.query, ""))


def _basic(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class _Version:
    """By what one state of an object is told from another.

    A strong ETag says it all; else the modification time has to help.
    """

    tag: str | None
    modified: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "_Version":
        tag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        version = cls(
            tag if _TAG.fullmatch(tag) else None,
            modified if _DATE.fullmatch(modified) else None,
        )
        return replace(version, modified=None) if version.strong else version

    @property
    def strong(self) -> bool:
        return self.tag is not None and not self.tag.startswith("W/")

    @property
    def label(self) -> str:
        return self.tag.removeprefix("W/").strip('"') if self.tag else self.modified or ""


class HttpReader:
    """An object behind a URL; see `open_http`.

    `info.etag` is its ETag or, without one, its modification time, "" without either.
    """

    def __init__(self, url: str, timeout: float):
        self._link = _Link.parse(url)
        self.name = self._link.name
        self._timeout = timeout
        self._transport = Transport(
            "reading http and https URLs", connect=min(timeout, 10.0), read=timeout
        )
        self._version: _Version | None = None
        self._closed = False
        try:
            self.info = self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> ObjectInfo:
        """Ask for the first byte, wherever that leads: some links do not take a HEAD."""
        for _ in range(MAX_REDIRECTS + 1):
            with self._get(0, 1) as answer:
                if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                    size = 0 if _is_empty(answer) else self._size(answer, 0, 1)
                    if size:
                        self._fill(memoryview(bytearray(1)), answer)
                    self._version = _Version.of(answer.headers)
                    return ObjectInfo(size=size, etag=self._version.label)
                self._link = self._link.follow(answer.headers["Location"])
        raise StoreRefused(f"{self.name}: redirects more than {MAX_REDIRECTS} times")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset` on, in one request."""
        if not buffer:
            return
        with self._get(offset, len(buffer)) as answer:
            size = self._size(answer, offset, len(buffer))
            if size != self.info.size or _Version.of(answer.headers) != self._version:
                raise ObjectChanged(f"{self.name}: is not the object that was opened")
            self._fill(buffer, answer)

    def _get(self, start: int, length: int) -> AbstractContextManager[Answer]:
        """Ask for a range; whoever has read its answer whole leaves the connection open."""
        self._check_open()
        headers = self._headers(start, length)
        return self._transport.exchange(self.name, "GET", self._link.url, headers)

    def _headers(self, start: int, length: int) -> dict[str, str]:
        headers = {
            "Range": f"bytes={start}-{start + length - 1}",
            "Accept-Encoding": "identity",
        }
        if self._link.authorization is not None:
            headers["Authorization"] = self._link.authorization
        if self._version is not None and self._version.tag and self._version.strong:
            headers["If-Match"] = self._version.tag
        return headers

    def _size(self, answer: Answer, start: int, length: int) -> int:
        """Return the object's size by an answer that has exactly the range asked for."""
        if answer.status != 206:
            raise _refusal(self.name, answer)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise StoreRefused(f"{self.name}: is sent compressed, even when asked not to")
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None:
            raise StoreRefused(f"{self.name}: the server does not tell which range it sends")
        first, last, size = map(int, match.groups())
        if size > MAX_SIZE:
            raise StoreRefused(f"{self.name}: {size} bytes are more than an object may have")
        if (first, last) != (start, start + length - 1) or last >= size:
            raise StoreRefused(f"{self.name}: the server sends another range than asked for")
        if answer.headers.get("Content-Length") != str(length):
            raise StoreRefused(f"{self.name}: the server does not tell how much it sends")
        return size

    def _fill(self, buffer: memoryview, answer: Answer) -> None:
        filled, end = 0, monotonic() + self._timeout + len(buffer) / SLOWEST
        while filled < len(buffer):
            piece = answer.read1(min(_PIECE, len(buffer) - filled), decode_content=False)
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
            if not piece:
                raise StoreUnavailable(f"{self.name}: the answer ended early")
            self._check_open()
            if monotonic() > end:
                raise StoreUnavailable(f"{self.name}: the server sends too slowly")

    def _check_open(self) -> None:
        if self._closed:
            raise StoreRefused(f"{self.name}: is closed")

    def close(self) -> None:
        """Release connections; a read that is under way ends with an error."""
        self._closed = True
        self._transport.close()


def _is_empty(answer: Answer) -> bool:
    """Say whether the first byte was refused because there is none."""
    return answer.status == 416 or (
        answer.status == 200 and answer.headers.get("Content-Length") == "0"
    )


def _refusal(name: str, answer: Answer) -> StoreError:
    """Return the error that a status other than 206 stands for."""
    status = answer.status
    text = f"{name}: the server answered {status} {responses.get(status, '')}".rstrip()
    match status:
        case 200:
            return StoreRefused(f"{name}: the server does not read by range")
        case 404 | 410:
            return ObjectMissing(f"{name}: does not exist")
        case 412 | 416:
            return ObjectChanged(f"{name}: is not the object that was opened")
        case 429 | 503:
            return StoreThrottled(text, retry_after(answer.headers))
        case 408:
            return StoreUnavailable(text)
    return StoreUnavailable(text) if status >= 500 else StoreRefused(text)

"""Requests over plain HTTP, for stores that need no more of a library than its connections.

Each is one attempt. Nothing of the library's own escapes, and no message has a URL in it:
URLs carry secrets.
"""

import re
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from imgconv.body import BodyReader
from imgconv.errors import StoreError, StoreRefused, StoreUnavailable, UsageError
from imgconv.stores.causes import causes
from imgconv.version import __version__

_CONNECTIONS = 32  # kept open: more than any uploader or reader uses at once
_SECONDS = re.compile("[0-9]{1,6}")


class Answer(Protocol):
    """What is used of the library's response; header names have no case."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""
        ...

    def read(self, amt: int, decode_content: bool) -> bytes:
        """Return the next `amt` bytes, fewer only at the end."""
        ...

    def read1(self, amt: int, decode_content: bool) -> bytes:
        """Return at most `amt` bytes as soon as there are some."""
        ...


class Transport:
    """Connections for any number of threads; times are in seconds.

    `connect` is the longest time to connect, or to send a buffer of a body; `read` the
    longest silence before and in an answer. Certificates are verified with the system's
    authorities. Raises UsageError, which begins with `purpose`, without the library.
    """

    def __init__(self, purpose: str, *, connect: float, read: float):
        try:
            import urllib3  # slow, and rarely needed
        except ImportError as error:
            raise UsageError(f"{purpose} needs a library: pip install imgconv[http]") from error
        self._connect, self._read = connect, read
        self._pool: Any = urllib3.PoolManager(  # knows no bodies that give buffers
            maxsize=_CONNECTIONS, ssl_context=ssl.create_default_context()
        )

    @contextmanager
    def exchange(
        self,
        name: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: BodyReader | bytes | None = None,
        *,
        patience: float = 0.0,
    ) -> Iterator[Answer]:
        """Send a request and lend the answer; redirects are not followed.

        Whoever reads the answer to its end leaves the connection open. `patience` makes
        for a longer silence. What fails is a StoreError about `name`, but what a body
        raises passes through.
        """
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        handled = sys.exception()
        try:
            answer = self._pool.request(
                method,
                url,
                body=body,
                headers={"User-Agent": f"imgconv/{__version__}", **headers},
                timeout=Timeout(connect=self._connect, read=max(self._read, patience)),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            try:
                yield answer
            finally:
                answer.close()
        except (HTTPError, OSError) as error:
            raise _failure(name, error, handled) from error

    def close(self) -> None:
        """Release connections; harmless when repeated."""
        self._pool.clear()


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds a server wants to be left alone; 0 for a date or nonsense."""
    text = headers.get("retry-after", "").strip()
    return float(text) if _SECONDS.fullmatch(text) else 0.0


def _failure(name: str, error: BaseException, handled: BaseException | None) -> StoreError:
    """Return what became of a request without an answer, in words without the URL."""
    for cause in causes(error, handled):
        match cause:
            case ssl.SSLCertVerificationError():
                reason = f"its certificate is not trusted: {cause.verify_message}"
                return StoreRefused(f"{name}: {reason}")
            case socket.gaierror(errno=socket.EAI_NONAME):
                return StoreRefused(f"{name}: its host is not known")
            case ValueError():
                return StoreRefused(f"{name}: cannot be asked for: no valid host or path")
            case TimeoutError():
                return StoreUnavailable(f"{name}: the server does not answer in time")
            case OSError(strerror=str(reason)):
                return StoreUnavailable(f"{name}: {reason}")
    return StoreUnavailable(f"{name}: the answer broke off or was not HTTP")

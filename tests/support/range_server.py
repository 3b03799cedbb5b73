"""A real HTTP server that reads by range, and misbehaves on demand."""

import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

Headers: TypeAlias = dict[str, str]


@dataclass
class Site:
    """What the server has and how it behaves; tests change it while the server runs.

    `script` holds answers to the next requests, one each; None stands for the usual one.
    """

    content: bytes
    url: str = ""
    etag: str | None = '"v1"'
    modified: str | None = None
    latency: float = 0.0  # seconds per request
    heeds_conditions: bool = True
    script: deque["Answer | None"] = field(default_factory=deque)
    seen: list[tuple[str, Headers]] = field(default_factory=list)  # path, headers
    busiest: int = 0  # the most requests at once
    busy: int = 0
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ranges(self) -> list[str]:
        return [headers["Range"] for _, headers in self.seen]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    site: Site

    def setup(self) -> None:
        super().setup()
        with self.site.lock:
            self.site.connections += 1

    def do_GET(self) -> None:
        site = self.site
        with site.lock:
            site.seen.append((self.path, dict(self.headers)))
            site.busy += 1
            site.busiest = max(site.busiest, site.busy)
            answer = site.script.popleft() if site.script else None
        try:
            time.sleep(site.latency)
            (answer or usual)(self)
            self.wfile.flush()
        except OSError:
            self.close_connection = True  # the client went away
        finally:
            with site.lock:
                site.busy -= 1

    def log_message(self, format: str, *args: object) -> None: ...

    def asked(self) -> tuple[int, int]:
        match = re.fullmatch("bytes=([0-9]+)-([0-9]+)", self.headers["Range"])
        assert match is not None
        return int(match[1]), int(match[2])

    def range_headers(self) -> Headers:
        """The head of a right answer."""
        first, last = self.asked()
        last = min(last, len(self.site.content) - 1)
        headers = {
            "Content-Range": f"bytes {first}-{last}/{len(self.site.content)}",
            "Content-Length": str(last - first + 1),
        }
        if self.site.etag is not None:
            headers["ETag"] = self.site.etag
        if self.site.modified is not None:
            headers["Last-Modified"] = self.site.modified
        return headers

    def body(self) -> bytes:
        first, last = self.asked()
        return self.site.content[first : last + 1]

    def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


Answer: TypeAlias = Callable[[Handler], None]


def usual(handler: Handler) -> None:
    """What a good server does."""
    site = handler.site
    wanted = handler.headers.get("If-Match")
    if wanted is not None and site.heeds_conditions and wanted != site.etag:
        handler.answer(412, {"Content-Length": "0"})
    elif handler.asked()[0] >= len(site.content):
        total = f"bytes */{len(site.content)}"
        handler.answer(416, {"Content-Length": "0", "Content-Range": total})
    else:
        handler.answer(206, handler.range_headers(), handler.body())


def status(number: int, **headers: str) -> Answer:
    """Answer with a status and a short page."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    page = b"<html>no</html>"
    return lambda handler: handler.answer(number, named | {"Content-Length": "15"}, page)


def whole(handler: Handler) -> None:
    """Ignore the range."""
    content = handler.site.content
    handler.answer(200, {"Content-Length": str(len(content))}, content)


def headed(**changes: str | None) -> Answer:
    """The usual answer with other headers; None leaves one out."""

    def answer(handler: Handler) -> None:
        headers: dict[str, str | None] = {**handler.range_headers()}
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        handler.close_connection = headers.get("Content-Length") is None
        kept = {name: value for name, value in headers.items() if value is not None}
        handler.answer(206, kept, handler.body())

    return answer


def cut_after(length: int) -> Answer:
    """Close the connection in the middle of the body."""

    def answer(handler: Handler) -> None:
        handler.answer(206, handler.range_headers(), handler.body()[:length])
        handler.close_connection = True

    return answer


def reset(handler: Handler) -> None:
    """Break the connection off without an answer."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.connection.close()


def stalled(seconds: float) -> Answer:
    """Say nothing for a while."""

    def answer(handler: Handler) -> None:
        time.sleep(seconds)
        usual(handler)

    return answer


def dribbled(pause: float) -> Answer:
    """Send the body byte by byte."""

    def answer(handler: Handler) -> None:
        handler.answer(206, handler.range_headers())
        for byte in handler.body():
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(pause)

    return answer


def verbatim(content: bytes) -> Answer:
    """Send bytes that need not be HTTP."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None: ...


@contextmanager
def serving(
    content: bytes, wrap: Callable[[socket.socket], socket.socket] | None = None
) -> Iterator[Site]:
    """Serve `content` under any path, behind TLS when `wrap` makes it so."""
    site = Site(content)
    server = _Server(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": site}))
    if wrap is not None:
        server.socket = wrap(server.socket)
    scheme = "http" if wrap is None else "https"
    site.url = f"{scheme}://127.0.0.1:{server.server_port}/disks/disk.raw"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

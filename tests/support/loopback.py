"""A small threaded HTTP/1.1 server on the loopback interface, with a hand on every byte.

Made for stand-ins of real services: requests are parsed by hand, because the standard
library's parser costs more than a 64 KiB body, and a connection can be reset, cut or
stalled wherever a test wants it.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

BUFFER = 1 << 20
Headers = tuple[tuple[str, str], ...]


@dataclass
class Request:
    """A request without its body; `query` as it was sent, header names in lower case."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]

    @property
    def params(self) -> dict[str, str]:
        return {unquote(name): unquote(value) for name, value in self.query}

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))


@dataclass
class Reply:
    """What is sent back; `content` streams a body of `length` bytes instead of `body`."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    content: Iterator[bytes] | None = None
    length: int | None = None


@dataclass
class Connection:
    """One client, from its first request to its last."""

    sock: socket.socket
    unread: int = 0  # bytes of the request's body that are still on the wire
    method: str = ""
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(BUFFER)))

    def __post_init__(self) -> None:
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb", buffering=1 << 16)

    def request(self) -> Request | None:
        """Read the next request's head, None when the client is gone."""
        line = self.file.readline()
        if not line:
            return None
        self.method, target, _ = line.decode("latin-1").split()
        headers = {}
        while line := self.file.readline().rstrip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        parts = urlsplit(target)
        if parts.netloc:  # we are addressed as a proxy
            headers["host"] = parts.netloc
        pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
        query = [(name, value) for name, _, value in pairs]
        self.unread = int(headers.get("content-length", 0))
        return Request(self.method, parts.path, query, headers)

    def body(self) -> Iterator[memoryview]:
        """Yield the request's body; each view is good until the next one."""
        while self.unread:
            got = self.file.readinto(self.buffer[: min(self.unread, BUFFER)])
            if not got:
                raise ConnectionError("the body ended early")
            self.unread -= got
            yield self.buffer[:got]

    def skip(self, length: int) -> None:
        """Read a body's beginning and forget it."""
        self.unread -= len(self.file.read(min(length, self.unread)))

    def send(self, reply: Reply) -> None:
        length = len(reply.body) if reply.length is None else reply.length
        lines = [f"HTTP/1.1 {reply.status} -", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if self.method == "HEAD":
            self.sock.sendall(head)
            return
        self.sock.sendall(head + reply.body)
        for piece in reply.content or ():
            self.sock.sendall(piece)

    def reset(self) -> None:
        """End with RST, so that what was sent or is unread is lost."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


class LoopbackServer:
    """`with` it: one thread per connection, none left behind; `serve` says what it does."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None):
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.endpoint_url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._tls = tls
        self.accepted = 0  # connections so far
        self._open: set[socket.socket] = set()
        self._closing = False
        self._threads: list[threading.Thread] = []
        self.lock = threading.RLock()

    def serve(self, connection: Connection, request: Request) -> bool:
        """Answer a request; false ends the connection."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close does not
        self._listener.close()
        with self.lock:
            self._closing = True
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()

    def _start(self, *target: object) -> None:
        thread = threading.Thread(target=target[0], args=target[1:], daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self.lock:
                if self._closing:
                    sock.close()
                    return
                if self._tls:  # the handshake is the connection's own thread's, with its read
                    sock = self._tls.wrap_socket(sock, True, do_handshake_on_connect=False)
                self.accepted += 1
                self._open.add(sock)
                self._threads = [t for t in self._threads if t.is_alive()]
                self._start(self._talk, sock)

    def _talk(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(Connection(sock)) as connection:
            while (request := connection.request()) and self.serve(connection, request):
                connection.skip(connection.unread)
        with self.lock:
            self._open.discard(sock)

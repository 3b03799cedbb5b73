"""A proxy between an S3 client and a real server that breaks requests on order.

    with FaultProxy("127.0.0.1", 8333) as proxy:
        proxy.script(Fault(reset_at=MiB), when=is_put_part(3))
        proxy.script(Fault(instead=error(503, "SlowDown", retry_after=1)), times=5)
        client = boto3.client("s3", endpoint_url=proxy.endpoint_url)

Heads and bodies pass through as they are, `Host` included, because signatures cover it.
Only `Expect: 100-continue` is answered here, and no signature covers that.
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

PIECE = 1 << 16
LINE = 1 << 16
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TICK = 0.05  # seconds between two gulps of a slow reader


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a request or reply, as they came."""

    raw: bytes

    @property
    def words(self) -> list[str]:
        return self.raw.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)

    def header(self, name: str) -> str:
        """The value of a header, "" when it is absent."""
        found = re.search(rb"(?im)^%s:[ \t]*(.*?)[ \t]*\r$" % name.encode(), self.raw)
        return found[1].decode("latin-1") if found else ""

    def without(self, name: str) -> bytes:
        return re.sub(rb"(?im)^%s:.*\r\n" % name.encode(), b"", self.raw)


@dataclass(frozen=True)
class Request(Head):
    """The head of a request."""

    @property
    def method(self) -> str:
        return self.words[0]

    @property
    def path(self) -> str:
        return urlsplit(self.words[1]).path

    @property
    def query(self) -> dict[str, str]:
        query = parse_qs(urlsplit(self.words[1]).query, keep_blank_values=True)
        return {name: values[-1] for name, values in query.items()}


Predicate: TypeAlias = Callable[[Request], bool]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one request. Offsets count bytes of the body on the wire."""

    reset_at: int | None = None  # RST to both sides; at 0 the server never hears of it
    early: bytes | None = None  # answered before the body is read, and closed
    instead: bytes | None = None  # answered once the body is read; the server hears nothing
    afterwards: bytes | None = None  # answered although the server has done it
    lose_reply: bool = False  # RST although the server has done it
    cut_reply: int | None = None  # the connection ends after so much of the reply's body
    flip: int | None = None  # the byte of the request's body that arrives damaged
    flip_reply: int | None = None  # the same of the reply's body
    stall: float = 0.0  # seconds without reading on, from `stall_at` on
    stall_at: int = 0
    delay: float = 0.0  # seconds by which the reply is late
    rate: float | None = None  # bytes a second that are read of the body


def error(status: int, code: str, *, retry_after: int | None = None) -> bytes:
    """An S3 error as a server sends it; with status 200, a failed complete."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>injected</Message>"
        "<RequestId>FAULT</RequestId></Error>"
    ).encode()
    head = [f"HTTP/1.1 {status} Injected", "Content-Type: application/xml"]
    if retry_after is not None:
        head.append(f"Retry-After: {retry_after}")
    head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


BLANK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def anything(request: Request) -> bool:
    return True


def is_begin(request: Request) -> bool:
    return request.method == "POST" and "uploads" in request.query


def is_put_part(number: int | None = None) -> Predicate:
    """Match an uploaded part, of any number or of this one."""

    def matches(request: Request) -> bool:
        told = request.query.get("partNumber")
        right = told is not None and number in (None, int(told))
        return request.method == "PUT" and right and not request.header("x-amz-copy-source")

    return matches


def is_copy_part(request: Request) -> bool:
    copied = request.header("x-amz-copy-source")
    return request.method == "PUT" and "partNumber" in request.query and bool(copied)


def is_put(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" not in request.query


def is_list_parts(request: Request) -> bool:
    return request.method == "GET" and "uploadId" in request.query


def is_list_uploads(request: Request) -> bool:
    return request.method == "GET" and "uploads" in request.query


def is_complete(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def is_abort(request: Request) -> bool:
    return request.method == "DELETE" and "uploadId" in request.query


def is_head(request: Request) -> bool:
    return request.method == "HEAD"


def is_get(request: Request) -> bool:
    """Match the reading of an object."""
    return request.method == "GET" and not request.query.keys() & {"uploadId", "uploads"}


@dataclass
class Logged:
    """A request that came; `status` is what the client was told, None for nothing."""

    request: Request
    fault: Fault | None
    received: int = 0  # bytes of the body
    status: int | None = None

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        return self.request.path

    @property
    def query(self) -> dict[str, str]:
        return self.request.query


@dataclass
class _Scripted:
    fault: Fault
    when: Predicate
    times: int


class FaultProxy:
    """`with` it: one thread per connection, none left behind."""

    def __init__(self, host: str, port: int):
        self._backend = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self.log: list[Logged] = []
        self._script: list[_Scripted] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._acceptor = threading.Thread(target=self._accept, name="fault-proxy")
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    def script(self, fault: Fault, when: Predicate = anything, times: int = 1) -> None:
        """Let a fault befall the next requests that match; the first scripted goes first."""
        with self._lock:
            self._script.append(_Scripted(fault, when, times))

    @property
    def pending(self) -> int:
        """How often scripted faults have yet to strike."""
        with self._lock:
            return sum(scripted.times for scripted in self._script)

    def __enter__(self) -> "FaultProxy":
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close does not
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(sock,), name="fault-proxy")
            self._threads = [other for other in self._threads if other.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _talk(self, sock: socket.socket) -> None:
        with (
            sock,
            contextlib.suppress(OSError),
            self.registered(sock),
            sock.makefile("rb") as file,
        ):
            while (raw := read_head(file)) is not None:
                logged = self._take(Request(raw))
                if not Exchange(self, sock, file, logged).run():
                    return

    def _take(self, request: Request) -> Logged:
        with self._lock:
            found = next((s for s in self._script if s.when(request)), None)
            if found is not None:
                found.times -= 1
                if not found.times:
                    self._script.remove(found)
            logged = Logged(request, found.fault if found is not None else None)
            self.log.append(logged)
            return logged

    @contextlib.contextmanager
    def registered(self, sock: socket.socket) -> Iterator[None]:
        """Shut the socket down when the proxy ends."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.add(sock)
        if self._closing.is_set():
            sock.shutdown(socket.SHUT_RDWR)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the proxy."""
        if self._closing.wait(seconds):
            raise ConnectionAbortedError("the proxy is closing")

    @contextlib.contextmanager
    def backend(self) -> Iterator[socket.socket]:
        sock = socket.create_connection(self._backend)
        with sock, self.registered(sock):
            yield sock


class Exchange:
    """One request and its reply."""

    def __init__(
        self, proxy: FaultProxy, client: socket.socket, file: BufferedReader, logged: Logged
    ):
        self._proxy, self._client, self._file, self._logged = proxy, client, file, logged
        self._request, self._fault = logged.request, logged.fault or Fault()

    def run(self) -> bool:
        """Carry it out; say whether the connection goes on."""
        fault = self._fault
        if fault.reset_at == 0:
            return self._reset()
        if fault.early is not None:
            return self._answer_early(fault.early)
        if fault.rate is not None:  # what the kernel buffers nobody waits for
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        if self._request.header("expect").lower() == "100-continue":
            self._client.sendall(_CONTINUE)
        if fault.instead is not None:
            for _ in self._body():
                pass
            return self._answer(fault.instead)
        with self._proxy.backend() as backend:
            return self._forward(backend)

    def _forward(self, backend: socket.socket) -> bool:
        fault = self._fault
        listening = send(backend, self._request.without("expect"))
        for piece in self._body():
            listening = listening and send(backend, piece)
        if fault.reset_at is not None:
            reset(backend)
            return self._reset()
        with backend.makefile("rb") as reply:
            while (raw := read_head(reply)) is not None and raw.split(b" ", 2)[1] == b"100":
                pass
            if raw is None:
                return self._reset()
            if fault.afterwards is not None or fault.lose_reply:
                for _ in self._reply_body(reply, Head(raw)):
                    pass
                return self._reset() if fault.lose_reply else self._answer(fault.afterwards)
            return self._relay(reply, Head(raw))

    def _relay(self, reply: BufferedReader, head: Head) -> bool:
        fault, room = self._fault, self._fault.cut_reply
        self._proxy.pause(fault.delay)
        self._logged.status = int(head.words[1])
        self._client.sendall(head.raw)
        for piece in flipped(self._reply_body(reply, head), fault.flip_reply):
            self._client.sendall(piece if room is None else piece[:room])
            room = None if room is None else max(room - len(piece), 0)
            if room == 0:
                break
        delimited = head.header("content-length") or head.header("transfer-encoding")
        ends = room is not None or head.header("connection").lower() == "close"
        return not ends and (bool(delimited) or not self._has_body(head))

    def _reply_body(self, reply: BufferedReader, head: Head) -> Iterator[bytes]:
        return pieces(reply, head, until_end=True) if self._has_body(head) else iter(())

    def _has_body(self, head: Head) -> bool:
        return self._request.method != "HEAD" and head.words[1] not in ("204", "304")

    def _body(self) -> Iterator[bytes]:
        """Yield the request's body as the fault lets it be read; the rest stays unread."""
        fault, logged, stalled = self._fault, self._logged, False
        gulp = PIECE if fault.rate is None else max(int(fault.rate * _TICK), 1)
        for piece in flipped(pieces(self._file, self._request, gulp=gulp), fault.flip):
            if not stalled and logged.received + len(piece) > fault.stall_at:
                self._proxy.pause(fault.stall)
                stalled = True
            if fault.reset_at is not None and logged.received + len(piece) >= fault.reset_at:
                yield piece[: fault.reset_at - logged.received]
                logged.received = fault.reset_at
                return
            logged.received += len(piece)
            if fault.rate is not None:
                self._proxy.pause(len(piece) / fault.rate)
            yield piece
        if not stalled:
            self._proxy.pause(fault.stall)

    def _answer(self, reply: bytes | None) -> bool:
        assert reply is not None
        if self._request.method == "HEAD":
            reply = reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self._proxy.pause(self._fault.delay)
        self._logged.status = int(reply.split(b" ", 2)[1])
        self._client.sendall(reply)
        return True

    def _answer_early(self, reply: bytes) -> bool:
        first, _, rest = reply.partition(b"\r\n")
        self._answer(first + b"\r\nConnection: close\r\n" + rest)
        # Closing with bytes unread would be an RST, which may overtake the answer.
        self._client.shutdown(socket.SHUT_WR)
        self._client.settimeout(1)
        while self._file.read1(PIECE):
            pass
        return False

    def _reset(self) -> bool:
        reset(self._client)
        return False


def send(sock: socket.socket, content: bytes) -> bool:
    """Send, unless a server that has answered already wants no more."""
    try:
        sock.sendall(content)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def reset(sock: socket.socket) -> None:
    """Make closing the socket an RST: what is under way is lost."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_head(file: BufferedReader) -> bytes | None:
    """Read up to the empty line; None when the other side has ended the connection."""
    lines = []
    while line := file.readline(LINE):
        lines.append(line)
        if line == b"\r\n" and len(lines) > 1:
            return b"".join(lines)
    return None


def pieces(
    file: BufferedReader, head: Head, *, until_end: bool = False, gulp: int = PIECE
) -> Iterator[bytes]:
    """Yield a body as it is on the wire, chunk sizes and all."""
    if head.header("transfer-encoding").lower() == "chunked":
        yield from _chunks(file, gulp)
    elif length := head.header("content-length"):
        yield from _exactly(file, int(length), gulp)
    elif until_end:
        while piece := file.read1(gulp):
            yield piece


def _chunks(file: BufferedReader, gulp: int) -> Iterator[bytes]:
    while True:
        line = file.readline(LINE)
        if not line.endswith(b"\n"):
            raise ConnectionError("the body ended early")
        yield line
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        yield from _exactly(file, size + 2, gulp)
    while (line := file.readline(LINE)) != b"\r\n":
        yield line
    yield line


def _exactly(file: BufferedReader, length: int, gulp: int) -> Iterator[bytes]:
    while length:
        piece = file.read1(min(length, gulp))
        if not piece:
            raise ConnectionError("the body ended early")
        length -= len(piece)
        yield piece


def flipped(body: Iterator[bytes], at: int | None) -> Iterator[bytes]:
    """Pass a body on with one bit of the byte at an offset turned over."""
    for piece in body:
        if at is not None and 0 <= at < len(piece):
            piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
        at = None if at is None else at - len(piece)
        yield piece

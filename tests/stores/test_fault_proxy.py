"""Every fault of the proxy, against a small server of our own: does it do what it says?"""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.fault_proxy import (
    Fault,
    FaultProxy,
    Predicate,
    Request,
    anything,
    error,
    is_abort,
    is_begin,
    is_complete,
    is_copy_part,
    is_get,
    is_head,
    is_list_parts,
    is_list_uploads,
    is_put,
    is_put_part,
)

from imgconv.testing import content_of
from imgconv.units import KiB, MiB

PART = "/b/k?partNumber=3&uploadId=u"
CONTENT = content_of(200 * KiB)
BROKEN = (ConnectionError, http.client.HTTPException)


class Handler(BaseHTTPRequestHandler):
    """Keeps what is PUT; `/chunked` and `/closing` frame their replies in other ways."""

    protocol_version = "HTTP/1.1"
    server: "Backend"

    def do_PUT(self) -> None:
        if self.path == "/refused":  # without reading the body
            self.close_connection = True
            self.reply(403, b"no", ("Connection", "close"))
            return
        length = int(self.headers.get("Content-Length", 0))
        chunked = "Transfer-Encoding" in self.headers
        body = self.chunks() if chunked else self.rfile.read(length)
        if len(body) < length:
            self.server.torn.append(len(body))
            return
        self.server.stored[self.path] = body
        self.server.heads.append(dict(self.headers))
        self.reply(200, b"stored", ("ETag", '"e"'))

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        while self.rfile.readline().strip():
            pass
        return body

    def do_GET(self) -> None:
        body = self.server.stored.get(self.path, b"nothing")
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: 1\r\n\r\n")
        elif self.path == "/closing":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"until the end")
            self.close_connection = True
        else:
            self.reply(200, body)

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def reply(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Backend(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored: dict[str, bytes] = {}
        self.heads: list[dict[str, str]] = []
        self.torn: list[int] = []

    def handle_error(self, request: object, client_address: object) -> None:
        self.torn.append(-1)  # a connection that was reset


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(backend: Backend) -> Iterator[FaultProxy]:
    before = set(threading.enumerate())
    with FaultProxy("127.0.0.1", backend.server_address[1]) as proxy:
        yield proxy
        assert proxy.pending == 0, "every fault of a test strikes"
    assert not {t for t in set(threading.enumerate()) - before if t.name == "fault-proxy"}


def await_stored(backend: Backend, path: str) -> None:
    """The server may be still about to take what its client has given up on."""
    deadline = time.monotonic() + 20
    while path not in backend.stored:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert backend.stored[path] == CONTENT


class Client:
    """One connection; requests that fail leave it closed."""

    def __init__(self, proxy: FaultProxy, timeout: float = 20):
        self._connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str = PART, body: bytes | None = None
    ) -> tuple[int, bytes]:
        self._connection.request(method, path, body)
        self.reply = self._connection.getresponse()
        with self.reply:
            return self.reply.status, self.reply.read()

    @property
    def port(self) -> int:
        """Of our end, which tells one connection from the next."""
        sock: socket.socket = self._connection.sock
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[Client]:
    with Client(proxy) as client:
        yield client


def test_all_passes_through_as_it_is(
    proxy: FaultProxy, client: Client, backend: Backend
) -> None:
    assert client.ask("PUT", PART, CONTENT) == (200, b"stored")
    port = client.port
    assert client.reply.headers["ETag"] == '"e"'
    assert backend.stored[PART] == CONTENT
    assert backend.heads[0]["Host"] == f"127.0.0.1:{proxy.port}", "signatures cover it"
    assert client.ask("GET") == (200, CONTENT)
    assert client.ask("HEAD") == (200, b"")
    assert int(client.reply.headers["Content-Length"]) == len(CONTENT)
    assert client.ask("DELETE") == (204, b"")
    assert client.ask("GET", "/chunked") == (200, b"hello world")
    assert client.port == port, "the connection is kept"
    assert client.ask("GET", "/closing") == (200, b"until the end")
    assert client.ask("PUT", "/empty", b"") == (200, b"stored")
    told = [(entry.method, entry.path, entry.received, entry.status) for entry in proxy.log[:4]]
    size = len(CONTENT)
    assert told[:2] == [("PUT", "/b/k", size, 200), ("GET", "/b/k", 0, 200)]
    assert told[2:] == [("HEAD", "/b/k", 0, 200), ("DELETE", "/b/k", 0, 204)]
    assert proxy.log[0].query == {"partNumber": "3", "uploadId": "u"}
    assert all(entry.fault is None for entry in proxy.log)


def test_a_chunked_request(proxy: FaultProxy, backend: Backend) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as sock:
        sock.sendall(b"PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert backend.stored["/c"] == b"abcde"


def test_expect_is_answered_and_not_passed_on(proxy: FaultProxy, backend: Backend) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as sock:
        head = (
            b"PUT /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        sock.sendall(head)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert "Expect" not in backend.heads[0]
    assert backend.heads[0] == {"Host": "h", "Content-Length": "3"}


def test_a_server_that_answers_without_reading(client: Client) -> None:
    status, body = client.ask("PUT", "/refused", b"x" * 1000)
    assert (status, body) == (403, b"no")


def test_a_server_that_is_away(unused_port: int) -> None:
    with FaultProxy("127.0.0.1", unused_port) as proxy, Client(proxy) as client:
        with pytest.raises(BROKEN):
            client.ask("GET")
        assert [entry.status for entry in proxy.log] == [None]


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("at", [0, 1, 100 * KiB])
def test_reset_in_the_request(
    proxy: FaultProxy, client: Client, backend: Backend, at: int
) -> None:
    fault = Fault(reset_at=at)
    proxy.script(fault)
    with pytest.raises(ConnectionError):
        client.ask("PUT", PART, CONTENT)
    assert backend.stored == {}
    assert [(e.received, e.fault, e.status) for e in proxy.log] == [(at, fault, None)]
    if at == 0:
        assert backend.torn == []
    with Client(proxy) as another:
        assert another.ask("PUT", PART, CONTENT) == (200, b"stored")


def test_reply_lost(proxy: FaultProxy, client: Client, backend: Backend) -> None:
    proxy.script(Fault(lose_reply=True), is_put_part(3))
    with pytest.raises(ConnectionError):
        client.ask("PUT", PART, CONTENT)
    assert backend.stored == {PART: CONTENT}


@pytest.mark.parametrize("field", ["instead", "afterwards"])
def test_an_error_after_the_body(
    proxy: FaultProxy, client: Client, backend: Backend, field: str
) -> None:
    reply = error(503, "SlowDown", retry_after=7)
    fault = Fault(instead=reply) if field == "instead" else Fault(afterwards=reply)
    proxy.script(fault)
    status, body = client.ask("PUT", PART, CONTENT)
    assert status == 503
    assert b"<Code>SlowDown</Code>" in body
    assert client.reply.headers["Retry-After"] == "7"
    assert (PART in backend.stored) == (field == "afterwards")
    port = client.port
    assert client.ask("PUT", PART, CONTENT) == (200, b"stored")
    assert client.port == port, "the connection is kept"
    assert [entry.status for entry in proxy.log] == [503, 200]


def test_an_error_for_head_has_no_body(proxy: FaultProxy, client: Client) -> None:
    proxy.script(Fault(instead=error(500, "InternalError")), is_head)
    assert client.ask("HEAD") == (500, b"")
    assert client.ask("HEAD")[0] == 200


@pytest.mark.parametrize("size", [200 * KiB, 20 * MiB])
def test_an_error_before_the_body_is_read(
    proxy: FaultProxy, backend: Backend, size: int
) -> None:
    proxy.script(Fault(early=error(400, "RequestTimeout")))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as sock:
        sock.sendall(b"PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        head = sock.recv(10_000)
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nConnection: close\r\n" in head
        assert b"<Code>RequestTimeout</Code>" in head
        assert sock.recv(1) == b""
    with Client(proxy) as client:
        proxy.script(Fault(early=error(503, "SlowDown")))
        assert client.ask("PUT", PART, bytes(size))[0] == 503
        assert client.ask("PUT", PART, b"abc") == (200, b"stored"), "on a new connection"
    assert backend.stored == {PART: b"abc"}
    assert [entry.received for entry in proxy.log] == [0, 0, 3]


def test_success_that_is_none(proxy: FaultProxy, client: Client, backend: Backend) -> None:
    proxy.script(Fault(instead=error(200, "InternalError")), is_complete)
    status, body = client.ask("POST", "/b/k?uploadId=u", b"<x/>")
    assert status == 200
    assert b"<Error><Code>InternalError</Code>" in body


@pytest.mark.parametrize("at", [0, 70_000, len(CONTENT) - 1])
def test_one_byte_flipped(proxy: FaultProxy, client: Client, backend: Backend, at: int) -> None:
    proxy.script(Fault(flip=at), is_put_part())
    proxy.script(Fault(flip_reply=at), is_list_parts)
    client.ask("PUT", PART, CONTENT)
    damaged = CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :]
    assert backend.stored[PART] == damaged
    assert client.ask("GET") == (200, CONTENT), "flipped back"


@pytest.mark.parametrize("at", [0, 100 * KiB, MiB])
def test_stalled_in_the_body(
    proxy: FaultProxy, client: Client, backend: Backend, at: int
) -> None:
    proxy.script(Fault(stall=0.4, stall_at=at))
    began = time.monotonic()
    assert client.ask("PUT", PART, CONTENT) == (200, b"stored")
    assert time.monotonic() - began >= 0.4
    proxy.script(Fault(stall=600, stall_at=at))
    with Client(proxy, timeout=0.2) as hasty, pytest.raises(TimeoutError):
        hasty.ask("PUT", "/other", CONTENT)
    # Past its end, the stall is between the body and the reply. The proxy does not wait.
    if at > len(CONTENT):
        await_stored(backend, "/other")
    else:
        assert "/other" not in backend.stored


@pytest.mark.parametrize("done", [True, False])
def test_a_late_reply(proxy: FaultProxy, client: Client, backend: Backend, done: bool) -> None:
    late = Fault(delay=0.4) if done else Fault(delay=0.4, instead=error(500, "InternalError"))
    proxy.script(late)
    began = time.monotonic()
    assert client.ask("PUT", PART, CONTENT)[0] == (200 if done else 500)
    assert time.monotonic() - began >= 0.4
    proxy.script(Fault(delay=600))
    with Client(proxy, timeout=0.2) as hasty, pytest.raises(TimeoutError):
        hasty.ask("PUT", "/other", CONTENT)
    await_stored(backend, "/other")


@pytest.mark.parametrize("room", [0, 10, 150 * KiB])
def test_half_an_answer(proxy: FaultProxy, client: Client, room: int) -> None:
    client.ask("PUT", PART, CONTENT)
    proxy.script(Fault(cut_reply=room))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.ask("GET")
    assert caught.value.partial == CONTENT[:room]
    with Client(proxy) as another:
        assert another.ask("GET") == (200, CONTENT)


def test_a_slow_reader(proxy: FaultProxy, client: Client, backend: Backend) -> None:
    proxy.script(Fault(rate=400 * KiB))
    began = time.monotonic()
    assert client.ask("PUT", PART, CONTENT) == (200, b"stored")
    assert 0.5 <= time.monotonic() - began < 10
    assert backend.stored[PART] == CONTENT


def test_faults_strike_in_order_and_as_often_as_told(proxy: FaultProxy, client: Client) -> None:
    slow, failed = Fault(instead=error(503, "SlowDown")), Fault(instead=error(500, "Failed"))
    proxy.script(slow, is_put_part(3), times=2)
    proxy.script(failed, is_put_part())
    assert proxy.pending == 3
    paths = ["/b/k?partNumber=4&uploadId=u", PART, PART, PART]
    assert [client.ask("PUT", path, b"x")[0] for path in paths] == [500, 503, 503, 200]
    assert [entry.fault for entry in proxy.log] == [failed, slow, slow, None]


PREDICATES: dict[str, tuple[str, Predicate]] = {
    "begin": ("POST /b/k?uploads", is_begin),
    "put part": ("PUT /b/k?x-id=UploadPart&partNumber=3&uploadId=u", is_put_part(3)),
    "put": ("PUT /b/k", is_put),
    "list parts": ("GET /b/k?uploadId=u&max-parts=7", is_list_parts),
    "list uploads": ("GET /b?uploads&prefix=k", is_list_uploads),
    "complete": ("POST /b/k?uploadId=u", is_complete),
    "abort": ("DELETE /b/k?uploadId=u", is_abort),
    "delete": ("DELETE /b/k", lambda request: request.query == {}),
    "head": ("HEAD /b/k", is_head),
    "get": ("GET /b/k", is_get),
}


@pytest.mark.parametrize("name", PREDICATES)
def test_predicates_tell_operations_apart(name: str) -> None:
    line, predicate = PREDICATES[name]
    request = Request(f"{line} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    matched = {other for other, (_, matches) in PREDICATES.items() if matches(request)}
    assert predicate(request)
    assert anything(request)
    assert matched - {"delete"} == {name} - {"delete"}
    assert not is_put_part(4)(request)
    assert not is_copy_part(request)


def test_a_copied_part_is_not_a_put_one() -> None:
    line = "PUT /b/k?partNumber=3&uploadId=u HTTP/1.1"
    request = Request(f"{line}\r\nx-amz-copy-source: /b/o\r\n\r\n".encode())
    assert is_copy_part(request)
    assert not is_put_part()(request)
    assert not is_put(request)

"""An S3 server that keeps nothing: what is left is what the client costs.

`python tests/support/discard_server.py [PORT]` serves on the loopback interface until it
is ended, and prints its endpoint's URL. Parts are thrown away unread, in the kernel; their
sizes, checksums and the metadata of the upload are remembered, so that a whole upload and
the look at its result succeed.
"""

import contextlib
import hashlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

BUFFER = 1 << 20
CRC = "x-amz-checksum-crc64nvme"
XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass
class Object:
    """An upload, or what became of it."""

    headers: dict[str, str]
    sizes: dict[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(self.sizes.values())


Answer = tuple[int, dict[str, str], str]


class Discard:
    """What is remembered, shared by all connections."""

    def __init__(self) -> None:
        self.uploads: dict[str, Object] = {}
        self.objects: dict[str, Object] = {}

    def answer(self, method: str, target: str, headers: dict[str, str]) -> Answer:
        url = urlsplit(target)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        if method == "PUT":
            return self._put(url.path, query, headers)
        if method == "POST":
            return self._post(url.path, query, headers)
        if method == "HEAD" and url.path in self.objects:
            found = self.objects[url.path]
            return 200, {**found.headers, "content-length": str(found.size)}, ""
        if method == "DELETE":
            return 204, {}, ""
        if method == "GET" and "uploads" in query:
            return 200, {}, f"<ListMultipartUploadsResult {XMLNS}/>"
        if method == "GET" and "uploadId" in query:
            return 200, {}, f"<ListPartsResult {XMLNS}/>"
        return (
            404,
            {},
            "<Error><Code>NoSuchKey</Code><Message>nothing is kept</Message></Error>",
        )

    def _put(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        etag = f'"{hashlib.md5(repr((path, query)).encode()).hexdigest()}"'
        size, kept = int(headers.get("content-length", 0)), self._kept(headers, etag)
        if "uploadId" not in query:
            self.objects[path] = Object(kept, {1: size})
            return 200, kept, ""
        ranged = re.match(r"bytes=(\d+)-(\d+)", headers.get("x-amz-copy-source-range", ""))
        if ranged:
            size = int(ranged[2]) - int(ranged[1]) + 1
        self.uploads[query["uploadId"]].sizes[int(query["partNumber"])] = size
        if "x-amz-copy-source" in headers:
            return 200, {}, f"<CopyPartResult {XMLNS}><ETag>{etag}</ETag></CopyPartResult>"
        return 200, kept, ""

    def _post(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        if "uploads" in query:
            upload_id = f"upload-{len(self.uploads)}"
            self.uploads[upload_id] = Object(self._kept(headers, ""))
            name = "InitiateMultipartUploadResult"
            return 200, {}, f"<{name} {XMLNS}><UploadId>{upload_id}</UploadId></{name}>"
        done = self.uploads[query["uploadId"]]
        done.headers |= self._kept(headers, f'"{"0" * 32}-{len(done.sizes)}"')
        self.objects[path] = done
        name, crc = "CompleteMultipartUploadResult", done.headers.get(CRC, "")
        etag = done.headers["etag"]
        body = f"<ETag>{etag}</ETag><ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME>"
        return 200, {}, f"<{name} {XMLNS}>{body}</{name}>"

    @staticmethod
    def _kept(headers: dict[str, str], etag: str) -> dict[str, str]:
        kept = {k: v for k, v in headers.items() if k == CRC or k.startswith("x-amz-meta-")}
        return kept | ({"etag": etag} if etag else {})


def _discard(connection: socket.socket, length: int, scratch: memoryview) -> None:
    while length:
        # with MSG_TRUNC the kernel drops the bytes instead of copying them
        got = connection.recv_into(scratch, min(length, BUFFER), socket.MSG_TRUNC)
        if not got:
            raise ConnectionError("the body ended early")
        length -= got


def _head(connection: socket.socket) -> bytes | None:
    """Read up to the empty line; what follows it is left in the socket."""
    while True:
        seen = connection.recv(1 << 16, socket.MSG_PEEK)
        end = seen.find(b"\r\n\r\n")
        if not seen:
            return None
        if end >= 0:
            return connection.recv(end + 4)


def _talk(connection: socket.socket, discard: Discard) -> None:
    scratch = memoryview(bytearray(BUFFER))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError), connection:
        while head := _head(connection):
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ")
            pairs = [line.partition(":") for line in lines[1:] if line]
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            if headers.get("expect"):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            _discard(connection, int(headers.get("content-length", 0)), scratch)
            status, fields, body = discard.answer(method, target, headers)
            fields = {"content-length": str(len(body)), **fields}
            text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            connection.sendall(f"HTTP/1.1 {status} -\r\n{text}\r\n{body}".encode())


def serve(port: int) -> None:
    """Serve until the process ends; port 0 takes a free one."""
    discard = Discard()
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_talk, args=(connection, discard), daemon=True).start()


@contextlib.contextmanager
def running_discard_server() -> Iterator[str]:
    """Run the server in a process of its own; yields its endpoint's URL."""
    with subprocess.Popen(
        [sys.executable, __file__, "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


if __name__ == "__main__":
    serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0)

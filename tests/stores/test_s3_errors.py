"""What the S3 store makes of answers that no healthy server gives."""

import hashlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.certificate import self_signed
from support.loopback import Connection, LoopbackServer, Reply, Request

from imgconv.body import Body
from imgconv.errors import (
    AccessDenied,
    BucketMissing,
    ContentDamaged,
    CredentialsExpired,
    ImgconvError,
    ObjectChanged,
    ObjectMissing,
    OutputExists,
    StoreCannot,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UploadGone,
)
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores.s3 import S3

UPLOAD = Upload("k", "u")
BODY = Body([memoryview(b"content")])
CRC = "x-amz-checksum-crc64nvme"


class Script(LoopbackServer):
    """Gives the replies it was told, one after another; None resets the connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.replies: list[Reply | None] = []
        self.requests: list[Request] = []
        self.connections: set[int] = set()

    def serve(self, connection: Connection, request: Request) -> bool:
        self.requests.append(request)
        self.connections.add(connection.sock.fileno())
        if "expect" in request.headers:
            connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.skip(connection.unread)
        reply = self.replies.pop(0)
        if reply is None:
            connection.reset()
            return False
        connection.send(reply)
        cut = reply.content is None and reply.length not in (None, len(reply.body))
        return request.method == "HEAD" or not cut


def refusal(status: int, code: str, *headers: tuple[str, str]) -> Reply:
    body = f"<Error><Code>{code}</Code><Message>It is\n so.</Message></Error>"
    return Reply(status, headers, body.encode())


def answer(name: str, content: str = "") -> Reply:
    return Reply(body=f"<{name}>{content}</{name}>".encode())


@pytest.fixture(scope="module")
def server() -> Iterator[Script]:
    with Script() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "access")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield server


@pytest.fixture(scope="module")
def store(server: Script) -> Iterator[PartStore]:
    store = S3(endpoint_url=server.endpoint_url, profile="minio").open("b")
    yield store
    store.close()


@pytest.fixture
def script(server: Script) -> Script:
    server.replies, server.requests = [], []
    return server


REFUSALS = [
    (500, "InternalError", StoreUnavailable),
    (502, "", StoreUnavailable),
    (503, "ServiceUnavailable", StoreUnavailable),
    (504, "", StoreUnavailable),
    (400, "RequestTimeout", StoreUnavailable),
    (400, "IncompleteBody", StoreUnavailable),
    (409, "OperationAborted", StoreUnavailable),
    (503, "SlowDown", StoreThrottled),
    (503, "SlowDownWrite", StoreThrottled),
    (429, "Whatever", StoreThrottled),
    (400, "BadDigest", ContentDamaged),
    (400, "XAmzContentChecksumMismatch", ContentDamaged),
    (400, "ExpiredToken", CredentialsExpired),
    (400, "InvalidToken", CredentialsExpired),
    (404, "NoSuchUpload", UploadGone),
    (404, "NoSuchBucket", BucketMissing),
    (403, "AccessDenied", AccessDenied),
    (403, "SignatureDoesNotMatch", AccessDenied),
    (403, "QuotaExceeded", StoreRefused),
    (400, "InvalidPart", StoreRefused),
    (501, "NotImplemented", StoreCannot),
    (405, "MethodNotAllowed", StoreCannot),
    (412, "PreconditionFailed", OutputExists),
    (409, "ConditionalRequestConflict", OutputExists),
]


@pytest.mark.parametrize(("status", "code", "kind"), REFUSALS)
def test_what_a_code_means(
    script: Script, store: PartStore, status: int, code: str, kind: type[ImgconvError]
) -> None:
    script.replies = [refusal(status, code)]
    with pytest.raises(kind) as caught:
        store.complete(UPLOAD, [Part(1, 7, "e")], size=7, crc=1, exclusive=True)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("s3://b/k: complete: ")
    assert code in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(script.requests) == 1, "one attempt"


@pytest.mark.parametrize(
    ("reply", "wait"),
    [
        (refusal(503, "SlowDown"), 0.0),
        (refusal(503, "SlowDown", ("Retry-After", "7")), 7.0),
        (refusal(503, "SlowDown", ("Retry-After", "Mon, 23 Nov 2026 11:28:17 GMT")), 0.0),
        (refusal(503, "ServiceUnavailable", ("Retry-After", "3")), 3.0),
        (refusal(503, "Busy", ("Retry-After", "2")), 2.0),
    ],
)
def test_how_long_to_wait(script: Script, store: PartStore, reply: Reply, wait: float) -> None:
    script.replies = [reply]
    with pytest.raises(StoreThrottled) as caught:
        store.put_part(UPLOAD, 1, BODY, crc=1, md5=None)
    assert caught.value.retry_after == wait
    assert str(caught.value).startswith("s3://b/k: part 1: ")


def test_clocks_that_differ(script: Script, store: PartStore) -> None:
    date = "Mon, 23 Nov 2026 11:28:17 GMT"
    script.replies = [refusal(403, "RequestTimeTooSkewed", ("Date", date))]
    with pytest.raises(StoreRefused, match=f"server's clock says {date}"):
        store.begin("k", {})


def test_an_error_in_a_good_answer(script: Script, store: PartStore) -> None:
    script.replies = [refusal(200, "InternalError"), refusal(200, "SlowDown")]
    with pytest.raises(StoreUnavailable, match="complete: InternalError: It is so"):
        store.complete(UPLOAD, [Part(1, 7, "e")], size=7, crc=1, exclusive=True)
    with pytest.raises(StoreThrottled, match="part 1: copy of source: SlowDown"):
        store.copy_part(UPLOAD, 1, "source", 0, 7)


@pytest.mark.parametrize("reply", [None, Reply(body=b"<not><xml"), Reply(500)])
def test_half_an_answer(script: Script, store: PartStore, reply: Reply | None) -> None:
    script.replies = [reply]
    with pytest.raises(StoreUnavailable, match=r"^s3://b/k: list parts: "):
        list(store.list_parts(UPLOAD))


REQUESTS: dict[str, Callable[[PartStore], object]] = {
    "begin": lambda store: store.begin("k", {}),
    "part 1": lambda store: store.put_part(UPLOAD, 1, BODY, crc=1, md5=None),
    "part 1: copy of source": lambda store: store.copy_part(UPLOAD, 1, "source", 0, 7),
    "list parts": lambda store: list(store.list_parts(UPLOAD)),
    "list uploads": lambda store: list(store.list_uploads("k")),
    "complete": lambda store: store.complete(
        UPLOAD, [Part(1, 7, "e")], size=7, crc=1, exclusive=True
    ),
    "head": lambda store: store.head("k"),
    "put": lambda store: store.put("k", b"content", {}, exclusive=True),
}
ENOUGH = b'<R><UploadId>u</UploadId><ETag>"e"</ETag></R>'


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(length=99), id="none of the body"),
        pytest.param(Reply(body=ENOUGH, length=99), id="not all of it"),
        pytest.param(Reply(), id="empty"),
        pytest.param(Reply(headers=(("ETag", ""),)), id="no ETag"),
    ],
)
def test_an_answer_without_what_it_must_have(
    script: Script, store: PartStore, what: str, reply: Reply
) -> None:
    script.replies = [reply]
    with pytest.raises(StoreUnavailable, match=rf"^s3://b/k[*]?: {what}: the answer "):
        REQUESTS[what](store)
    assert len(script.requests) == 1, "one attempt"


@pytest.mark.parametrize("what", ["part 1", "put"])
def test_headers_alone_are_not_the_whole_answer(
    script: Script, store: PartStore, what: str
) -> None:
    script.replies = [Reply(headers=(("ETag", '"e"'), (CRC, "AAAAAAAAAAE=")), length=9)]
    with pytest.raises(StoreUnavailable, match="the answer ended after 0 of 9 bytes"):
        REQUESTS[what](store)


@pytest.mark.parametrize("what", ["part 1", "part 1: copy of source", "list parts", "complete"])
def test_a_404_that_does_not_say_of_what(script: Script, store: PartStore, what: str) -> None:
    script.replies = [Reply(404)]
    with pytest.raises(StoreUnavailable, match=f"{what}: the answer is empty"):
        REQUESTS[what](store)


def test_a_list_of_nothing(script: Script, store: PartStore) -> None:
    script.replies = [answer("ListPartsResult"), answer("ListMultipartUploadsResult")]
    assert list(store.list_parts(UPLOAD)) == []
    assert list(store.list_uploads("k")) == []


def test_a_head_refused_asks_for_the_reason(script: Script, store: PartStore) -> None:
    # the library takes the 400 for a wrong region, and asks the bucket for its own
    script.replies = [Reply(400), Reply(400), refusal(400, "ExpiredToken")]
    with pytest.raises(CredentialsExpired, match="s3://b/k: get: ExpiredToken"):
        store.head("k")
    script.replies = [Reply(403), refusal(404, "NoSuchKey")]
    assert store.head("k") is None
    script.replies = [Reply(404), refusal(404, "NoSuchBucket")]
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        store.open("k")
    script.replies = [Reply(403), Reply(206, body=b"x")]
    with pytest.raises(StoreRefused, match="s3://b/k: head: 403"):
        store.head("k")


def test_credentials_renewed_by_another_thread(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3(endpoint_url=script.endpoint_url).open("b")
    assert not store.renew(), "they are the same, and nobody complained"
    script.replies = [refusal(400, "ExpiredToken"), refusal(400, "ExpiredToken")]
    with pytest.raises(CredentialsExpired):
        store.begin("k", {})
    assert not store.renew()
    monkeypatch.setenv("AWS_SESSION_TOKEN", "second")
    assert store.renew()
    assert store.renew(), "for whoever failed at the same time"
    with pytest.raises(CredentialsExpired):
        store.begin("k", {})
    assert not store.renew()


@pytest.mark.parametrize(
    "reply", [refusal(400, "InvalidRequest"), refusal(501, "NotImplemented")]
)
def test_a_service_without_such_checksums(
    script: Script, store: PartStore, reply: Reply
) -> None:
    script.replies = [reply]
    with pytest.raises(StoreCannot, match="profile=plain does without checksums"):
        store.begin("k", {})
    assert script.requests[-1].headers["x-amz-checksum-algorithm"] == "CRC64NVME"


def test_plain_sends_an_md5_and_no_checksum(script: Script) -> None:
    store = S3(endpoint_url=script.endpoint_url, profile="plain").open("b")
    md5 = hashlib.md5(b"content")
    etag = ("ETag", f'"{md5.hexdigest().upper()}"')
    script.replies = [
        answer("R", "<UploadId>u</UploadId>"),
        Reply(headers=(etag,)),
        Reply(headers=(("ETag", '"other"'),)),
        Reply(headers=(etag,)),
        answer("R", "<ETag>e-1</ETag>"),
    ]
    upload = store.begin("k", {})
    part = store.put_part(upload, 1, BODY, crc=None, md5=md5.digest())
    assert part == Part(1, 7, md5.hexdigest().upper())
    with pytest.raises(ContentDamaged, match="s3://b/k: part 1: the service received"):
        store.put_part(upload, 1, BODY, crc=None, md5=md5.digest())
    store.put("small", b"content", {}, exclusive=True)
    assert store.complete(upload, [part], size=7, crc=1, exclusive=True).crc is None
    sums = [r.headers.get("content-md5") for r in script.requests]
    assert sums == [None, *["mgNkuembtIDdJeHwKEyFVQ=="] * 3, None]
    names = {name for r in script.requests for name in r.headers}
    assert not {name for name in names if "checksum" in name or name == "if-none-match"}
    store.close()


def test_a_service_that_ignores_checksums_has_verified_nothing(
    script: Script, store: PartStore
) -> None:
    etag = ("ETag", '"e"')
    script.replies = [
        Reply(headers=(etag,)),
        answer("R", "<ETag>e-1</ETag>"),
        Reply(headers=(etag, ("Content-Length", "7"))),
    ]
    part = store.put_part(UPLOAD, 1, BODY, crc=1, md5=None)
    assert part == Part(1, 7, "e", None)
    info = store.complete(UPLOAD, [part], size=7, crc=1, exclusive=True)
    assert (info.size, info.etag, info.crc) == (7, "e-1", None)


def test_a_service_that_only_says_what_it_received(script: Script, store: PartStore) -> None:
    script.replies = [Reply(headers=(("ETag", '"e"'), (CRC, "AAAAAAAAAAI=")))] * 2
    assert store.put_part(UPLOAD, 1, BODY, crc=2, md5=None).crc == 2
    with pytest.raises(ContentDamaged):
        store.put_part(UPLOAD, 1, BODY, crc=1, md5=None)


def test_the_checksum_of_the_object_is_looked_up_when_the_answer_lacks_it(
    script: Script, store: PartStore
) -> None:
    complete = answer("R", '<ETag>"e-1"</ETag>')
    etag, crc = ("ETag", '"e-1"'), (CRC, "AAAAAAAAAAI=")
    script.replies = [complete, Reply(headers=(etag, crc), length=7)]
    info = store.complete(UPLOAD, [Part(1, 7, "e")], size=7, crc=2, exclusive=True)
    assert (info.size, info.crc) == (7, 2)
    assert script.requests[0].headers[CRC] == "AAAAAAAAAAI="
    assert script.requests[0].headers["if-none-match"] == "*"
    assert script.requests[0].headers["x-amz-mp-object-size"] == "7"
    assert script.requests[1].headers["x-amz-checksum-mode"] == "ENABLED"
    script.replies = [complete, refusal(500, "InternalError")]
    info = store.complete(UPLOAD, [Part(1, 7, "e")], size=7, crc=2, exclusive=True)
    assert (info.size, info.crc) == (7, None), "it is published all the same"


def ranged(body: bytes, *, of: int | None = None, start: int = 0) -> Reply:
    length = len(body) if of is None else of
    headers = (("Content-Range", f"bytes {start}-{start + length - 1}/7"),)
    return Reply(206, headers, length=length, content=iter([body]))


def test_answers_to_a_read(script: Script, store: PartStore) -> None:
    script.replies = [Reply(headers=(("ETag", '"e"'),), length=7)]
    reader, buffer = store.open("k"), bytearray(7)
    for kind, reply in [
        (StoreCannot, Reply(200, body=b"content")),
        (StoreUnavailable, ranged(b"conten")),
        (StoreUnavailable, None),
        (ObjectChanged, refusal(412, "PreconditionFailed")),
        (ObjectMissing, refusal(404, "NoSuchKey")),
        (StoreThrottled, refusal(503, "SlowDown")),
    ]:
        script.replies = [reply]
        with pytest.raises(kind, match=r"^s3://b/k"):
            reader.read_into(0, memoryview(buffer))
    script.connections.clear()
    script.replies = [ranged(b"content"), ranged(b"tent", start=3)]
    reader.read_into(0, memoryview(buffer))
    reader.read_into(3, memoryview(buffer)[3:])
    assert buffer == b"content"
    assert len(script.connections) == 1, "the connection was used again"
    assert script.requests[-1].headers["range"] == "bytes=3-6"
    assert script.requests[-1].headers["if-match"] == '"e"'


def test_an_answer_to_a_read_that_is_cut(script: Script) -> None:
    class Cut(Script):
        def serve(self, connection: Connection, request: Request) -> bool:
            super().serve(connection, request)
            return request.method == "HEAD"

    with Cut() as cut:
        store = S3(endpoint_url=cut.endpoint_url).open("b")
        cut.replies = [Reply(headers=(("ETag", '"e"'),), length=7), ranged(b"con", of=7)]
        with pytest.raises(StoreUnavailable, match=r"^s3://b/k: get bytes=0-6: 3 read"):
            store.open("k").read_into(0, memoryview(bytearray(7)))
        store.close()


def test_over_tls_bodies_are_neither_hashed_nor_cut_to_chunks(
    server: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`server` is there for its credentials."""
    path, context = self_signed(tmp_path)
    with Script(context) as script:
        store = S3(endpoint_url=script.endpoint_url).open("b")
        with pytest.raises(StoreRefused, match="CERTIFICATE_VERIFY_FAILED"):
            store.put_part(UPLOAD, 1, BODY, crc=1, md5=None)
        assert script.requests == []
        store.close()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
        store = S3(endpoint_url=script.endpoint_url).open("b")
        script.replies = [Reply(headers=(("ETag", '"e"'),))]
        assert store.put_part(UPLOAD, 1, BODY, crc=1, md5=None).etag == "e"
        store.close()
        headers = script.requests[0].headers
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert headers["content-length"] == "7"
    assert not {"transfer-encoding", "content-encoding", "x-amz-trailer"} & set(headers)

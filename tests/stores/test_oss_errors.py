"""What the OSS store makes of services and connections that fail."""

import socket
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest
from support.faults import Fault
from support.oss_client import KEY, MIN_PART, noise, opened, put, save
from support.oss_server import REGION, OssServer

from imgconv.errors import (
    AccessDenied,
    BucketElsewhere,
    BucketMissing,
    CredentialsExpired,
    ImgconvError,
    StoreCannot,
    StoreError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores.oss import Oss
from imgconv.units import MiB

pytestmark = pytest.mark.usefixtures("oss_environment")


# failures of the service


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", StoreUnavailable),
        (502, "BadGateway", StoreUnavailable),
        (503, "ServiceUnavailable", StoreUnavailable),
        (400, "RequestTimeout", StoreUnavailable),
        (408, "Whatever", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (200, "InternalError", StoreUnavailable),
        (503, "SlowDown", StoreThrottled),
        (503, "TotalQpsLimitExceeded", StoreThrottled),
        (503, "UploadTrafficRateLimitExceeded", StoreThrottled),
        (429, "QpsLimitExceeded", StoreThrottled),
        (403, "SecurityTokenExpired", CredentialsExpired),
        (403, "InvalidSecurityToken", CredentialsExpired),
        (400, "ExpiredToken", CredentialsExpired),
        (405, "MethodNotAllowed", StoreCannot),
        (501, "Whatever", StoreCannot),
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidAccessKeyId", AccessDenied),
        (409, "FileImmutable", StoreRefused),
        (404, "NoSuchBucket", BucketMissing),
        (403, "PermanentRedirect", BucketElsewhere),
        (307, "TemporaryRedirect", StoreRefused),
    ],
)
def test_every_code_has_its_class(
    server: OssServer, store: PartStore, status: int, code: str, kind: type[StoreError]
) -> None:
    operations = "InitiateMultipartUpload", "CompleteMultipartUpload"
    for operation in operations:
        server.faults.add(operation, Fault(status=status, code=code))
    with pytest.raises(ImgconvError) as first:
        store.begin(KEY, {})
    with pytest.raises(ImgconvError) as second:
        store.complete(Upload(KEY, "x"), [Part(1, 1, "e")], size=1, crc=None, exclusive=False)
    assert [entry.operation for entry in server.log] == list(operations), "one attempt each"
    for error in (first.value, second.value):
        assert type(error) is kind
        assert str(error).startswith(f"oss://exports/{KEY}: cannot ")
        assert "\n" not in str(error)
        if status >= 300:
            assert code in str(error)


def test_a_message_names_code_ec_and_request(server: OssServer, store: PartStore) -> None:
    server.faults.add("HeadObject", Fault(status=403, code="AccessDenied", ec="0003-00000001"))
    with pytest.raises(StoreRefused) as error:
        store.head(KEY)
    words = str(error.value)
    assert words.startswith(
        f"oss://exports/{KEY}: cannot be looked up: AccessDenied: Made up. "
    )
    assert "EC 0003-00000001, request " in words
    assert len(words.rpartition("request ")[2]) == 25


def test_expired_by_its_ec_alone(server: OssServer, store: PartStore) -> None:
    server.faults.add("HeadObject", Fault(status=403, code="AccessDenied", ec="0002-00000007"))
    with pytest.raises(CredentialsExpired):
        store.head(KEY)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), 0),
        ((("Retry-After", "7"),), 7),
        ((("x-oss-qos-delay-time", "1500"),), 1.5),
        ((("Retry-After", "1"), ("x-oss-qos-delay-time", "2500")), 2.5),
        ((("Retry-After", "soon"),), 0),
    ],
)
def test_how_long_a_throttling_store_wants_us_to_wait(
    server: OssServer,
    store: PartStore,
    headers: tuple[tuple[str, str], ...],
    seconds: float,
) -> None:
    server.faults.add("UploadPart", Fault(status=503, code="SlowDown", headers=headers))
    with pytest.raises(StoreThrottled) as error:
        put(store, store.begin(KEY, {}), 1, b"x")
    assert error.value.retry_after == seconds


def test_it_may_name_a_moment_instead(server: OssServer, store: PartStore) -> None:
    upload, moment = store.begin(KEY, {}), formatdate(time.time() + 1000, usegmt=True)
    busy = Fault(status=503, code="SlowDown", headers=(("Retry-After", moment),))
    server.faults.add("UploadPart", busy)
    with pytest.raises(StoreThrottled) as error:
        put(store, upload, 1, b"x")
    assert 1 < error.value.retry_after <= 1000


def test_a_busy_store_that_says_when_to_return_is_throttling(
    server: OssServer, store: PartStore
) -> None:
    fault = Fault(status=503, code="ServiceUnavailable", headers=(("Retry-After", "3"),))
    server.faults.add("HeadObject", fault)
    with pytest.raises(StoreThrottled) as error:
        store.head(KEY)
    assert error.value.retry_after == 3


@pytest.mark.parametrize("text", [b"<html>Bad Gateway</html>", b"", b"\xff\xfe", b"{"])
@pytest.mark.parametrize("status", [200, 502])
def test_answers_of_something_that_is_not_oss(
    server: OssServer, store: PartStore, status: int, text: bytes
) -> None:
    """Without a Date header: the SDK stumbles over that before it looks at the status."""
    server.faults.add("InitiateMultipartUpload", Fault(status=status, body=text))
    with pytest.raises(StoreUnavailable, match=f"oss://exports/{KEY}"):
        store.begin(KEY, {})


def test_a_head_answered_without_any_explanation(server: OssServer, store: PartStore) -> None:
    date = (("Date", formatdate(usegmt=True)),)
    server.faults.add("HeadObject", Fault(status=404, body=b"", headers=date))
    assert store.head(KEY) is None
    server.faults.add("HeadObject", Fault(status=403, body=b"", headers=date))
    with pytest.raises(StoreRefused, match="HTTP 403"):
        store.head(KEY)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(cut_reply=0), id="none of the body"),
        pytest.param(Fault(cut_reply=60), id="not all of it"),
        pytest.param(Fault(blank=True), id="blank"),
    ],
)
@pytest.mark.parametrize(
    "operation",
    [
        "InitiateMultipartUpload",
        "UploadPartCopy",
        "ListParts",
        "ListMultipartUploads",
        "CompleteMultipartUpload",
    ],
)
def test_half_an_answer(
    server: OssServer, store: PartStore, operation: str, fault: Fault
) -> None:
    save(store, noise(MIN_PART))
    upload = store.begin(f"{KEY}.2", {})
    part = put(store, upload, 1, b"abc")
    requests: dict[str, Callable[[], object]] = {
        "InitiateMultipartUpload": lambda: store.begin(KEY, {}),
        "UploadPartCopy": lambda: store.copy_part(upload, 2, KEY, 0, MIN_PART),
        "ListParts": lambda: list(store.list_parts(upload)),
        "ListMultipartUploads": lambda: list(store.list_uploads("")),
        "CompleteMultipartUpload": lambda: store.complete(
            upload, [part], size=3, crc=None, exclusive=True
        ),
    }
    server.faults.add(operation, fault)
    with pytest.raises(StoreUnavailable, match=r"^oss://exports"):
        requests[operation]()


def test_a_404_that_does_not_say_of_what(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    part = put(store, upload, 1, b"abc")
    store.abort(upload)
    for operation in ("UploadPart", "ListParts", "CompleteMultipartUpload"):
        server.faults.add(operation, Fault(blank=True))
    for request in (
        lambda: put(store, upload, 1, b"abc"),
        lambda: list(store.list_parts(upload)),
        lambda: store.complete(upload, [part], size=3, crc=None, exclusive=True),
    ):
        with pytest.raises(StoreUnavailable, match="HTTP 404"):
            request()


def test_an_answer_without_headers(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    for operation in ("UploadPart", "PutObject", "HeadObject"):
        server.faults.add(operation, Fault(blank=True))
    for request in (
        lambda: put(store, upload, 1, b"abc"),
        lambda: save(store, b"abc"),
        lambda: store.head(KEY),
    ):
        with pytest.raises(StoreUnavailable, match=f"^oss://exports/{KEY}: .* incomplete"):
            request()


# failures of the connection


@pytest.mark.parametrize("after", [0, 300_000])
def test_a_connection_reset_during_a_part(
    server: OssServer, store: PartStore, after: int
) -> None:
    upload = store.begin(KEY, {})
    server.faults.add("UploadPart", Fault(reset_after=after))
    with pytest.raises(StoreUnavailable, match="cannot send part 1: "):
        put(store, upload, 1, noise(8 * MiB))
    assert list(store.list_parts(upload)) == []


def test_a_reply_that_is_lost_after_the_fact(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    server.faults.add("UploadPart", Fault(drop_reply=True))
    with pytest.raises(StoreUnavailable):
        put(store, upload, 1, b"abc")
    assert [part.length for part in store.list_parts(upload)] == [3]


def test_a_throttling_answer_that_does_not_wait_for_the_body(
    server: OssServer, store: PartStore
) -> None:
    """Whether the answer or the broken pipe is seen first is up to the kernel."""
    upload = store.begin(KEY, {})
    server.faults.add("UploadPart", Fault(status=503, code="SlowDown", unread=True))
    with pytest.raises((StoreThrottled, StoreUnavailable)):
        put(store, upload, 1, noise(8 * MiB))
    assert put(store, upload, 1, b"again").length == 5


def test_nobody_answers(store: PartStore, server: OssServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with (
        opened(Oss(endpoint_url=f"http://127.0.0.1:{port}", region=REGION)) as store,
        pytest.raises(StoreUnavailable, match="Connection refused"),
    ):
        store.begin(KEY, {})


def test_a_host_that_has_no_address() -> None:
    with (
        opened(Oss(endpoint_url="http://oss.invalid", region=REGION)) as store,
        pytest.raises(StoreUnavailable),
    ):
        store.begin(KEY, {})


def test_an_answer_that_does_not_come_in_time(server: OssServer) -> None:
    """But the end of an upload is waited for longer."""
    options = Oss(endpoint_url=server.endpoint_url, region=REGION, read_timeout=1)
    with opened(options) as store:
        upload = store.begin(KEY, {})
        part = put(store, upload, 1, b"x")
        server.faults.add("HeadObject", Fault(stall=1.5))
        server.faults.add("CompleteMultipartUpload", Fault(stall=1.5))
        with pytest.raises(StoreUnavailable, match="timed out"):
            store.head(KEY)
        store.complete(upload, [part], size=1, crc=None, exclusive=True)


def test_a_store_that_takes_no_more_bytes(server: OssServer) -> None:
    options = Oss(endpoint_url=server.endpoint_url, region=REGION, connect_timeout=1)
    with opened(options) as store:
        upload = store.begin(KEY, {})
        server.faults.add("UploadPart", Fault(stall=3))
        with pytest.raises(StoreUnavailable, match="timed out"):
            put(store, upload, 1, noise(16 * MiB))


def test_connections_are_kept_for_the_next_request(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    put(store, upload, 1, noise(MIN_PART))
    store.head(KEY)
    save(store, b"abc")
    store.open(KEY).read_into(0, memoryview(bytearray(3)))
    assert server.accepted == 1

"""What a service may answer, what that means, and what is not believed."""

import json
import re
import socket

import pytest
from support.fault_proxy import (
    BLANK,
    Fault,
    error,
    is_abort,
    is_complete,
    is_head,
    is_list_parts,
    is_put_part,
)
from support.tickets import Place, put, raises

from imgconv.errors import (
    AccessDenied,
    CredentialsExpired,
    ImgconvError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from imgconv.objectstore import PartStore
from imgconv.units import MiB


def test_answers_that_say_no(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    cases: list[tuple[Fault, type[ImgconvError], str]] = [
        (Fault(instead=error(500, "InternalError")), StoreUnavailable, "InternalError"),
        (Fault(instead=error(503, "SlowDown", retry_after=7)), StoreThrottled, "SlowDown"),
        (Fault(instead=error(403, "AccessDenied")), AccessDenied, "AccessDenied: injected"),
        (Fault(instead=error(307, "TemporaryRedirect")), StoreRefused, "TemporaryRedirect"),
        (Fault(instead=error(403, "InvalidToken")), CredentialsExpired, "a new ticket"),
        (Fault(reset_at=0), StoreUnavailable, "part 1: "),
        (Fault(reset_at=3), StoreUnavailable, "part 1: "),
        (Fault(lose_reply=True), StoreUnavailable, "part 1: "),
        (Fault(early=error(503, "SlowDown")), StoreThrottled, "SlowDown"),
    ]
    for fault, kind, text in cases:
        place.proxy.script(fault, is_put_part(1))
        with raises(kind, text):
            put(store, upload, 1, b"content")
    assert place.proxy.pending == 0
    put(store, upload, 1, b"content")


def test_a_busy_service_tells_when_to_return(store: PartStore, place: Place) -> None:
    place.proxy.script(Fault(instead=error(503, "SlowDown", retry_after=7)), is_list_parts)
    with pytest.raises(StoreThrottled) as caught:
        store.begin(place.key, {})
    assert caught.value.retry_after == 7.0


def test_a_complete_that_fails_after_it_said_yes(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    part = put(store, upload, 1, b"content")
    answers: list[tuple[bytes, type[ImgconvError], str]] = [
        (error(200, "InternalError"), StoreUnavailable, "complete: InternalError"),
        (error(200, "InvalidPart"), StoreRefused, "complete: InvalidPart"),
        (reply(b"<Complete"), StoreUnavailable, "complete: the answer is not XML"),
        (reply(b""), StoreUnavailable, "complete: the answer is not XML"),
    ]
    for answer, kind, text in answers:
        place.proxy.script(Fault(instead=answer), is_complete)
        with raises(kind, text):
            store.complete(upload, [part], size=7, crc=part.crc, exclusive=True)
    waiting = reply(
        b" \n \n<?xml version='1.0' encoding='UTF-8'?><Result><ETag>x</ETag></Result>"
    )
    place.proxy.script(Fault(instead=waiting), is_complete)
    assert store.complete(upload, [part], size=7, crc=0, exclusive=True).etag == "x"


@pytest.mark.parametrize(
    "fault", [Fault(cut_reply=0), Fault(cut_reply=60), Fault(afterwards=BLANK)]
)
def test_half_an_answer(store: PartStore, place: Place, fault: Fault) -> None:
    upload = store.begin(place.key, {})
    part = put(store, upload, 1, b"content")
    place.proxy.script(fault, is_list_parts)
    with raises(StoreUnavailable, "list parts: the answer "):
        list(store.list_parts(upload))
    place.proxy.script(fault, is_complete)
    with raises(StoreUnavailable, "complete: the answer "):
        store.complete(upload, [part], size=7, crc=part.crc, exclusive=True)
    assert place.content() == b"content"


def test_a_404_that_does_not_say_of_what(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    place.proxy.script(Fault(instead=reply(b"", 404)), is_list_parts)
    with raises(StoreUnavailable, "list parts: the answer is empty"):
        list(store.list_parts(upload))


def test_an_answer_without_an_etag(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    place.proxy.script(Fault(afterwards=BLANK), is_put_part(1))
    with raises(StoreUnavailable, "part 1: the answer has no ETag"):
        put(store, upload, 1, b"content")
    place.put(b"content")
    place.proxy.script(Fault(afterwards=BLANK), is_head)
    with raises(StoreUnavailable, "head: the answer has no ETag"):
        store.head(place.key)


def reply(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d Told\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def page(numbers: list[int], *, truncated: bool) -> bytes:
    rows = "".join(
        f"<Part><PartNumber>{n}</PartNumber><Size>{n}</Size><ETag>&quot;e{n}&quot;</ETag></Part>"
        for n in numbers
    )
    more = "true" if truncated else "false"
    text = f"<ListPartsResult><IsTruncated>{more}</IsTruncated>{rows}</ListPartsResult>"
    return reply(text.encode())


def test_lists_longer_than_a_page(place: Place) -> None:
    place.issue(parts=2500)
    store = place.open()
    upload = store.begin(place.key, {})
    pages = [page([1, 7, 999, 1000, 1000, 1003], truncated=True)]
    pages += [page([1003, 1900, 2000], truncated=True), page([2400], truncated=False)]
    for answer in pages:
        place.proxy.script(Fault(instead=answer), is_list_parts)
    numbers = [part.number for part in store.list_parts(upload)]
    assert numbers == [1, 7, 999, 1000, 1000, 1003, 1900, 2000, 2400]
    markers = [one.query["part-number-marker"] for one in place.proxy.log[-3:]]
    assert markers == ["0", "1000", "2000"]
    put(store, upload, 2500, b"content")
    assert [part.number for part in store.list_parts(upload)] == [2500]
    store.close()


def test_lists_that_are_not_to_be_trusted(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    bomb = b"<!DOCTYPE a [<!ENTITY b 'cc'>]><ListPartsResult>&b;</ListPartsResult>"
    answers = [
        (bomb, "declares entities"),
        (bomb.decode().encode("utf-16"), "is not UTF-8"),
        (b"<ListPartsResult><Part/></ListPartsResult>", "no PartNumber"),
        (page([-1], truncated=False).partition(b"\r\n\r\n")[2], "has PartNumber '-1'"),
        (b"<ListPartsResult>", "is not XML"),
        (b" " * (17 * MiB), "does not end"),
    ]
    for body, text in answers:
        place.proxy.script(Fault(instead=reply(body)), is_list_parts)
        with raises(StoreUnavailable, text):
            list(store.list_parts(upload))


def test_what_a_service_or_a_proxy_quotes_is_not_repeated(
    store: PartStore, place: Place
) -> None:
    upload = store.begin(place.key, {})
    url = re.escape(json.loads(place.file.read_text())["parts"][0]).replace("&", "&amp;")
    quoting = f"<Error><Code>Odd</Code><Message>cannot serve {url}</Message></Error>"
    for body in (quoting.encode(), f"<html>{url}</html>".encode(), url.encode()):
        place.proxy.script(Fault(instead=reply(body, 400)), is_put_part(1))
        with raises(StoreRefused, "part 1: (Odd: )?HTTP 400$"):
            put(store, upload, 1, b"content")


def test_a_head_without_a_reason(store: PartStore, place: Place) -> None:
    place.proxy.script(Fault(instead=error(403, "AccessDenied")), is_head)
    with raises(StoreRefused, "head: HTTP 403"):
        store.head(place.key)


def test_nobody_answers(place: Place) -> None:
    place.issue()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        there = place.proxy.endpoint_url.rpartition(":")[2]
        place.file.write_text(place.file.read_text().replace(f":{there}/", f":{port}/"))
        store = place.open(read_timeout=1)
        with raises(StoreUnavailable, "list parts: the server does not answer in time"):
            store.begin(place.key, {})
    with raises(StoreUnavailable, "list parts: Connection refused"):
        store.begin(place.key, {})
    store.close()


def test_an_abort_that_is_refused(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    place.proxy.script(Fault(instead=error(403, "AccessDenied")), is_abort)
    with raises(AccessDenied, "abort: AccessDenied"):
        store.abort(upload)
    store.abort(upload)
    assert place.unfinished() == []

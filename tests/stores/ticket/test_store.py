"""The store of one object: what it does and what no ticket lets one do."""

import hashlib
import os
import threading

import pytest
from support.fault_proxy import Fault, is_put_part
from support.seaweed import BUCKET
from support.tickets import SMALLEST, Place, put, raises

import imgconv
from imgconv.body import Body
from imgconv.errors import Cancelled, ContentDamaged, StoreCannot, StoreRefused, UploadGone
from imgconv.native import CRC64_NVME
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores import parse_url
from imgconv.stores.ticket_file import parse_ticket
from imgconv.units import MiB


def test_parts_out_of_order_and_what_is_known_of_them(store: PartStore, place: Place) -> None:
    ticket = parse_ticket(place.file.read_text(), "it")
    upload = store.begin(place.key, {"ignored": "as the ticket has its own"})
    assert upload == Upload(place.key, ticket.upload, token=ticket.token)
    assert store.name == f"s3://{BUCKET}"
    assert store.limits.max_parts == 20
    assert store.head(place.key) is None
    pieces = {5: os.urandom(12345), 1: os.urandom(SMALLEST), 2: os.urandom(SMALLEST)}
    parts = {n: put(store, upload, n, piece) for n, piece in pieces.items()}
    assert parts[5] == Part(
        5, 12345, hashlib.md5(pieces[5]).hexdigest(), CRC64_NVME.update(pieces[5])
    )
    ordered = [parts[n] for n in sorted(parts)]
    assert [(p.number, p.length, p.etag) for p in store.list_parts(upload)] == [
        (p.number, p.length, p.etag) for p in ordered
    ]
    assert list(store.list_uploads(place.key[:-2])) == [upload]
    assert list(store.list_uploads("elsewhere")) == []
    whole = b"".join(pieces[n] for n in sorted(pieces))
    crc = CRC64_NVME.update(whole)
    made = store.complete(upload, ordered, size=len(whole), crc=crc, exclusive=True)
    found = store.head(place.key)
    assert found is not None
    assert (made.size, made.crc, made.etag) == (found.size, found.crc, found.etag)
    assert (found.size, found.crc) == (len(whole), crc)
    assert found.metadata == {"imgconv-upload": ticket.token}
    assert place.content() == whole
    assert list(store.list_uploads(place.key)) == []


def test_an_empty_object(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    part = put(store, upload, 1, b"")
    assert store.complete(upload, [part], size=0, crc=0, exclusive=True).crc == 0
    assert place.content() == b""


@pytest.mark.parametrize(
    "name", ["a b+c&d=e", "per%20cent%", "ümläut/磁盘", "what?and#hash;~'"]
)
def test_keys_with_strange_characters(place: Place, name: str) -> None:
    place.key = f"{place.key}/{name}"
    place.object = f"s3://{BUCKET}/{place.key}"
    place.issue()
    assert parse_url(place.url).key == place.key
    store = place.open()
    upload = store.begin(place.key, {})
    part = put(store, upload, 1, b"content")
    store.complete(upload, [part], size=7, crc=part.crc, exclusive=True)
    assert place.content() == b"content"
    store.close()


def test_a_ticket_is_for_one_object_and_for_writing(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    with raises(StoreCannot, "no ticket lets one upload elsewhere"):
        store.begin("elsewhere", {})
    with raises(StoreCannot, "no ticket lets one copy a part"):
        store.copy_part(upload, 1, place.key, 0, 1)
    with raises(StoreCannot, "no ticket lets one store k"):
        store.put("k", b"", {}, exclusive=False)
    with raises(StoreCannot, "no ticket lets one delete"):
        store.delete(place.key)
    with raises(StoreCannot, "no ticket lets one read"):
        imgconv.open(place.url)
    assert store.head("elsewhere") is None
    store.delete("elsewhere")
    for other in (Upload(place.key, "another"), Upload("elsewhere", upload.id)):
        with raises(UploadGone, "the ticket is for another upload"):
            list(store.list_parts(other))
        store.abort(other)
    assert place.unfinished() == [upload.id]


def test_a_part_beyond_the_ticket(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    for number in (0, 21):
        with raises(StoreRefused, f"part {number}: the ticket has 20"):
            put(store, upload, number, b"content")
    put(store, upload, 20, b"content")


def test_an_upload_that_is_gone(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    part = put(store, upload, 1, b"content")
    store.abort(upload)
    store.abort(upload)
    with raises(UploadGone, "NoSuchUpload"):
        put(store, upload, 2, b"more")
    with raises(UploadGone, "NoSuchUpload"):
        store.complete(upload, [part], size=7, crc=part.crc, exclusive=True)
    with raises(UploadGone, "list parts: NoSuchUpload"):
        store.begin(place.key, {})


def test_housekeeping_by_ticket(store: PartStore, place: Place) -> None:
    put(store, store.begin(place.key, {}), 3, b"content")
    (found,) = imgconv.unfinished_uploads(place.url)
    assert (found.url, found.parts, found.size) == (place.object, 1, 7)
    assert imgconv.abort_uploads(place.url, older_than=0) == (found,)
    assert place.unfinished() == []


def test_a_damaged_part(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    with raises(ContentDamaged, "part 1: the service received something else"):
        put(store, upload, 1, b"content", crc=1)
    place.proxy.script(Fault(flip=3), is_put_part(1))
    with raises(ContentDamaged, "part 1"):
        put(store, upload, 1, b"content")


def test_a_damaged_part_with_an_md5(place: Place) -> None:
    place.issue(profile="generic")
    store = place.open()
    upload = store.begin(place.key, {})
    place.proxy.script(Fault(flip=3), is_put_part(1))
    with raises(ContentDamaged, "part 1: BadDigest"):
        put(store, upload, 1, b"content")
    assert list(store.list_parts(upload)) == []
    store.close()


def test_a_service_that_keeps_its_checksum_to_itself(place: Place) -> None:
    place.issue(profile="generic")
    place.edit(lambda ticket: ticket["limits"].update(checksum="crc64-nvme"))
    store = place.open()
    with raises(StoreCannot, "part 1: the service does not answer with a checksum"):
        put(store, store.begin(place.key, {}), 1, b"content")
    store.close()


def test_parts_are_verified_once_more_when_they_are_put_together(
    store: PartStore, place: Place
) -> None:
    upload = store.begin(place.key, {})
    good = put(store, upload, 1, b"content")
    bad = Part(1, 7, good.etag, 12345)
    with raises(ContentDamaged, "complete: BadDigest"):
        store.complete(upload, [bad], size=7, crc=12345, exclusive=True)
    assert place.content() is None
    store.complete(upload, [good], size=7, crc=good.crc, exclusive=True)


def test_the_body_can_stop_a_request(store: PartStore, place: Place) -> None:
    sent: list[int] = []

    def before_view(length: int) -> None:
        sent.append(length)
        if len(sent) == 3:
            raise Cancelled("cancelled")

    upload = store.begin(place.key, {})
    view = memoryview(bytes(SMALLEST))
    body = Body([view[at : at + MiB] for at in range(0, len(view), MiB)], before_view)
    with raises(Cancelled, "cancelled"):
        store.put_part(upload, 1, body, crc=0, md5=None)
    assert sent == [MiB] * 3
    assert list(store.list_parts(upload)) == []
    put(store, upload, 1, b"the connection is another one, or clean")


def test_many_threads_at_once(store: PartStore, place: Place) -> None:
    upload, parts, piece = store.begin(place.key, {}), {}, os.urandom(SMALLEST)

    def send(number: int) -> None:
        parts[number] = put(store, upload, number, piece)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = [parts[n] for n in range(1, 7)]
    store.complete(upload, ordered, size=6 * SMALLEST, crc=None, exclusive=True)
    assert place.content() == piece * 6

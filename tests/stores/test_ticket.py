"""Uploads by ticket against SeaweedFS, which checks signatures: no credentials anywhere."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from support.cli import COMMAND, assert_one_line_error
from support.fault_proxy import (
    BLANK,
    Fault,
    FaultProxy,
    Predicate,
    Request,
    error,
    is_abort,
    is_complete,
    is_head,
    is_list_parts,
    is_put_part,
)
from support.seaweed import BUCKET, Seaweed
from support.targets import BACKOFF, FOR_EVER, before

import imgconv
from imgconv.body import Body
from imgconv.errors import (
    AccessDenied,
    Cancelled,
    ContentDamaged,
    CredentialsExpired,
    ImgconvError,
    OptionError,
    OutputExists,
    StoreCannot,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UploadGone,
    UsageError,
)
from imgconv.native import CRC64_NVME
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores import parse_url, s3_ticket, store_from_text
from imgconv.stores.oss import Oss
from imgconv.stores.profiles import PROFILES
from imgconv.stores.s3 import S3
from imgconv.stores.s3_ticket import issue_ticket, renew_ticket
from imgconv.stores.ticket import Ticket
from imgconv.stores.ticket_file import MAX_SIZE, parse_ticket
from imgconv.units import GiB, MiB

SMALLEST = 5 * MiB
SECRETS = ("AWS_", "BOTO")


@dataclass
class Place:
    """A key of its own in the server, behind a proxy, and a file for a ticket to it."""

    seaweed: Seaweed
    proxy: FaultProxy
    file: Path
    key: str = field(default_factory=lambda: f"test/{uuid4()}/disk")

    def __post_init__(self) -> None:
        self.object = f"s3://{BUCKET}/{self.key}"
        self.url = f"ticket://{self.file}"

    def options(self, **more: Any) -> S3:
        return S3(**{"endpoint_url": self.proxy.endpoint_url, "profile": "seaweedfs"} | more)

    def issue(self, *, parts: int = 20, profile: str = "seaweedfs", **more: Any) -> None:
        """Put a new ticket into the file."""
        with self._credentials():
            options = self.options(profile=profile)
            self.file.write_text(issue_ticket(self.object, parts=parts, store=options, **more))

    def renew(self, **more: Any) -> None:
        """Put the ticket, signed anew, into the file."""
        with self._credentials():
            old = self.file.read_text()
            self.file.write_text(renew_ticket(self.object, old, store=self.options(), **more))

    @contextmanager
    def _credentials(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.seaweed.environment.items():
                patch.setenv(name, value)
            yield

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads(self.file.read_text())
        change(document)
        self.file.write_text(json.dumps(document))

    def open(self, **more: Any) -> PartStore:
        return Ticket(**more).open(str(self.file))

    def convert(
        self, disk: Path, *, format: str = "raw", clobber: bool | None = None, **upload: Any
    ) -> imgconv.UploadReport:
        upload = {"part_size": SMALLEST, "backoff": BACKOFF, **upload}
        report = imgconv.convert(
            disk,
            self.url,
            options=format,
            clobber=clobber,
            upload=imgconv.UploadOptions(**upload),
        )
        assert report.upload is not None
        return report.upload

    def content(self) -> bytes | None:
        client = self.seaweed.client()
        rows = client.list_objects_v2(Bucket=BUCKET, Prefix=self.key).get("Contents", ())
        assert [row["Key"] for row in rows] in ([], [self.key])
        if not rows:
            return None
        content: bytes = client.get_object(Bucket=BUCKET, Key=self.key)["Body"].read()
        return content

    def put(self, content: bytes) -> None:
        self.seaweed.client().put_object(Bucket=BUCKET, Key=self.key, Body=content)

    def unfinished(self) -> list[str]:
        listed = self.seaweed.client().list_multipart_uploads(Bucket=BUCKET, Prefix=self.key)
        return [row["UploadId"] for row in listed.get("Uploads", ())]

    def sent(self, when: Predicate) -> int:
        return sum(1 for one in self.proxy.log if when(one.request))


@pytest.fixture
def place(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in [name for name in os.environ if name.startswith(SECRETS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    port = int(seaweed.endpoint_url.rpartition(":")[2])
    with FaultProxy("127.0.0.1", port) as proxy:
        yield Place(seaweed, proxy, tmp_path / "ticket.json")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Six parts: five whole ones and a piece."""
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(5 * SMALLEST + 4096))
    return path


@pytest.fixture
def store(place: Place) -> Iterator[PartStore]:
    place.issue()
    store = place.open(read_timeout=5)
    yield store
    store.close()


def put(
    store: PartStore, upload: Upload, number: int, content: bytes, *, crc: int | None = None
) -> Part:
    view = memoryview(content)
    body = Body([view[at : at + MiB] for at in range(0, len(view), MiB)])
    if store.limits.checksum is None:
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        return store.put_part(upload, number, body, crc=None, md5=md5)
    crc = CRC64_NVME.update(content) if crc is None else crc
    return store.put_part(upload, number, body, crc=crc, md5=None)


@contextmanager
def raises(kind: type[ImgconvError], match: str) -> Iterator[None]:
    """Expect an error of exactly this kind: one line, and no URL that lets one in."""
    with pytest.raises(kind, match=match) as caught:
        yield
    assert type(caught.value) is kind
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "X-Amz" not in text
    assert "127.0.0.1" not in text


def signatures(place: Place) -> list[str]:
    return re.findall("X-Amz-Signature=([0-9a-f]{64})", place.file.read_text())


# whole exports

WORKER = """
import json, os, sys
for name in ("boto3", "botocore", "alibabacloud_oss_v2"):
    sys.modules[name] = None
assert not [name for name in os.environ if name.startswith(("AWS_", "BOTO"))]
import imgconv
report = imgconv.convert(sys.argv[1], sys.argv[2], options="qcow2")
print(json.dumps([report.upload.url, report.upload.crc, report.upload.store_verified]))
"""


def test_an_export_in_a_process_without_credentials(
    place: Place, disk: Path, tmp_path: Path
) -> None:
    expected = tmp_path / "disk.qcow2"
    imgconv.convert(disk, expected)
    place.issue()
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(disk), place.url],
        capture_output=True,
        text=True,
        check=False,
        env=bare,
        timeout=120,
    )
    assert done.stderr == ""
    whole = expected.read_bytes()
    assert json.loads(done.stdout) == [
        place.object,
        f"{CRC64_NVME.update(whole):016x}",
        True,
    ]
    assert place.content() == whole
    assert place.unfinished() == []


def test_the_command_line(place: Place, disk: Path, tmp_path: Path) -> None:
    at = ["--endpoint-url", place.proxy.endpoint_url, "--store", "profile=seaweedfs"]
    issuer = {**os.environ, **place.seaweed.environment}

    def grant(*words: str) -> str:
        done = subprocess.run(
            [*COMMAND, "grant", place.object, *words, *at],
            capture_output=True,
            text=True,
            check=False,
            env=issuer,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    place.file.write_text(grant("--size", "100M", "--expires", "10m"))
    ticket = parse_ticket(place.file.read_text(), "it")
    assert (len(ticket.parts), ticket.limits.exclusive) == (9, True)
    assert 590 < ticket.expires - time.time() <= 600
    renewed = parse_ticket(grant("--renew", str(place.file)), "it")
    assert (renewed.upload, len(renewed.parts)) == (ticket.upload, 9)
    assert renewed != ticket
    assert not parse_ticket(grant("--parts", "2", "--overwrite"), "it").limits.exclusive

    words = [*COMMAND, str(disk), place.url, "-O", "vhd", "-q"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    worker = subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert (worker.returncode, worker.stdout, worker.stderr) == (0, "", "")
    imgconv.convert(disk, tmp_path / "disk.vhd")
    assert place.content() == (tmp_path / "disk.vhd").read_bytes()
    again = subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert_one_line_error(again, place.object, "exists already")


def test_a_service_that_computes_no_checksum_is_sent_an_md5(place: Place, disk: Path) -> None:
    place.issue(profile="generic")
    assert place.open().limits.checksum is None
    report = place.convert(disk)
    assert not report.store_verified
    assert place.content() == disk.read_bytes()


@pytest.mark.parametrize("journal", [True, False])
def test_an_upload_is_taken_up_again(
    place: Place, disk: Path, tmp_path: Path, journal: bool
) -> None:
    place.issue()
    path = tmp_path / "journal"
    place.proxy.script(Fault(instead=error(403, "AccessDenied")), is_put_part(4), FOR_EVER)
    with raises(AccessDenied, "part 4: AccessDenied"):
        place.convert(disk, resume=True, concurrency=1, journal=path)
    written = path.read_text()
    assert place.unfinished()[0] in written
    assert not [one for one in signatures(place) if one in written]
    assert "X-Amz" not in written
    assert "127.0.0.1" not in written
    if not journal:
        path.unlink()
    with FaultProxy("127.0.0.1", int(place.seaweed.endpoint_url.rpartition(":")[2])) as proxy:
        place.proxy = proxy
        place.renew()
        report = place.convert(disk, resume=True, concurrency=1, journal=path)
        assert report.kept_parts >= 3
        assert place.sent(is_put_part()) == 6 - report.kept_parts
    assert place.content() == disk.read_bytes()
    assert not path.exists()


def test_a_ticket_renewed_in_mid_upload(place: Place, disk: Path) -> None:
    place.issue()
    old = signatures(place)

    def is_old_put(request: Request) -> bool:
        return is_put_part()(request) and request.query["X-Amz-Signature"] in old

    place.proxy.script(Fault(), before(is_put_part(), lambda: place.renew(expires=3600)))
    place.proxy.script(Fault(instead=error(403, "ExpiredToken")), is_old_put, FOR_EVER)
    assert 1 <= place.convert(disk).retries <= 4
    assert not set(old) & set(signatures(place))
    assert place.content() == disk.read_bytes()


def test_a_ticket_that_is_not_renewed(place: Place, disk: Path) -> None:
    place.issue()
    place.proxy.script(Fault(instead=error(403, "ExpiredToken")), is_put_part(3))
    with raises(CredentialsExpired, "part 3: ExpiredToken: injected; a new ticket is needed"):
        place.convert(disk, resume=True)
    assert len(place.unfinished()) == 1
    place.convert(disk, resume=True)
    assert place.content() == disk.read_bytes()


def test_the_answer_to_complete_is_lost(place: Place, disk: Path) -> None:
    place.issue()
    place.proxy.script(Fault(lose_reply=True), is_complete)
    place.convert(disk)
    assert place.content() == disk.read_bytes()
    assert place.unfinished() == []


def test_a_damaged_part_is_sent_again(place: Place, disk: Path) -> None:
    place.issue()
    place.proxy.script(Fault(flip=12345), is_put_part(2))
    assert place.convert(disk).retries == 1
    assert place.content() == disk.read_bytes()


def test_a_failed_export_leaves_nothing(place: Place, disk: Path) -> None:
    place.issue()
    place.proxy.script(Fault(instead=error(400, "EntityTooLarge")), is_put_part(2))
    with raises(StoreRefused, "EntityTooLarge"):
        place.convert(disk)
    assert (place.content(), place.unfinished()) == (None, [])
    with raises(UploadGone, "NoSuchUpload"):
        place.convert(disk)


def test_an_output_with_more_parts_than_the_ticket_has(place: Place, disk: Path) -> None:
    place.issue(parts=3)
    with raises(OptionError, "3 parts do not hold"):
        place.convert(disk)
    assert len(place.convert(disk, part_size=None).parts) == 2
    assert place.content() == disk.read_bytes()


def test_a_receipt_has_no_place(place: Place, disk: Path) -> None:
    place.issue()
    report = imgconv.convert(
        disk,
        place.url,
        options="raw",
        upload=imgconv.UploadOptions(store_receipt=True),
    )
    assert [w for w in report.warnings if "no ticket lets one store" in w]
    assert place.content() == disk.read_bytes()


# who may replace what


def test_an_exclusive_ticket_never_replaces(place: Place, disk: Path) -> None:
    place.issue()
    place.put(b"another's")
    with raises(OutputExists, "exists already"):
        place.convert(disk)
    assert place.sent(is_put_part()) == 0
    with raises(OutputExists, "complete: PreconditionFailed"):
        place.convert(disk, clobber=True)
    assert (place.content(), place.unfinished()) == (b"another's", [])


def test_an_object_that_appears_during_an_exclusive_upload(place: Place, disk: Path) -> None:
    place.issue()
    place.proxy.script(Fault(), before(is_complete, lambda: place.put(b"another's")))
    with raises(OutputExists, "complete: PreconditionFailed"):
        place.convert(disk)
    assert (place.content(), place.unfinished()) == (b"another's", [])


def test_replacing_takes_both_the_ticket_and_the_worker(place: Place, disk: Path) -> None:
    place.issue(exclusive=False)
    place.put(b"another's")
    with raises(OutputExists, "exists already"):
        place.convert(disk)
    place.convert(disk, clobber=True)
    assert place.content() == disk.read_bytes()


# single requests


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


# faults


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


# tickets that are old, broken or for something else


def test_a_ticket_expires_and_is_renewed_in_place(place: Place) -> None:
    place.issue(expires=1)
    store = place.open()
    ticket = json.loads(place.file.read_text())
    upload = Upload(place.key, ticket["upload"], token=ticket["token"])
    assert not store.renew()
    while time.time() < ticket["expires"] + 1:
        time.sleep(0.1)
    with raises(CredentialsExpired, "part 1: .*expired; a new ticket is needed"):
        put(store, upload, 1, b"content")
    with raises(CredentialsExpired, "head: HTTP 403; a new ticket is needed"):
        store.head(place.key)
    assert not store.renew()
    place.file.write_text("half a tick")
    assert not store.renew()
    place.file.write_text(json.dumps(ticket))
    place.renew()
    assert store.renew()
    assert store.renew(), "whoever read it first, it is not the one that wore out"
    part = put(store, upload, 1, b"content")
    store.complete(upload, [part], size=7, crc=part.crc, exclusive=True)
    assert place.content() == b"content"
    store.close()


def test_a_changed_signature(place: Place) -> None:
    place.issue()
    good = place.file.read_text()
    store = place.open()
    upload = store.begin(place.key, {})
    place.file.write_text(re.sub("(Signature=[0-9a-f]{63}).", r"\g<1>x", good))
    with raises(UsageError, "what should be a signed URL is none"):
        place.open()
    last = good.replace("Signature=", "Signature=\n")
    place.file.write_text(re.sub("\n.", lambda m: "0" if m[0] != "\n0" else "1", last))
    tampered = place.open()
    with raises(AccessDenied, "part 1: SignatureDoesNotMatch"):
        put(tampered, upload, 1, b"content")
    with raises(AccessDenied, "list parts: SignatureDoesNotMatch"):
        tampered.begin(place.key, {})
    with raises(StoreRefused, "head: HTTP 403"):
        tampered.head(place.key)
    assert not tampered.renew()
    tampered.close()
    store.close()


def remove(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda ticket: ticket.pop(name)


def replace(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda ticket: ticket.update({name: value})


def limit(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda ticket: ticket["limits"].update({name: value})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        *[(remove(name), "lacks something") for name in ("upload", "parts", "limits", "head")],
        (replace("imgconv-ticket", 2), "another version"),
        (replace("object", "s3://bucket"), "its object is not"),
        (replace("object", "s3://bucket/a\nb"), "its object is not"),
        (replace("object", "file:///etc/passwd"), "its object is not"),
        (replace("token", ""), "names no upload"),
        (replace("expires", "soon"), "lacks something"),
        (replace("abort", "http://host/path"), "is none"),
        (replace("head", "file:///etc/passwd?X-Amz-Signature=" + 64 * "0"), "is none"),
        (replace("complete", "http://u:p@h/?X-Amz-Signature=" + 64 * "0"), "is none"),
        (replace("complete", "http://h/ ?X-Amz-Signature=" + 64 * "0"), "is none"),
        (lambda ticket: ticket["parts"].reverse(), "its URL for part 1 is for another"),
        (lambda ticket: ticket["parts"].pop(), "another number of parts"),
        (lambda ticket: ticket["parts"].append(None), "another number of parts"),
        (lambda ticket: ticket["parts"].__setitem__(0, 7), "is none"),
        (replace("pages", []), "cannot list its parts"),
        (limit("max_parts", 21), "another number of parts"),
        (limit("max_part", 0), "limits make no sense"),
        (limit("min_part", "5"), "limits make no sense"),
        (limit("checksum", "md5"), "limits make no sense"),
        (limit("copies", True), "limits make no sense"),
        (limit("colour", 1), "not those of a store"),
    ],
)
def test_a_ticket_that_makes_no_sense(
    place: Place, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    place.issue()
    place.edit(change)
    with raises(UsageError, text):
        place.open()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is not JSON"),
        (b"[1]", "lacks something"),
        (b"\xff\xff", "is not a ticket"),
        (b"[" * 100_000, "is not a ticket"),
        (b'{"imgconv-ticket": 1}', "lacks something"),
    ],
)
def test_what_is_no_ticket(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "ticket"
    path.write_bytes(content)
    with raises(UsageError, text):
        parse_url(f"ticket://{path}")


def test_tickets_that_cannot_be_read(tmp_path: Path) -> None:
    with raises(UsageError, "No such file"):
        parse_url(f"ticket://{tmp_path}/nothing")
    with raises(UsageError, "Is a directory"):
        parse_url(f"ticket://{tmp_path}")
    with raises(UsageError, "needs an absolute path"):
        parse_url("ticket://ticket.json")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MAX_SIZE + 1)
    with raises(UsageError, "is larger than"):
        parse_url(f"ticket://{tmp_path}/large")


def test_a_ticket_does_not_show_its_urls(place: Place) -> None:
    place.issue()
    ticket = parse_ticket(place.file.read_text(), "it")
    assert ticket.upload in repr(ticket)
    assert "X-Amz" not in repr(ticket)


def test_options() -> None:
    assert store_from_text("ticket", "read_timeout=5") == Ticket(read_timeout=5)
    with raises(OptionError, "connect_timeout must be at least 1"):
        Ticket(connect_timeout=0)


def test_without_the_library(place: Place) -> None:
    place.issue()
    program = (
        "import sys; sys.modules['urllib3'] = None\n"
        "from imgconv.errors import UsageError\n"
        "from imgconv.stores.ticket import Ticket\n"
        "try: Ticket().open(sys.argv[1])\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(place.file)], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == "ticket:// needs a library: pip install imgconv[http]\n"


# issuing


def test_what_cannot_be_issued(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("oss://bucket/key", "file:///folder/key", f"s3://{BUCKET}/a\tb"):
        with pytest.raises(UsageError, match="tickets are for s3://bucket/key alone"):
            issue_ticket(url)
    with raises(UsageError, "alone"):
        issue_ticket(place.object, store=Oss())
    for expires in (0, 604801):
        with raises(OptionError, f"expires={expires}"):
            issue_ticket(place.object, expires=expires)
    for parts in (1, 10_001):
        with raises(OptionError, f"parts={parts}: must be from 2 to 10000"):
            place.issue(parts=parts)
    with raises(OptionError, "not both"):
        place.issue(parts=3, size=4)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    with pytest.raises(StoreRefused, match="Unable to locate credentials"):
        issue_ticket(place.object, store=place.options())
    assert place.unfinished() == []


def test_a_renewal_is_for_the_same_object(place: Place) -> None:
    place.issue()
    text = place.file.read_text()
    with raises(UsageError, f"is for {place.object}, not for s3://{BUCKET}/another"):
        renew_ticket(f"s3://{BUCKET}/another", text)
    with raises(UsageError, "the ticket: is not a ticket"):
        renew_ticket(place.object, "{}")


@pytest.mark.parametrize(("size", "parts"), [(0, 2), (GiB, 66), (10**18, 10_000)])
def test_as_many_parts_as_the_size_takes(size: int, parts: int) -> None:
    assert s3_ticket._count(PROFILES["aws"], None, size) == parts


def test_at_aws_urls_lead_to_the_region(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own choice is a host that redirects for the first hours of a bucket."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    for name, host in {
        "plain": "https://plain.s3.eu-west-1.amazonaws.com/k?",
        "with.dots": "https://s3.eu-west-1.amazonaws.com/with.dots/k?",
    }.items():
        bucket = s3_ticket._opened(name, S3(region="eu-west-1"))
        assert bucket.sign("head_object", "k", 60, {}).startswith(host)
        bucket.close()


def test_without_boto3() -> None:
    program = (
        "import sys; sys.modules['botocore'] = None\n"
        "from imgconv.errors import UsageError\n"
        "from imgconv.stores.s3_ticket import issue_ticket\n"
        "try: issue_ticket('s3://bucket/key')\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("s3:// needs boto3: pip install imgconv[s3]\n", "")


def test_an_abort_that_is_refused(store: PartStore, place: Place) -> None:
    upload = store.begin(place.key, {})
    place.proxy.script(Fault(instead=error(403, "AccessDenied")), is_abort)
    with raises(AccessDenied, "abort: AccessDenied"):
        store.abort(upload)
    store.abort(upload)
    assert place.unfinished() == []

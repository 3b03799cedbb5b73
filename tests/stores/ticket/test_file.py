"""The ticket itself: until when it is good, what is no ticket, and what it keeps secret."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tickets import Place, put, raises

from imgconv.errors import (
    AccessDenied,
    CredentialsExpired,
    OptionError,
    StoreRefused,
    UsageError,
)
from imgconv.objectstore import Upload
from imgconv.stores import parse_url, store_from_text
from imgconv.stores.ticket import Ticket
from imgconv.stores.ticket_file import MAX_SIZE, parse_ticket


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

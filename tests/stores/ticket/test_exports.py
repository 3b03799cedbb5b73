"""Whole exports by ticket, and who may replace what."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.cli import COMMAND, assert_one_line_error
from support.fault_proxy import Fault, FaultProxy, Request, error, is_complete, is_put_part
from support.targets import FOR_EVER, before
from support.tickets import Place, raises, signatures

import imgconv
from imgconv.errors import (
    AccessDenied,
    CredentialsExpired,
    OptionError,
    OutputExists,
    StoreRefused,
    UploadGone,
)
from imgconv.native import CRC64_NVME
from imgconv.stores.ticket_file import parse_ticket

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

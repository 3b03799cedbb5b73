"""Five hundred random stories of faults, and to each of them a right end.

A seed decides everything: format, disk, options, which requests fail and how, when the run
is cancelled. When one fails, its seed is in the message; this runs it alone, or another
five hundred:

    IMGCONV_SEED=137 python -m pytest tests/exports/test_schedules.py -k oss
    IMGCONV_SEED_BASE=5000 python -m pytest tests/exports/test_schedules.py -n 2

A story has one or more acts, each a conversion, and ends with the first that returns a
report; the last act is without faults. After an act that failed, the key holds what it held
before, with two exceptions:

- the new object, when a fault struck its completion or what came after: the store had done
  it, and said so too late
- nothing, when the store told another checksum of the new object, which was then deleted

and nothing is left over, with these exceptions; `abort_uploads` removes the uploads:

- an upload that is to be resumed, or was until its journal got lost
- an upload whose beginning the store did not acknowledge: nobody knows its id
- what the store refused to abort or delete; the error, or a warning, says so
"""

import gc
import os
import random
import shutil
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import md5
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal, Protocol

import pytest
from support import disks, fault_proxy, faults, loopback
from support.fault_proxy import FaultProxy, error
from support.oss_client import at, opened, set_environment
from support.oss_server import OssServer
from support.seaweed import BUCKET, Seaweed

import imgconv
from imgconv.errors import (
    AccessDenied,
    Cancelled,
    ContentDamaged,
    CredentialsExpired,
    OutputExists,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UploadGone,
)
from imgconv.formats.base import Format
from imgconv.native import CRC64_NVME, CRC64_XZ, Checksum
from imgconv.stores import Store
from imgconv.stores.s3 import S3
from imgconv.units import KiB, MiB
from imgconv.upload.buffers import Blocks, PartBuffer
from imgconv.upload.retry import MAX_DAMAGED
from imgconv.upload.uploader import Uploader
from imgconv.upload.zeros import helper_key

WATCHDOG = 60.0  # seconds for an act, on a machine that is busy with other things
FOR_EVER = 10**6
OLD = b"what was there before"

FORMATS: Mapping[str, Format] = {
    "raw": imgconv.Raw(),
    "fixed vhd": imgconv.Vhd(subformat="fixed"),
    "vhd": imgconv.Vhd(),
    "qcow2": imgconv.Qcow2(),
    "vmdk": imgconv.Vmdk(),
    "streamOptimized": imgconv.Vmdk(subformat="streamOptimized"),
    "vdi": imgconv.Vdi(),
    "vhdx": imgconv.Vhdx(),
}
CONTENTS = (disks.dense, disks.random_runs, disks.holes, disks.last_byte, disks.last_byte)

# What may befall a request and pass.
_ANY = ("reset", "lost reply", "500", "502 of a proxy", "503", "throttled", "429", "408")
_ANY += ("500 afterwards", "stall")
_HALVES = ("cut reply", "empty reply", "blank reply")  # of answers that have a body
_BODIES = ("reset midway", "answered early", "request timeout", "flipped")
PASSING = {
    "begin": (*_ANY, *_HALVES),
    "put_part": (*_ANY, *_BODIES, "blank reply", "wrong crc", "expired once"),
    "copy_part": (*_ANY, *_HALVES),
    "complete": (*_ANY, *_HALVES, "error in 200", "request timeout", "expired once"),
    "head": (*_ANY, "blank reply"),
    "list_parts": (*_ANY, *_HALVES),
    "list_uploads": (*_ANY, *_HALVES),
    "put": (*_ANY, *_BODIES, "blank reply"),
    "delete": _ANY,
    "abort": _ANY,
}
# What may befall it and not pass, and what is raised then.
LASTING = {
    "access denied": AccessDenied,
    "wrong clock": StoreRefused,
    "expired": CredentialsExpired,
    "failing": StoreUnavailable,
    "silent": StoreUnavailable,
    "upload gone": UploadGone,
    "damaging": ContentDamaged,
    "lying": ContentDamaged,
}
_ONLY = {
    "upload gone": ("put_part", "copy_part", "complete"),
    "damaging": ("put_part", "put"),
    "lying": ("complete", "head"),
    "silent": ("begin", "put", "put", "complete", "delete", "abort"),
}
_DAMAGE = ("flipped", "wrong crc", "damaging")
_SENDING = ("put_part", "copy_part")
UNACKNOWLEDGED = ("lost reply", *_HALVES, "500 afterwards", "silent")  # but done


@dataclass(frozen=True, eq=False)
class Strike:
    """A fault that befalls the next `times` requests; `at` is an offset in their bodies."""

    operation: str
    fault: str
    number: int | None
    times: int
    at: int

    def matches(self, operation: str, number: int | None) -> bool:
        return operation == self.operation and self.number in (None, number)


@dataclass(frozen=True)
class Event:
    """A request that came to the store."""

    operation: str
    number: int | None
    upload: str | None
    strike: Strike | None


class Place(Protocol):
    """A store with faults on order, and a way to look into it from the side."""

    name: str
    url: str
    store: Store
    checksum: Checksum
    littering: bool  # its library leaves connections to the garbage collector
    makes: Mapping[str, Callable[[int], Any]]
    sizes: Sequence[int]
    part_sizes: Sequence[int]

    def script(self, strikes: Sequence[Strike]) -> None: ...  # and forget the events
    def events(self) -> list[Event]: ...
    def received(self) -> int: ...  # bytes of bodies
    def put(self, key: str, content: bytes) -> None: ...
    def delete(self, key: str) -> None: ...
    def content(self, key: str) -> bytes | None: ...
    def keys(self, prefix: str) -> list[str]: ...
    def unfinished(self, prefix: str) -> dict[str, dict[int, set[str]]]: ...


def _oss(status: int, code: str, **more: Any) -> Callable[[int], faults.Fault]:
    return lambda at: faults.Fault(status=status, code=code, **more)


class OnOss:
    """The loopback OSS server, in this process."""

    name, url = "oss", "oss://exports"
    checksum = CRC64_XZ
    littering = False
    sizes = (1 * MiB, 2 * MiB + 512, 3 * MiB, 4 * MiB)
    part_sizes = (100 * KiB, 128 * KiB, 200_001, 512 * KiB, 1 * MiB)
    makes: Mapping[str, Callable[[int], faults.Fault]] = {
        "reset": lambda at: faults.Fault(reset_after=0),
        "reset midway": lambda at: faults.Fault(reset_after=at),
        "lost reply": lambda at: faults.Fault(drop_reply=True),
        "500": _oss(500, "InternalError"),
        "502 of a proxy": _oss(502, "", body=b"<html>bad gateway</html>"),
        "503": _oss(503, "ServiceUnavailable"),
        "throttled": _oss(503, "SlowDown", headers=(("Retry-After", "0"),)),
        "429": _oss(429, "TooManyRequests", headers=(("x-oss-qos-delay-time", "7"),)),
        "408": _oss(408, "RequestTimeout"),
        "answered early": _oss(503, "ServiceUnavailable", unread=True),
        "request timeout": _oss(400, "RequestTimeout"),
        "error in 200": _oss(200, "InternalError"),
        "expired once": _oss(403, "SecurityTokenExpired"),
        "flipped": lambda at: faults.Fault(flipped=True),
        "wrong crc": lambda at: faults.Fault(wrong_crc=True),
        "cut reply": lambda at: faults.Fault(cut_reply=at % 100),
        "empty reply": lambda at: faults.Fault(cut_reply=0),
        "blank reply": lambda at: faults.Fault(blank=True),
        "stall": lambda at: faults.Fault(stall=0.02),
        "access denied": _oss(403, "AccessDenied"),
        "wrong clock": _oss(403, "RequestTimeTooSkewed"),
        "expired": _oss(403, "SecurityTokenExpired"),
        "failing": _oss(500, "InternalError"),
        "silent": lambda at: faults.Fault(drop_reply=True),
        "upload gone": _oss(404, "NoSuchUpload"),
        "damaging": lambda at: faults.Fault(flipped=True),
        "lying": lambda at: faults.Fault(wrong_crc=True),
    }
    _OPERATIONS: Mapping[str, str] = {
        "InitiateMultipartUpload": "begin",
        "UploadPart": "put_part",
        "UploadPartCopy": "copy_part",
        "CompleteMultipartUpload": "complete",
        "AbortMultipartUpload": "abort",
        "ListParts": "list_parts",
        "ListMultipartUploads": "list_uploads",
        "HeadObject": "head",
        "PutObject": "put",
        "DeleteObject": "delete",
    }

    def __init__(self, server: OssServer):
        self.store = at(server)
        self._server = server
        self._script: list[tuple[Strike, faults.Fault]] = []
        self._left: Counter[Strike] = Counter()
        self._events: list[Event] = []
        self._since = 0
        server.faults.rule = self._take

    def script(self, strikes: Sequence[Strike]) -> None:
        self._script = [(strike, self.makes[strike.fault](strike.at)) for strike in strikes]
        self._left = Counter({strike: strike.times for strike in strikes})
        self._events, self._since = [], len(self._server.log)

    def _take(self, operation: str, request: loopback.Request) -> faults.Fault | None:
        told = request.params.get("partNumber")
        name, number = self._OPERATIONS[operation], int(told) if told else None
        matching = (row for row in self._script if row[0].matches(name, number))
        strike, fault = next((row for row in matching if self._left[row[0]]), (None, None))
        if strike is not None:
            self._left[strike] -= 1
        self._events.append(Event(name, number, request.params.get("uploadId"), strike))
        return fault

    def events(self) -> list[Event]:
        return list(self._events)

    def received(self) -> int:
        sending = ("UploadPart", "PutObject")
        rows = [row for row in self._server.log[self._since :] if row.operation in sending]
        return sum(row.length for row in rows if row.outcome in ("200", "dropped"))

    def put(self, key: str, content: bytes) -> None:
        with opened(self.store) as store:
            store.put(key, content, {}, exclusive=False)

    def delete(self, key: str) -> None:
        self._server.state.delete("exports", key)

    def content(self, key: str) -> bytes | None:
        found = self._server.objects.get(("exports", key))
        return found and found.content()

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for _, key in self._server.objects if key.startswith(prefix))

    def unfinished(self, prefix: str) -> dict[str, dict[int, set[str]]]:
        return {
            upload.id: {n: {piece.etag.lower()} for n, piece in upload.parts.items()}
            for upload in list(self._server.uploads.values())
            if upload.key.startswith(prefix)
        }


def _s3(status: int, code: str, **more: Any) -> Callable[[int], fault_proxy.Fault]:
    return lambda at: fault_proxy.Fault(instead=error(status, code, **more))


_BAD_GATEWAY = b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"


class OnS3:
    """SeaweedFS behind a proxy."""

    name, url = "s3", f"s3://{BUCKET}"
    checksum = CRC64_NVME
    littering = True
    sizes = (6 * MiB, 11 * MiB + 512, 16 * MiB)
    part_sizes = (5 * MiB, 6 * MiB)
    makes: Mapping[str, Callable[[int], fault_proxy.Fault]] = {
        "reset": lambda at: fault_proxy.Fault(reset_at=0),
        "reset midway": lambda at: fault_proxy.Fault(reset_at=at),
        "lost reply": lambda at: fault_proxy.Fault(lose_reply=True),
        "500": _s3(500, "InternalError"),
        "502 of a proxy": lambda at: fault_proxy.Fault(instead=_BAD_GATEWAY),
        "503": _s3(503, "ServiceUnavailable"),
        "throttled": _s3(503, "SlowDown", retry_after=0),
        "429": _s3(429, "TooManyRequests"),
        "408": _s3(408, "RequestTimeout"),
        "answered early": lambda at: fault_proxy.Fault(early=error(503, "SlowDown")),
        "request timeout": _s3(400, "RequestTimeout"),
        "error in 200": _s3(200, "InternalError"),
        "500 afterwards": lambda at: fault_proxy.Fault(afterwards=error(500, "InternalError")),
        "flipped": lambda at: fault_proxy.Fault(flip=at),
        "cut reply": lambda at: fault_proxy.Fault(cut_reply=at % 100),
        "empty reply": lambda at: fault_proxy.Fault(cut_reply=0),
        "blank reply": lambda at: fault_proxy.Fault(afterwards=fault_proxy.BLANK),
        "stall": lambda at: fault_proxy.Fault(stall=0.02, stall_at=at),
        "access denied": _s3(403, "AccessDenied"),
        "wrong clock": _s3(403, "RequestTimeTooSkewed"),
        "expired": _s3(400, "ExpiredToken"),
        "failing": _s3(500, "InternalError"),
        "silent": lambda at: fault_proxy.Fault(lose_reply=True),
        "upload gone": _s3(404, "NoSuchUpload"),
        "damaging": lambda at: fault_proxy.Fault(flip=at),
    }
    _OPERATIONS: Mapping[str, fault_proxy.Predicate] = {
        "begin": fault_proxy.is_begin,
        "put_part": fault_proxy.is_put_part(),
        "copy_part": fault_proxy.is_copy_part,
        "complete": fault_proxy.is_complete,
        "abort": fault_proxy.is_abort,
        "list_parts": fault_proxy.is_list_parts,
        "list_uploads": fault_proxy.is_list_uploads,
        "head": fault_proxy.is_head,
        "get": fault_proxy.is_get,
        "put": fault_proxy.is_put,
        "delete": lambda request: request.method == "DELETE",
    }

    def __init__(self, seaweed: Seaweed, proxy: FaultProxy):
        self.store: Store = S3(
            endpoint_url=proxy.endpoint_url, region="us-east-1", profile="seaweedfs"
        )
        self._client, self._proxy = seaweed.client(), proxy
        self._current: set[Strike] = set()
        self._since = 0
        self._strikes: dict[int, tuple[Strike, fault_proxy.Fault]] = {}

    def close(self) -> None:
        self._client.close()

    def script(self, strikes: Sequence[Strike]) -> None:
        self._current, self._since = set(strikes), len(self._proxy.log)
        for strike in strikes:
            fault = self.makes[strike.fault](strike.at)
            self._strikes[id(fault)] = strike, fault
            self._proxy.script(fault, self._when(strike), strike.times)

    def _when(self, strike: Strike) -> fault_proxy.Predicate:
        return lambda request: (
            strike in self._current and strike.matches(*self._described(request))
        )

    def _described(self, request: fault_proxy.Request) -> tuple[str, int | None]:
        found = (name for name, matches in self._OPERATIONS.items() if matches(request))
        told = request.query.get("partNumber")
        return next(found), int(told) if told else None

    def events(self) -> list[Event]:
        return [
            Event(
                *self._described(row.request),
                row.query.get("uploadId"),
                self._strikes[id(row.fault)][0] if row.fault else None,
            )
            for row in self._proxy.log[self._since :]
        ]

    def received(self) -> int:
        rows = self._proxy.log[self._since :]
        return sum(row.received for row in rows if row.method == "PUT")

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=key)

    def content(self, key: str) -> bytes | None:
        try:
            body = self._client.get_object(Bucket=BUCKET, Key=key)["Body"]
        except self._client.exceptions.NoSuchKey:
            return None
        with body:
            content: bytes = body.read()
        return content

    def keys(self, prefix: str) -> list[str]:
        answer = self._client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return sorted(row["Key"] for row in answer.get("Contents", ()))

    def unfinished(self, prefix: str) -> dict[str, dict[int, set[str]]]:
        answer = self._client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
        return {row["UploadId"]: self._parts(row) for row in answer.get("Uploads", ())}

    def _parts(self, upload: Mapping[str, Any]) -> dict[int, set[str]]:
        parts: dict[int, set[str]] = {}
        answer = self._client.list_parts(
            Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"]
        )
        for row in answer.get("Parts", ()):
            parts.setdefault(row["PartNumber"], set()).add(row["ETag"].strip('"'))
        return parts


@dataclass(frozen=True)
class Act:
    """One conversion; `cancelled_at` counts calls of its progress."""

    strikes: Sequence[Strike] = ()
    cancelled_at: int | None = None
    patience: float = 5.0
    forgetful: bool = False  # the journal of the acts before is gone


@dataclass(frozen=True)
class Schedule:
    """A story: one disk, one key, act after act."""

    seed: int
    format: str
    content: Callable[[Path, int], Path]
    size: int
    part_size: int
    concurrency: int
    threads: int
    memory: int
    zero_copy: Literal["auto", "on", "off"]
    content_md5: bool
    replaces: bool  # there is an object of that name
    clobber: bool
    resume: bool
    acts: Sequence[Act]


def drawn(seed: int, place: Place) -> Schedule:
    """The story that a seed tells."""
    rng = random.Random(f"{place.name} {seed}")
    size, part_size = rng.choice(place.sizes), rng.choice(place.part_sizes)
    parts = size // part_size + 2
    resume, replaces = rng.random() < 0.6, rng.random() < 0.3
    acts = [_act(rng, place, parts, kill=resume) for _ in range(rng.choice((1, 1, 2, 3)))]
    return Schedule(
        seed=seed,
        format=rng.choice((*FORMATS, "raw", "fixed vhd")),  # those with zeros to copy
        content=rng.choice(CONTENTS),
        size=size,
        part_size=part_size,
        concurrency=rng.randint(1, 6),
        threads=rng.randint(1, 3),
        memory=rng.choice((8 * MiB, 96 * MiB)),
        zero_copy=rng.choice(("auto", "on", "on", "off")),
        content_md5=rng.random() < 0.3,
        replaces=replaces,
        clobber=rng.random() < (0.8 if replaces else 0.3),
        resume=resume,
        acts=[*acts, Act(forgetful=rng.random() < 0.1)],
    )


def _act(rng: random.Random, place: Place, parts: int, *, kill: bool) -> Act:
    strikes = [_passing(rng, place, parts) for _ in range(rng.randint(0, 9))]
    fatal = rng.random() < 0.3
    strikes += [_lasting(rng, place, parts)] if fatal else []
    cancelled = rng.random() < (0.6 if kill else 0.15)
    return Act(
        strikes=rng.sample(strikes, len(strikes)),
        cancelled_at=rng.randint(1, 3 * parts + 6) if cancelled else None,
        patience=0.2 if fatal else 5.0,
        forgetful=rng.random() < 0.1,
    )


def _operation(rng: random.Random) -> str:
    return rng.choice((*PASSING, "put_part", "put_part", "complete", "head"))


def _passing(rng: random.Random, place: Place, parts: int) -> Strike:
    operation = _operation(rng)
    fault = rng.choice([name for name in PASSING[operation] if name in place.makes])
    number = rng.choice((None, rng.randint(1, parts))) if operation == "put_part" else None
    times = 1 if fault in ("flipped", "wrong crc", "expired once") else rng.choice((1, 1, 2, 4))
    return Strike(operation, fault, number, times, rng.randrange(100 * KiB))


def _lasting(rng: random.Random, place: Place, parts: int) -> Strike:
    fault = rng.choice([name for name in LASTING if name in place.makes])
    operation = rng.choice(_ONLY.get(fault, (*PASSING, "copy_part", "put", "delete")))
    number = rng.choice((None, rng.randint(1, parts))) if operation == "put_part" else None
    return Strike(operation, fault, number, rng.choice((FOR_EVER, 3)), rng.randrange(100 * KiB))


@dataclass
class Outcome:
    """What an act came to: a report or an error, and the requests that came.

    `told` is all that the error or the report's warnings say, `at_cancel` how many requests
    had come when it was cancelled.
    """

    report: imgconv.Report | None = None
    error: type[BaseException] | None = None
    told: str = ""
    at_cancel: int | None = None
    events: list[Event] = field(default_factory=list)

    def struck(self, *operations: str) -> list[Strike]:
        """The faults that struck, at these operations or at any."""
        struck = [event.strike for event in self.events if event.strike]
        return [strike for strike in struck if not operations or strike.operation in operations]

    def struck_completion(self) -> bool:
        """Whether a fault struck the completion or what came after."""
        names = [event.operation for event in self.events]
        return "complete" in names and any(
            e.strike for e in self.events[names.index("complete") :]
        )


class Stage:
    """Where a story happens: a key of its own in a place."""

    def __init__(self, place: Place, folder: Path, story: Schedule):
        self.place, self.story = place, story
        self.disk, made = prepared(folder, story.content, story.size, story.format)
        self.expected = made.read_bytes()
        self.prefix = f"{folder.name}/{story.seed}/"
        self.key = f"{self.prefix}disk"
        self.url = f"{place.url}/{self.key}"
        self.journal = folder / f"{place.name}-{story.seed}.journal"
        self.upload: str | None = None  # the one that was worked on last
        self.strays = 0  # unfinished uploads that may be there beside it
        self.told_of_helper = False  # that it is left behind
        if story.replaces:
            place.put(self.key, OLD)

    def play(self) -> None:
        """Act after act, until one succeeds; in the end nothing but its object is there."""
        for number, act in enumerate(self.story.acts):
            try:
                over = self._perform(act)
            except Exception as failure:
                failure.add_note(f"act {number} of {self.story}")
                raise
            if over:
                break
        else:
            raise AssertionError(f"the last act failed in {self.story}")
        self.place.script(())
        imgconv.abort_uploads(self.url, store=self.place.store, older_than=0)
        assert self.place.unfinished(self.prefix) == {}
        for key in self.place.keys(self.prefix):
            self.place.delete(key)

    def _perform(self, act: Act) -> bool:
        """Carry an act out and judge it; say whether it was the last one."""
        if act.forgetful and self.journal.exists():
            self.journal.unlink()
            self.strays += 1
        before, held = self.place.content(self.key), self.place.unfinished(self.prefix)
        known = Counter(links())
        self.place.script(act.strikes)
        outcome = self._convert(act)
        outcome.events = self.place.events()
        check_that_nothing_goes_on(outcome)
        deadline = monotonic() + WATCHDOG
        while extra := Counter(links()) - known:
            assert monotonic() < deadline, extra
            if self.place.littering:
                gc.collect()
            sleep(0.002)
        begun = [e for e in outcome.events if e.operation == "begin" and e.strike]
        self.strays += sum(e.strike.fault in UNACKNOWLEDGED for e in begun if e.strike)
        if self.story.resume and (self.upload in held or (held and act.forgetful)):
            assert "begin" not in [event.operation for event in outcome.events]
        self.upload = next(
            (e.upload for e in reversed(outcome.events) if e.upload), self.upload
        )
        after = self.place.content(self.key)
        if outcome.report is not None:
            assert self.story.clobber or before != OLD
            assert after == self.expected
            self._check_report(outcome, held)
        else:
            self._check_error(outcome, act, before)
            self._check_object(outcome, before, after)
        self._check_leftovers(outcome)
        return outcome.report is not None or outcome.error is OutputExists

    def _convert(self, act: Act) -> Outcome:
        story, outcome, calls = self.story, Outcome(), count(1)
        cancelled = threading.Event()

        def progress(_: imgconv.Progress) -> None:
            if next(calls) == act.cancelled_at:
                outcome.at_cancel = len(self.place.events())
                cancelled.set()

        def convert() -> None:
            try:
                outcome.report = imgconv.convert(
                    self.disk,
                    self.url,
                    options=FORMATS[story.format],
                    threads=story.threads,
                    clobber=story.clobber,
                    store=self.place.store,
                    upload=self._options(act),
                    progress=progress,
                    cancelled=cancelled.is_set,
                )
                outcome.told = " ".join(outcome.report.warnings)
            except BaseException as error:  # its frames would keep connections open
                outcome.error = type(error)
                outcome.told = "".join(traceback.format_exception(error))

        thread = threading.Thread(target=convert, name="story", daemon=True)
        thread.start()
        thread.join(WATCHDOG)
        assert not thread.is_alive(), f"hangs:\n{stacks()}"
        return outcome

    def _options(self, act: Act) -> imgconv.UploadOptions:
        story = self.story
        return imgconv.UploadOptions(
            part_size=story.part_size,
            concurrency=story.concurrency,
            memory=story.memory,
            resume=story.resume,
            journal=self.journal if story.resume else None,
            zero_copy=story.zero_copy,
            content_md5=story.content_md5,
            backoff=imgconv.Backoff(base=0.005, most=0.02, patience=act.patience),
        )

    def _check_report(
        self, outcome: Outcome, held: Mapping[str, Mapping[int, set[str]]]
    ) -> None:
        assert outcome.report is not None
        report = outcome.report.upload
        assert report is not None
        whole = memoryview(self.expected)
        assert (report.url, report.size) == (self.url, len(whole))
        assert report.crc == f"{self.place.checksum.update(whole):016x}"
        assert report.store_verified
        at_offset = 0
        there = held.get(self.upload or "", {})
        for number, part in enumerate(report.parts, 1):
            assert (part.number, part.offset) == (number, at_offset)
            content = whole[at_offset : at_offset + part.length]
            assert part.crc == f"{self.place.checksum.update(content):016x}"
            if md5(content).hexdigest() in there.get(number, ()):
                assert part.origin == "kept", f"part {number} was sent again"
            at_offset += part.length
        assert at_offset == len(whole)
        origins = Counter(part.origin for part in report.parts)
        assert (report.kept_parts, report.copied_parts) == (origins["kept"], origins["copied"])
        assert report.kept_parts == 0 or self.story.resume
        sent = sum(part.length for part in report.parts if part.origin == "sent")
        assert report.wire_bytes >= max(sent, self.place.received())
        repeated = [s for s in outcome.struck("put_part", "begin") if s.fault != "stall"]
        assert report.retries >= len(repeated)

    def _check_error(self, outcome: Outcome, act: Act, before: bytes | None) -> None:
        """The error is one that the faults account for."""
        wanted: set[type[BaseException]] = set()
        struck = outcome.struck()
        wanted |= {LASTING[s.fault] for s in struck if s.fault in LASTING and is_fatal(s)}
        if any(s.fault in LASTING for s in outcome.struck("head")):
            wanted.add(StoreRefused)  # S3 tells no reason: an answer to HEAD has no body
        if act.patience < 1 and struck:
            wanted |= {StoreUnavailable, StoreThrottled}
        damaged = Counter((s.operation, s.number) for s in struck if s.fault in _DAMAGE)
        if sum(damaged.values()) >= MAX_DAMAGED:
            wanted.add(ContentDamaged)
        if sum(strike.fault == "expired once" for strike in struck) > 1:
            wanted.add(CredentialsExpired)
        if outcome.at_cancel is not None:
            wanted.add(Cancelled)
        if before is not None and not self.story.clobber:
            wanted.add(OutputExists)
        if outcome.error is OutputExists and before != OLD:
            assert not self.story.resume or self.strays, "it did not know its own object"
        assert outcome.error in wanted, outcome.told

    def _check_object(
        self, outcome: Outcome, before: bytes | None, after: bytes | None
    ) -> None:
        """What is there is what was there, with the exceptions told above."""
        if after == before:
            return
        if after is None:
            assert outcome.error is ContentDamaged
            assert "deleted it" in outcome.told
            return
        assert after == self.expected
        assert outcome.struck_completion(), outcome.told
        assert self.story.clobber or before is None

    def _check_leftovers(self, outcome: Outcome) -> None:
        """Nothing is left over, with the exceptions told above."""
        told = outcome.told
        resumable = self.story.resume and outcome.error is not None
        if not resumable:
            assert not self.journal.exists()
            refused = any(s.fault not in UNACKNOWLEDGED for s in outcome.struck("abort"))
            if refused and "cleaning up failed" in told:
                self.strays += 1
        assert len(self.place.unfinished(self.prefix)) <= self.strays + resumable, told
        leftovers = {*self.place.keys(self.prefix)} - {self.key}
        if leftovers:
            assert leftovers == {helper_key(self.key)}
            self.told_of_helper |= helper_key(self.key) in told
            assert self.told_of_helper, told


def is_fatal(strike: Strike) -> bool:
    """Whether a fault that lasts ends the run: one can do without copies, and clean up less."""
    if strike.operation in ("copy_part", "put"):
        return not issubclass(LASTING[strike.fault], StoreRefused)
    return strike.operation not in ("abort", "delete")


def check_that_nothing_goes_on(outcome: Outcome) -> None:
    """No thread is left, and after it was cancelled nothing was tried again."""
    for thread in threading.enumerate():
        if thread.name.startswith("imgconv"):
            thread.join(10)
            assert not thread.is_alive(), stacks()
    if outcome.at_cancel is not None:
        later = outcome.events[outcome.at_cancel :]
        sent = Counter((e.operation, e.number) for e in later if e.operation in _SENDING)
        assert not sent or max(sent.values()) == 1


def check_that_nothing_is_kept() -> None:
    """No object of an upload is left in memory."""
    gc.collect()
    kinds = (Blocks, PartBuffer, Uploader)
    assert [type(found).__name__ for found in gc.get_objects() if type(found) in kinds] == []


def links() -> Iterator[str]:
    """What the open descriptors are."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{name}")


def stacks() -> str:
    """Where all threads are."""
    frames = sys._current_frames()
    threads = [t for t in threading.enumerate() if t.ident in frames]
    return "\n".join(
        f"{t.name}:\n{''.join(traceback.format_stack(frames[t.ident or 0]))}" for t in threads
    )


def prepared(
    folder: Path, content: Callable[[Path, int], Path], size: int, format_name: str
) -> tuple[Path, Path]:
    """A disk, and the file that a conversion of it makes."""
    disk = folder / f"{content.__name__}-{size}.raw"
    if not disk.exists():
        content(disk, size)
    made = folder / f"{content.__name__}-{size} {format_name}" / "disk"  # VMDKs hold their name
    if not made.exists():
        made.parent.mkdir()
        imgconv.convert(disk, made, options=FORMATS[format_name], threads=1)
    return disk, made


def chunks(total: int, size: int) -> list[Any]:
    """Ranges of seeds, a test each; see the top for the environment."""
    if seed := os.environ.get("IMGCONV_SEED"):
        return [pytest.param([int(seed)], id=seed)]
    base = int(os.environ.get("IMGCONV_SEED_BASE", "0"))
    starts = range(base, base + total, size)
    return [pytest.param(range(s, s + size), id=f"{s}-{s + size - 1}") for s in starts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stories")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def oss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnOss]:
    set_environment(monkeypatch)
    with OssServer(tmp_path / "oss") as server:
        yield OnOss(server)


@pytest.fixture
def s3(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnS3]:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    host, port = seaweed.endpoint_url.removeprefix("http://").split(":")
    with FaultProxy(host, int(port)) as proxy, closing(OnS3(seaweed, proxy)) as place:
        yield place


@pytest.fixture(autouse=True)
def _quick_collections() -> Iterator[None]:
    """Spare the garbage collector what was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("seeds", chunks(380, 20))
def test_stories_on_oss_end_well(oss: OnOss, folder: Path, seeds: Sequence[int]) -> None:
    for seed in seeds:
        Stage(oss, folder, drawn(seed, oss)).play()
    check_that_nothing_is_kept()


@pytest.mark.parametrize("seeds", chunks(120, 10))
def test_stories_on_s3_end_well(s3: OnS3, folder: Path, seeds: Sequence[int]) -> None:
    for seed in seeds:
        Stage(s3, folder, drawn(seed, s3)).play()
    check_that_nothing_is_kept()

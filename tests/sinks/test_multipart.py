"""The multipart sink over a real folder store: what arrives, what is left, what is kept."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.watched import Watched

from imgconv.errors import (
    Cancelled,
    ContentDamaged,
    OutOfResources,
    OutputExists,
    OutputTooLarge,
    SourceChanged,
    StoreCannot,
    StoreRefused,
    StoreUnavailable,
    UploadGone,
)
from imgconv.native import CRC64_NVME
from imgconv.objectstore import ObjectInfo
from imgconv.sinks.multipart import MultipartSink
from imgconv.stores.local import Local
from imgconv.stretch import Stretch
from imgconv.units import KiB, MiB
from imgconv.upload.journal import Job
from imgconv.upload.options import UploadOptions
from imgconv.upload.retry import Backoff

HEAD = 100 * KiB
BODY = random.Random(1).randbytes(5 * MiB + 77)
CONTENT = random.Random(2).randbytes(HEAD) + BODY
PART = 512 * KiB
QUICK = UploadOptions(part_size=PART, backoff=Backoff(base=0.01, patience=5.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def store(folder: Path) -> Iterator[Watched]:
    opened = Local().open(str(folder))
    yield Watched(opened)
    opened.close()


def make(store: Watched, options: UploadOptions = QUICK, **more: Any) -> MultipartSink:
    return MultipartSink(
        store, "k", head_size=HEAD, bound=len(CONTENT), options=options, **more
    )


def feed(sink: MultipartSink, content: bytes = CONTENT, stop: int | None = None) -> None:
    """Write the body in order, in uneven pieces, then the head."""
    at = HEAD
    end = len(content) if stop is None else stop
    while at < end:
        piece = memoryview(content)[at : min(at + 300_001, end)]
        sink.put(Stretch.of(at, [piece[:1000], piece[1000:]]))
        at += len(piece)
    if stop is None:
        sink.put(Stretch.of(0, [memoryview(content)[:HEAD]]))


def unfinished(store: Watched) -> list[str]:
    return [upload.key for upload in store.list_uploads("")]


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_the_object_is_the_output(store: Watched, folder: Path) -> None:
    sink = make(store)
    feed(sink)
    sink.commit(len(CONTENT))
    assert (folder / "k").read_bytes() == CONTENT
    assert unfinished(store) == []
    report = sink.report
    assert report is not None
    assert report.crc == f"{CRC64_NVME.update(CONTENT):016x}"
    assert report.store_verified
    assert report.wire_bytes == report.size == len(CONTENT)
    assert [part.number for part in report.parts] == list(range(1, len(report.parts) + 1))
    assert sum(part.length for part in report.parts) == len(CONTENT)


def test_the_first_part_goes_last(store: Watched) -> None:
    sink = make(store)
    feed(sink)
    sink.commit(len(CONTENT))
    assert sorted(store.sent()) == list(range(1, len(store.sent()) + 1))
    # The last few are sent beside one another.
    assert store.sent().index(1) >= len(store.sent()) - QUICK.concurrency


def test_a_small_object_is_one_part(store: Watched, folder: Path) -> None:
    sink = make(store)
    feed(sink, CONTENT[: HEAD + 10])
    sink.commit(HEAD + 10)
    assert (folder / "k").read_bytes() == CONTENT[: HEAD + 10]
    assert store.sent() == [1]


def test_nothing_stays_of_an_aborted_upload(store: Watched, folder: Path) -> None:
    sink = make(store)
    feed(sink, stop=3 * MiB)
    sink.abort()
    sink.abort()
    assert unfinished(store) == leftovers(folder) == []


def test_an_existing_object_is_refused_before_anything_is_sent(
    store: Watched, folder: Path
) -> None:
    (folder / "k").write_bytes(b"precious")
    with pytest.raises(OutputExists, match="exists"):
        make(store)
    assert store.count("begin") == 0
    sink = make(store, exclusive=False)
    feed(sink)
    sink.commit(len(CONTENT))
    assert (folder / "k").read_bytes() == CONTENT


def test_an_object_that_appears_meanwhile_is_not_replaced(store: Watched, folder: Path) -> None:
    sink = make(store)
    feed(sink)
    (folder / "k").write_bytes(b"another writer's")
    with pytest.raises(OutputExists):
        sink.commit(len(CONTENT))
    sink.abort()
    assert (folder / "k").read_bytes() == b"another writer's"
    assert unfinished(store) == []


def failing(store: Watched, operation: str, *errors: Exception, after: bool = False) -> None:
    """Have the next calls of an operation fail, before they reach the store or after."""
    left, lock = list(errors), threading.Lock()

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        with lock:
            error = left.pop(0) if name == operation and left else None
        if error is not None:
            raise error

    if after:
        store.after = hook
    else:
        store.before = hook


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("operation", ["begin", "put_part", "complete", "head"])
def test_a_passing_fault_is_got_over(
    store: Watched, folder: Path, operation: str, after: bool
) -> None:
    failing(store, operation, StoreUnavailable("away"), StoreUnavailable("away"), after=after)
    sink = make(store)
    feed(sink)
    sink.commit(len(CONTENT))
    assert (folder / "k").read_bytes() == CONTENT
    assert sink.report is not None
    expected = {("complete", True): 0}.get((operation, after), 2)
    assert sink.report.retries == expected  # a lost reply of complete is found out by head


def test_a_lost_reply_of_complete_is_not_taken_for_another_writers_object(
    store: Watched, folder: Path
) -> None:
    """The store did it, the reply was lost, and now it says that the object exists."""
    failing(store, "complete", OutputExists("exists"), after=True)
    sink = make(store)
    feed(sink)
    sink.commit(len(CONTENT))
    assert (folder / "k").read_bytes() == CONTENT


@pytest.mark.parametrize("operation", ["put_part", "complete"])
def test_a_lasting_fault_ends_it(store: Watched, folder: Path, operation: str) -> None:
    failing(store, operation, *[StoreRefused("no rights")] * 100)
    sink = make(store)
    with pytest.raises(StoreRefused, match="no rights"):  # noqa: PT012  (whichever call)
        feed(sink)
        sink.commit(len(CONTENT))
    sink.abort()
    assert unfinished(store) == leftovers(folder) == []


def test_an_upload_that_vanished_is_an_error(store: Watched, folder: Path) -> None:
    sink = make(store)
    feed(sink)
    for upload in store.list_uploads(""):
        store.abort(upload)
    with pytest.raises(UploadGone):
        sink.commit(len(CONTENT))
    sink.abort()
    assert leftovers(folder) == []


class Damaging(Watched):
    """Completes an object and then tells of another checksum."""

    def head(self, key: str) -> ObjectInfo | None:
        found: ObjectInfo | None = self._store.head(key)
        return found and replace(found, crc=(found.crc or 0) ^ 1)


def test_a_damaged_object_is_deleted(store: Watched, folder: Path) -> None:
    sink = make(Damaging(store))
    feed(sink)
    with pytest.raises(ContentDamaged, match="the store has") as caught:
        sink.commit(len(CONTENT))
    assert caught.value.__notes__ == ["deleted it"]
    sink.abort()
    assert unfinished(store) == leftovers(folder) == []


def test_a_part_that_changed_in_memory_is_no_network_fault(store: Watched) -> None:
    def spoil(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "put_part":
            view = next(iter(arguments[2].views()))
            view[0] ^= 1

    store.before = spoil
    sink = make(store)
    with pytest.raises(OutOfResources, match="changed in memory"):  # noqa: PT012
        feed(sink)
        sink.commit(len(CONTENT))
    sink.abort()


def test_writing_waits_for_memory(store: Watched) -> None:
    """Eight blocks of budget; the store takes nothing until it is let go."""
    go = threading.Event()
    store.before = lambda name, _: None if name != "put_part" else (go.wait(10), None)[1]
    options = UploadOptions(part_size=2 * MiB, memory=8 * MiB)
    sink = MultipartSink(store, "k", bound=64 * MiB, options=options)
    written = []

    def write() -> None:
        for at in range(0, 64 * MiB, MiB):
            sink.put(Stretch.of(at, [memoryview(bytes([1]) * MiB)]))
            written.append(at)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(0.7)
    assert len(written) == 8
    go.set()
    writer.join()
    sink.commit(64 * MiB)


def test_cancelling_ends_the_wait(store: Watched, folder: Path) -> None:
    cancelled = threading.Event()
    failing(store, "put_part", *[StoreUnavailable("away")] * 1000)
    sink = make(store, UploadOptions(part_size=PART), cancelled=cancelled.is_set)
    threading.Timer(0.3, cancelled.set).start()
    with pytest.raises(Cancelled):  # noqa: PT012
        feed(sink)
        sink.commit(len(CONTENT))
    sink.abort()
    assert unfinished(store) == leftovers(folder) == []


def test_more_parts_than_the_store_takes_is_an_error(store: Watched) -> None:
    store.limit(max_parts=3)
    sink = MultipartSink(store, "k", options=UploadOptions(part_size=MiB))
    with pytest.raises(OutputTooLarge, match="more than 3 parts"):
        sink.put(Stretch.zeros(0, 4 * MiB))
    sink.abort()


class TestZeros:
    SIZE = 20 * MiB

    def convert(self, store: Watched, zero_copy: Any = "auto") -> MultipartSink:
        options = UploadOptions(part_size=MiB, zero_copy=zero_copy)
        sink = MultipartSink(store, "k", bound=self.SIZE, options=options)
        sink.put(Stretch.zeros(0, 10 * MiB))
        sink.put(Stretch.of(10 * MiB, [memoryview(BODY)[:MiB]]))
        sink.put(Stretch.zeros(11 * MiB, self.SIZE - 11 * MiB))
        sink.commit(self.SIZE)
        return sink

    def content(self) -> bytes:
        return bytes(10 * MiB) + BODY[:MiB] + bytes(9 * MiB)

    def test_the_store_copies_them(self, store: Watched, folder: Path) -> None:
        report = self.convert(store).report
        assert (folder / "k").read_bytes() == self.content()
        assert report is not None
        assert report.copied_parts == 18
        assert report.wire_bytes == 3 * MiB  # one before it pays, the helper, the data
        assert leftovers(folder) == ["k"]  # the helper is gone

    @pytest.mark.parametrize("zero_copy", ["off", "auto"])
    def test_unless_it_cannot_or_shall_not(
        self, store: Watched, folder: Path, zero_copy: str
    ) -> None:
        store.limit(copies=zero_copy == "off")
        report = self.convert(store, zero_copy).report
        assert report is not None
        assert (report.copied_parts, report.wire_bytes) == (0, self.SIZE)
        assert (folder / "k").read_bytes() == self.content()

    def test_where_no_checksum_is_kept_only_on_demand(self, store: Watched) -> None:
        store.limit(checksum=None)
        report = self.convert(store).report
        assert report is not None
        assert report.copied_parts == 0
        store.delete("k")
        report = self.convert(store, "on").report
        assert report is not None
        assert report.copied_parts == 18

    @pytest.mark.parametrize("error", [StoreCannot("501"), StoreRefused("403")])
    def test_a_refusal_means_sending(
        self, store: Watched, folder: Path, error: Exception
    ) -> None:
        failing(store, "copy_part", *[error] * 100)
        report = self.convert(store).report
        assert report is not None
        assert report.copied_parts == 0
        assert (folder / "k").read_bytes() == self.content()
        assert leftovers(folder) == ["k"]

    def test_a_helper_that_vanishes_means_sending(self, store: Watched, folder: Path) -> None:
        def vanish(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "copy_part" and arguments[1] > 12:
                (folder / "k.imgconv-zeros").unlink(missing_ok=True)

        store.before = vanish
        self.convert(store)
        assert (folder / "k").read_bytes() == self.content()


class TestResume:
    def options(self, tmp_path: Path, *, journal: bool = True) -> UploadOptions:
        path = tmp_path / "j.journal" if journal else None
        return UploadOptions(part_size=PART, resume=True, journal=path)

    def job(self, cuts: str, disk: str = "a disk") -> Job:
        return Job(
            target="file:///k", disk=disk, identity="", virtual_size=1, format="", cuts=cuts
        )

    def begin(self, store: Watched, options: UploadOptions, job: Any) -> list[int]:
        """Send about half, parts 2 to 6, and stop; return the parts that are there."""
        sink = make(store, options, job=job)
        feed(sink, stop=3 * MiB)
        sink.uploader._sender.drain()
        sink.suspend()
        sink.abort()  # a suspended upload is no longer the sink's to abort
        (upload,) = store.list_uploads("")
        return [part.number for part in store.list_parts(upload)]

    @pytest.mark.parametrize("journal", [True, False])
    def test_parts_sent_before_are_not_sent_again(
        self, tmp_path: Path, store: Watched, folder: Path, journal: bool
    ) -> None:
        job = self.job if journal else None
        options = self.options(tmp_path, journal=journal)
        if not journal:
            options = UploadOptions(part_size=PART, resume=True)
        there = self.begin(store, options, job)
        assert there == [2, 3, 4, 5, 6]
        store.calls.clear()
        sink = make(store, options, job=job)
        feed(sink)
        sink.commit(len(CONTENT))
        assert (folder / "k").read_bytes() == CONTENT
        assert not set(there) & set(store.sent())
        assert sink.report is not None
        assert sink.report.kept_parts == len(there)
        assert unfinished(store) == []
        assert not (tmp_path / "j.journal").exists()

    def test_a_changed_source_is_refused(self, tmp_path: Path, store: Watched) -> None:
        options = self.options(tmp_path)
        self.begin(store, options, self.job)
        with pytest.raises(SourceChanged, match="a disk when the upload began"):
            make(store, options, job=lambda cuts: self.job(cuts, "another disk"))

    def test_other_bytes_from_the_same_source_are_refused(
        self, tmp_path: Path, store: Watched
    ) -> None:
        options = self.options(tmp_path)
        self.begin(store, options, self.job)
        other = bytearray(CONTENT)
        other[2 * MiB] ^= 1
        sink = make(store, options, job=self.job)
        with pytest.raises(SourceChanged, match="no longer what was sent"):  # noqa: PT012
            feed(sink, bytes(other))
            sink.commit(len(other))
        sink.abort()

    def test_without_a_journal_other_bytes_are_simply_sent(
        self, tmp_path: Path, store: Watched, folder: Path
    ) -> None:
        options = UploadOptions(part_size=PART, resume=True)
        self.begin(store, options, None)
        other = bytearray(CONTENT)
        other[2 * MiB] ^= 1
        sink = make(store, options)
        feed(sink, bytes(other))
        sink.commit(len(other))
        assert (folder / "k").read_bytes() == other

    def test_an_upload_that_is_gone_is_begun_anew(
        self, tmp_path: Path, store: Watched, folder: Path
    ) -> None:
        options = self.options(tmp_path)
        self.begin(store, options, self.job)
        for upload in store.list_uploads(""):
            store.abort(upload)
        sink = make(store, options, job=self.job)
        feed(sink)
        sink.commit(len(CONTENT))
        assert (folder / "k").read_bytes() == CONTENT
        assert sink.report is not None
        assert sink.report.kept_parts == 0

    def test_an_upload_that_had_succeeded_is_recognised(
        self, tmp_path: Path, store: Watched, folder: Path
    ) -> None:
        """Killed after complete and before the journal was deleted."""
        options = self.options(tmp_path)
        sink = make(store, options, job=self.job)
        feed(sink)
        journal = tmp_path / "j.journal"
        sink.uploader._sender.drain()
        store.after = lambda name, _: None if name != "complete" else crash()
        kept = b""

        def crash() -> None:
            nonlocal kept
            kept = journal.read_bytes()

        sink.commit(len(CONTENT))
        store.after = lambda name, _: None
        journal.write_bytes(kept)
        store.calls.clear()
        again = make(store, options, job=self.job)
        feed(again)
        again.commit(len(CONTENT))
        assert store.sent() == []
        assert store.count("begin") == 0
        assert (folder / "k").read_bytes() == CONTENT

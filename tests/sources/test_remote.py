"""Disks that are objects: reading ahead, faults, and the engine over HTTP."""

import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks, range_server
from support.range_server import serving

import imgconv
from imgconv.errors import (
    Cancelled,
    ObjectChanged,
    ReadFailed,
    SourceChanged,
    SourceUnreadable,
    StoreThrottled,
    StoreUnavailable,
)
from imgconv.objectstore import ObjectInfo
from imgconv.ranges import Ranges
from imgconv.sources.remote import RemoteSource, Window
from imgconv.stores.http import open_http
from imgconv.units import KiB, MiB
from imgconv.workers import Lock

SMALL = Window(block=64 * KiB, count=8)
CONTENT = random.Random(1).randbytes(2 * MiB + 300)


class Thing:
    """An object in memory that keeps book of its requests; `faults` by offset, once each."""

    def __init__(self, content: bytes, etag: str = "v1", latency: float = 0.0):
        self.name, self.info = (
            "s3://bucket/folder/disk.raw",
            ObjectInfo(size=len(content), etag=etag),
        )
        self.content, self.latency = content, latency
        self.requests: list[tuple[int, int]] = []
        self.faults: dict[int, BaseException] = {}
        self.busy = self.busiest = self.closed = 0
        self.gate: threading.Event | None = None
        self.gated: set[int] = set()  # offsets that wait for the gate; empty: all
        self._lock = Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert len(buffer) > 0
        assert offset + len(buffer) <= len(self.content)
        with self._lock:
            self.requests.append((offset, len(buffer)))
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            fault = self.faults.pop(offset, None)
        try:
            time.sleep(self.latency)
            if self.gate is not None and (not self.gated or offset in self.gated):
                self.gate.wait(10)
            if fault is not None:
                raise fault
            buffer[:] = self.content[offset : offset + len(buffer)]
        finally:
            with self._lock:
                self.busy -= 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def opened() -> Iterator[Callable[..., RemoteSource]]:
    """Make sources that are closed in the end, whatever happens."""
    made: list[RemoteSource] = []

    def make(thing: Thing, window: Window = SMALL) -> RemoteSource:
        made.append(RemoteSource(thing, window=window))
        return made[-1]

    yield make
    for source in made:
        source.close()
    assert not [t for t in threading.enumerate() if t.name == "imgconv-read-ahead"]


def read(source: RemoteSource, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xaa" * length)
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def read_all(source: RemoteSource, step: int, threads: int) -> bytes:
    """Read front to back as the engine's workers do."""
    with ThreadPoolExecutor(threads) as pool:
        starts = range(0, source.size, step)
        pieces = pool.map(lambda at: read(source, at, min(step, source.size - at)), starts)
        return b"".join(pieces)


def settled(thing: Thing, *, stuck: int = 0) -> int:
    """Wait until nothing but what is stuck is under way; return how many requests came."""
    count = -1
    while thing.busy != stuck or count != len(thing.requests):
        count = len(thing.requests)
        time.sleep(0.02)
    return count


def test_what_a_source_says_of_itself(opened: Callable[..., RemoteSource]) -> None:
    source = opened(Thing(CONTENT))
    assert source.name == "s3://bucket/folder/disk.raw"
    assert source.size == 2 * MiB + 512
    assert source.identity.text == f"disk.raw:{2 * MiB + 300}:v1"
    assert source.identity.timestamp == 0
    assert list(Ranges.concat(source.extents())) == [(0, 2 * MiB + 300)]
    (warning,) = source.warnings
    assert "length 2097452 is not a multiple of 512; padded with 212 zero bytes" in warning
    assert read(source, 2 * MiB, 512) == CONTENT[2 * MiB :] + bytes(212)
    assert read(source, source.size - 100, 100) == bytes(100)
    source.verify()


def test_a_whole_sector_needs_no_remark(opened: Callable[..., RemoteSource]) -> None:
    assert opened(Thing(bytes(1024))).warnings == ()
    (warning,) = opened(Thing(bytes(1024), etag="")).warnings
    assert "neither ETag nor modification time" in warning


@pytest.mark.parametrize(
    ("size", "words"), [(0, "is empty"), (1 << 63, "more than a disk"), (-5, "more than")]
)
def test_an_object_that_is_no_disk(size: int, words: str) -> None:
    thing = Thing(b"")
    thing.info = ObjectInfo(size=size, etag="v1")
    released = []
    with pytest.raises(SourceUnreadable, match=words):
        RemoteSource(thing, release=lambda: released.append(thing))
    assert thing.closed
    assert released


def test_a_read_here_and_there_is_one_request(opened: Callable[..., RemoteSource]) -> None:
    """Nothing is read ahead for who jumps about, and nothing is cut into blocks."""
    thing = Thing(random.Random(2).randbytes(64 * MiB))
    source = opened(thing)
    places = [(0, 512), (63 * MiB, 512), (20 * MiB + 5, 60 * KiB), (40 * MiB - 700, 30 * KiB)]
    for offset, length in places:
        assert read(source, offset, length) == thing.content[offset : offset + length]
    assert settled(thing) == len(places)
    assert thing.requests == places


def test_a_batch_is_one_request_until_others_follow() -> None:
    """With the default window: 4 MiB batches, blocks of 8 MiB."""
    thing = Thing(bytes(64 * MiB))
    source = RemoteSource(thing)
    read(source, 6 * MiB, 4 * MiB)
    read(source, 0, 9 * MiB)  # more than a block
    assert thing.requests[0] == (6 * MiB, 4 * MiB)
    assert max(length for _, length in thing.requests) <= 8 * MiB
    source.close()


@pytest.mark.parametrize("threads", [1, 2, 7, 16])
@pytest.mark.parametrize("step", [4 * KiB, 32 * KiB, 50 * KiB, 200 * KiB])
def test_every_byte_is_right_whoever_comes_first(
    opened: Callable[..., RemoteSource], threads: int, step: int
) -> None:
    source = opened(Thing(CONTENT))
    assert read_all(source, step, threads) == CONTENT + bytes(212)
    assert read_all(source, step, threads) == CONTENT + bytes(212)


@given(
    st.lists(
        st.tuples(st.integers(0, 40 * KiB), st.integers(1, 9 * KiB), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 5),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_any_order_of_reads(
    reads: list[tuple[int, int, bool]], count: int, threads: int
) -> None:
    """Small blocks, so that blocks are dropped and fetched again; faults in between."""
    content = CONTENT[: 48 * KiB]
    thing = Thing(content)
    source = RemoteSource(thing, window=Window(block=4 * KiB, count=count))

    def attempt(offset: int, length: int, faulty: bool) -> None:
        if faulty:
            thing.faults[offset // (4 * KiB) * 4 * KiB] = StoreUnavailable("fault")
        try:
            found = read(source, offset, length)
        except ReadFailed:
            return
        assert found == (content + bytes(9 * KiB))[offset : offset + length]

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(attempt, *each) for each in reads]:
            done.result(10)
    source.close()


def test_many_requests_are_under_way_for_a_single_reader(
    opened: Callable[..., RemoteSource],
) -> None:
    thing = Thing(CONTENT, latency=0.01)
    assert read_all(opened(thing), 32 * KiB, 1)[: len(CONTENT)] == CONTENT
    assert 4 <= thing.busiest <= SMALL.count + 1
    assert len(thing.requests) <= 2 + len(CONTENT) // SMALL.block + 1, "each block once"


def test_many_readers_do_not_fetch_twice(opened: Callable[..., RemoteSource]) -> None:
    thing = Thing(CONTENT, latency=0.01)
    assert read_all(opened(thing), 32 * KiB, 16)[: len(CONTENT)] == CONTENT
    assert thing.busiest <= SMALL.count + 16
    fetched = sum(length for _, length in thing.requests)
    assert fetched < 1.5 * len(CONTENT)


def test_what_later_readers_need_is_not_dropped(opened: Callable[..., RemoteSource]) -> None:
    """A block that nobody gets done with takes room, but none of its neighbours'."""
    thing = Thing(CONTENT)
    source = opened(thing)
    read(source, 0, 512)
    thing.gate, thing.gated = threading.Event(), {0}
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(read, source, 512, 512)
        while thing.busy != 1 or len(thing.requests) < 1 + SMALL.count:
            time.sleep(0.01)
        read(source, 3 * SMALL.block, 512)  # would like block 8, too
        read(source, SMALL.block, 512)
        assert settled(thing, stuck=1) == 1 + SMALL.count
        thing.gate.set()
        assert slow.result(5) == CONTENT[512:1024]


def test_memory_is_bounded_by_the_window() -> None:
    content = bytes(48 * MiB)
    source = RemoteSource(Thing(content), window=Window(block=MiB, count=6))
    buffer = memoryview(bytearray(MiB))
    tracemalloc.start()
    try:
        for lap in (0, 24 * MiB + 512 * KiB):
            for at in range(lap, lap + 16 * MiB, 512 * KiB):
                source.read_into(at, buffer)
        source.close()
        assert 5 * MiB < tracemalloc.get_traced_memory()[1] < 8 * MiB + MiB // 2
    finally:
        tracemalloc.stop()


def test_without_a_window_nothing_is_read_ahead(opened: Callable[..., RemoteSource]) -> None:
    thing = Thing(CONTENT)
    source = opened(thing, Window(block=64 * KiB, count=0))
    assert read_all(source, 32 * KiB, 2)[: len(CONTENT)] == CONTENT
    assert sorted(thing.requests)[1] == (32 * KiB, 32 * KiB)
    assert thing.busiest <= 2


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (StoreUnavailable("s3://bucket/folder/disk.raw: no answer"), ReadFailed, "no answer"),
        (StoreThrottled("slow down"), ReadFailed, "offset 131072: slow down"),
        (ObjectChanged("other"), SourceChanged, "disk.raw: was replaced while it was read"),
        (Cancelled("cancelled"), Cancelled, "cancelled"),
        (MemoryError("no room"), MemoryError, "no room"),
    ],
)
def test_a_block_that_fails_fails_its_reader_alone(
    opened: Callable[..., RemoteSource],
    fault: BaseException,
    error: type[BaseException],
    words: str,
) -> None:
    thing = Thing(CONTENT)
    thing.faults[2 * SMALL.block] = fault
    source = opened(thing)
    read(source, 0, 512)
    read(source, 512, 512)  # from here on it reads ahead
    settled(thing)
    assert not thing.faults, "the block has failed already"
    assert read(source, SMALL.block, 64 * KiB) == CONTENT[64 * KiB : 128 * KiB]
    assert read(source, 3 * SMALL.block, 512) == CONTENT[192 * KiB :][:512]
    with pytest.raises(error, match=words) as raised:
        read(source, 2 * SMALL.block, 512)
    assert str(raised.value).count("s3://") <= 1
    assert read(source, 2 * SMALL.block, 512) == CONTENT[128 * KiB :][:512], "tried again"


def test_a_block_that_fails_fails_all_who_wait_for_it(
    opened: Callable[..., RemoteSource],
) -> None:
    thing = Thing(CONTENT)
    source = opened(thing)
    read(source, 0, 512)
    thing.gate = threading.Event()
    thing.faults[0] = StoreUnavailable("no answer")
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(read, source, at, 512) for at in (512, 1024, 2048, 4096)]
        time.sleep(0.1)
        thing.gate.set()
        for each in waiting:
            with pytest.raises(ReadFailed, match="no answer"):
                each.result(10)


def test_every_request_goes_through_the_attempt() -> None:
    thing = Thing(CONTENT)
    thing.faults = {at: StoreUnavailable("try again") for at in range(0, 2 * MiB, 64 * KiB)}
    repeated = []

    def attempt(request: Callable[[], None]) -> None:
        try:
            request()
        except StoreUnavailable as error:
            repeated.append(error)
            request()

    source = RemoteSource(thing, attempt=attempt, window=SMALL)
    assert read_all(source, 32 * KiB, 3)[: len(CONTENT)] == CONTENT
    assert len(repeated) == 32
    source.close()


def test_closing_frees_who_waits_and_repeats_nothing() -> None:
    thing = Thing(CONTENT)
    thing.faults = {at: StoreUnavailable("try again") for at in range(0, 2 * MiB, 64 * KiB)}

    def attempt(request: Callable[[], None]) -> None:
        while True:
            try:
                request()
                break
            except StoreUnavailable:
                time.sleep(0.01)

    source = RemoteSource(thing, attempt=attempt, window=SMALL)
    with ThreadPoolExecutor(2) as pool:
        read(source, 0, 512)
        thing.gate = threading.Event()
        waiting = pool.submit(read, source, 512, 512)
        while thing.busy < SMALL.count:
            time.sleep(0.01)
        before = len(thing.requests)
        closing = pool.submit(source.close)
        with pytest.raises(ReadFailed, match="is closed"):
            waiting.result(5)
        thing.gate.set()
        closing.result(5)
    with pytest.raises(ReadFailed, match="is closed"):
        read(source, 0, 512)
    source.close()
    assert len(thing.requests) == before
    assert thing.closed


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", ["disk.qcow2", "disk.vhd", "disk.raw"])
def test_converting_from_a_web_server(tmp_path: Path, target: str, threads: int) -> None:
    raw = disks.random_runs(tmp_path / "in.raw", 21 * MiB + 300)
    named = {"identity": "disk", "threads": threads}
    imgconv.convert(raw, tmp_path / f"expected-{target}", **named)
    with serving(raw.read_bytes()) as site:
        source = RemoteSource(open_http(site.url), window=Window(block=MiB, count=4))
        imgconv.convert(source, tmp_path / target, **named)
        source.close()
        assert site.busiest >= 2
    assert (tmp_path / target).read_bytes() == (tmp_path / f"expected-{target}").read_bytes()


def test_a_disk_that_is_replaced_while_it_is_converted(tmp_path: Path) -> None:
    with serving(bytes(range(256)) * (32 * KiB)) as site:
        source = RemoteSource(open_http(site.url), window=SMALL)

        def replace(progress: imgconv.Progress) -> None:
            site.etag = '"v2"'

        with pytest.raises(SourceChanged, match="was replaced while it was read"):
            imgconv.convert(source, tmp_path / "o.qcow2", progress=replace, threads=1)
        source.close()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_breaks_off(tmp_path: Path) -> None:
    with serving(bytes(range(256)) * (32 * KiB)) as site:
        source = RemoteSource(open_http(site.url), window=SMALL)
        site.script += [None, range_server.cut_after(1000)]
        with pytest.raises(ReadFailed, match=r"at offset [0-9]+: the answer"):
            imgconv.convert(source, tmp_path / "o.qcow2", threads=1)
        source.close()
    assert list(tmp_path.iterdir()) == []

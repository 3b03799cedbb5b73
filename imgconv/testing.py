"""What every object store must do, as tests; needs pytest.

A test module of a store derives from `PartStoreConformance` and provides the store:

    class TestMyStore(PartStoreConformance):
        @pytest.fixture
        def store(self) -> Iterator[PartStore]: ...

The tests hold a store to `imgconv/objectstore.py`. They use fresh keys and clean up
behind themselves, so that a bucket of a real service serves as well. About six
times the smallest part of the service is sent in all, and some MiB.
"""

import hashlib
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from imgconv.body import Body, zero_views
from imgconv.errors import (
    Cancelled,
    ContentDamaged,
    ImgconvError,
    ObjectChanged,
    ObjectMissing,
    OutputExists,
    StoreCannot,
    StoreError,
    UploadGone,
)
from imgconv.native import CRC64_NVME, CRC64_XZ
from imgconv.objectstore import ObjectInfo, Part, PartStore, Upload
from imgconv.units import KiB
from imgconv.workers import Stop, Turn, run

_CHECKSUMS = {"crc64-nvme": CRC64_NVME, "crc64-xz": CRC64_XZ}
_METADATA = {"imgconv-id": "0123", "source": "a disk; size=5, name: x.raw"}


def content_of(length: int, seed: int = 1) -> bytes:
    """Return `length` bytes that do not repeat and are always the same for a seed."""
    return random.Random(seed).randbytes(length)


def body_of(content: bytes) -> Body:
    """Return a body of three buffers of uneven length, or as many as it has bytes for."""
    view, third = memoryview(content), len(content) // 3
    buffers = view[:third], view[third : third + 1], view[third + 1 :]
    return Body([buffer for buffer in buffers if len(buffer)])


def checksum(store: PartStore, content: bytes) -> int | None:
    """Return the checksum that the store keeps, None when it keeps none."""
    name = store.limits.checksum
    return None if name is None else _CHECKSUMS[name].update(content)


def send(
    store: PartStore, upload: Upload, number: int, content: bytes, body: Body | None = None
) -> Part:
    """Send a part protected in the way the store knows."""
    crc = checksum(store, content)
    md5 = hashlib.md5(content, usedforsecurity=False).digest() if crc is None else None
    return store.put_part(upload, number, body or body_of(content), crc=crc, md5=md5)


def finish(
    store: PartStore, upload: Upload, parts: list[Part], content: bytes, exclusive: bool = False
) -> ObjectInfo:
    """Complete an upload whose parts make up `content`."""
    crc, size = checksum(store, content), len(content)
    return store.complete(upload, parts, size=size, crc=crc, exclusive=exclusive)


def read(store: PartStore, key: str) -> bytes:
    """Return a whole object."""
    with closing(store.open(key)) as reader:
        buffer = bytearray(reader.info.size)
        reader.read_into(0, memoryview(buffer))
    return bytes(buffer)


@contextmanager
def raises(*kinds: type[ImgconvError]) -> Iterator[None]:
    """Expect an error of one of these kinds, with a message of one line."""
    with pytest.raises(kinds) as caught:
        yield
    assert len(str(caught.value).splitlines()) == 1


class PartStoreConformance:
    """Derive from this, override `store`, and adapt the figures if need be."""

    many_parts = 1100  # of a byte each, more than fit on a page of a listing
    whole_checksum = True  # whether objects carry the checksum of the limits
    awkward = " a+b%20c&d=e~f'(1)<g>,;@!é中"  # what a key may contain

    @pytest.fixture
    def store(self) -> Iterator[PartStore]:
        """The store to test, with a bucket that exists."""
        raise NotImplementedError("a test class of a store provides the fixture `store`")

    @pytest.fixture
    def key(self, store: PartStore) -> Iterator[str]:
        """A key without an object; whatever begins with it is thrown away afterwards."""
        key = f"conformance-{uuid.uuid4().hex}"
        yield key
        for upload in list(store.list_uploads(key)):
            store.abort(upload)
        for name in (key, f"{key}-2", f"{key}{self.awkward}"):
            store.delete(name)

    @pytest.fixture
    def upload(self, store: PartStore, key: str) -> Upload:
        """A new upload."""
        return store.begin(key, _METADATA)

    def test_says_what_it_is(self, store: PartStore) -> None:
        """The name is a URL, the limits make sense, credentials may be renewed."""
        limits = store.limits
        assert "://" in store.name
        assert 1 <= limits.min_part <= limits.max_part <= limits.max_object
        assert min(limits.max_parts, limits.concurrency) >= 1
        assert limits.checksum in (None, *_CHECKSUMS)
        assert limits.lifetime is None or limits.lifetime > 0
        assert store.renew() in (True, False)

    def test_parts_in_any_order(self, store: PartStore, key: str, upload: Upload) -> None:
        """Part 1 comes last; nothing shows before the end, all is there afterwards."""
        size = max(store.limits.min_part, 70 * KiB)
        contents = [content_of(size, 1), content_of(size, 2), content_of(1234, 3)]
        parts = [send(store, upload, n, contents[n - 1]) for n in (3, 2, 1)][::-1]
        assert store.head(key) is None
        for number, (part, content) in enumerate(zip(parts, contents, strict=True), 1):
            assert (part.number, part.length) == (number, len(content))
            assert part.crc in (None, checksum(store, content))
        whole = b"".join(contents)
        info = finish(store, upload, parts, whole)
        assert read(store, key) == whole
        self.assert_is(store, key, info, whole)

    def assert_is(self, store: PartStore, key: str, info: ObjectInfo, content: bytes) -> None:
        """The answer of `complete` or `put` is true, and `head` says the same."""
        head = store.head(key)
        assert head is not None
        for found in (info, head):
            assert found.size == len(content)
            assert found.etag == info.etag.strip('"') != ""
            assert found.crc in (None, checksum(store, content))
        if self.whole_checksum:
            assert info.crc == checksum(store, content)
        assert head.metadata.items() >= _METADATA.items()

    def test_a_single_part_of_zeros(self, store: PartStore, key: str, upload: Upload) -> None:
        """A last part may be short, and the buffers of a body one and the same."""
        whole = bytes(5_000_001)
        part = send(store, upload, 1, whole, Body(list(zero_views(len(whole)))))
        finish(store, upload, [part], whole)
        assert read(store, key) == whole

    def test_parts_at_the_minimum_from_many_threads(
        self, store: PartStore, key: str, upload: Upload
    ) -> None:
        """The limits are what the service really takes, up to a last part of a byte."""
        contents = [content_of(store.limits.min_part, seed) for seed in range(3)] + [b"x"]
        parts: dict[int, Part] = {}

        def work(number: int, turn: Turn) -> None:
            parts[number] = send(store, upload, number, contents[number - 1])

        run(range(1, 5), lambda: work, threads=4, stop=Stop())
        whole = b"".join(contents)
        finish(store, upload, [parts[number] for number in range(1, 5)], whole)
        assert read(store, key) == whole

    def test_a_part_sent_again_replaces_the_earlier(
        self, store: PartStore, key: str, upload: Upload
    ) -> None:
        """The same bytes change nothing; other ones win."""
        first, same = (send(store, upload, 1, b"one") for _ in range(2))
        assert first.etag.lower() == same.etag.lower()
        other = send(store, upload, 1, b"another")
        listed = list(store.list_parts(upload))
        assert {p.number for p in listed} == {1}
        assert other.etag.lower() in {p.etag.lower() for p in listed}
        finish(store, upload, [other], b"another")
        assert read(store, key) == b"another"

    def test_listed_parts_are_those_sent(self, store: PartStore, upload: Upload) -> None:
        """Number, length and ETag come back; the checksum where the store tells it."""
        contents = {number: content_of(number) for number in (9, 2, 4)}
        sent = {n: send(store, upload, n, content) for n, content in contents.items()}
        listed = list(store.list_parts(upload))
        assert [p.number for p in listed] == [2, 4, 9]
        for part in listed:
            content = contents[part.number]
            assert part.length == len(content)
            assert part.etag.lower() == sent[part.number].etag.lower()
            assert part.crc in (None, checksum(store, content))
            if store.limits.etag_is_md5:
                md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
                assert part.etag.lower() == md5

    def test_many_parts_are_listed(self, store: PartStore, upload: Upload) -> None:
        """A listing goes on where a page ends."""
        numbers = range(1, self.many_parts + 1)

        def work(number: int, turn: Turn) -> None:
            send(store, upload, number, b"x")

        run(numbers, lambda: work, threads=4, stop=Stop())
        assert [p.number for p in store.list_parts(upload)] == list(numbers)

    def test_a_damaged_part_is_refused(self, store: PartStore, upload: Upload) -> None:
        """Nothing gets in with a wrong MD5, nor with a wrong checksum where that is sent."""
        content = content_of(5000)
        with raises(ContentDamaged):
            store.put_part(upload, 1, body_of(content), crc=None, md5=bytes(16))
        assert list(store.list_parts(upload)) == []
        crc = checksum(store, content)
        if crc is not None:
            with raises(ContentDamaged):
                store.put_part(upload, 1, body_of(content), crc=crc ^ 1, md5=None)
            assert all(part.crc in (None, crc) for part in store.list_parts(upload))

    def test_a_wrong_whole_checksum_is_never_confirmed(
        self, store: PartStore, key: str, upload: Upload
    ) -> None:
        """It is refused, and then nothing is lost, or the answer has the true one."""
        parts, crc = [send(store, upload, 1, b"abc")], checksum(store, b"abc")
        if crc is None:
            return
        try:
            info = store.complete(upload, parts, size=3, crc=crc ^ 1, exclusive=False)
        except ContentDamaged:
            if store.head(key) is None:
                finish(store, upload, parts, b"abc")
        else:
            assert info.crc in (None, crc)
        assert read(store, key) == b"abc"

    def test_a_stopped_body_leaves_nothing(self, store: PartStore, upload: Upload) -> None:
        """What a body raises ends the request."""

        def stop(length: int) -> None:
            raise Cancelled("cancelled")

        content = content_of(5000)
        with raises(Cancelled, StoreError):
            send(store, upload, 1, content, Body([memoryview(content)], stop))
        assert list(store.list_parts(upload)) == []

    def test_complete_replaces(self, store: PartStore, key: str, upload: Upload) -> None:
        """Without `exclusive`, an object that is there gives way."""
        before = store.put(key, b"old", {}, exclusive=False)
        info = finish(store, upload, [send(store, upload, 1, b"new!")], b"new!")
        assert info.etag != before.etag
        assert read(store, key) == b"new!"
        self.assert_is(store, key, info, b"new!")

    def test_exclusive_complete(self, store: PartStore, key: str, upload: Upload) -> None:
        """The first wins; where the service cannot tell, the call says so."""
        parts = [send(store, upload, 1, b"first")]
        if not store.limits.exclusive:
            with raises(StoreCannot):
                finish(store, upload, parts, b"first", exclusive=True)
            return
        finish(store, upload, parts, b"first", exclusive=True)
        late = store.begin(key, {})
        parts = [send(store, late, 1, b"second")]
        with raises(OutputExists):
            finish(store, late, parts, b"second", exclusive=True)
        store.abort(late)
        assert read(store, key) == b"first"

    def test_put(self, store: PartStore, key: str) -> None:
        """A small object in one request, metadata and all."""
        info = store.put(key, b"one", _METADATA, exclusive=store.limits.exclusive)
        assert read(store, key) == b"one"
        self.assert_is(store, key, info, b"one")
        with raises(OutputExists if store.limits.exclusive else StoreCannot):
            store.put(key, b"two", {}, exclusive=True)
        assert read(store, key) == b"one"
        store.put(key, b"three", {}, exclusive=False)
        assert read(store, key) == b"three"

    def test_what_was_aborted_or_completed_is_gone(
        self, store: PartStore, key: str, upload: Upload
    ) -> None:
        """Every call but `abort` says so, and that does no harm to the object."""
        part = send(store, upload, 1, b"abc")
        store.abort(upload)
        store.abort(upload)
        self.assert_gone(store, upload)
        with raises(UploadGone):
            finish(store, upload, [part], b"abc")
        assert store.head(key) is None
        upload = store.begin(key, {})
        finish(store, upload, [send(store, upload, 1, b"abc")], b"abc")
        self.assert_gone(store, upload)
        store.abort(upload)
        assert read(store, key) == b"abc"

    def assert_gone(self, store: PartStore, upload: Upload) -> None:
        """The upload is neither listed nor takes parts."""
        with raises(UploadGone):
            send(store, upload, 2, b"late")
        with raises(UploadGone):
            list(store.list_parts(upload))
        assert upload.id not in {found.id for found in store.list_uploads(upload.key)}

    def test_uploads_are_found_by_prefix(self, store: PartStore, key: str) -> None:
        """Several of one key too, with their age where the store knows it."""
        uploads = [store.begin(name, {}) for name in (key, key, f"{key}-2")]
        assert len({upload.id for upload in uploads}) == 3
        for prefix, expected in ((key, uploads), (f"{key}-", uploads[2:]), (f"{key}x", [])):
            found = list(store.list_uploads(prefix))
            assert {(u.key, u.id) for u in found} == {(u.key, u.id) for u in expected}
            assert all(u.started == 0 or abs(time.time() - u.started) < 86400 for u in found)

    def test_what_is_missing(self, store: PartStore, key: str) -> None:
        """No object is None to `head`, an error to `open`, nothing to `delete`."""
        store.put(key, b"abc", {}, exclusive=False)
        for _ in range(2):
            store.delete(key)
            assert store.head(key) is None
            with raises(ObjectMissing):
                store.open(key)

    def test_reading_ranges(self, store: PartStore, key: str) -> None:
        """Any range, from many threads; none beyond the end."""
        content = content_of(100_000)
        info = store.put(key, content, {}, exclusive=False)
        with closing(store.open(key)) as reader:
            assert reader.info.size == len(content)
            assert reader.info.etag == info.etag
            assert key in reader.name

            def work(span: tuple[int, int], turn: Turn) -> None:
                start, stop = span
                buffer = bytearray(stop - start)
                reader.read_into(start, memoryview(buffer))
                assert buffer == content[start:stop]

            spans = [(0, 1), (0, 100_000), (99_999, 100_000), (4095, 70_001), (50_000, 50_000)]
            run(spans, lambda: work, threads=4, stop=Stop())
            for start in (99_999, 100_000):
                with raises(StoreError):
                    reader.read_into(start, memoryview(bytearray(2)))
        reader.close()

    def test_a_replaced_object_is_not_mixed(self, store: PartStore, key: str) -> None:
        """Neither the new bytes nor a deleted object pass for what was opened."""
        store.put(key, b"old", {}, exclusive=False)
        with closing(store.open(key)) as reader:
            store.put(key, b"new", {}, exclusive=False)
            with raises(ObjectChanged):
                reader.read_into(0, memoryview(bytearray(3)))
            store.delete(key)
            with raises(ObjectChanged, ObjectMissing):
                reader.read_into(0, memoryview(bytearray(3)))

    def test_copied_parts(self, store: PartStore, key: str, upload: Upload) -> None:
        """A range of another object becomes a part, on the server."""
        # S3 copies no range of an object that is smaller than a part.
        source, content = f"{key}-2", content_of(store.limits.min_part + 3000) + bytes(3000)
        store.put(source, content, {}, exclusive=False)
        if not store.limits.copies:
            with raises(StoreCannot):
                store.copy_part(upload, 1, source, 100, 5000)
            return
        part = store.copy_part(upload, 1, source, 100, 5000)
        assert (part.number, part.length) == (1, 5000)
        assert part.crc in (None, checksum(store, content[100:5100]))
        with raises(StoreError):
            store.copy_part(upload, 2, source, len(content) - 1000, 5000)
        with raises(ObjectMissing):
            store.copy_part(upload, 2, f"{key}-3", 0, 10)
        finish(store, upload, [part], content[100:5100])
        assert read(store, key) == content[100:5100]

    def test_awkward_keys(self, store: PartStore, key: str) -> None:
        """Whatever a key contains, every call means the same object."""
        name, content = key + self.awkward, content_of(store.limits.min_part + 1)
        upload = store.begin(name, {})
        assert [u.key for u in store.list_uploads(name)] == [name]
        part = send(store, upload, 1, content)
        assert [p.number for p in store.list_parts(upload)] == [1]
        finish(store, upload, [part], content)
        assert read(store, name) == content
        if store.limits.copies:
            part = store.copy_part(store.begin(key, {}), 1, name, 1, len(content) - 1)
            assert part.crc in (None, checksum(store, content[1:]))
        store.delete(name)
        assert store.head(name) is None

"""The S3 store against SeaweedFS, over the network as it is used."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from support.discard_server import running_discard_server
from support.seaweed import BUCKET, Seaweed, running_seaweed

from imgconv.body import Body
from imgconv.errors import (
    Cancelled,
    ContentDamaged,
    ObjectChanged,
    ObjectMissing,
    OptionError,
    OutputExists,
    StoreCannot,
    StoreRefused,
    StoreUnavailable,
    UploadGone,
    UsageError,
)
from imgconv.native import CRC64_NVME
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores import store_from_text
from imgconv.stores.profiles import PROFILES, profile_of_host
from imgconv.stores.s3 import S3
from imgconv.stores.s3_bucket import Bucket
from imgconv.stores.s3_client import Connector
from imgconv.units import MiB

SMALLEST = 5 * MiB
NAMES = (
    "plain",
    "folder/with/plain",
    "with space",
    "plus+and&and=",
    "per%20cent%",
    "ümläut/磁盘.qcow2",
    "question?and#hash",
    "trailing.",
)


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def options(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    return S3(endpoint_url=seaweed.endpoint_url, profile="seaweedfs")


@pytest.fixture
def store(options: S3) -> Iterator[PartStore]:
    store = options.open(BUCKET)
    yield store
    store.close()


@pytest.fixture
def key() -> str:
    return f"test/{uuid4()}"


def views(content: bytes) -> list[memoryview]:
    return [memoryview(content)[at : at + MiB] for at in range(0, len(content), MiB)]


def put(store: PartStore, upload: Upload, number: int, content: bytes) -> Part:
    crc = CRC64_NVME.update(content)
    return store.put_part(upload, number, Body(views(content)), crc=crc, md5=None)


def make(store: PartStore, key: str, content: bytes, *, exclusive: bool = False) -> None:
    upload = store.begin(key, {})
    part = put(store, upload, 1, content)
    store.complete(upload, [part], size=len(content), crc=part.crc, exclusive=exclusive)


def read(store: PartStore, key: str) -> bytes:
    reader = store.open(key)
    content = bytearray(reader.info.size)
    reader.read_into(0, memoryview(content))
    reader.close()
    return bytes(content)


def test_parts_out_of_order_the_first_one_last(store: PartStore, key: str) -> None:
    pieces = {1: os.urandom(SMALLEST), 2: os.urandom(SMALLEST + 1), 5: os.urandom(12345)}
    whole = b"".join(pieces.values())
    upload = store.begin(key, {"imgconv-id": "x y", "Format": "qcow2"})
    assert upload.key == key
    assert upload.id
    parts = {n: put(store, upload, n, pieces[n]) for n in (5, 2, 1)}
    assert parts[5] == Part(
        5, 12345, hashlib.md5(pieces[5]).hexdigest(), CRC64_NVME.update(pieces[5])
    )
    in_order = [parts[n] for n in (1, 2, 5)]
    crc = CRC64_NVME.update(whole)
    info = store.complete(upload, in_order, size=len(whole), crc=crc, exclusive=True)
    assert (info.size, info.crc) == (len(whole), crc)
    assert info.etag.endswith("-3")
    metadata = {"imgconv-id": "x y", "format": "qcow2"}
    assert store.head(key) == replace(info, metadata=metadata)
    assert read(store, key) == whole
    assert store.name == f"s3://{BUCKET}"


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_sorts(store: PartStore, key: str, name: str) -> None:
    name, content = f"{key}/{name}", os.urandom(1000)
    assert store.head(name) is None
    upload = store.begin(name, {})
    assert [u.id for u in store.list_uploads(name)] == [upload.id]
    part = put(store, upload, 1, content)
    copied = store.begin(f"{name}.copy", {})
    assert [p.etag for p in store.list_parts(upload)] == [part.etag]
    store.complete(upload, [part], size=1000, crc=part.crc, exclusive=True)
    assert read(store, name) == content
    again = store.copy_part(copied, 1, name, 0, 1000)
    store.complete(copied, [again], size=1000, crc=part.crc, exclusive=True)
    assert read(store, f"{name}.copy") == content
    store.delete(name)
    assert store.head(name) is None


def test_a_damaged_part_is_refused_and_not_kept(store: PartStore, key: str) -> None:
    content, upload = os.urandom(SMALLEST), store.begin(key, {})
    crc, md5 = CRC64_NVME.update(content), hashlib.md5(content).digest()
    with pytest.raises(ContentDamaged, match=f"^s3://{BUCKET}/{key}: part 3: BadDigest: "):
        store.put_part(upload, 3, Body(views(content)), crc=crc ^ 1, md5=None)
    with pytest.raises(ContentDamaged):
        store.put_part(upload, 3, Body(views(content)), crc=None, md5=bytes(16))
    assert list(store.list_parts(upload)) == []
    assert store.put_part(upload, 3, Body(views(content)), crc=crc, md5=md5).crc == crc
    store.abort(upload)


def test_a_wrong_whole_checksum_is_refused_and_the_upload_lives(
    store: PartStore, key: str
) -> None:
    upload = store.begin(key, {})
    part = put(store, upload, 1, b"content")
    with pytest.raises(ContentDamaged):
        store.complete(upload, [part], size=7, crc=1, exclusive=False)
    assert store.head(key) is None
    assert store.complete(upload, [part], size=7, crc=part.crc, exclusive=False).size == 7


def test_a_part_sent_again(store: PartStore, key: str) -> None:
    """SeaweedFS lists both; the one that is named is taken."""
    upload = store.begin(key, {})
    old, new = (put(store, upload, 1, content) for content in (b"old", b"new"))
    listed = list(store.list_parts(upload))
    assert {p.number for p in listed} == {1}
    assert new.etag in {p.etag for p in listed}
    store.complete(upload, [new], size=3, crc=new.crc, exclusive=False)
    assert read(store, key) == b"new"
    assert old.etag != new.etag


def test_an_empty_object(store: PartStore, key: str) -> None:
    upload = store.begin(key, {})
    part = store.put_part(upload, 1, Body([]), crc=0, md5=None)
    assert store.complete(upload, [part], size=0, crc=0, exclusive=True).size == 0
    assert read(store, key) == b""


def test_an_exclusive_complete_finds_the_object(store: PartStore, key: str) -> None:
    make(store, key, b"first", exclusive=True)
    upload = store.begin(key, {})
    part = put(store, upload, 1, b"second")
    with pytest.raises(OutputExists, match=f"{key}: complete: PreconditionFailed"):
        store.complete(upload, [part], size=6, crc=part.crc, exclusive=True)
    assert read(store, key) == b"first"
    store.complete(upload, [part], size=6, crc=part.crc, exclusive=False)
    assert read(store, key) == b"second"


def test_an_upload_that_is_gone(store: PartStore, key: str) -> None:
    upload = store.begin(key, {})
    part = put(store, upload, 1, b"content")
    store.abort(upload)
    store.abort(upload)
    with pytest.raises(UploadGone):
        put(store, upload, 2, b"more")
    with pytest.raises(UploadGone):
        list(store.list_parts(upload))
    with pytest.raises(UploadGone):
        store.complete(upload, [part], size=7, crc=part.crc, exclusive=False)
    with pytest.raises(UploadGone, match="NoSuchUpload"):
        put(store, Upload(key, "0123"), 1, b"x")
    assert list(store.list_uploads(key)) == []


def test_lists_longer_than_a_page(options: S3, store: PartStore, key: str) -> None:
    assert options.endpoint_url is not None
    small = Bucket(BUCKET, connector(options.endpoint_url), page=3)
    uploads = [store.begin(f"{key}/{n}", {}) for n in range(7)]
    assert {u.id for u in small.list_uploads(f"{key}/")} == {u.id for u in uploads}
    assert all(u.started > 1_500_000_000 for u in small.list_uploads(f"{key}/"))
    parts = [put(store, uploads[0], n, b"%d" % n) for n in (1, 2, 4, 5, 7, 9, 10, 300)]
    listed = list(small.list_parts(uploads[0]))
    assert [(p.number, p.etag, p.length) for p in listed] == [
        (p.number, p.etag, p.length) for p in parts
    ]
    for upload in uploads:
        store.abort(upload)
    small.close()


def connector(endpoint_url: str) -> Connector:
    return Connector(
        endpoint_url=endpoint_url,
        region=None,
        addressing="path",
        profile="generic",
        aws_profile=None,
        connect_timeout=5,
        read_timeout=5,
    )


def test_clients_share_the_description_of_the_service(options: S3) -> None:
    """Which is megabytes of JSON to parse."""
    assert options.endpoint_url is not None
    clients = [connector(options.endpoint_url).connect() for _ in range(2)]
    first, second = (each.quick.meta.service_model.metadata for each in clients)
    assert first is second
    for each in clients:
        each.close()


def test_parts_copied_from_another_object(store: PartStore, key: str) -> None:
    source = os.urandom(SMALLEST + 999)
    make(store, f"{key}.source", source)
    upload = store.begin(key, {})
    parts = [
        put(store, upload, 1, source[:SMALLEST]),
        store.copy_part(upload, 2, f"{key}.source", 77, SMALLEST),
        store.copy_part(upload, 3, f"{key}.source", SMALLEST, 999),
    ]
    whole = source[:SMALLEST] + source[77 : 77 + SMALLEST] + source[SMALLEST:]
    crc = CRC64_NVME.update(whole)
    info = store.complete(upload, parts, size=len(whole), crc=crc, exclusive=True)
    assert info.crc == crc
    assert read(store, key) == whole
    with pytest.raises(ObjectMissing, match="copy of nothing"):
        store.copy_part(store.begin(key, {}), 1, "nothing", 0, 10)
    with pytest.raises(StoreRefused, match="InvalidRange"):
        store.copy_part(store.begin(key, {}), 1, f"{key}.source", 0, len(source) + 1)


def test_zeros_copied_as_they_are_stored(options: S3, seaweed: Seaweed, key: str) -> None:
    """Without a checksum of the whole, SeaweedFS copies compressed pieces as they lie."""
    store = S3(
        endpoint_url=options.endpoint_url, profile="seaweedfs", whole_checksum=False
    ).open(BUCKET)
    store.put(f"{key}.zeros", bytes(32 * MiB), {}, exclusive=False)
    before = occupied(seaweed.folder)
    upload = store.begin(key, {})
    content = os.urandom(SMALLEST)
    parts = [put(store, upload, 1, content)]
    with pytest.raises(ContentDamaged):
        store.put_part(upload, 1, Body(views(content)), crc=1, md5=None)
    parts += [store.copy_part(upload, n, f"{key}.zeros", 0, 32 * MiB) for n in range(2, 10)]
    assert len({p.etag for p in parts[1:]}) == 1
    size = SMALLEST + 256 * MiB
    info = store.complete(upload, parts, size=size, crc=None, exclusive=True)
    assert (info.size, info.crc) == (size, None)
    assert occupied(seaweed.folder) - before < 24 * MiB
    assert read(store, key) == content + bytes(256 * MiB)
    store.delete(key)
    store.close()


def occupied(folder: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())


def test_small_objects(store: PartStore, key: str) -> None:
    info = store.put(key, b"first", {"A": "b"}, exclusive=True)
    assert (info.size, info.crc, info.metadata) == (5, CRC64_NVME.update(b"first"), {"a": "b"})
    assert store.head(key) == info
    with pytest.raises(OutputExists):
        store.put(key, b"second", {}, exclusive=True)
    store.put(key, b"third", {}, exclusive=False)
    assert read(store, key) == b"third"
    store.delete(key)
    store.delete(key)
    assert store.head(key) is None
    with pytest.raises(ObjectMissing, match=f"s3://{BUCKET}/{key}: get: NoSuchKey"):
        store.open(key)


def test_ranges_of_an_object(store: PartStore, key: str) -> None:
    content = os.urandom(3 * MiB + 17)
    make(store, key, content)
    reader = store.open(key)
    assert (reader.name, reader.info.size) == (f"s3://{BUCKET}/{key}", len(content))

    def compare(offset: int) -> None:
        length = min(2 * MiB + 5, len(content) - offset)
        found = bytearray(length + 2)
        reader.read_into(offset, memoryview(found)[1:-1])
        assert found == b"\0" + content[offset : offset + length] + b"\0"

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(compare, [0, 1, MiB, len(content) - 1, 3 * MiB, 4096]))
    reader.read_into(len(content), memoryview(b"")[:0])
    with pytest.raises(StoreUnavailable, match="ended after 17 of 18 bytes"):
        reader.read_into(len(content) - 17, memoryview(bytearray(18)))
    with pytest.raises(StoreRefused, match="InvalidRange"):
        reader.read_into(len(content), memoryview(bytearray(1)))
    reader.close()
    reader.close()


def test_an_object_replaced_or_deleted_while_it_is_read(store: PartStore, key: str) -> None:
    make(store, key, b"content")
    reader = store.open(key)
    make(store, key, b"CONTENT")
    with pytest.raises(ObjectChanged, match=f"s3://{BUCKET}/{key}: get bytes=0-6"):
        reader.read_into(0, memoryview(bytearray(7)))
    store.delete(key)
    with pytest.raises(ObjectMissing):
        reader.read_into(0, memoryview(bytearray(7)))


def test_a_bucket_that_is_not_there(options: S3) -> None:
    store = options.open("nowhere")
    with pytest.raises(StoreRefused, match=r"^s3://nowhere/k: begin: NoSuchBucket: "):
        store.begin("k", {})
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        store.head("k")
    store.close()


def test_credentials_that_are_wrong(options: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = options.open(BUCKET)
    with pytest.raises(StoreRefused, match="SignatureDoesNotMatch"):
        store.begin("k", {})
    with pytest.raises(StoreRefused, match="SignatureDoesNotMatch"):
        store.head("k")  # a HEAD's answer has no reason in it
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert store.renew()
    with pytest.raises(StoreRefused, match="InvalidAccessKeyId"):
        store.begin("k", {})
    store.close()


@pytest.fixture
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No credentials anywhere; returns where the shared file would be."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "credentials"))
    return tmp_path / "credentials"


def test_credentials_that_are_missing_and_come(
    options: S3, seaweed: Seaweed, no_credentials: Path, key: str
) -> None:
    store = options.open(BUCKET)
    with pytest.raises(StoreRefused, match=r"Unable to locate credentials; set AWS_ACCESS_KEY"):
        store.put(key, b"content", {}, exclusive=False)
    assert not store.renew()
    no_credentials.write_text(
        f"[default]\naws_access_key_id={seaweed.access_key}\n"
        f"aws_secret_access_key={seaweed.secret_key}\n"
    )
    assert store.renew()
    assert not store.renew()
    store.put(key, b"content", {}, exclusive=False)
    store.close()


def test_a_profile_of_the_shared_files(
    options: S3, seaweed: Seaweed, no_credentials: Path, key: str
) -> None:
    no_credentials.write_text(
        f"[exporter]\naws_access_key_id={seaweed.access_key}\n"
        f"aws_secret_access_key={seaweed.secret_key}\n"
    )
    store = S3(endpoint_url=options.endpoint_url, aws_profile="exporter").open(BUCKET)
    store.put(key, b"content", {}, exclusive=False)
    store.close()
    with pytest.raises(UsageError, match="profile \\(nobody\\) could not be found"):
        S3(aws_profile="nobody").open(BUCKET)


def test_nobody_listens(options: S3) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = S3(endpoint_url=f"http://127.0.0.1:{port}").open(BUCKET)
    with pytest.raises(StoreUnavailable, match=f"^s3://{BUCKET}/k: begin: Could not connect"):
        store.begin("k", {})
    with pytest.raises(StoreUnavailable):
        list(store.list_uploads(""))
    store.close()


def test_nobody_answers(options: S3) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        store = S3(endpoint_url=url, read_timeout=1).open(BUCKET)
        with pytest.raises(StoreUnavailable, match="Read timeout"):
            store.head("k")
        store.close()


def test_the_body_can_stop_a_request(store: PartStore, key: str) -> None:
    sent = []

    def before_view(length: int) -> None:
        sent.append(length)
        if len(sent) == 3:
            raise Cancelled("cancelled")

    upload = store.begin(key, {})
    body = Body(views(bytes(SMALLEST)), before_view)
    with pytest.raises(Cancelled):
        store.put_part(upload, 1, body, crc=None, md5=None)
    assert list(store.list_parts(upload)) == []
    put(store, upload, 1, b"the connection is another one, or clean")
    store.abort(upload)


def test_many_threads_at_once(store: PartStore, key: str) -> None:
    pieces = [os.urandom(SMALLEST) for _ in range(4)]
    upload, threads = store.begin(key, {}), set()

    def send(number: int) -> Part:
        threads.add(threading.get_ident())
        return put(store, upload, number, pieces[number % 4])

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(send, range(1, 9)))
    whole = b"".join(pieces[n % 4] for n in range(1, 9))
    crc = CRC64_NVME.update(whole)
    store.complete(upload, parts, size=len(whole), crc=crc, exclusive=True)
    assert len(threads) > 1
    assert read(store, key) == whole


def test_parts_survive_the_death_of_the_server(tmp_path: Path, options: S3, key: str) -> None:
    with running_seaweed(tmp_path / "mortal") as mortal:
        store = S3(endpoint_url=mortal.endpoint_url).open(BUCKET)
        content, upload = os.urandom(SMALLEST), store.begin(key, {})
        first = put(store, upload, 1, content)
        mortal.kill()
        with pytest.raises(StoreUnavailable):
            put(store, upload, 2, b"lost")
        mortal.restart()
        assert [p.etag for p in store.list_parts(upload)] == [first.etag]
        second = put(store, upload, 2, b"tail")
        crc = CRC64_NVME.update(b"tail", CRC64_NVME.update(content))
        store.complete(upload, [first, second], size=SMALLEST + 4, crc=crc, exclusive=True)
        assert read(store, key) == content + b"tail"
        store.close()


def test_a_whole_upload_to_a_server_that_keeps_nothing(options: S3) -> None:
    with running_discard_server() as url:
        store = S3(endpoint_url=url, profile="aws").open(BUCKET)
        assert store.head("k") is None
        upload = store.begin("k", {"imgconv-id": "x"})
        parts = [put(store, upload, n, os.urandom(MiB)) for n in (2, 1)]
        parts.append(store.copy_part(upload, 3, "zeros", 0, 77))
        size = 2 * MiB + 77
        info = store.complete(upload, parts, size=size, crc=5, exclusive=True)
        assert (info.size, info.crc) == (size, 5)
        found = store.head("k")
        assert found is not None
        assert (found.size, found.crc, found.metadata) == (size, 5, {"imgconv-id": "x"})
        assert list(store.list_uploads("")) == list(store.list_parts(upload)) == []
        store.abort(upload)
        store.close()


def test_the_profile_goes_by_the_host() -> None:
    hosts = {
        "s3.eu-west-1.amazonaws.com": "aws",
        "s3.cn-north-1.amazonaws.com.cn": "aws",
        "abc.r2.cloudflarestorage.com": "r2",
        "storage.googleapis.com": "gcs",
        "notamazonaws.com": "generic",
        "127.0.0.1": "generic",
    }
    assert {host: profile_of_host(host) for host in hosts} == hosts


def test_limits_by_profile(options: S3) -> None:
    cases = {S3(): "aws", options: "seaweedfs", S3(endpoint_url="http://h:1"): "generic"}
    for made, name in cases.items():
        store = made.open(BUCKET)
        assert store.limits == PROFILES[name]
        store.close()
    gcs = S3(profile="gcs").open(BUCKET)
    with pytest.raises(StoreCannot, match="copies no parts"):
        gcs.copy_part(Upload("k", "u"), 1, "source", 0, 1)
    gcs.close()


def test_options_that_cannot_be() -> None:
    text = "endpoint_url=http://h:1,region=auto,path_style=on,profile=r2,read_timeout=7"
    assert store_from_text("s3", text) == S3(
        endpoint_url="http://h:1", region="auto", path_style="on", profile="r2", read_timeout=7
    )
    with pytest.raises(OptionError, match="needs profile=seaweedfs"):
        S3(whole_checksum=False)
    with pytest.raises(OptionError, match="at least 1 second"):
        S3(connect_timeout=0)
    with pytest.raises(UsageError, match="Invalid endpoint"):
        S3(endpoint_url="nonsense").open(BUCKET)


def test_without_the_library() -> None:
    program = (
        "import sys; sys.modules['botocore'] = None\n"
        "from imgconv.errors import UsageError\n"
        "from imgconv.stores.s3 import S3\n"
        "try: S3().open('b')\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("s3:// needs boto3: pip install imgconv[s3]\n", "")

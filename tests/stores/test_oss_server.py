"""The loopback OSS server is a real check: it refuses what the service refuses, and keeps
what it acknowledged."""

import datetime
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import alibabacloud_oss_v2 as oss
import pytest
from support.oss_auth import Key
from support.oss_client import KEY, MIN_PART, at, noise, opened, put, save
from support.oss_server import KEYS, REGION, OssServer

import imgconv
from imgconv.errors import StoreError, UploadGone
from imgconv.native import CRC64_XZ
from imgconv.objectstore import PartStore
from imgconv.stores.oss import Oss

TESTS = Path(__file__).parent.parent

pytestmark = pytest.mark.usefixtures("oss_environment")


def ask(server: OssServer, method: str, target: str, headers: dict[str, str]) -> str:
    """Send a request by hand; "200", or the code of the refusal."""
    connection = HTTPConnection("127.0.0.1", server.port)
    try:
        connection.request(method, target, headers=headers)
        connection.getresponse().read()
    finally:
        connection.close()
    return server.log[-1].outcome


def bit_by_bit(content: bytes) -> int:
    """CRC-64/XZ by its definition: reflected, polynomial of ECMA-182, inverted at both ends."""
    value = 0xFFFFFFFFFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xC96C5795D7870F42 if value & 1 else 0)
    return value ^ 0xFFFFFFFFFFFFFFFF


def test_its_checksums_are_those_of_the_definition(server: OssServer, store: PartStore) -> None:
    assert bit_by_bit(b"123456789") == 0x995DC9BBDF1939FA
    contents = [noise(MIN_PART, seed=1), noise(3000, seed=2)]
    upload = store.begin(KEY, {})
    parts = [put(store, upload, n, c) for n, c in enumerate(contents, 1)]
    assert [p.crc for p in parts] == [CRC64_XZ.update(c) for c in contents]
    assert parts[1].crc == bit_by_bit(contents[1])
    info = store.complete(upload, parts, size=0, crc=None, exclusive=True)
    assert info.crc == bit_by_bit(b"".join(contents))


def test_a_signed_request_that_was_changed_on_the_way(
    server: OssServer, store: PartStore
) -> None:
    store.put("a b", b"", {"note": "x"}, exclusive=False)
    sent = server.log[-1].request
    headers = {name: value for name, value in sent.headers.items() if name != "host"}
    assert ask(server, "PUT", sent.path, headers) == "200", "as it was, it is good again"
    assert ask(server, "PUT", sent.path, headers | {"User-Agent": "other"}) == "200"
    changes = {"x-oss-meta-note": "y", "content-type": "text/plain", "x-oss-new": "1"}
    changes |= {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfh=="}
    for name, value in changes.items():
        refused = ask(server, "PUT", sent.path, headers | {name: value})
        assert refused == "SignatureDoesNotMatch", name
    assert ask(server, "PUT", sent.path + "c", headers) == "SignatureDoesNotMatch"
    assert ask(server, "PUT", sent.path + "?acl=1", headers) == "SignatureDoesNotMatch"
    assert ask(server, "DELETE", sent.path, headers) == "SignatureDoesNotMatch"
    later = {"x-oss-date": "20200101T000000Z"}
    assert ask(server, "PUT", sent.path, headers | later) == "RequestTimeTooSkewed"
    assert ask(server, "PUT", sent.path, {}) == "AccessDenied"


def presigned(server: OssServer, seconds: int) -> str:
    config = oss.config.load_default()
    config.region, config.endpoint = REGION, server.endpoint_url
    key = KEYS["imgconv"]
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(
        "imgconv", key.secret
    )
    expires = datetime.timedelta(seconds=seconds)
    request = oss.GetObjectRequest(bucket="exports", key=KEY)
    parts = urlsplit(oss.Client(config).presign(request, expires=expires).url)
    return f"{parts.path}?{parts.query}"


def test_presigned_urls(server: OssServer, store: PartStore) -> None:
    save(store, b"abc")
    good = presigned(server, 100)
    assert ask(server, "GET", good, {}) == "200"
    assert ask(server, "HEAD", good, {}) == "SignatureDoesNotMatch"
    assert ask(server, "GET", good.replace("disk", "other"), {}) == "SignatureDoesNotMatch"
    longer = re.sub("expires=[0-9]+", "expires=9999", good)
    assert ask(server, "GET", longer, {}) == "SignatureDoesNotMatch"
    assert ask(server, "GET", good + "&x-oss-process=image", {}) == "SignatureDoesNotMatch"
    server.clock_offset = 101
    assert ask(server, "GET", good, {}) == "AccessDenied"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (Key("other"), "SignatureDoesNotMatch"),
        (Key(KEYS["imgconv"].secret, "token"), "InvalidSecurityToken"),
    ],
)
def test_keys_that_do_not_fit(server: OssServer, store: PartStore, key: Key, code: str) -> None:
    server.keys["imgconv"] = key
    with pytest.raises(StoreError, match=code):
        save(store, b"abc")
    assert server.objects == {}


def test_what_has_not_arrived_whole_is_not_kept(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    put(store, upload, 1, b"abc")
    headers = server.log[-1].request.headers | {"content-length": "10"}
    target = f"/exports/{KEY}?partNumber=1&uploadId={upload.id}"
    connection = HTTPConnection("127.0.0.1", server.port)
    connection.putrequest("PUT", target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(b"0123")
    connection.close()
    assert [part.length for part in store.list_parts(upload)] == [3]


def test_discarded_bodies_have_lengths_and_checksums(tmp_path: Path) -> None:
    with OssServer(tmp_path, discard=True) as server, opened(at(server)) as store:
        content = noise(MIN_PART)
        upload = store.begin(KEY, {})
        part = put(store, upload, 1, content)
        info = store.complete(upload, [part], size=MIN_PART, crc=None, exclusive=True)
        assert info.crc == CRC64_XZ.update(content)
        assert server.objects["exports", KEY].content() == bytes(MIN_PART)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*-*")) == 0


def test_nothing_is_left_of_what_was_deleted_or_replaced(
    tmp_path: Path, server: OssServer, store: PartStore
) -> None:
    save(store, b"first")
    save(store, b"second")
    upload = store.begin("other", {})
    put(store, upload, 1, b"old")
    parts = [put(store, upload, 1, noise(MIN_PART)), put(store, upload, 2, b"unused")]
    store.complete(upload, parts[:1], size=MIN_PART, crc=None, exclusive=True)
    pending = store.begin("pending", {})
    put(store, pending, 1, b"gone")
    store.abort(pending)
    pieces = list((tmp_path / "oss" / "data").glob("*/*"))
    assert sorted(path.stat().st_size for path in pieces) == [6, MIN_PART]
    store.delete("other")
    store.delete(KEY)
    assert [path for path in (tmp_path / "oss").rglob("*") if path.is_file()] == []


def test_requests_at_once(server: OssServer, store: PartStore) -> None:
    """One of many exclusive ends of uploads wins; parts of one number end as one part."""
    uploads = [store.begin(KEY, {}) for _ in range(6)]
    parts = [put(store, upload, 1, b"%d" % n) for n, upload in enumerate(uploads)]

    def finish(n: int) -> bool:
        try:
            store.complete(uploads[n], [parts[n]], size=1, crc=None, exclusive=True)
        except imgconv.OutputExists:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(finish, range(6))) == 1
        again = store.begin("again", {})
        list(pool.map(lambda n: put(store, again, 1, noise(n + 1)), range(12)))
    assert len(list(store.list_parts(again))) == 1


class Process:
    """A server as a process of its own."""

    def __init__(self, folder: Path, port: int = 0):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.oss_server", str(folder), str(port)],
            cwd=TESTS,
            env={"PYTHONPATH": str(Path(imgconv.__file__).parent.parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.endpoint_url = self.process.stdout.readline().strip()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        assert self.process.wait(10) == -signal.SIGKILL
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_killed_and_started_again_it_has_all_it_acknowledged(tmp_path: Path) -> None:
    contents = [noise(MIN_PART, seed=n) for n in range(3)]
    with Process(tmp_path) as server:
        port = int(server.endpoint_url.rpartition(":")[2])
        options = Oss(endpoint_url=server.endpoint_url, region=REGION)
        with opened(options) as store:
            upload = store.begin(KEY, {"note": "x"})
            kept = [put(store, upload, n, contents[n - 1]) for n in (1, 2)]
            gone = store.begin("gone", {})
            put(store, gone, 1, b"x")
            store.abort(gone)
            store.put("small", b"small", {}, exclusive=True)
    with Process(tmp_path, port), opened(options) as store:
        assert [(u.key, u.id) for u in store.list_uploads("")] == [(KEY, upload.id)]
        assert list(store.list_parts(upload)) == kept
        with pytest.raises(UploadGone):
            put(store, gone, 1, b"x")
        kept.append(put(store, upload, 3, contents[2]))
        whole = b"".join(contents)
        info = store.complete(upload, kept, size=len(whole), crc=None, exclusive=True)
        assert info.crc == CRC64_XZ.update(whole)
    with Process(tmp_path, port), opened(options) as store:
        reader = store.open(KEY)
        assert (reader.info.etag, reader.info.metadata) == (info.etag, {"note": "x"})
        buffer = bytearray(reader.info.size)
        reader.read_into(0, memoryview(buffer))
        assert buffer == whole
        assert store.head("small") is not None
        assert list(store.list_uploads("")) == []


def test_small_requests_are_quick(tmp_path: Path) -> None:
    """Thousands of parts cost as much each as the first ones."""
    with OssServer(tmp_path, discard=True) as server, opened(at(server)) as store:
        upload = store.begin(KEY, {})
        times = []
        for start in (1, 1001, 2001):
            begun = time.process_time()
            for number in range(start, start + 300):
                put(store, upload, number, b"x")
            times.append(time.process_time() - begun)
    assert times[2] < 3 * times[0]

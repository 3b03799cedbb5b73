"""The OSS store: the real SDK against a server that checks what it is sent."""

import concurrent.futures
import datetime
import ipaddress
import ssl
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.faults import Fault
from support.oss_client import (
    KEY,
    MIN_PART,
    at,
    body,
    noise,
    opened,
    put,
    save,
)
from support.oss_server import REGION, OssServer

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
from imgconv.native import CRC64_XZ
from imgconv.objectstore import Part, PartStore, Upload
from imgconv.stores import store_from_text
from imgconv.stores.oss import Oss
from imgconv.units import MiB

pytestmark = pytest.mark.usefixtures("oss_environment")


# uploads


def test_parts_in_any_order_with_the_first_one_last(
    server: OssServer, store: PartStore
) -> None:
    contents = {n: noise(MIN_PART + 1000 * n, seed=n) for n in (1, 2, 3, 9999)}
    contents[10000] = b"the last one may be short"
    upload = store.begin(KEY, {"imgconv-id": "17"})
    assert server.objects == {}
    parts = [put(store, upload, n, contents[n]) for n in (9999, 3, 10000, 2, 1)]
    whole = b"".join(contents[n] for n in sorted(contents))
    crc, size = CRC64_XZ.update(whole), len(whole)
    parts.sort(key=lambda part: part.number)
    info = store.complete(upload, parts, size=size, crc=crc, exclusive=True)
    assert (info.size, info.crc) == (size, crc)
    made = server.objects["exports", KEY]
    assert made.content() == whole
    assert made.headers["content-type"] == "application/octet-stream"
    assert store.head(KEY) is not None
    assert store.head(KEY).metadata == {"imgconv-id": "17"}
    assert store.head(KEY).etag == info.etag


def test_a_part_sent_again_replaces_the_earlier(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    put(store, upload, 1, b"first")
    second = put(store, upload, 1, b"second!")
    assert list(store.list_parts(upload)) == [second]
    store.complete(upload, [second], size=7, crc=None, exclusive=False)
    assert server.objects["exports", KEY].content() == b"second!"


def test_an_empty_object(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    part = put(store, upload, 1, b"")
    info = store.complete(upload, [part], size=0, crc=0, exclusive=True)
    assert (info.size, info.crc) == (0, 0)
    assert server.objects["exports", KEY].content() == b""


def test_a_part_tells_its_length_md5_and_crc(store: PartStore) -> None:
    part = put(store, store.begin(KEY, {}), 7, b"123456789")
    assert part == Part(7, 9, "25F9E794323B453885F5181F1B624D0B", 0x995DC9BBDF1939FA)


def test_a_part_damaged_on_the_way(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    server.faults.add("UploadPart", Fault(flipped=True))
    with pytest.raises(ContentDamaged, match="part 3: CRC-64"):
        put(store, upload, 3, noise(MiB))


def test_a_damaged_part_with_an_md5_is_not_even_kept(
    server: OssServer, store: PartStore
) -> None:
    upload = store.begin(KEY, {})
    with pytest.raises(ContentDamaged, match="InvalidDigest"):
        store.put_part(upload, 1, body(b"abc"), crc=None, md5=bytes(16))
    assert list(store.list_parts(upload)) == []


def test_a_reply_with_another_crc_is_damage(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    server.faults.add("UploadPart", Fault(wrong_crc=True))
    with pytest.raises(ContentDamaged):
        put(store, upload, 1, b"abc")


def test_an_exclusive_end_of_an_upload(server: OssServer, store: PartStore) -> None:
    save(store, b"somebody else's")
    upload = store.begin(KEY, {})
    part = put(store, upload, 1, b"ours")
    with pytest.raises(OutputExists, match=f"oss://exports/{KEY}: .*FileAlreadyExists"):
        store.complete(upload, [part], size=4, crc=None, exclusive=True)
    assert server.objects["exports", KEY].content() == b"somebody else's"
    store.complete(upload, [part], size=4, crc=None, exclusive=False)
    assert server.objects["exports", KEY].content() == b"ours"


def test_an_upload_that_is_gone(store: PartStore) -> None:
    upload = store.begin(KEY, {})
    part = put(store, upload, 1, b"x")
    store.abort(upload)
    store.abort(upload)
    with pytest.raises(UploadGone):
        put(store, upload, 2, b"y")
    with pytest.raises(UploadGone):
        list(store.list_parts(upload))
    with pytest.raises(UploadGone, match="NoSuchUpload"):
        store.complete(upload, [part], size=1, crc=None, exclusive=False)
    assert list(store.list_uploads("")) == []


@pytest.mark.parametrize(
    ("numbers", "code"), [((2, 1), "InvalidPartOrder"), ((1, 3), "InvalidPart"), ((), "XML")]
)
def test_a_wrong_list_of_parts_is_refused_and_the_upload_lives(
    store: PartStore, numbers: tuple[int, ...], code: str
) -> None:
    upload = store.begin(KEY, {})
    parts = {n: put(store, upload, n, noise(MIN_PART)) for n in (1, 2)}
    parts[3] = Part(3, 1, "0" * 32)
    with pytest.raises(StoreRefused, match=code):
        store.complete(upload, [parts[n] for n in numbers], size=1, crc=None, exclusive=False)
    assert len(list(store.list_parts(upload))) == 2


def test_a_short_part_that_is_not_the_last(store: PartStore) -> None:
    upload = store.begin(KEY, {})
    parts = [put(store, upload, n, noise(store.limits.min_part - 1)) for n in (1, 2)]
    with pytest.raises(StoreRefused, match="EntityTooSmall"):
        store.complete(upload, parts, size=1, crc=None, exclusive=False)


def test_long_lists_come_in_pages(tmp_path: Path) -> None:
    with OssServer(tmp_path, page=7) as server, opened(at(server)) as store:
        uploads = [store.begin("a/same", {}) for _ in range(9)]
        uploads += [store.begin(f"a/{n} +%ü", {}) for n in range(12)]
        other = store.begin("b/other", {})
        listed = list(store.list_uploads("a/"))
        assert {(u.key, u.id) for u in listed} == {(u.key, u.id) for u in uploads}
        assert len(listed) == 21
        assert all(abs(u.started - time.time()) < 60 for u in listed)
        parts = [put(store, other, n, b"%d" % n) for n in range(1, 25)]
        assert list(store.list_parts(other)) == parts


@pytest.mark.parametrize(
    "key",
    [
        "a b.raw",
        "plus+plus",
        "per%20cent",
        "ünï/コード.qcow2",
        "a//b",
        "q?x=1&y#z",
        "~!*'();:@",
    ],
)
def test_keys_of_any_kind(server: OssServer, store: PartStore, key: str) -> None:
    upload = store.begin(key, {"note": f" {key}\n"})
    part = put(store, upload, 1, noise(MIN_PART))
    copied = store.copy_part
    store.complete(upload, [part], size=MIN_PART, crc=None, exclusive=True)
    assert list(server.objects) == [("exports", key)]
    info = store.head(key)
    assert info is not None
    assert info.metadata == {"note": f" {key}\n"}
    second = store.begin(key + "2", {})
    assert copied(second, 1, key, 0, 100).length == 100
    assert [u.key for u in store.list_uploads(key)] == [key + "2"]
    store.delete(key)
    assert store.head(key) is None


@pytest.mark.parametrize("key", ["a/../b", "..", "./a", "a/."])
def test_a_key_that_would_be_sent_as_another(
    server: OssServer, store: PartStore, key: str
) -> None:
    with pytest.raises(StoreRefused, match="between slashes"):
        store.begin(key, {})
    with pytest.raises(StoreRefused, match="between slashes"):
        store.open(key)
    assert server.log == []


def test_keys_that_are_no_text_or_not_for_the_eye(store: PartStore) -> None:
    with pytest.raises(StoreRefused) as error:
        store.begin("\udcff", {})
    assert str(error.value).startswith(r"oss://exports/'\udcff': cannot begin")
    with pytest.raises(ObjectMissing) as missing:
        store.open("two\nlines")
    assert "\n" not in str(missing.value)


def test_the_content_type_is_not_guessed(server: OssServer, store: PartStore) -> None:
    store.put("page.html", b"", {}, exclusive=False)
    upload = store.begin("index.html", {})
    parts = [put(store, upload, 1, b"")]
    store.complete(upload, parts, size=0, crc=None, exclusive=True)
    types = {made.headers["content-type"] for made in server.objects.values()}
    assert types == {"application/octet-stream"}


def test_metadata_keys_come_back_in_lower_case(store: PartStore) -> None:
    store.put(KEY, b"", {"Imgconv-Id": "AbC"}, exclusive=True)
    assert store.head(KEY).metadata == {"imgconv-id": "AbC"}


# copies


def test_a_part_copied_in_the_store(server: OssServer, store: PartStore) -> None:
    content = noise(3 * MIN_PART)
    store.put("source", content, {}, exclusive=False)
    upload = store.begin(KEY, {})
    first = store.copy_part(upload, 1, "source", 17, MIN_PART)
    assert (first.length, first.crc) == (MIN_PART, None)
    second = put(store, upload, 2, b"tail")
    expected = content[17 : 17 + MIN_PART]
    assert [p.crc for p in store.list_parts(upload)] == [CRC64_XZ.update(expected), second.crc]
    store.complete(upload, [first, second], size=MIN_PART + 4, crc=None, exclusive=True)
    assert server.objects["exports", KEY].content() == expected + b"tail"


def test_copies_that_cannot_be(server: OssServer, store: PartStore) -> None:
    store.put("source", b"0123456789", {}, exclusive=False)
    upload = store.begin(KEY, {})
    with pytest.raises(ObjectMissing):
        store.copy_part(upload, 1, "no such source", 0, 1)
    with pytest.raises(StoreRefused, match="InvalidRange"):
        store.copy_part(upload, 1, "source", 5, 6)
    server.faults.add("UploadPartCopy", Fault(status=501, code="NotImplemented"))
    with pytest.raises(StoreCannot):
        store.copy_part(upload, 1, "source", 0, 1)


# objects


def test_a_small_object(server: OssServer, store: PartStore) -> None:
    info = store.put(KEY, b"123456789", {"a": "b"}, exclusive=True)
    assert (info.size, info.crc) == (9, 0x995DC9BBDF1939FA)
    assert info.etag == "25F9E794323B453885F5181F1B624D0B"
    assert store.head(KEY) == info
    with pytest.raises(OutputExists):
        store.put(KEY, b"other", {}, exclusive=True)
    store.put(KEY, b"other", {}, exclusive=False)
    assert server.objects["exports", KEY].content() == b"other"


def test_objects_that_are_not_there(store: PartStore) -> None:
    assert store.head(KEY) is None
    store.delete(KEY)
    with pytest.raises(ObjectMissing, match=f"oss://exports/{KEY}"):
        store.open(KEY)


def test_a_bucket_that_is_not_there(server: OssServer, store: PartStore) -> None:
    server.state.missing_buckets.add("exports")
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        store.begin(KEY, {})
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        store.head(KEY)


def test_ranges_of_an_object(store: PartStore) -> None:
    content = noise(MiB + 7)
    save(store, content)
    reader = store.open(KEY)
    assert reader.name == f"oss://exports/{KEY}"
    assert (reader.info.size, reader.info.crc) == (len(content), CRC64_XZ.update(content))
    for start, length in ((0, len(content)), (0, 1), (len(content) - 1, 1), (4095, 600_000)):
        buffer = bytearray(length + 2)
        reader.read_into(start, memoryview(buffer)[1:-1])
        assert buffer == b"\0" + content[start : start + length] + b"\0"
    reader.read_into(5, memoryview(b""))
    reader.close()
    reader.close()


def test_reading_past_the_end(store: PartStore) -> None:
    save(store, b"0123456789")
    reader = store.open(KEY)
    with pytest.raises(StoreRefused, match="InvalidRange"):
        reader.read_into(10, memoryview(bytearray(1)))
    with pytest.raises(StoreUnavailable, match="2 bytes were asked for, 1 came"):
        reader.read_into(9, memoryview(bytearray(2)))


def test_an_object_replaced_while_it_is_read(store: PartStore) -> None:
    save(store, b"before")
    reader = store.open(KEY)
    save(store, b"behind")
    with pytest.raises(ObjectChanged):
        reader.read_into(0, memoryview(bytearray(6)))
    store.delete(KEY)
    with pytest.raises(ObjectMissing):
        reader.read_into(0, memoryview(bytearray(6)))


@pytest.mark.parametrize("cut", [0, 1, 600_000])
def test_an_answer_that_ends_early(server: OssServer, store: PartStore, cut: int) -> None:
    content = noise(MiB)
    save(store, content)
    reader = store.open(KEY)
    server.faults.add("GetObject", Fault(cut_reply=cut), Fault(cut_reply=cut, status=500))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            reader.read_into(0, memoryview(bytearray(MiB)))
    buffer = bytearray(MiB)
    reader.read_into(0, memoryview(buffer))
    assert buffer == content


# bodies


def test_a_body_is_sent_from_where_it_lies(tmp_path: Path) -> None:
    """No copy of a part, and no memory that grows with it."""
    content = memoryview(bytearray(64 * MiB))
    crc = CRC64_XZ.update(content)
    views = [content[i : i + MiB] for i in range(0, len(content), MiB)]
    with OssServer(tmp_path, discard=True) as server:
        with opened(at(server)) as store:
            upload = store.begin(KEY, {})
            tracemalloc.start()
            try:
                store.put_part(upload, 1, Body(views), crc=crc, md5=None)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < 4 * MiB


def test_a_body_that_stops_its_sender(server: OssServer, store: PartStore) -> None:
    upload = store.begin(KEY, {})
    for error in (Cancelled("enough"), RuntimeError("a bug")):

        def stop(length: int, error: Exception = error) -> None:
            raise error

        stopped = Body([memoryview(b"abc")], before_view=stop)
        with pytest.raises(type(error), match=str(error)):
            store.put_part(upload, 1, stopped, crc=None, md5=None)
    assert list(store.list_parts(upload)) == []


def test_many_threads_from_the_first_request_on(server: OssServer, store: PartStore) -> None:
    upload = Upload(KEY, server.state.begin("exports", KEY, {}).id)
    contents = {n: noise(MIN_PART + n, seed=n) for n in range(1, 33)}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(put, store, upload, n, c) for n, c in contents.items()]
        parts = [job.result() for job in jobs]
    whole = b"".join(contents.values())
    store.complete(upload, parts, size=len(whole), crc=None, exclusive=True)
    assert server.objects["exports", KEY].content() == whole
    assert server.accepted <= 16


# clocks, regions, addresses


def test_a_clock_that_is_wrong(server: OssServer, store: PartStore) -> None:
    server.clock_offset = 1200
    there = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() + 1200))
    with pytest.raises(StoreRefused, match=f"clock of this machine is wrong.* store {there}"):
        store.begin(KEY, {})


def test_a_wrong_region(server: OssServer) -> None:
    with (
        opened(Oss(endpoint_url=server.endpoint_url, region="cn-beijing")) as store,
        pytest.raises(StoreRefused, match="InvalidArgument"),
    ):
        store.begin(KEY, {})


def test_where_region_and_endpoint_come_from(monkeypatch) -> None:
    internal = Oss(endpoint_url="https://oss-cn-beijing-internal.aliyuncs.com")
    assert internal.signing_region() == "cn-beijing"
    assert Oss(endpoint_url="oss-cn-hangzhou.aliyuncs.com").signing_region() == "cn-hangzhou"
    monkeypatch.setenv("OSS_REGION", "cn-shanghai")
    assert Oss(endpoint_url="https://oss.example.com").signing_region() == "cn-shanghai"
    assert Oss(region="eu-central-1").signing_region() == "eu-central-1"
    monkeypatch.setenv("OSS_ENDPOINT", "oss.example.com")
    assert Oss().endpoint() == "https://oss.example.com"


def test_no_region_at_all() -> None:
    with pytest.raises(UsageError, match="region=cn-hangzhou"):
        Oss(endpoint_url="https://oss.example.com").open("exports")


def test_settings_of_the_environment_lead_to_the_server(server: OssServer, monkeypatch) -> None:
    monkeypatch.setenv("OSS_ENDPOINT", server.endpoint_url)
    monkeypatch.setenv("OSS_REGION", REGION)
    with opened(Oss()) as store:
        save(store, b"abc")
    assert list(server.objects) == [("exports", KEY)]


@pytest.mark.parametrize(
    ("endpoint", "style", "host"),
    [
        ("http://oss.test", "auto", "exports.oss.test"),
        ("http://oss.test", "off", "exports.oss.test"),
        ("http://localhost", "auto", "localhost"),
    ],
)
def test_the_bucket_in_the_host_name(
    server: OssServer, monkeypatch, endpoint: str, style: str, host: str
) -> None:
    """Through a proxy, which spares us a name server."""
    monkeypatch.setenv("HTTP_PROXY", server.endpoint_url)
    with opened(Oss(endpoint_url=endpoint, region=REGION, path_style=style)) as store:
        upload = store.begin("a b", {})
        part = put(store, upload, 1, b"abc")
        store.complete(upload, [part], size=3, crc=None, exclusive=True)
        assert list(store.list_uploads("")) == []
    assert list(server.objects) == [("exports", "a b")]
    assert {entry.request.headers["host"] for entry in server.log} == {host}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody vouches for, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    path = tmp_path / "loopback.pem"
    path.write_bytes(secret + signed.public_bytes(pem))
    return path


def test_a_certificate_that_nobody_vouches_for(
    tmp_path: Path, certificate: Path, monkeypatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with OssServer(tmp_path / "oss", tls=context) as server:
        options = Oss(endpoint_url=server.endpoint_url, region=REGION)
        with (
            opened(options) as store,
            pytest.raises(StoreRefused, match="self-signed certificate"),
        ):
            save(store, b"abc")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with opened(options) as store:
            put(store, store.begin(KEY, {}), 1, noise(3 * MiB))


# options


def test_options_as_text() -> None:
    text = "endpoint_url=http://127.0.0.1:80,region=x,path_style=on,read_timeout=9,role=me"
    made = store_from_text("oss", text)
    assert made == Oss(
        endpoint_url="http://127.0.0.1:80",
        region="x",
        path_style="on",
        read_timeout=9,
        role="me",
    )


@pytest.mark.parametrize(
    "text",
    [
        "path_style=maybe",
        "credentials=secret",
        "read_timeout=0",
        "endpoint_url=ftp://host",
        "endpoint_url=http://host/path",
        "endpoint_url=",
        "metadata_url=http://user@host",
    ],
)
def test_options_that_cannot_be(text: str) -> None:
    with pytest.raises(OptionError, match=text.partition("=")[0]):
        store_from_text("oss", text)


def test_without_the_sdk(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("imgconv.stores.oss_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "alibabacloud_oss_v2", None)
    with pytest.raises(UsageError, match=r"pip install imgconv\[oss\]"):
        Oss(region=REGION).open("exports")


def test_the_sdk_is_not_loaded_before_a_bucket_is_opened() -> None:
    code = "import sys; from imgconv.stores.oss import Oss; Oss(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "alibabacloud_oss_v2" not in done.stdout.split()

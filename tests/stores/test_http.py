"""Objects behind http URLs, from a server that may do anything."""

import datetime
import ipaddress
import random
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import range_server
from support.range_server import Answer, Site, headed, serving, status

from imgconv.errors import (
    ObjectChanged,
    ObjectMissing,
    StoreError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UsageError,
)
from imgconv.objectstore import ObjectReader
from imgconv.stores.http import MAX_REDIRECTS, open_http
from imgconv.units import KiB, MiB

CONTENT = random.Random(1).randbytes(3 * MiB + 77)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(CONTENT) as site:
        yield site


@pytest.fixture
def reader(site: Site) -> Iterator[ObjectReader]:
    reader = open_http(site.url, timeout=5)
    yield reader
    reader.close()


def read(reader: ObjectReader, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    reader.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def opening_fails(site: Site, error: type[StoreError], words: str) -> StoreError:
    with pytest.raises(error, match=words) as raised:
        open_http(site.url, timeout=5)
    assert "\n" not in str(raised.value)
    return raised.value


def test_ranges_are_read_over_one_connection(site: Site, reader: ObjectReader) -> None:
    assert reader.info.size == len(CONTENT)
    assert reader.info.etag == "v1"
    for offset, length in [(0, 1), (5, 700), (MiB + 1, 2 * MiB), (len(CONTENT) - 9, 9)]:
        assert read(reader, offset, length) == CONTENT[offset : offset + length]
    assert read(reader, 7, 0) == b""
    assert site.ranges[1:] == [
        "bytes=0-0",
        "bytes=5-704",
        f"bytes={MiB + 1}-{3 * MiB}",
        f"bytes={len(CONTENT) - 9}-{len(CONTENT) - 1}",
    ]
    assert site.connections == 1
    assert all(headers["Accept-Encoding"] == "identity" for _, headers in site.seen)


def test_many_threads_read_at_once(site: Site, reader: ObjectReader) -> None:
    site.latency = 0.05
    with ThreadPoolExecutor(16) as pool:
        pieces = pool.map(lambda at: read(reader, at, 64 * KiB), range(0, 3 * MiB, 64 * KiB))
        assert b"".join(pieces) == CONTENT[: 3 * MiB]
    assert 8 <= site.busiest <= 16
    assert site.connections <= 17


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (range_server.whole, StoreRefused, "does not read by range"),
        (headed(Content_Range=None), StoreRefused, "does not tell which range"),
        (headed(Content_Range="bytes 0-0/*"), StoreRefused, "does not tell which range"),
        (headed(Content_Range="bytes 0-0/-5"), StoreRefused, "does not tell which range"),
        (headed(Content_Range=f"bytes 0-0/{1 << 63}"), StoreRefused, "more than an object"),
        (headed(Content_Range="bytes 0-0/" + "9" * 999), StoreRefused, "which range"),
        (headed(Content_Range="bytes 0-0/0"), StoreRefused, "another range"),
        (headed(Content_Range="bytes 1-1/9"), StoreRefused, "another range"),
        (headed(Content_Range="bytes 0-1/9"), StoreRefused, "another range"),
        (headed(Content_Length=None), StoreRefused, "how much it sends"),
        (headed(Content_Length=str(1 << 65)), StoreRefused, "how much it sends"),
        (headed(Content_Length="-1"), StoreRefused, "how much it sends"),
        (headed(Content_Length="9" * 5000), StoreRefused, "how much it sends"),
        (headed(Content_Encoding="gzip"), StoreRefused, "compressed"),
        (headed(X="x" * 100_000), StoreUnavailable, "not HTTP"),
        (headed(**{f"X{n}": "x" for n in range(200)}), StoreUnavailable, "not HTTP"),
        (range_server.verbatim(b"SSH-2.0-OpenSSH_9.2\r\n"), StoreUnavailable, "not HTTP"),
        (range_server.verbatim(b""), StoreUnavailable, "HTTP|closed"),
        (range_server.reset, StoreUnavailable, "reset by peer"),
        (status(200), StoreRefused, "does not read by range"),
        (status(204), StoreRefused, "204 No Content"),
        (status(302), StoreRefused, "302 Found"),
        (status(401), StoreRefused, "401 Unauthorized"),
        (status(403), StoreRefused, "403 Forbidden"),
        (status(404), ObjectMissing, "does not exist"),
        (status(410), ObjectMissing, "does not exist"),
        (status(408), StoreUnavailable, "408 Request Timeout"),
        (status(418), StoreRefused, "418"),
        (status(500), StoreUnavailable, "500 Internal Server Error"),
        (status(599), StoreUnavailable, "599"),
        (status(429), StoreThrottled, "429 Too Many Requests"),
        (status(503), StoreThrottled, "503 Service Unavailable"),
    ],
)
def test_opening_what_cannot_be_read(
    site: Site, answer: Answer, error: type[StoreError], words: str
) -> None:
    site.script.append(answer)
    failure = opening_fails(site, error, words)
    assert str(failure).startswith(f"{site.url}: ")
    assert type(failure) is error


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (range_server.whole, StoreRefused, "does not read by range"),
        (range_server.cut_after(1000), StoreUnavailable, "broke off|ended early"),
        (range_server.cut_after(0), StoreUnavailable, "broke off|ended early"),
        (range_server.reset, StoreUnavailable, "reset by peer"),
        (range_server.stalled(3), StoreUnavailable, "does not answer in time"),
        (headed(Content_Range="bytes 101-2100/9999999"), StoreRefused, "another range"),
        (headed(Content_Range=None), StoreRefused, "which range"),
        (headed(Content_Length="1999"), StoreRefused, "how much it sends"),
        (headed(Content_Length=None), StoreRefused, "how much it sends"),
        (headed(Content_Range="bytes 100-2099/3145804"), ObjectChanged, "not the object"),
        (headed(ETag='"v2"'), ObjectChanged, "not the object"),
        (headed(ETag='W/"v1"'), ObjectChanged, "not the object"),
        (headed(ETag=None), ObjectChanged, "not the object"),
        (status(412), ObjectChanged, "not the object"),
        (status(416), ObjectChanged, "not the object"),
        (status(404), ObjectMissing, "does not exist"),
        (status(302, Location="/elsewhere"), StoreRefused, "302 Found"),
        (status(403), StoreRefused, "403 Forbidden"),
        (status(502), StoreUnavailable, "502 Bad Gateway"),
    ],
)
def test_a_read_that_fails_does_so_alone(
    site: Site, answer: Answer, error: type[StoreError], words: str
) -> None:
    reader = open_http(site.url, timeout=0.5)
    site.script.append(answer)
    with pytest.raises(error, match=words) as raised:
        read(reader, 100, 2000)
    assert type(raised.value) is error
    assert len(site.seen) == 2, "one attempt, and no redirect followed"
    assert read(reader, 100, 2000) == CONTENT[100:2100]
    reader.close()


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), (" 120 ", 120), ("-1", 0), ("9" * 5000, 0), ("soon", 0)]
)
def test_how_long_to_stay_away(site: Site, text: str, seconds: float) -> None:
    site.script.append(status(503, Retry_After=text))
    failure = opening_fails(site, StoreThrottled, "503")
    assert isinstance(failure, StoreThrottled)
    assert failure.retry_after == seconds


def test_a_server_that_dribbles_is_given_up(site: Site) -> None:
    reader = open_http(site.url, timeout=0.5)
    site.script.append(range_server.dribbled(0.01))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="too slowly"):
        read(reader, 0, 1000)
    assert time.monotonic() - began < 5
    reader.close()


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        open_http(f"http://127.0.0.1:{port}/disk.raw")


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StoreUnavailable, match="does not answer in time"):
            open_http(f"http://127.0.0.1:{port}/disk.raw", timeout=0.3)


@pytest.mark.parametrize("answer", [None, status(200, Content_Length="0")])
def test_an_empty_object_has_size_0(answer: Answer | None) -> None:
    with serving(b"") as site:
        if answer is not None:
            site.script.append(lambda handler: handler.answer(200, {"Content-Length": "0"}))
        reader = open_http(site.url)
        assert reader.info.size == 0
        reader.close()


def test_a_replaced_object_is_not_read_on(site: Site, reader: ObjectReader) -> None:
    assert read(reader, 0, 9) == CONTENT[:9]
    assert site.seen[-1][1]["If-Match"] == '"v1"'
    site.content, site.etag = CONTENT[::-1], '"v2"'
    with pytest.raises(ObjectChanged):
        read(reader, 0, 9)
    site.heeds_conditions = False
    with pytest.raises(ObjectChanged):
        read(reader, 0, 9)


MONDAY, TUESDAY = "Mon, 06 Jul 2026 10:00:00 GMT", "Tue, 07 Jul 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("etag", "modified", "label"),
    [
        ('W/"v1"', MONDAY, "v1"),
        (None, MONDAY, MONDAY),
        ('"with\tcontrol"', MONDAY, MONDAY),
        ("no-quotes", None, ""),
        (None, None, ""),
    ],
)
def test_without_a_strong_etag(
    site: Site, etag: str | None, modified: str | None, label: str
) -> None:
    site.etag, site.modified = etag, modified
    reader = open_http(site.url)
    assert reader.info.etag == label
    assert read(reader, 5, 9) == CONTENT[5:14]
    assert "If-Match" not in site.seen[-1][1]
    if modified is not None:
        site.modified = TUESDAY
        with pytest.raises(ObjectChanged):
            read(reader, 5, 9)
    site.modified, site.content = modified, CONTENT + b"more"
    with pytest.raises(ObjectChanged):
        read(reader, 5, 9)
    reader.close()


def test_with_a_strong_etag_the_time_is_of_no_moment(site: Site) -> None:
    """The servers behind one name need not agree on it."""
    site.modified = MONDAY
    reader = open_http(site.url)
    site.modified = TUESDAY
    assert read(reader, 5, 9) == CONTENT[5:14]
    reader.close()


def test_redirects_are_followed_once_at_the_beginning(site: Site) -> None:
    site.script += [status(301, Location="/b/"), status(307, Location="c?token=abc")]
    reader = open_http(site.url)
    assert read(reader, 0, 5) == CONTENT[:5]
    paths = [path for path, _ in site.seen]
    assert paths == ["/disks/disk.raw", "/b/", "/b/c?token=abc", "/b/c?token=abc"]
    assert reader.name == site.url
    reader.close()


def test_redirects_come_to_an_end(site: Site) -> None:
    site.script += [status(302, Location="/again")] * (MAX_REDIRECTS + 5)
    opening_fails(site, StoreRefused, "redirects more than 5 times")
    assert len(site.seen) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://host/x",
        "https:///x",
        "http://[x/",
        "http://h:x/",
        "data:,x",
    ],
)
def test_redirects_lead_to_web_servers_only(site: Site, location: str) -> None:
    site.script.append(status(302, Location=location))
    opening_fails(site, StoreRefused, "redirects to what is no http or https URL")
    assert len(site.seen) == 1


def test_a_login_is_sent_to_its_own_host_and_never_shown(site: Site) -> None:
    with serving(CONTENT) as other:
        site.script += [status(302, Location="/there"), status(302, Location=other.url)]
        url = site.url.replace("http://", "http://me:s%40cret@") + "?signature=hidden"
        reader = open_http(url)
        assert reader.name == site.url
        assert read(reader, 0, 5) == CONTENT[:5]
        logins = [headers.get("Authorization") for _, headers in site.seen]
        assert logins == ["Basic bWU6c0BjcmV0"] * 2  # me:s@cret
        assert [headers.get("Authorization") for _, headers in other.seen] == [None] * 2
        assert site.seen[0][0] == "/disks/disk.raw?signature=hidden"
        other.script += [range_server.reset, status(500), range_server.cut_after(1)]
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as raised:
                read(reader, 0, 5)
            assert "cret" not in str(raised.value)
            assert "hidden" not in str(raised.value)
        reader.close()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "disk.raw",
        "http://",
        "http:///disk.raw",
        "http://me:secret@/disk.raw",
        "http://me:secret@host:port/disk.raw",
        "http://me:secret@[::1/disk.raw",
    ],
)
def test_what_is_no_url_of_a_web_server(url: str) -> None:
    with pytest.raises(UsageError, match="not a URL such as") as raised:
        open_http(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("host", ["nobody.invalid", "a" * 300, "xn--a..b", "ex ample"])
def test_a_host_that_cannot_be(host: str) -> None:
    """Depending on the network, the first is unknown or cannot be looked up now."""
    with pytest.raises((StoreRefused, StoreUnavailable)) as raised:
        open_http(f"http://{host}/disk.raw?signature=hidden", timeout=5)
    assert "hidden" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_closing_is_harmless_when_repeated(site: Site, reader: ObjectReader) -> None:
    reader.close()
    reader.close()
    with pytest.raises(StoreError, match="is closed"):
        read(reader, 0, MiB)
    assert len(site.seen) == 1


def test_closing_ends_a_read_that_is_under_way(site: Site, reader: ObjectReader) -> None:
    site.script.append(range_server.dribbled(0.01))
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(read, reader, 0, 100_000)
        while len(site.seen) < 2:
            time.sleep(0.01)
        reader.close()
        with pytest.raises(StoreError, match="is closed"):
            under_way.result(5)


def test_without_the_library() -> None:
    """A process in which it cannot be imported."""
    code = "import sys; sys.modules['urllib3'] = None\n"
    code += "from imgconv.errors import UsageError\n"
    code += "from imgconv.stores.http import open_http\n"
    code += "try: open_http('http://host/disk.raw')\n"
    code += "except UsageError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install imgconv[http]" in done.stdout
    assert done.stderr == ""


def certificate(folder: Path, address: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for an address, and the server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "imgconv test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = (
        builder.not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


def test_https_with_a_trusted_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with serving(CONTENT, lambda s: context.wrap_socket(s, server_side=True)) as site:
        reader = open_http(site.url)
        assert read(reader, 5, 2 * MiB) == CONTENT[5 : 2 * MiB + 5]
        reader.close()
        with serving(CONTENT) as plain:
            site.script.append(status(302, Location=plain.url))
            opening_fails(site, StoreRefused, "redirects from https to http")
            assert plain.seen == []


@pytest.mark.parametrize(
    ("address", "trusted", "words"),
    [
        ("127.0.0.1", False, "certificate is not trusted: self.signed"),
        ("127.0.0.2", True, "certificate is not trusted: .*127.0.0.1"),
    ],
)
def test_https_with_a_certificate_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, trusted: bool, words: str
) -> None:
    path, context = certificate(tmp_path, address)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with serving(CONTENT, lambda s: context.wrap_socket(s, server_side=True)) as site:
        opening_fails(site, StoreRefused, words)
        assert site.seen == []

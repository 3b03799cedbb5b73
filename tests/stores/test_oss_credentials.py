"""Where the OSS store gets credentials from, and what happens when they are no good."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.ecs_metadata import ROLES, EcsMetadata
from support.oss_auth import Key
from support.oss_client import KEY, opened, put, save
from support.oss_server import REGION, OssServer

from imgconv.errors import (
    CredentialsExpired,
    StoreRefused,
    StoreUnavailable,
)
from imgconv.objectstore import PartStore
from imgconv.stores.oss import Oss

pytestmark = pytest.mark.usefixtures("oss_environment")


def test_a_wrong_secret(server: OssServer, store: PartStore, monkeypatch) -> None:
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "wrong")
    with pytest.raises(StoreRefused, match="SignatureDoesNotMatch"):
        store.begin(KEY, {})
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreRefused, match="InvalidAccessKeyId"):
        store.begin(KEY, {})


def test_no_credentials(server: OssServer, store: PartStore, monkeypatch) -> None:
    monkeypatch.delenv("OSS_ACCESS_KEY_SECRET")
    options = Oss(endpoint_url=server.endpoint_url, region=REGION, credentials="environment")
    with (
        opened(options) as store,
        pytest.raises(StoreRefused, match="set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SEC"),
    ):
        store.begin(KEY, {})
    assert server.log == []


def test_anonymous_requests(server: OssServer) -> None:
    options = Oss(endpoint_url=server.endpoint_url, region=REGION, credentials="anonymous")
    with opened(options) as store:
        with pytest.raises(StoreRefused, match="AccessDenied"):
            store.head(KEY)
        server.keys.clear()
        assert store.head(KEY) is None
        assert not store.renew()


def test_a_token_that_expires(server: OssServer, store: PartStore, monkeypatch) -> None:
    server.keys["STS.1"] = Key("one", "token-1", time.time() + 3600)
    server.keys["STS.2"] = Key("two", "token-2", time.time() + 3600)
    for name, value in (("ID", "STS.1"), ("SECRET", "one")):
        monkeypatch.setenv(f"OSS_ACCESS_KEY_{name}", value)
    monkeypatch.setenv("OSS_SESSION_TOKEN", "token-1")
    upload = store.begin(KEY, {})
    server.keys["STS.1"] = Key("one", "token-1", time.time() - 1)
    with pytest.raises(CredentialsExpired, match="SecurityTokenExpired"):
        put(store, upload, 1, b"x")
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "STS.2")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "two")
    monkeypatch.setenv("OSS_SESSION_TOKEN", "token-2")
    assert store.renew()
    put(store, upload, 1, b"x")


@pytest.fixture
def instance(server: OssServer, monkeypatch) -> Iterator[EcsMetadata]:
    """An instance with a role whose credentials the server takes."""
    monkeypatch.delenv("OSS_ACCESS_KEY_ID")
    monkeypatch.setenv("HTTP_PROXY", server.endpoint_url)  # not for the metadata service
    key = Key("one", "token-1", time.time() + 3600)
    server.keys = {"STS.1": key}
    with EcsMetadata("exporter-role", ("STS.1", key)) as instance:
        yield instance


def of_role(
    server: OssServer, instance: EcsMetadata, credentials: str = "auto", role: str | None = None
) -> AbstractContextManager[PartStore]:
    return opened(
        Oss(
            endpoint_url=server.endpoint_url,
            region=REGION,
            metadata_url=instance.endpoint_url,
            credentials=credentials,
            role=role,
        )
    )


ROLE = ROLES + "exporter-role"


@pytest.mark.parametrize("credentials", ["auto", "ram-role"])
def test_the_role_of_an_instance(
    server: OssServer, instance: EcsMetadata, credentials: str
) -> None:
    with of_role(server, instance, credentials=credentials) as store:
        assert instance.log == []
        save(store, b"abc")
        save(store, b"abc")
        assert instance.log == ["PUT /latest/api/token", f"GET {ROLES}", f"GET {ROLE}"]


def test_a_named_role_and_a_service_of_the_first_version(
    server: OssServer, instance: EcsMetadata
) -> None:
    instance.tokens = False
    with of_role(server, instance, role="exporter-role") as store:
        save(store, b"abc")
        assert instance.log == ["PUT /latest/api/token", f"GET {ROLE}"]


def test_role_credentials_are_fetched_before_they_expire(
    server: OssServer, instance: EcsMetadata
) -> None:
    instance.current = ("STS.1", Key("one", "token-1", time.time() + 2))
    second = Key("two", "token-2", time.time() + 3600)
    with of_role(server, instance) as store:
        save(store, b"abc")
        server.keys["STS.2"] = second
        instance.current = ("STS.2", second)
        save(store, b"abc")  # still good
        del server.keys["STS.1"]
        time.sleep(2.1)
        save(store, b"abc")
        assert instance.log.count(f"GET {ROLE}") == 2


def test_role_credentials_that_are_refused_early(
    server: OssServer, instance: EcsMetadata
) -> None:
    second = Key("two", "token-2", time.time() + 3600)
    with of_role(server, instance) as store:
        save(store, b"abc")
        server.keys = {"STS.1": Key("one", "token-1", time.time() - 1), "STS.2": second}
        instance.current = ("STS.2", second)
        with pytest.raises(CredentialsExpired):
            save(store, b"abc")
        assert store.renew()
        save(store, b"abc")


def test_a_metadata_service_that_fails(
    server: OssServer, instance: EcsMetadata, monkeypatch
) -> None:
    monkeypatch.setattr("imgconv.stores.oss_credentials._PAUSE_SECONDS", 0)
    with of_role(server, instance, credentials="ram-role") as store:
        instance.status = 500
        with pytest.raises(StoreUnavailable, match="HTTP 500"):
            save(store, b"abc")
        instance.status = 200
        instance.current = ("STS.1", Key("one", "token-1", time.time() + 200))
        save(store, b"abc")
        instance.status = 500
        asked = len(instance.log)
        save(store, b"abc")  # with what we have
        assert len(instance.log) == asked + 1
        instance.status = 404
        assert store.renew()
        with pytest.raises(StoreRefused, match="HTTP 404"):
            save(store, b"abc")


def test_an_instance_stays_one(server: OssServer, instance: EcsMetadata) -> None:
    """A metadata service that worked before is worth waiting for."""
    with of_role(server, instance) as store:
        save(store, b"abc")
        instance.status = 500
        assert store.renew()
        with pytest.raises(StoreUnavailable):
            save(store, b"abc")


def test_neither_keys_nor_an_instance(server: OssServer, instance: EcsMetadata) -> None:
    instance.status = 500
    with (
        of_role(server, instance) as store,
        pytest.raises(StoreRefused, match="no credentials for OSS"),
    ):
        save(store, b"abc")
    assert server.log == []


def test_a_netrc_file_does_not_replace_our_signatures(
    tmp_path: Path, store: PartStore, monkeypatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login anonymous password guest\n")
    monkeypatch.setenv("NETRC", str(netrc))
    save(store, b"abc")

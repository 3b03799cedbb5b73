"""An export needs the eight actions of the service's own policy, and tells no secrets."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import disks
from support.cli import imgconv
from support.ecs_metadata import EcsMetadata
from support.exporting import BUCKET, Place, await_, begin, export_words
from support.faults import Fault
from support.loopback import Request
from support.oss_auth import Key
from support.oss_server import OssServer, action_of

import imgconv as library
from imgconv.units import KiB, MiB

POLICY = frozenset(
    f"oss:{name}"
    for name in (
        *("GetObject", "PutObject", "DeleteObject", "GetBucketLocation", "GetBucketInfo"),
        *("AbortMultipartUpload", "ListMultipartUploads", "ListParts"),
    )
)
SECRET, TOKEN = "a-very-secret-secret", "a-very-secret-token"


@pytest.fixture
def server(oss_server: OssServer, monkeypatch: pytest.MonkeyPatch) -> OssServer:
    """A server that permits the eight, to a role."""
    oss_server.policy = POLICY
    oss_server.keys = {"STS.role": Key(SECRET, TOKEN)}
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "STS.role")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", SECRET)
    monkeypatch.setenv("OSS_SESSION_TOKEN", TOKEN)
    return oss_server


def actions(server: OssServer) -> set[str]:
    return {action_of(entry.operation) for entry in server.log}


def written(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


@pytest.fixture
def sparse(tmp_path: Path) -> dict[str, Path]:
    """Disks with parts of data and parts of zeros."""
    pieces = {at * MiB: bytes([at + 1]) * 300 * KiB for at in range(6)}
    system = disks.write(tmp_path / "system.raw", 12 * MiB, pieces)
    return {"system": system, "data:xvdb": disks.dense(tmp_path / "b.raw", 900 * KiB)}


def killed(words: list[str], server: OssServer) -> bytes:
    """Export until some parts of the data disk are there, and kill -9; return the output."""

    def stalls(operation: str, request: Request) -> Fault | None:
        held = "xvdb" in request.path and int(request.params.get("partNumber", 0)) > 3
        return Fault(stall=1.0) if held else None

    def there() -> bool:
        return any(len(u.parts) >= 3 and "xvdb" in u.key for u in server.uploads.values())

    server.faults.rule = stalls
    process = begin(*words)
    try:
        await_(there)
    finally:
        process.kill()
        out, error = process.communicate()
        server.faults.rule = lambda operation, request: None
    return (out + error).encode()


def test_no_more_than_the_eight_actions(
    server: OssServer, oss: Place, sparse: dict[str, Path], state: Path, tmp_path: Path
) -> None:
    """Faults, kill -9 and resuming, a failure that is cleaned up: all with the eight, and no
    secret in anything that is written or said."""
    logs = tmp_path / "logs"
    logs.mkdir()
    server.faults.add("InitiateMultipartUpload", Fault(status=503, code="SlowDown"))
    server.faults.add("UploadPart", Fault(reset_after=KiB), Fault(drop_reply=True))
    server.faults.add("UploadPartCopy", Fault(status=500))
    server.faults.add("CompleteMultipartUpload", Fault(drop_reply=True), Fault(status=500))
    words = export_words(sparse, state, *oss.words, "--part-size", "100K", "--debug")
    words += ["--log", str(logs / "log"), "--metrics", str(logs / "metrics")]
    seen = [*written(logs)]

    out = killed(words, server)
    (task,) = library.export_tasks(state=state)
    seen += [out, *written(state.parent), *written(logs)]
    resumed = imgconv("tasks", "resume", task.task_id, "--state", state, "--debug")
    assert resumed.returncode == 0, resumed
    objects = oss.objects("m-1_")
    assert objects["m-1_system.raw"] == sparse["system"].read_bytes()
    assert objects["m-1_data_xvdb.raw"] == sparse["data:xvdb"].read_bytes()
    again = imgconv(*words)
    assert again.returncode == 1
    verified = library.verify_export(oss.url("m-1_manifest.raw.json"), store=oss.store)
    assert verified.good

    seen.append(killed([*words, "--image-id", "m-2"], server))
    *_, task = library.export_tasks(state=state)
    cancelled = imgconv("tasks", "cancel", task.task_id, "--state", state, "--debug")
    assert cancelled.returncode == 0, cancelled
    assert server.uploads == {}

    assert actions(server) == POLICY
    assert not [entry for entry in server.log if entry.outcome == "AccessDenied"]
    for done in (resumed, again, cancelled):
        seen += [done.stdout.encode(), done.stderr.encode()]
    seen += [*written(state.parent), *written(logs), *objects.values()]
    for text in seen:
        assert SECRET.encode() not in text
        assert TOKEN.encode() not in text


def test_cancelling_needs_no_more(
    server: OssServer, oss: Place, sparse: dict[str, Path], state: Path
) -> None:
    server.faults.rule = lambda operation, request: (
        Fault(stall=0.2) if operation == "UploadPart" else None
    )
    request = library.ExportRequest(image_id="m-1", bucket=BUCKET, region="cn-hangzhou")
    settings = library.ExportSettings(upload=library.UploadOptions(part_size=100 * KiB))
    task = library.export(
        request, sparse, store=oss.store, settings=settings, state=state, wait=False
    )
    await_(lambda: server.uploads)
    assert task.cancel().status == "Cancelled"
    with pytest.raises(library.Cancelled):
        task.wait()
    assert actions(server) <= POLICY
    assert (server.objects, server.uploads) == ({}, {})


def test_credentials_are_exchanged_while_an_export_runs(
    server: OssServer,
    oss: Place,
    sparse: dict[str, Path],
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The instance's role hands out new ones; the old ones are taken no longer."""
    monkeypatch.delenv("OSS_ACCESS_KEY_ID")
    server.keys["STS.new"] = Key("another-secret", "another-token")
    parts: list[Request] = []
    with EcsMetadata("ExportRole", ("STS.role", server.keys["STS.role"])) as metadata:

        def exchange(operation: str, request: Request) -> Fault | None:
            parts.append(request)
            if len(parts) == 12:
                metadata.current = "STS.new", server.keys["STS.new"]
                server.keys["STS.role"] = Key(SECRET, TOKEN, expires=time.time() - 1)
            return None

        server.faults.rule = exchange
        more = ("--role", "ExportRole", "--part-size", "100K", "--log", str(state) + ".log")
        more += ("--store-options", f"metadata_url=http://127.0.0.1:{metadata.port}")
        state.parent.mkdir()
        done = imgconv(*export_words(sparse, state, *oss.words, *more))
        assert done.returncode == 0, done
    assert "SecurityTokenExpired" in {entry.outcome for entry in server.log}
    assert oss.objects("m-1_system")["m-1_system.raw"] == sparse["system"].read_bytes()
    for text in [*written(state.parent), done.stdout.encode(), done.stderr.encode()]:
        assert b"another-secret" not in text
        assert b"another-token" not in text

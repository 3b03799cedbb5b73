"""Exports in several formats at once: each disk is read once; all objects or none."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.cli import assert_one_line_error, imgconv
from support.exporting import (
    BUCKET,
    Place,
    await_,
    begin,
    disk_words,
    export_words,
    manifest_of,
)
from support.faults import Fault
from support.loopback import Request
from support.oss_server import OssServer
from support.seaweed import Seaweed

import imgconv as library
from imgconv.exporting import owner
from imgconv.exporting.destination import destination_of
from imgconv.exporting.errors import ImageIsExporting
from imgconv.exporting.ledger import Ledger
from imgconv.exporting.plan import ExportSettings, Plan, make_plan
from imgconv.exporting.request import ExportLimits, disks_of
from imgconv.found import Found
from imgconv.ranges import Ranges
from imgconv.sources.file import FileSource

SMALL_PARTS = ("--part-size", "100K", "--concurrency", "1", "-q")
ARCHIVE = "archive"
TWO = ("--format", "qcow2", "--also", "vhd")
OBJECTS = {f"m-1_{disk}.{end}" for disk in ("system", "data_xvdb") for end in ("qcow2", "vhd")}
MANIFEST = "m-1_manifest.qcow2.json"


def assert_as_converted(objects: dict[str, bytes], disks: dict[str, Path], out: Path) -> None:
    """Every object is what `convert` writes."""
    for role, source in disks.items():
        disk = role.replace(":", "_")
        for end in ("qcow2", "vhd"):
            library.convert(source, out, options=end, identity=f"m-1_{disk}")
            assert objects[f"m-1_{disk}.{end}"] == out.read_bytes()


def test_three_formats_into_two_buckets_of_a_real_server(
    tmp_path: Path, pair: dict[str, Path], state: Path, seaweed: Seaweed, s3: Place
) -> None:
    client = seaweed.client()
    client.create_bucket(Bucket=ARCHIVE)
    words = ["export", "--image-id", "m-several", "--bucket", BUCKET, *disk_words(pair)]
    words += ["--format", "qcow2", "--also", "vhd,subformat=fixed", "--also", f"raw:{ARCHIVE}"]
    done = imgconv(*words, "--raw-container", "tar.gz", "--state", str(state), *s3.words)
    assert done.returncode == 0, done
    objects = s3.objects("m-several")
    listed = client.list_objects_v2(Bucket=ARCHIVE)["Contents"]
    for row in listed:
        body = client.get_object(Bucket=ARCHIVE, Key=row["Key"])["Body"]
        objects[f"{ARCHIVE}/{row['Key']}"] = body.read()
    options = {
        "qcow2": library.Qcow2(),
        "vhd": library.Vhd(subformat="fixed"),
        "raw.tar.gz": None,
    }
    for role, source in pair.items():
        name = f"m-several_{role.replace(':', '_')}"
        for end, kind in options.items():
            kind = kind or library.RawTarGz(member=f"{name}.raw")
            library.convert(source, tmp_path / "out", options=kind, identity=name)
            place = f"{ARCHIVE}/" if end == "raw.tar.gz" else ""
            assert objects.pop(f"{place}{name}.{end}") == (tmp_path / "out").read_bytes()
    manifest = "m-several_manifest.qcow2.json"
    assert list(objects) == [manifest]
    for url in (s3.url(manifest), f"s3://{ARCHIVE}/m-several_system.raw.tar.gz"):
        assert f"imgconv:   {url}" in done.stderr.splitlines()
    store = "--endpoint-url", s3.words[1].removeprefix("s3://")
    verified = imgconv("verify-export", s3.url(manifest), *store)
    assert verified.returncode == 0, verified
    assert verified.stdout.count("good  s3://") == 6
    client.delete_object(Bucket=ARCHIVE, Key="m-several_system.raw.tar.gz")
    verified = imgconv("verify-export", s3.url(manifest), *store)
    assert verified.returncode == 1
    assert f"s3://{ARCHIVE}/m-several_system.raw.tar.gz: is missing" in verified.stdout


def test_every_disk_is_read_once(
    pair: dict[str, Path], folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, read_runs = dict[str, int](), FileSource.read_runs

    def counting(source: FileSource, extents: Ranges, granule: int, buffer: Any) -> Found:
        read[source.name] = read.get(source.name, 0) + extents.total
        return read_runs(source, extents, granule, buffer)

    monkeypatch.setattr(FileSource, "read_runs", counting)
    formats = [library.ExportFormat(name) for name in ("raw", "vhd", "vdi")]
    formats.append(library.ExportFormat("vmdk", "subformat=streamOptimized"))
    request = library.ExportRequest(
        image_id="m-1", bucket=BUCKET, image_format="qcow2", also=tuple(formats)
    )
    seen: list[library.Progress] = []
    task = library.export(
        request, pair, store=f"file://{folder}", state=state, progress=seen.append
    )
    assert read == {str(path): path.stat().st_size for path in pair.values()}
    assert len(task.objects) == 11
    assert task.objects["data_xvdb:vdi"] == f"file://{folder}/{BUCKET}/m-1_data_xvdb.vdi"
    assert (seen[-1].done, task.state().done) == (5 * 2000 * 1024,) * 2
    assert library.verify_export(task.manifest).good


@pytest.fixture
def stalled(oss_server: OssServer) -> OssServer:
    """A server that takes its time with the later parts of the data disk's objects, and with
    their first, which comes last."""

    def stalls(operation: str, request: Request) -> Fault | None:
        number = int(request.params.get("partNumber", 0))
        late = "xvdb" in request.path and not 1 < number < 5
        return Fault(stall=2.0) if late and operation == "UploadPart" else None

    oss_server.faults.rule = stalls
    return oss_server


def in_the_middle(server: OssServer) -> bool:
    """The system disk's objects are there, and some parts of both of the data disk."""
    parts = {u.key: len(u.parts) for u in server.uploads.values() if "xvdb" in u.key}
    there = {"m-1_system.qcow2", "m-1_system.vhd"} <= keys(server)
    return there and len(parts) == 2 and min(parts.values()) >= 3


def keys(server: OssServer) -> set[str]:
    return {key for _, key in list(server.objects)}


def only_task(state: Path) -> library.TaskState:
    (task,) = library.export_tasks(state=state)
    return task


def test_killed_and_resumed(
    pair: dict[str, Path], state: Path, oss: Place, stalled: OssServer, tmp_path: Path
) -> None:
    process = begin(*export_words(pair, state, *oss.words, *TWO, *SMALL_PARTS))
    await_(lambda: in_the_middle(stalled))
    process.kill()
    process.communicate()
    stalled.faults.rule = lambda operation, request: None
    before = len(stalled.log)
    done = imgconv("tasks", "resume", only_task(state).task_id, "--state", state)
    assert done.returncode == 0, done
    sent = {(e.key, e.number) for e in stalled.log[before:] if e.operation == "UploadPart"}
    assert {key for key, _ in sent} == {"m-1_data_xvdb.qcow2", "m-1_data_xvdb.vhd"}
    assert {number for _, number in sent}.isdisjoint({2, 3})
    objects = oss.objects("m-1_")
    assert set(objects) == {*OBJECTS, MANIFEST}
    assert_as_converted(objects, pair, tmp_path / "out")
    assert library.verify_export(oss.url(MANIFEST), store=oss.store).good
    assert [path.name for path in state.parent.iterdir()] == [state.name]


def test_killed_between_two_commits(
    pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer, tmp_path: Path
) -> None:
    """The object that is there is not made again; the other one is completed."""
    asked: list[str] = []

    def stalls(operation: str, request: Request) -> Fault | None:
        if operation == "CompleteMultipartUpload" and "xvdb.vhd" in request.path:
            asked.append(request.path)
            return Fault(stall=1.0, status=500)  # as long as it takes to kill it
        return None

    oss_server.faults.rule = stalls
    process = begin(*export_words(pair, state, *oss.words, *TWO, *SMALL_PARTS))
    await_(lambda: asked)
    process.kill()
    process.communicate()
    assert keys(oss_server) & {*OBJECTS, MANIFEST} == OBJECTS - {"m-1_data_xvdb.vhd"}
    oss_server.faults.rule = lambda operation, request: None
    before = len(oss_server.log)
    done = imgconv("tasks", "resume", only_task(state).task_id, "--state", state)
    assert done.returncode == 0, done
    assert not [e for e in oss_server.log[before:] if e.operation == "UploadPart"]
    objects = oss.objects("m-1_")
    assert set(objects) == {*OBJECTS, MANIFEST}
    assert_as_converted(objects, pair, tmp_path / "out")
    assert oss_server.uploads == {}


def test_one_of_a_disks_objects_is_missing(
    pair: dict[str, Path], state: Path, folder: Path, tmp_path: Path
) -> None:
    """Only that one is made again."""
    words = export_words(pair, state, "--store", f"file://{folder}", *TWO, "-q")
    assert imgconv(*words).returncode == 0
    with sqlite3.connect(state) as db:
        db.execute("UPDATE task SET status = 'Processing', owner = 'x', lease = 0")
    db.close()
    bucket = folder / BUCKET
    (bucket / "m-1_system.vhd").unlink()
    made = os.stat(bucket / "m-1_system.qcow2")
    done = imgconv("tasks", "resume", only_task(state).task_id, "--state", state)
    assert done.returncode == 0, done
    assert os.path.samestat(made, os.stat(bucket / "m-1_system.qcow2"))
    objects = {path.name: path.read_bytes() for path in bucket.iterdir()}
    assert_as_converted(objects, pair, tmp_path / "out")


def test_cancelled_from_another_process(
    pair: dict[str, Path], state: Path, oss: Place, stalled: OssServer
) -> None:
    process = begin(*export_words(pair, state, *oss.words, *TWO, *SMALL_PARTS))
    await_(lambda: in_the_middle(stalled))
    done = imgconv("tasks", "cancel", only_task(state).task_id, "--state", state)
    assert done.returncode == 0, done
    _, error = process.communicate()
    assert (process.returncode, error) == (130, "imgconv: error: cancelled\n")
    assert (stalled.objects, stalled.uploads) == ({}, {})
    assert [path.name for path in state.parent.iterdir()] == [state.name]


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_one_object_that_fails(
    pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer, operation: str
) -> None:
    """None of any disk, in any bucket, is left; or all that can be kept is, and told."""
    oss_server.faults.rule = lambda asked, request: (
        Fault(status=500) if asked == operation and "xvdb.vhd" in request.path else None
    )
    words = export_words(pair, state, *oss.words, "--format", "qcow2", *SMALL_PARTS)
    words += ["--also", f"vhd:{ARCHIVE}", "--patience", "0s"]
    assert_one_line_error(imgconv(*words), "ExportImageFailed", status=75)
    assert (oss_server.objects, oss_server.uploads) == ({}, {})
    kept = imgconv(*words, "--keep")
    assert_one_line_error(kept, "imgconv tasks resume tsk-", status=75)
    assert "stays" not in kept.stderr
    assert {upload.bucket for upload in oss_server.uploads.values()} >= {ARCHIVE}
    oss_server.faults.rule = lambda operation, request: None
    *_, task = library.export_tasks(state=state)
    assert imgconv("tasks", "resume", task.task_id, "--state", state).returncode == 0
    assert {(o.bucket == ARCHIVE, o.key) for o in oss_server.objects.values()} == {
        (key.endswith(".vhd"), key) for key in (*OBJECTS, MANIFEST)
    }


def test_what_tasks_and_the_manifest_say(
    pair: dict[str, Path], state: Path, oss: Place, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    words = export_words(pair, state, *oss.words, *TWO, "--json", "--log", str(log))
    done = imgconv(*words)
    assert done.returncode == 0, done
    told = [(disk["name"], disk["format"]) for disk in json.loads(done.stdout)["disks"]]
    expected = [(disk, end) for disk in ("system", "data_xvdb") for end in ("qcow2", "vhd")]
    assert told == expected
    manifest = manifest_of(oss.objects("m-1_"))
    assert [(disk["disk"], disk["format"]) for disk in manifest["disks"]] == expected
    assert {disk["bucket"] for disk in manifest["disks"]} == {BUCKET}
    events = [json.loads(line) for line in log.read_text().splitlines()]
    finished = [(e["disk"], e["format"]) for e in events if e["event"] == "disk-finished"]
    assert finished == expected


def planned(pair: dict[str, Path], name: str, *also: str) -> Plan:
    request = library.ExportRequest(
        image_id="m-1",
        bucket="b",
        image_format=name,
        also=tuple(library.ExportFormat(one) for one in also),
        request_id="R",
    )
    destination = destination_of(request, "s3://storage.example.com")
    limits, settings = ExportLimits(), ExportSettings()
    return make_plan(request, disks_of(pair), destination, limits, settings)


def test_locks_of_every_format(state: Path, pair: dict[str, Path]) -> None:
    """Whoever wants one of the names waits; other formats of the image are free."""
    ledger, both = Ledger(str(state)), planned(pair, "qcow2", "vhd")
    assert Plan.from_text(both.text()) == both
    ledger.add("tsk-1", both, owner.our_mark(), None)
    for plan in (planned(pair, "vhd"), planned(pair, "raw", "vdi", "qcow2")):
        with pytest.raises(ImageIsExporting, match="tsk-1 is at it"):
            ledger.add("tsk-2", plan, owner.our_mark(), None)
    ledger.add("tsk-2", planned(pair, "vdi"), owner.our_mark(), None)
    gone = " ".join([*owner.our_mark().split(" ")[:1], str(2**22 + 1), "1", "x"])
    other = Ledger(f"{state}.other")
    other.add("tsk-1", both, gone, None)
    assert other.add("tsk-2", planned(pair, "vhd"), owner.our_mark(), None) == ("tsk-1",)


@pytest.mark.parametrize(
    ("words", "told", "status"),
    [
        (["--also", "raw"], "a format is given twice: raw, raw", 2),
        (["--also", "vhd", "--also", "vhd:other"], "given twice: raw, vhd, vhd", 2),
        (["--also", "vhdx"], "InvalidImageFormat.Malformed: 'vhdx'", 2),
        (["--also", "vhd,subformat=odd"], "subformat=odd", 2),
        (["--also", "vhd:../x"], "InvalidOSSBucket.NotFound: '../x'", 1),
        (["--also", "vhd:"], "InvalidOSSBucket.NotFound: ''", 1),
        (["--also", "vhd:missing"], "InvalidOSSBucket.NotFound", 1),
        (["--also", "vhd", "--template", "{image_id}_{disk}"], "use {extension}", 2),
        (["--format", "vdi", "--also", "vhd", "--raw-container", "tar.gz"], "raw only", 2),
    ],
)
def test_requests_that_are_refused(
    pair: dict[str, Path], state: Path, folder: Path, words: list[str], told: str, status: int
) -> None:
    done = imgconv(*export_words(pair, state, "--store", f"file://{folder}", *words))
    assert_one_line_error(done, told, status=status)
    assert [*folder.rglob("*")] == [folder / BUCKET]

"""Tasks: seen, cancelled and resumed from any process; all disks or none."""

import json
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.cli import assert_one_line_error, imgconv
from support.exporting import (
    BUCKET,
    Place,
    await_,
    begin,
    export_words,
    manifest_of,
)
from support.faults import Fault
from support.loopback import Request
from support.oss_server import OssServer

import imgconv as library
from imgconv.units import MiB

SMALL_PARTS = ("--part-size", "100K", "--concurrency", "1")


def shown(state: Path, task: str) -> dict[str, Any]:
    done = imgconv("tasks", "show", task, "--state", state, "--json")
    assert done.returncode == 0, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def only_task(state: Path) -> library.TaskState | None:
    found = library.export_tasks(state=state) if state.exists() else []
    return found[0] if found else None


@pytest.fixture
def slow(oss_server: OssServer) -> Iterator[OssServer]:
    """A server that takes its time with the later parts of the data disk."""

    def stalls(operation: str, request: Request) -> Fault | None:
        late = "xvdb" in request.path and int(request.params.get("partNumber", 0)) > 4
        return Fault(stall=0.5) if late and operation == "UploadPart" else None

    oss_server.faults.rule = stalls
    yield oss_server
    oss_server.faults.rule = lambda operation, request: None


def in_the_middle(server: OssServer) -> bool:
    """The system disk's object is there, and some parts of the data disk's."""
    parts = [len(u.parts) for u in server.uploads.values() if "xvdb" in u.key]
    return bool(server.objects) and any(count >= 4 for count in parts)


def test_cancelled_from_another_process(
    pair: dict[str, Path], state: Path, oss: Place, slow: OssServer
) -> None:
    """It leaves no object, no upload, no temporary file."""
    process = begin(*export_words(pair, state, *oss.words, *SMALL_PARTS, "-q"))
    await_(lambda: in_the_middle(slow))
    task = only_task(state)
    assert task is not None
    done = imgconv("tasks", "cancel", task.task_id, "--state", state)
    assert done.returncode == 0, done
    words = [line.split()[1:3] for line in done.stdout.splitlines()]
    assert words == [["Cancelled", "0%"], *[["Cancelled", disk.key] for disk in task.disks]]
    _, error = process.communicate()
    assert (process.returncode, error) == (130, "imgconv: error: cancelled\n")
    assert (slow.objects, slow.uploads) == ({}, {})
    assert [path.name for path in state.parent.iterdir()] == [state.name]
    again = imgconv("tasks", "resume", task.task_id, "--state", state)
    assert_one_line_error(again, "is Cancelled, and cannot go on", status=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cancelled_by_a_signal(
    image: dict[str, Path], state: Path, s3: Place, number: int
) -> None:
    """In a real S3 server, too."""
    two = {"system": image["data:xvdc"], "data:b": image["system"]}
    words = [*export_words(two, state, *s3.words), "--image-id", f"m-signal{number}"]
    words += ["--rate-limit", "2M", "--part-size", "5M", "--zero-copy", "off"]
    process = begin(*words)

    def half() -> bool:
        task = only_task(state)
        return task is not None and task.disks[1].status == "Processing"

    await_(half)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number
    assert s3.objects(f"m-signal{number}") == {}
    assert s3.uploads(f"m-signal{number}") == []
    task = only_task(state)
    assert task is not None
    assert (task.status, task.active) == ("Cancelled", False)
    assert [path.name for path in state.parent.iterdir()] == [state.name]


def test_cancelled_in_a_folder(image: dict[str, Path], state: Path, folder: Path) -> None:
    asked = [False]

    def watch(now: library.Progress) -> None:
        asked[0] = now.done > 13 * MiB  # in the second disk

    with pytest.raises(library.Cancelled):
        library.export(
            library.ExportRequest(image_id="m-1", bucket=BUCKET),
            image,
            store=f"file://{folder}",
            state=state,
            progress=watch,
            cancelled=lambda: asked[0],
        )
    assert [*folder.rglob("*")] == [folder / BUCKET]
    assert [path.name for path in state.parent.iterdir()] == [state.name]


def test_killed_and_resumed(
    pair: dict[str, Path], state: Path, oss: Place, slow: OssServer
) -> None:
    """What was sent is not sent again, by any process that knows the id."""
    process = begin(*export_words(pair, state, *oss.words, *SMALL_PARTS))
    await_(lambda: in_the_middle(slow))
    process.kill()
    process.communicate()
    task = only_task(state)
    assert task is not None
    assert (task.status, task.active) == ("Processing", False)
    listed = imgconv("tasks", "list", "--state", state)
    assert f"{task.task_id}  Processing (interrupted)" in listed.stdout
    slow.faults.rule = lambda operation, request: None
    before = len(slow.log)
    done = imgconv("tasks", "resume", task.task_id, "--state", state)
    assert done.returncode == 0, done
    sent = {(e.key, e.number) for e in slow.log[before:] if e.operation == "UploadPart"}
    assert {key for key, _ in sent} == {"m-1_data_xvdb.raw"}
    assert {number for _, number in sent}.isdisjoint(range(1, 5))
    objects = oss.objects("m-1_")
    assert objects["m-1_system.raw"] == pair["system"].read_bytes()
    assert objects["m-1_data_xvdb.raw"] == pair["data:xvdb"].read_bytes()
    assert manifest_of(objects)["disks"][1]["receipt"]["kept_parts"] >= 4
    assert library.verify_export(oss.url("m-1_manifest.raw.json"), store=oss.store).good
    assert shown(state, task.task_id)["process"] == "100%"
    assert [path.name for path in state.parent.iterdir()] == [state.name]


def test_a_killed_one_is_cancelled_or_superseded(
    pair: dict[str, Path], state: Path, oss: Place, slow: OssServer
) -> None:
    """A dead worker's lock does not last, and what it left goes, by cancelling it or by
    exporting the same image anew."""
    words = export_words(pair, state, *oss.words, *SMALL_PARTS)
    process = begin(*words)
    await_(lambda: in_the_middle(slow))
    process.kill()
    process.communicate()
    first = only_task(state)
    assert first is not None
    done = imgconv("tasks", "cancel", first.task_id, "--state", state)
    assert done.returncode == 0, done
    assert (slow.objects, slow.uploads) == ({}, {})
    process = begin(*words)
    await_(lambda: in_the_middle(slow))
    process.kill()
    process.communicate()
    slow.faults.rule = lambda operation, request: None
    assert imgconv(*words, "-q").returncode == 0
    _, second, third = library.export_tasks(state=state)
    assert (second.status, third.status) == ("Cancelled", "Finished")
    assert second.message == f"superseded by {third.task_id}"
    assert set(oss.objects("")) == {
        *("m-1_system.raw", "m-1_data_xvdb.raw", "m-1_manifest.raw.json")
    }
    assert slow.uploads == {}


def test_a_worker_whose_task_was_taken_over_touches_nothing(
    pair: dict[str, Path], state: Path, oss: Place, slow: OssServer
) -> None:
    process = begin(*export_words(pair, state, *oss.words, *SMALL_PARTS, "-q"))
    await_(lambda: in_the_middle(slow))
    with sqlite3.connect(state) as db:
        db.execute("UPDATE task SET owner = 'another-world 1 1 x', lease = 1e12")
    db.close()
    _, error = process.communicate()
    assert process.returncode == 75
    assert "ImageIsExporting" in error
    assert "another worker has taken it over" in error
    task = only_task(state)
    assert task is not None
    assert (task.status, task.active) == ("Processing", True)
    assert len(slow.objects) == len(slow.uploads) == 1
    assert [path.suffix for path in state.parent.glob("*xvdb*")] == [".journal"]


@pytest.mark.parametrize("manifest", [False, True])
def test_killed_between_an_object_and_the_note_of_it(
    pair: dict[str, Path], state: Path, folder: Path, manifest: bool
) -> None:
    """The object carries the task's id; the receipt went with the worker."""
    words = export_words(pair, state, "--store", f"file://{folder}", "-q")
    assert imgconv(*words).returncode == 0
    task = only_task(state)
    assert task is not None
    with sqlite3.connect(state) as db:
        db.execute("UPDATE task SET status = 'Processing', owner = 'x', lease = 0")
        db.execute("UPDATE disk SET status = 'Processing', result = NULL WHERE number = 1")
    db.close()
    made = os.stat(folder / BUCKET / "m-1_data_xvdb.raw")
    if not manifest:
        (folder / BUCKET / "m-1_manifest.raw.json").unlink()
    done = imgconv("tasks", "resume", task.task_id, "--state", state)
    assert done.returncode == 0, done
    assert os.path.samestat(made, os.stat(folder / BUCKET / "m-1_data_xvdb.raw"))
    assert library.verify_export(f"file://{folder}/{BUCKET}/m-1_manifest.raw.json").good
    system, data = json.loads((folder / BUCKET / "m-1_manifest.raw.json").read_text())["disks"]
    assert system["receipt"] is not None
    assert data["receipt"] is None


class TestAllOrNone:
    """One disk that fails."""

    def copies(self, pair: dict[str, Path], folder: Path) -> dict[str, Path]:
        return {
            role: disks.write(folder / path.name, path.stat().st_size, {0: path.read_bytes()})
            for role, path in pair.items()
        }

    def export(
        self, pair: dict[str, Path], folder: Path, state: Path, **settings: Any
    ) -> library.TaskState:
        """Export, with a data disk that changes after the request was accepted."""

        def change(task: library.ExportTask) -> None:
            os.utime(pair["data:xvdb"], ns=(1, 1))

        with pytest.raises(library.IncorrectImageStatus):
            library.export(
                library.ExportRequest(image_id="m-1", bucket=BUCKET),
                pair,
                store=f"file://{folder}",
                state=state,
                settings=library.ExportSettings(**settings),
                on_accepted=change,
            )
        (task,) = library.export_tasks(state=state)
        assert (task.status, task.code, task.active) == (
            *("Failed", "IncorrectImageStatus"),
            False,
        )
        return task

    @pytest.mark.parametrize("at_once", [1, 2])
    def test_the_others_go(
        self, pair: dict[str, Path], folder: Path, state: Path, tmp_path: Path, at_once: int
    ) -> None:
        disks_ = self.copies(pair, tmp_path)
        task = self.export(disks_, folder, state, disks_at_once=at_once)
        assert [*folder.rglob("*")] == [folder / BUCKET]
        assert [disk.status for disk in task.disks] == ["Cancelled", "Failed"]
        assert task.done == 0

    def test_what_is_kept_is_told(
        self, pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
    ) -> None:
        oss_server.faults.rule = lambda operation, request: (
            Fault(status=500) if request.params.get("partNumber") == "3" else None
        )
        words = export_words(pair, state, *oss.words, *SMALL_PARTS, "--patience", "0s", "-q")
        done = imgconv(*words, "--keep")
        task = only_task(state)
        assert task is not None
        assert_one_line_error(done, f"imgconv tasks resume {task.task_id} goes on", status=75)
        assert "--resume" not in done.stderr
        assert len(oss_server.uploads) == 1
        oss_server.faults.rule = lambda operation, request: None
        assert imgconv("tasks", "resume", task.task_id, "--state", state).returncode == 0

    def test_the_others_stay_when_told_so(
        self, pair: dict[str, Path], folder: Path, state: Path, tmp_path: Path
    ) -> None:
        disks_ = self.copies(pair, tmp_path)
        moment = os.stat(disks_["data:xvdb"]).st_mtime_ns
        task = self.export(disks_, folder, state, keep=True)
        made = os.stat(folder / BUCKET / "m-1_system.raw")
        os.utime(disks_["data:xvdb"], ns=(moment, moment))
        library.export_task(task.task_id, state=state).run()
        assert os.path.samestat(made, os.stat(folder / BUCKET / "m-1_system.raw"))
        assert library.verify_export(f"file://{folder}/{BUCKET}/m-1_manifest.raw.json").good

    def test_somebody_elses_object_stays(
        self, pair: dict[str, Path], folder: Path, state: Path, tmp_path: Path
    ) -> None:
        foreign = folder / BUCKET / "m-1_data_xvdb.raw"
        foreign.write_bytes(b"foreign")
        with pytest.raises(library.ExportImageFailed, match="exists already") as caught:
            library.export(
                library.ExportRequest(image_id="m-1", bucket=BUCKET),
                pair,
                store=f"file://{folder}",
                state=state,
            )
        assert isinstance(caught.value.__cause__, library.OutputExists)
        assert [*(folder / BUCKET).iterdir()] == [foreign]
        settings = library.ExportSettings(overwrite=True)
        request = library.ExportRequest(image_id="m-1", bucket=BUCKET)
        library.export(request, pair, store=f"file://{folder}", state=state, settings=settings)
        assert foreign.read_bytes() == pair["data:xvdb"].read_bytes()

    def test_what_cannot_be_removed_is_told_and_removed_later(
        self, pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
    ) -> None:
        oss_server.faults.rule = lambda operation, request: (
            Fault(status=403, code="AccessDenied")
            if operation == "AbortMultipartUpload" or "xvdb" in request.path
            else None
        )
        done = imgconv(*export_words(pair, state, *oss.words), "-q")
        assert_one_line_error(done, "NoSetRoletoECSServiceAcount", "something is left")
        task = only_task(state)
        assert task is not None
        assert task.status == "Failed"
        oss_server.faults.rule = lambda operation, request: None
        done = imgconv("tasks", "cancel", task.task_id, "--state", state)
        assert "Cancelled" in done.stdout
        assert (oss_server.objects, oss_server.uploads) == ({}, {})


def test_several_disks_at_once_are_the_same(
    image: dict[str, Path], state: Path, folder: Path
) -> None:
    words = export_words(image, state, "--store", f"file://{folder}", "--disks-at-once", "3")
    assert imgconv(*words, "-q", "--format", "qcow2").returncode == 0
    together = {path.name: path.read_bytes() for path in (folder / BUCKET).glob("*.qcow2")}
    assert imgconv(*words, "-q", "--format", "qcow2", "--overwrite", "--disks-at-once", "1")
    alone = {path.name: path.read_bytes() for path in (folder / BUCKET).glob("*.qcow2")}
    assert together == alone
    assert len(alone) == 5


def test_in_the_background(pair: dict[str, Path], state: Path, folder: Path) -> None:
    request = library.ExportRequest(image_id="m-1", bucket=BUCKET)
    task = library.export(request, pair, store=f"file://{folder}", state=state, wait=False)
    assert task.wait().status == "Finished"
    assert task.process == "100%"
    await_(lambda: not any(t.name.startswith("imgconv-export") for t in threading.enumerate()))
    other = library.export_task(task.task_id, state=state)
    assert other.objects == task.objects
    assert other.request_id == task.request_id
    with pytest.raises(library.UsageError, match="is Finished"):
        other.run()
    with pytest.raises(library.UsageError, match="is Finished"):
        other.cancel()
    assert library.verify_export(task.manifest).good


def test_the_log_and_the_metrics(
    pair: dict[str, Path], state: Path, oss: Place, tmp_path: Path, oss_server: OssServer
) -> None:
    oss_server.faults.add("UploadPart", Fault(status=500))
    log, metrics = tmp_path / "log", tmp_path / "metrics"
    more = ("--log", str(log), "--metrics", str(metrics), "-q", *SMALL_PARTS)
    assert imgconv(*export_words(pair, state, *oss.words, *more)).returncode == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    names = [event["event"] for event in events if event["event"] != "progress"]
    disk_events = ["disk-processing", "disk-finished"]
    assert names == ["waiting", "processing", *disk_events, *disk_events, "finished"]
    assert [e["disk"] for e in events if e["event"] == "disk-finished"] == [
        *("system", "data_xvdb")
    ]
    assert all(event["task"].startswith("tsk-") and event["time"] > 0 for event in events)
    text = metrics.read_text()
    about = r"# (HELP|TYPE) imgconv_export_\w+ .+"
    value = r'imgconv_export_\w+(\{(\w+="[^"]*",?)+\})? [\d.e+-]+'
    for line in text.splitlines():
        assert re.fullmatch(f"{about}|{value}", line)
    assert 'imgconv_export_tasks{status="Finished"} 1' in text
    retries = re.findall(r'retries_total\{.*disk="system",format="raw"\} (\d+)', text)
    assert retries == ["1"]
    of_all = imgconv("tasks", "metrics", "--state", state).stdout
    assert of_all == text
    assert [p.name for p in tmp_path.glob("metrics*")] == ["metrics"]


def test_metrics_of_large_disks_are_exact(tmp_path: Path, state: Path, folder: Path) -> None:
    """A counter that tells ten digits stands still."""
    size, metrics = (1 << 40) + 512, tmp_path / "metrics"
    vast = {"system": disks.empty(tmp_path / "vast.raw", size)}
    words = "--store", f"file://{folder}", "--format", "qcow2", "--metrics", str(metrics), "-q"
    assert imgconv(*export_words(vast, state, *words)).returncode == 0
    told = re.findall(r"imgconv_export_converted_bytes_total\{.*\} (.*)", metrics.read_text())
    assert told == [str(size)]


def test_a_log_that_cannot_be_written_is_a_warning(
    pair: dict[str, Path], state: Path, folder: Path
) -> None:
    words = export_words(pair, state, "--store", f"file://{folder}", "--log", "/dev/full")
    done = imgconv(*words, "--metrics", "/nowhere/metrics")
    assert done.returncode == 0
    assert "imgconv: warning: log: /dev/full: No space left on device" in done.stderr
    assert "imgconv: warning: metrics: /nowhere/metrics" in done.stderr


def test_failed_ones_may_be_run_again(
    pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
) -> None:
    oss_server.faults.rule = lambda operation, request: (
        Fault(status=500) if "xvdb" in request.path else None
    )
    done = imgconv(*export_words(pair, state, *oss.words, "--patience", "0s", "-q"))
    assert_one_line_error(done, "ExportImageFailed", status=75)
    oss_server.faults.rule = lambda operation, request: None
    task = only_task(state)
    assert task is not None
    assert (task.status, task.code) == ("Failed", "ExportImageFailed")
    assert imgconv("tasks", "resume", task.task_id, "--state", state).returncode == 0
    assert len(oss.objects("m-1_")) == 3


def test_what_is_over_can_be_forgotten(
    pair: dict[str, Path], state: Path, folder: Path
) -> None:
    """One by one, or all that are old enough; one that failed has to be cancelled first."""
    words = export_words(pair, state, "--store", f"file://{folder}", "-q")
    assert imgconv(*words).returncode == 0
    assert imgconv(*words).returncode == 1  # its objects are there
    assert imgconv(*words, "--image-id", "m-2").returncode == 0
    finished, failed, other = (task.task_id for task in library.export_tasks(state=state))
    done = imgconv("tasks", "remove", failed, "--state", state)
    assert_one_line_error(done, f"{failed}: is Failed; imgconv tasks cancel", status=2)
    assert imgconv("tasks", "remove", finished, "--state", state).returncode == 0
    assert [task.task_id for task in library.export_tasks(state=state)] == [failed, other]
    with sqlite3.connect(state) as db:
        assert db.execute("SELECT count(*) FROM disk").fetchone() == (4,)
        db.execute("UPDATE task SET changed = changed - 86400 WHERE id <> ?", (failed,))
    db.close()
    assert imgconv("tasks", "cancel", failed, "--state", state).returncode == 0
    done = imgconv("tasks", "prune", "--older-than", "23h", "--state", state)
    assert "forgot 1 tasks" in done.stderr
    assert [task.task_id for task in library.export_tasks(state=state)] == [failed]
    assert library.forget_export_tasks(older_than=0, state=state) == 0  # it ended just now
    assert imgconv("tasks", "remove", failed, "--state", state).returncode == 0
    assert library.export_tasks(state=state) == []
    assert len([*(folder / BUCKET).iterdir()]) == 6


def test_a_running_one_is_not_forgotten(
    pair: dict[str, Path], state: Path, folder: Path
) -> None:
    def forget(task: library.ExportTask) -> None:
        assert library.forget_export_tasks(older_than=-1, state=state) == 0
        with pytest.raises(library.UsageError, match="is Waiting"):
            task.forget()

    request = library.ExportRequest(image_id="m-1", bucket=BUCKET)
    library.export(request, pair, store=f"file://{folder}", state=state, on_accepted=forget)


def test_resuming_remembers_how_many_may_run(
    pair: dict[str, Path], state: Path, folder: Path
) -> None:
    """Unless it is told another number."""
    store, request = f"file://{folder}", library.ExportRequest(image_id="m-1", bucket=BUCKET)
    limits, results = library.ExportLimits(exports=1), []
    foreign = folder / BUCKET / "m-1_system.raw"
    foreign.write_bytes(b"in the way")
    with pytest.raises(library.ExportImageFailed):
        library.export(request, pair, store=store, state=state, limits=limits)
    foreign.unlink()
    (task,) = library.export_tasks(state=state)

    def meanwhile(running: library.ExportTask) -> None:
        resume = "tasks", "resume", task.task_id, "--state", state
        results.append(imgconv(*resume))
        results.append(imgconv(*resume, "--max-exports", "2"))

    other = library.ExportRequest(image_id="m-2", bucket=BUCKET)
    library.export(other, pair, store=store, state=state, on_accepted=meanwhile)
    assert_one_line_error(results[0], "ConcurrentQuotaExceed.ExportImage", status=75)
    assert results[1].returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["prune"], "needs --older-than"),
        (["list", "--older-than", "1d"], "nothing else takes it"),
        (["remove"], "needs a task"),
        (["remove", "tsk-1"], "no such task"),
        (["show"], "needs a task"),
        (["list", "tsk-1"], "takes no task"),
        (["show", "tsk-1"], "no such task"),
        (["resume", "tsk-1"], "no such task"),
        (["cancel", "tsk-1"], "no such task"),
    ],
)
def test_tasks_that_are_not_there(state: Path, words: list[str], told: str) -> None:
    done = imgconv("tasks", *words, "--state", state)
    assert_one_line_error(done, told, status=2)


def test_options_that_have_no_place_here(pair: dict[str, Path], state: Path) -> None:
    for words in (["--resume"], ["--store-receipt"], ["--receipt", "r"]):
        done = imgconv(*export_words(pair, state, "--store", "file:///nowhere", *words))
        assert_one_line_error(done, "tasks resume", status=2)
    done = imgconv(*export_words(pair, state, "--store", "file:///nowhere", "--role", "r"))
    assert_one_line_error(done, "knows no roles", status=2)

"""Removing what a task has left: all of it, nothing of others, and under its lock."""

import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import imgconv
from support.exporting import BUCKET, Place, await_, begin, export_words
from support.faults import Fault
from support.loopback import Request
from support.oss_server import OssServer

import imgconv as library

REMOVING = ("AbortMultipartUpload", "DeleteObject")


@pytest.fixture
def unheard(
    pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
) -> library.ExportTask:
    """A task whose worker was killed when the store had begun an upload, and not said so."""

    arrived, killed = threading.Event(), threading.Event()

    def held_up(operation: str, request: Request) -> None:
        if operation == "InitiateMultipartUpload" and "xvdb" in request.path:
            arrived.set()
            killed.wait()

    oss_server.faults.rule = held_up
    process = begin(*export_words(pair, state, *oss.words))
    await_(arrived.is_set)
    process.kill()
    process.communicate()
    killed.set()
    await_(lambda: oss.uploads("m-1_data"))
    oss_server.faults.rule = lambda operation, request: None
    (found,) = library.export_tasks(state=state)
    return library.export_task(found.task_id, state=state)


@pytest.fixture
def others(unheard: library.ExportTask, oss: Place, oss_server: OssServer) -> Iterator[None]:
    """Unfinished uploads of that name, and of a longer one, that stay."""
    store = oss.store.open(BUCKET)
    names = ("m-1_data_xvdb.raw", "m-1_data_xvdb.raw", "m-1_data_xvdb.raw.gz")
    older, used, longer = (store.begin(name, {}) for name in names)
    oss_server.uploads[older.id].time = time.time() - 3600
    parts = oss_server.uploads[used.id].parts
    parts[1] = next(iter(oss_server.objects.values())).pieces[0]
    yield
    assert set(oss_server.uploads) == {older.id, used.id, longer.id}
    store.close()


@pytest.mark.usefixtures("others")
def test_an_upload_nobody_heard_of_goes_with_the_task(
    unheard: library.ExportTask, oss_server: OssServer
) -> None:
    assert unheard.cancel().status == "Cancelled"
    assert oss_server.objects == {}


@pytest.mark.usefixtures("others")
def test_an_upload_nobody_heard_of_goes_when_the_task_is_resumed(
    unheard: library.ExportTask, pair: dict[str, Path], oss: Place
) -> None:
    unheard.run()
    assert oss.objects("m-1_data")["m-1_data_xvdb.raw"] == pair["data:xvdb"].read_bytes()


def test_an_upload_whose_beginning_was_not_answered_goes(
    pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
) -> None:
    oss_server.faults.add("InitiateMultipartUpload", Fault(drop_reply=True))
    done = imgconv(*export_words(pair, state, *oss.words, "--patience", "0s", "-q"))
    assert done.returncode == 75
    assert "left" not in done.stderr
    assert oss_server.uploads == {}
    assert [path.name for path in state.parent.iterdir()] == [state.name]


class TestASignal:
    """That ends an export while parts of the data disk are on their way."""

    @pytest.fixture
    def run(
        self, pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
    ) -> Callable[..., "subprocess.Popen[str]"]:
        def run(*more: str) -> "subprocess.Popen[str]":
            also = oss_server.faults.rule

            def slowly(operation: str, request: Request) -> Fault | None:
                held = operation == "UploadPart" and "xvdb" in request.path
                return also(operation, request) or (Fault(stall=2.0) if held else None)

            oss_server.faults.rule = slowly
            words = *oss.words, "--part-size", "100K", "-q", *more
            process = begin(*export_words(pair, state, *words))
            await_(lambda: oss.uploads("m-1_data"))
            process.send_signal(signal.SIGTERM)
            return process

        return run

    def end(self, process: "subprocess.Popen[str]", *words: str) -> str:
        _, error = process.communicate()
        assert process.returncode == 143
        assert len(error.splitlines()) == 1
        assert error.startswith("imgconv: terminated (")
        for word in words:
            assert word in error
        return error

    def test_tells_what_is_left(
        self, run: Callable[..., "subprocess.Popen[str]"], oss_server: OssServer
    ) -> None:
        oss_server.faults.rule = lambda operation, request: (
            Fault(status=403, code="AccessDenied") if operation in REMOVING else None
        )
        left = "something is left: oss://exports/m-1_data_xvdb.raw"
        self.end(run(), left, "imgconv tasks cancel tsk-", "removes what is left")

    def test_is_no_reason_for_what_is_left(
        self, run: Callable[..., "subprocess.Popen[str]"], oss_server: OssServer
    ) -> None:
        oss_server.faults.rule = lambda operation, request: (
            Fault(reset_after=0) if operation in REMOVING else None
        )
        error = self.end(run("--patience", "0s"), "something is left: ")
        assert f": {signal.SIGTERM}" not in error

    def test_tells_what_is_kept(
        self, run: Callable[..., "subprocess.Popen[str]"], state: Path
    ) -> None:
        process = run("--keep")
        (task,) = library.export_tasks(state=state)
        self.end(process, f"imgconv tasks resume {task.task_id}")

    def test_that_comes_twice_tells_what_to_do(
        self,
        run: Callable[..., "subprocess.Popen[str]"],
        state: Path,
        oss_server: OssServer,
    ) -> None:
        aborted, arrived, gone = threading.Event(), threading.Event(), threading.Event()

        def held_up(operation: str, request: Request) -> None:
            if operation in REMOVING:  # the upload's own end, which a signal does not cut short
                aborted.set()
            elif operation == "HeadObject" and aborted.is_set():
                arrived.set()
                gone.wait()

        oss_server.faults.rule = held_up
        process = run()
        await_(arrived.is_set)
        process.send_signal(signal.SIGTERM)
        (task,) = library.export_tasks(state=state)
        try:
            self.end(process, f"imgconv tasks cancel {task.task_id}")
        finally:
            gone.set()
        oss_server.faults.rule = lambda operation, request: None
        library.export_task(task.task_id, state=state).cancel()
        assert (oss_server.objects, oss_server.uploads) == ({}, {})


class TestTheLock:
    """While a task that failed, and kept what it sent, is cancelled."""

    @pytest.fixture
    def failed(
        self, pair: dict[str, Path], state: Path, oss: Place, oss_server: OssServer
    ) -> library.ExportTask:
        oss_server.faults.rule = lambda operation, request: (
            Fault(status=500) if operation == "UploadPart" and "xvdb" in request.path else None
        )
        words = export_words(pair, state, *oss.words, "--patience", "0s", "--keep", "-q")
        assert imgconv(*words).returncode == 75
        assert len(oss_server.objects) == len(oss_server.uploads) == 1
        (found,) = library.export_tasks(state=state)
        return library.export_task(found.task_id, state=state)

    def at_each_removal(self, server: OssServer, act: Callable[[], Any]) -> None:
        def rule(operation: str, request: Request) -> None:
            if operation in REMOVING:
                act()

        server.faults.rule = rule

    def test_is_renewed(
        self, failed: library.ExportTask, state: Path, oss_server: OssServer
    ) -> None:
        leases: list[float] = []

        def run_out() -> None:
            with sqlite3.connect(state) as db:
                leases.extend(lease for (lease,) in db.execute("SELECT lease FROM task"))
                db.execute("UPDATE task SET lease = 0")
            db.close()

        self.at_each_removal(oss_server, run_out)
        assert failed.cancel().status == "Cancelled"
        assert len(leases) == 2
        assert min(leases) > time.time()

    def test_is_lost(
        self, failed: library.ExportTask, state: Path, oss_server: OssServer
    ) -> None:
        """What is not removed by then is whoever has it now to remove."""

        def take() -> None:
            with sqlite3.connect(state) as db:
                db.execute("UPDATE task SET owner = 'another-world 1 1 x', lease = 1e12")
            db.close()

        self.at_each_removal(oss_server, take)
        with pytest.raises(library.ImageIsExporting, match="taken it over"):
            failed.cancel()
        assert (len(oss_server.objects), len(oss_server.uploads)) in ((1, 0), (0, 1))
        assert failed.state().status == "Failed"
        assert [disk.status for disk in failed.state().disks] == ["Finished", "Failed"]

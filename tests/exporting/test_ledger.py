"""The file of tasks: one lock for one name, whoever asks, and none for the dead."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.exporting import await_, planned

import imgconv
from imgconv.exporting import owner
from imgconv.exporting.destination import destination_of
from imgconv.exporting.errors import ConcurrentQuotaExceeded, ImageIsExporting
from imgconv.exporting.ledger import Ledger
from imgconv.exporting.plan import Plan
from imgconv.exporting.request import ExportFormat, ExportRequest
from imgconv.exporting.state import Status

_ADD = """
import sys, time
from imgconv.exporting.ledger import Ledger
from imgconv.exporting.owner import our_mark
from imgconv.exporting.plan import Plan
from imgconv.errors import ImgconvError
plan, ledger = Plan.from_text(sys.argv[2]), Ledger(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    ledger.add(f"tsk-{sys.argv[3]}", plan, our_mark(), None)
    print("mine", flush=True)
except ImgconvError as error:
    print(error.code, flush=True)
sys.stdin.readline()
"""


def test_a_plan_survives_as_text(plan: Plan) -> None:
    assert Plan.from_text(plan.text()) == plan


def test_one_of_many_processes_gets_the_lock_and_death_frees_it(
    state: Path, plan: Plan
) -> None:
    command = [sys.executable, "-c", _ADD, str(state), plan.text()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    crowd = [
        subprocess.Popen([*command, str(i)], text=True, **pipes)  # type: ignore[call-overload]
        for i in range(6)
    ]
    try:
        for process in crowd:
            assert process.stdout.readline() == "ready\n"
        for process in crowd:
            process.stdin.write("\n")
            process.stdin.flush()
        answers = [process.stdout.readline().strip() for process in crowd]
        assert sorted(answers) == ["ImageIsExporting"] * 5 + ["mine"]
        ledger, winner = Ledger(str(state)), answers.index("mine")
        with pytest.raises(ImageIsExporting, match=f"tsk-{winner} is at it"):
            ledger.claim(f"tsk-{winner}", owner.our_mark())
        crowd[winner].send_signal(signal.SIGKILL)
        await_(lambda: not ledger.get(f"tsk-{winner}").active)  # before it is waited for
        assert ledger.claim(f"tsk-{winner}", owner.our_mark()).active
    finally:
        for process in crowd:
            process.kill()
            process.communicate()


_BEGIN = """
import multiprocessing, sys
from imgconv.exporting.ledger import Ledger
fork = multiprocessing.get_context("fork")
def begin(barrier, path):
    barrier.wait()
    Ledger(path).all()
for round in range(15):
    words = fork.Barrier(6), f"{sys.argv[1]}{round}"
    crowd = [fork.Process(target=begin, args=words) for _ in range(6)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
"""


def test_many_begin_at_once_with_a_file_that_is_not_there(state: Path) -> None:
    command = [sys.executable, "-c", _BEGIN, str(state)]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


def lock(store: str, **more: str) -> str:
    request = ExportRequest(image_id="m-1", bucket="b", **more)
    return destination_of(request, store).lock("key")


def test_one_store_spelt_in_two_ways_is_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two stores with a bucket of one name are two."""
    here = lock("s3://storage.example.com")
    assert here == "s3://b/key at storage.example.com"
    for same in ("https://Storage.Example.COM", "http://storage.example.com:80/"):
        assert lock(f"s3://{same}") == here
    assert lock("s3://other.example.com") != here != lock("s3://storage.example.com:9000")
    assert lock("oss://storage.example.com", region="cn-hangzhou") != here
    for scheme in ("s3", "oss"):
        monkeypatch.setenv("OSS_ENDPOINT", "storage.example.com")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://storage.example.com")
        assert lock(f"{scheme}://") == lock(f"{scheme}://storage.example.com")
    monkeypatch.delenv("OSS_ENDPOINT")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    public = {lock(f"oss://oss-cn-hangzhou{end}.aliyuncs.com") for end in ("", "-internal")}
    assert public == {lock("oss://", region="cn-hangzhou")}
    assert lock("s3://s3.eu-west-1.amazonaws.com") == lock("s3://", region="us-east-1")
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    assert lock(f"file://{tmp_path}/./link//") == lock(f"file://{tmp_path}")


def test_two_stores_with_a_bucket_of_one_name(state: Path, pair: dict[str, Path]) -> None:
    ledger = Ledger(str(state))
    for number, store in enumerate(("s3://one.example.com", "s3://two.example.com")):
        ledger.add(f"tsk-{number}", planned(pair, "m-1", store), owner.our_mark(), None)
    again = planned(pair, "m-1", "s3://https://two.example.com:443/")
    with pytest.raises(ImageIsExporting, match=r"at two.example.com: tsk-1 is at it"):
        ledger.add("tsk-2", again, owner.our_mark(), None)
    assert {task.target for task in ledger.all()} == {"s3://b/m-1_manifest.raw.json"}


def test_a_new_task_is_told_of_dead_ones_with_its_names(state: Path, plan: Plan) -> None:
    ledger = Ledger(str(state))
    assert ledger.add("tsk-1", plan, "another-world 1 1 x", None) == ()
    with pytest.raises(ImageIsExporting):  # its lease has not run out
        ledger.add("tsk-2", plan, owner.our_mark(), None)
    assert not owner.is_alive("another-world 1 1 x", lease=5.0, now=6.0)
    gone = " ".join([*owner.our_mark().split(" ")[:1], str(2**22 + 1), "1", "x"])
    other = Ledger(f"{state}.other")
    other.add("tsk-1", plan, gone, None)
    assert other.add("tsk-2", plan, owner.our_mark(), None) == ("tsk-1",)


@pytest.mark.parametrize("removed", [True, False])
def test_names_of_the_dead_are_locked_until_it_is_clean(
    state: Path, pair: dict[str, Path], removed: bool
) -> None:
    """Also those that its successor does not want: what is there is about to be removed."""
    gone = " ".join([*owner.our_mark().split(" ")[:1], str(2**22 + 1), "1", "x"])
    ledger, mark = Ledger(str(state)), owner.our_mark()
    ledger.add("tsk-1", planned(pair, "m-1", also=(ExportFormat("vhd"),)), gone, None)
    assert ledger.add("tsk-2", planned(pair, "m-1"), mark, None) == ("tsk-1",)
    vhd = planned(pair, "m-1", image_format="vhd")
    with pytest.raises(ImageIsExporting, match="tsk-1 is at it"):
        ledger.add("tsk-3", vhd, owner.our_mark(), None)
    ledger.add("tsk-4", planned(pair, "m-4"), owner.our_mark(), 2)  # one worker for two
    if removed:
        ledger.supersede("tsk-1", "tsk-2")
    else:
        ledger.set_status("tsk-2", mark, Status.FAILED)
    assert not ledger.get("tsk-1").active
    assert ledger.add("tsk-3", vhd, owner.our_mark(), None) == (() if removed else ("tsk-1",))


def test_a_process_that_got_a_dead_ones_id_is_not_taken_for_it() -> None:
    world, pid, started, chance = owner.our_mark().split(" ")
    assert owner.is_alive(f"{world} {pid} {started} {chance}", 0, 1)
    assert not owner.is_alive(f"{world} {pid} {int(started) + 1} {chance}", 0, 1)
    assert pid == str(os.getpid())


def test_whoever_lost_a_task_is_told(state: Path, plan: Plan) -> None:
    ledger, mark = Ledger(str(state)), owner.our_mark()
    ledger.add("tsk-1", plan, "world 1 1 gone", None)
    ledger.set_status("tsk-1", "world 1 1 gone", Status.FAILED, code="x", message="y")
    ledger.claim("tsk-1", mark)
    with pytest.raises(ImageIsExporting, match="has taken it over"):
        ledger.beat("tsk-1", "world 1 1 gone", {})
    ledger.set_status("tsk-1", "world 1 1 gone", Status.FINISHED)  # of no consequence
    assert ledger.get("tsk-1").status == Status.FAILED
    assert not ledger.beat("tsk-1", mark, {})
    ledger.ask_to_cancel("tsk-1")
    assert ledger.beat("tsk-1", mark, {})
    ledger.set_status("tsk-1", mark, Status.CANCELLED)
    ledger.forget("tsk-1")
    with pytest.raises(ImageIsExporting, match="has taken it over"):
        ledger.beat("tsk-1", mark, {})


def test_the_quota_counts_the_living(state: Path, pair: dict[str, Path]) -> None:
    ledger = Ledger(str(state))
    for number in range(3):
        ledger.add(f"tsk-{number}", planned(pair, f"m-{number}"), owner.our_mark(), 3)
    with pytest.raises(ConcurrentQuotaExceeded):
        ledger.add("tsk-9", planned(pair, "m-9"), owner.our_mark(), 3)
    mark = owner.our_mark()
    ledger.add("tsk-9", planned(pair, "m-9"), mark, None)
    ledger.set_status("tsk-9", mark, Status.FAILED)
    with pytest.raises(ConcurrentQuotaExceeded):
        ledger.claim("tsk-9", owner.our_mark(), 3)


def test_files_that_hold_no_tasks(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(imgconv.UsageError, match="holds no tasks"):
        Ledger(str(path))
    import sqlite3

    foreign = sqlite3.connect(tmp_path / "y")
    foreign.execute("CREATE TABLE t (a)")
    foreign.close()
    with pytest.raises(imgconv.UsageError, match="holds no tasks"):
        Ledger(str(tmp_path / "y"))
    with pytest.raises(imgconv.WriteFailed):
        Ledger("/proc/nowhere/tasks")

"""Exports by the workers of an executor: the same objects, all of them or none."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.exporting import BUCKET
from support.workers import lasting

import imgconv as library
from imgconv.exporting.elsewhere import _as_one_pass
from imgconv.units import KiB, MiB

PARTS = library.UploadOptions(part_size=MiB)


class Counting(Executor):
    """Counts calls, and acts at one of them."""

    def __init__(self, pool: library.LastingExecutor, act: Callable[[], object], at: int = 6):
        self._pool, self._act, self._at = pool, act, at
        self.calls = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":  # type: ignore[override]
        self.calls += 1
        if self.calls == self._at:
            self._act()
        return self._pool.submit(function, *arguments)


@pytest.fixture(scope="module")
def pool() -> Iterator[library.LastingExecutor]:
    with lasting(2) as executor:
        yield executor


def request(name: str = "qcow2", **more: Any) -> library.ExportRequest:
    return library.ExportRequest(image_id="m-1", bucket=BUCKET, image_format=name, **more)


def nothing() -> None:
    pass


@pytest.mark.parametrize("name", ["raw", "vdi", "qcow2"])
def test_five_disks_by_many_workers_of_which_one_dies(
    image: dict[str, Path], folder: Path, state: Path, tmp_path: Path, name: str
) -> None:
    seen: list[int] = []
    with lasting(2) as pool:
        victim = pool.submit(os.getpid).result()
        executor = Counting(pool, lambda: os.kill(victim, 9))
        task = library.export(
            request(name),
            image,
            store=f"file://{folder}",
            state=state,
            executor=executor,
            settings=library.ExportSettings(upload=PARTS, disks_at_once=3),
            progress=lambda now: seen.append(now.done),
        )
    assert executor.calls > 10
    for disk, source in zip(task.state().disks, image.values(), strict=True):
        out = tmp_path / disk.key
        library.convert(source, out, options=name, identity=f"m-1_{disk.name}")
        assert (folder / BUCKET / disk.key).read_bytes() == out.read_bytes()
    assert library.verify_export(task.manifest).good
    assert seen == sorted(seen)
    assert [path.name for path in state.parent.iterdir()] == [state.name]


@pytest.mark.parametrize("packed", ["the object", "the disk"])
def test_what_cannot_be_shared_out_is_converted_here(
    tmp_path: Path, folder: Path, state: Path, pool: library.LastingExecutor, packed: str
) -> None:
    source, more = disks.holes(tmp_path / "disk.raw", 2 * MiB), {}
    if packed == "the disk":
        library.convert(source, tmp_path / "disk.raw.gz")
        source = tmp_path / "disk.raw.gz"
    else:
        more = {"raw_container": "tar.gz"}
    executor = Counting(pool, nothing)
    task = library.export(
        request("raw", **more),
        {"system": source},
        store=f"file://{folder}",
        state=state,
        executor=executor,
    )
    assert library.verify_export(task.manifest).good
    assert executor.calls == 0


def test_cancelling_leaves_nothing(
    image: dict[str, Path], folder: Path, state: Path, pool: library.LastingExecutor
) -> None:
    asked: list[bool] = []
    with pytest.raises(library.Cancelled):
        library.export(
            request("raw"),
            image,
            store=f"file://{folder}",
            state=state,
            executor=Counting(pool, lambda: asked.append(True), at=12),
            settings=library.ExportSettings(upload=PARTS),
            cancelled=lambda: bool(asked),
        )
    assert [*folder.rglob("*")] == [folder / BUCKET]
    assert [path.name for path in state.parent.iterdir()] == [state.name]


@pytest.mark.parametrize("keep", [False, True])
def test_a_disk_that_changes_fails_all_and_can_be_gone_on_with(
    tmp_path: Path, folder: Path, state: Path, pool: library.LastingExecutor, keep: bool
) -> None:
    pair = {"system": disks.dense(tmp_path / "a", 3 * MiB)}
    pair["data:b"] = disks.dense(tmp_path / "b", 4 * MiB)
    moment = os.stat(pair["data:b"]).st_mtime_ns
    settings = library.ExportSettings(upload=PARTS, keep=keep)
    change = Counting(pool, lambda: os.utime(pair["data:b"], ns=(1, 1)), at=5)
    store = f"file://{folder}"
    with pytest.raises(library.IncorrectImageStatus, match=r"b: (was changed|is not the disk)"):
        library.export(
            request("raw"), pair, store=store, state=state, executor=change, settings=settings
        )
    names = [path.name for path in (folder / BUCKET).glob("m-1*")]
    assert names == (["m-1_system.raw"] if keep else [])
    os.utime(pair["data:b"], ns=(moment, moment))
    (found,) = library.export_tasks(state=state)
    task, executor = library.export_task(found.task_id, state=state), Counting(pool, nothing)
    task.run(executor=executor)
    assert executor.calls > 0
    for disk, source in zip(task.state().disks, pair.values(), strict=True):
        assert (folder / BUCKET / disk.key).read_bytes() == source.read_bytes()


def test_both_passes_are_one_progress() -> None:
    seen: list[library.Progress] = []
    watch = _as_one_pass(seen.append, 11 * KiB)
    for phase, done, total in (
        *(("scan", 0, 11 * KiB), ("scan", 11 * KiB, 11 * KiB)),
        *(("emit", 1, 2), ("emit", 2, 2)),
    ):
        watch(library.Progress(phase, done, total, 0, 0))  # type: ignore[arg-type]
    assert [now.done for now in seen] == [0, 5632, 8448, 11 * KiB]
    assert {(now.phase, now.total) for now in seen} == {("convert", 11 * KiB)}


def test_several_formats_by_many_workers(
    tmp_path: Path, folder: Path, state: Path, pool: library.LastingExecutor
) -> None:
    source, executor = (
        disks.random_runs(tmp_path / "disk.raw", 3 * MiB),
        Counting(pool, nothing),
    )
    task = library.export(
        request("vdi", also=(library.ExportFormat("qcow2"), library.ExportFormat("raw"))),
        {"system": source},
        store=f"file://{folder}",
        state=state,
        executor=executor,
    )
    assert executor.calls > 3
    for disk in task.state().disks:
        out = tmp_path / disk.key
        library.convert(source, out, options=disk.format, identity="m-1_system")
        assert (folder / BUCKET / disk.key).read_bytes() == out.read_bytes()
    assert library.verify_export(task.manifest).good

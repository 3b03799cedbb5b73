"""Workers that were thought lost and are not: their parts come late, and change nothing."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.oss_client import at, set_environment
from support.oss_server import OssServer
from support.seaweed import BUCKET, Seaweed
from support.workers import Twice, lasting

import imgconv
from imgconv import Shares, UploadOptions
from imgconv.fleet.dispatch import Errand, Outcome
from imgconv.fleet.errands import SendErrand
from imgconv.fleet.executors import LastingExecutor
from imgconv.layout import Layout
from imgconv.objectstore import Part
from imgconv.segments import Segments, Zeros
from imgconv.units import MiB
from imgconv.upload.finish import late_parts

PARTS = UploadOptions(part_size=5 * MiB)
SMALL = Shares(scan=4 * MiB, send=5 * MiB)
PLANNED = ("raw", "qcow2", "vhd", "vmdk", "vdi", "vhdx")

Perform = Callable[[Errand[Any]], Outcome[Any]]


class Haunted(Executor):
    """Calls the first senders lost, and has them send when all others have, nonetheless.

    `change` may have them send other bytes. `late` is what came of it.
    """

    def __init__(self, pool: Executor, change: Callable[[SendErrand], SendErrand]):
        self._pool, self._change = pool, change
        self._ghosts: list[SendErrand] = []
        self.late: list[Outcome[Any]] = []

    def submit(self, function: Perform, errand: Errand[Any]) -> "Future[Any]":  # type: ignore[override]
        if not isinstance(errand, SendErrand):
            return self._pool.submit(function, errand)
        if errand.places[0].number == 1:  # the head is sent last
            return self._pool.submit(self._haunt, function, errand)
        if len(self._ghosts) < 2:
            self._ghosts.append(errand)
            lost: Future[Any] = Future()
            lost.set_exception(BrokenExecutor("a connection was lost"))
            return lost
        return self._pool.submit(function, errand)

    def _haunt(self, function: Perform, errand: SendErrand) -> Outcome[Any]:
        last = function(errand)
        self.late = [function(self._change(ghost)) for ghost in self._ghosts]
        return last


@pytest.fixture
def oss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    """A server that gives each part an ETag of its own, as one with customers' keys does."""
    set_environment(monkeypatch)
    with OssServer(tmp_path / "oss") as server:
        server.state.unique_etags = True
        yield server


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.dense(tmp_path_factory.mktemp("source") / "disk.raw", 22 * MiB)


def same(errand: SendErrand) -> SendErrand:
    return errand


def zeros_instead(errand: SendErrand) -> SendErrand:
    """What a worker would send whose disk is another, if that were not found out."""
    start, length = errand.places[0].start, sum(place.length for place in errand.places)
    layout = Layout.of([Segments.of([Zeros(start + length)])])
    return replace(errand, layout=layout)


def distributed(
    disk: Path,
    target: str,
    change: Callable[[SendErrand], SendErrand] = same,
    store: imgconv.S3 | imgconv.Oss | None = None,
) -> list[Part]:
    """Distribute to a store, haunted; return the late parts."""
    with ThreadPoolExecutor(2) as pool:
        executor = Haunted(pool, change)
        upload, shares = PARTS, SMALL
        imgconv.distribute(
            disk, target, executor, options="raw", store=store, upload=upload, shares=shares
        )
        return [part for outcome in executor.late for part in outcome.take().parts]


def test_late_parts_of_another_etag_are_taken_for_ours(disk: Path, oss: OssServer) -> None:
    late = distributed(disk, "oss://exports/disk.raw", store=at(oss))
    assert len(late) == 2
    (stored,) = oss.objects.values()
    assert stored.content() == disk.read_bytes()
    assert {part.etag.upper() for part in late} <= {piece.etag for piece in stored.pieces}
    completed = [entry for entry in oss.log if entry.operation == "CompleteMultipartUpload"]
    assert [entry.outcome for entry in completed] == ["InvalidPart", "200"]


def test_late_parts_change_nothing_in_a_real_store(
    disk: Path, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    store = imgconv.S3(endpoint_url=seaweed.endpoint_url, profile="seaweedfs")
    assert len(distributed(disk, f"s3://{BUCKET}/late/disk.raw", store=store)) == 2
    stored = seaweed.client().get_object(Bucket=BUCKET, Key="late/disk.raw")["Body"].read()
    assert stored == disk.read_bytes()


def test_late_parts_change_nothing_in_a_folder(disk: Path, tmp_path: Path) -> None:
    assert len(distributed(disk, f"file://{tmp_path}/disk.raw")) == 2
    assert (tmp_path / "disk.raw").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("unique", [False, True])
def test_late_parts_of_other_bytes_are_an_error(
    disk: Path, oss: OssServer, unique: bool
) -> None:
    oss.state.unique_etags = unique
    with pytest.raises(imgconv.StoreError) as caught:
        distributed(disk, "oss://exports/disk.raw", zeros_instead, store=at(oss))
    assert "another by now" in "".join(caught.value.__notes__)
    assert (oss.objects, oss.uploads) == ({}, {})


def test_late_parts_of_other_bytes_are_an_error_in_a_folder(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(imgconv.StoreError, match="part 2 is not"):
        distributed(disk, f"file://{tmp_path}/disk.raw", zeros_instead)
    assert os.listdir(tmp_path) == []


def test_nothing_is_believed_without_a_checksum() -> None:
    ours = [Part(1, 5, "a", 7), Part(2, 5, "b", 8), Part(3, 5, "c", 9)]
    listed = [Part(1, 5, "A", None), Part(2, 5, "x", None), Part(3, 4, "y", 9)]
    assert late_parts(ours, listed) == {2: None, 3: None}
    again = Part(2, 5, "y", 8)
    assert late_parts(ours[:2], [*listed, again]) == {2: again}


@pytest.fixture(scope="module")
def pool() -> Iterator[LastingExecutor]:
    with lasting(2) as executor:
        yield executor


@pytest.mark.parametrize("name", PLANNED)
def test_an_errand_gives_the_same_bytes_again(
    tmp_path: Path, pool: LastingExecutor, name: str
) -> None:
    """Each one is carried out twice, by two processes, and their parts are compared."""
    source = disks.random_runs(tmp_path / "disk.raw", 12 * MiB + 512)
    twice = Twice(pool)
    parts, shares = UploadOptions(part_size=MiB), Shares(scan=4 * MiB, send=2 * MiB)
    target = f"file://{tmp_path}/out.{name}"
    imgconv.distribute(source, target, twice, options=name, upload=parts, shares=shares)
    assert twice.compared > 1
    (tmp_path / "one").mkdir()
    imgconv.convert(source, f"file://{tmp_path}/one/out.{name}", options=name, upload=parts)
    one, many = tmp_path / "one" / f"out.{name}", tmp_path / f"out.{name}"
    assert many.read_bytes() == one.read_bytes()

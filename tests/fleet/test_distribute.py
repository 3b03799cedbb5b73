"""One disk over many processes: the bytes of one process, whoever dies."""

import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from support import disks, range_server
from support.seaweed import BUCKET, Seaweed
from support.workers import dask, lasting, processes

import imgconv
from imgconv import Progress, Qcow2, Raw, Report, Shares, UploadOptions, Vdi, Vhd, Vhdx, Vmdk
from imgconv.fleet.executors import LastingExecutor
from imgconv.units import KiB, MiB, TiB

SMALL = Shares(scan=4 * MiB, send=4 * MiB)
PARTS = UploadOptions(part_size=MiB)
FORMATS = [Raw(), Qcow2(), Vhd(), Vmdk(), Vdi(), Vhdx()]
FORMATS += [Vhd(subformat="fixed"), Vdi(subformat="fixed"), Vhdx(subformat="fixed")]


@pytest.fixture(scope="module")
def pool() -> Iterator[LastingExecutor]:
    with lasting(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    with dask(4, tmp_path_factory.mktemp("dask")) as executor:
        yield executor


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.holes(tmp_path_factory.mktemp("source") / "disk.raw", 40 * MiB + 512)


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 TiB with 64 MiB of data all over it."""
    return disks.islands(tmp_path_factory.mktemp("source") / "huge.raw", TiB, 1024)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough data for several errands of each kind."""
    return disks.dense(tmp_path_factory.mktemp("source") / "full.raw", 24 * MiB)


def folders(tmp_path: Path, *names: str) -> Iterator[str]:
    """URLs of the same name in folders of their own, as a VMDK records its name."""
    for name in names:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        yield f"file://{folder}/disk.img"


def file(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def once(when: Callable[[Progress], bool], act: Callable[[], object]) -> "Watch":
    return Watch(when, act)


class Watch:
    """Acts in the middle of a conversion, once, and knows that it was the middle."""

    def __init__(self, when: Callable[[Progress], bool], act: Callable[[], object]):
        self._when, self._act = when, act
        self.acted: Progress | None = None

    def __call__(self, now: Progress) -> None:
        if self.acted is None and self._when(now):
            assert now.done < now.total
            self.acted = now
            self._act()


def in_phase(phase: str) -> Callable[[Progress], bool]:
    return lambda now: now.phase == phase and now.done > 0


def assert_clean(url: str) -> None:
    assert os.listdir(file(url).parent) == []


@pytest.mark.parametrize("options", FORMATS, ids=repr)
def test_the_bytes_of_one_process(
    tmp_path: Path, disk: Path, pool: LastingExecutor, options: imgconv.Format
) -> None:
    one, many = folders(tmp_path, "one", "many")
    single = imgconv.convert(disk, one, options=options, upload=PARTS)
    report = imgconv.distribute(disk, many, pool, options=options, upload=PARTS, shares=SMALL)
    assert file(many).read_bytes() == file(one).read_bytes()
    assert single.upload is not None
    assert report.upload is not None
    assert report.upload.crc == single.upload.crc
    assert [part.crc for part in report.upload.parts] == [p.crc for p in single.upload.parts]
    assert (report.data_bytes, report.output_size) == (single.data_bytes, single.output_size)
    assert report.upload.kept_parts == 0
    assert report.workers


@pytest.fixture(scope="module")
def one_tib(huge: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process makes of the huge disk."""
    (url,) = folders(tmp_path_factory.mktemp("one"), "one")
    imgconv.convert(huge, url, options="qcow2", upload=PARTS)
    return file(url).read_bytes()


def test_four_dask_workers_export_a_tebibyte(
    tmp_path: Path, huge: Path, one_tib: bytes, cluster: Executor
) -> None:
    (url,) = folders(tmp_path, "many")
    report = imgconv.distribute(huge, url, cluster, options="qcow2", upload=PARTS, shares=SMALL)
    assert file(url).read_bytes() == one_tib
    assert report.virtual_size == TiB
    assert 1 < len(report.workers) <= 4


@pytest.mark.parametrize("phase", ["scan", "emit"])
def test_a_dask_worker_killed_in_the_middle_loses_nothing(
    tmp_path: Path, huge: Path, one_tib: bytes, phase: str
) -> None:
    (url,) = folders(tmp_path, "many")
    with dask(4, tmp_path / "dask") as executor:
        victim = executor.submit(os.getpid).result()
        watch = once(in_phase(phase), lambda: os.kill(victim, 9))
        imgconv.distribute(
            huge, url, executor, options="qcow2", upload=PARTS, shares=SMALL, progress=watch
        )
    assert watch.acted is not None
    assert file(url).read_bytes() == one_tib


@pytest.mark.parametrize("phase", ["scan", "emit"])
def test_a_process_killed_in_the_middle_loses_nothing(
    tmp_path: Path, full: Path, phase: str
) -> None:
    """A pool that breaks is replaced; what is in the store by then is kept."""
    one, many = folders(tmp_path, "one", "many")
    imgconv.convert(full, one, options="raw", upload=PARTS)
    with lasting(2) as executor:
        victim = executor.submit(os.getpid).result()
        watch = once(in_phase(phase), lambda: os.kill(victim, 9))
        shares = Shares(scan=4 * MiB, send=2 * MiB)
        imgconv.distribute(
            full, many, executor, options="raw", upload=PARTS, shares=shares, progress=watch
        )
    assert watch.acted is not None
    assert file(many).read_bytes() == file(one).read_bytes()


def test_several_disks_at_once_on_one_executor(tmp_path: Path, cluster: Executor) -> None:
    sources = [disks.dense(tmp_path / f"{i}.raw", (5 + i) * MiB) for i in range(4)]
    targets = list(folders(tmp_path, "a", "b", "c", "d"))

    def export(number: int) -> Report:
        return imgconv.distribute(
            sources[number],
            targets[number],
            cluster,
            options="vhd",
            upload=PARTS,
            shares=SMALL,
        )

    with ThreadPoolExecutor() as callers:
        reports = list(callers.map(export, range(4)))
    for source, target, report in zip(sources, targets, reports, strict=True):
        imgconv.convert(source, tmp_path / "one.vhd")
        assert file(target).read_bytes() == (tmp_path / "one.vhd").read_bytes()
        assert report.output_size == file(target).stat().st_size


def test_many_disks_are_many_jobs_for_what_has_no_plan(
    tmp_path: Path, pool: LastingExecutor
) -> None:
    source = disks.holes(tmp_path / "in.raw", 3 * MiB)
    target = tmp_path / "out.raw.gz"
    report = pool.submit(imgconv.convert, source, target).result()
    assert isinstance(report, Report)
    assert report.output_size == target.stat().st_size


def test_into_a_real_object_store(
    seaweed: Seaweed, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a worker killed while it sends; the store's own checksum is compared at the end."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    store = imgconv.S3(endpoint_url=seaweed.endpoint_url, profile="seaweedfs")
    parts = UploadOptions(part_size=5 * MiB)
    imgconv.convert(disk, tmp_path / "one.vdi", options="vdi")
    with lasting(2) as executor:
        victim = executor.submit(os.getpid).result()
        watch = once(in_phase("emit"), lambda: os.kill(victim, 9))
        report = imgconv.distribute(
            disk,
            f"s3://{BUCKET}/fleet/disk.vdi",
            executor,
            store=store,
            upload=parts,
            shares=Shares(scan=8 * MiB, send=5 * MiB),
            progress=watch,
        )
    assert watch.acted is not None
    stored = seaweed.client().get_object(Bucket=BUCKET, Key="fleet/disk.vdi")["Body"].read()
    assert stored == (tmp_path / "one.vdi").read_bytes()
    assert report.upload is not None
    assert report.upload.store_verified
    assert seaweed.secret_key.encode() not in pickle.dumps(store)


def test_a_worker_whose_disk_is_another_fails_the_conversion(tmp_path: Path) -> None:
    source = disks.dense(tmp_path / "in.raw", 3 * MiB)
    (url,) = folders(tmp_path, "out")
    with ThreadPoolExecutor(1) as executor:
        gate = executor.submit(lambda: None)
        gate.result()
        watch = Watch(lambda now: now.phase == "scan", lambda: os.utime(source, (1, 1)))
        with pytest.raises(imgconv.SourceChanged, match="not the disk") as caught:
            imgconv.distribute(source, url, executor, options="raw", progress=watch)
    assert "on worker" in "".join(caught.value.__notes__)
    assert_clean(url)


def test_a_signature_in_the_url_of_the_disk_is_not_told(tmp_path: Path) -> None:
    (url,) = folders(tmp_path, "out")
    with ThreadPoolExecutor(1) as executor, range_server.serving(bytes(MiB)) as site:

        def change() -> None:
            site.etag = '"v2"'

        watch = Watch(lambda now: now.phase == "scan", change)
        signed = f"{site.url}?X-Amz-Signature=secret"
        with pytest.raises(imgconv.SourceChanged, match="not the disk") as caught:
            imgconv.distribute(signed, url, executor, options="raw", progress=watch)
    assert str(caught.value).startswith(f"{site.url}: is not")


def test_errors_of_workers_arrive_as_they_are(tmp_path: Path, pool: LastingExecutor) -> None:
    """Here: the source is gone when the workers come to read it."""
    source = disks.dense(tmp_path / "in.raw", 3 * MiB)
    (url,) = folders(tmp_path, "out")
    watch = Watch(lambda now: now.phase == "scan", source.unlink)
    with pytest.raises(imgconv.SourceUnreadable, match=r"in\.raw: No such file"):
        imgconv.distribute(source, url, pool, options="raw", progress=watch)
    assert_clean(url)


class Stopping:
    """Says stop as soon as the store has a few parts."""

    def __init__(self, parts: int):
        self._parts, self.stopped = parts, False

    def watch(self, now: Progress) -> None:
        self.stopped = self.stopped or now.parts >= self._parts

    def __call__(self) -> bool:
        return self.stopped


def test_cancelling_leaves_nothing(tmp_path: Path, disk: Path, pool: LastingExecutor) -> None:
    (url,) = folders(tmp_path, "out")
    stop = Stopping(2)
    with pytest.raises(imgconv.Cancelled):
        imgconv.distribute(
            disk,
            url,
            pool,
            options="vdi",
            upload=PARTS,
            shares=Shares(send=MiB),
            progress=stop.watch,
            cancelled=stop,
        )
    assert_clean(url)


@pytest.mark.parametrize("alone", [False, True], ids=["many", "one"])
def test_an_upload_is_resumed_by_many_or_by_one(
    tmp_path: Path, disk: Path, pool: LastingExecutor, alone: bool
) -> None:
    one, many = folders(tmp_path, "one", "many")
    imgconv.convert(disk, one, options="vdi", upload=PARTS)
    stop = Stopping(3)
    upload = UploadOptions(part_size=MiB, resume=True, journal=tmp_path / "journal")
    with pytest.raises(imgconv.Cancelled):
        imgconv.distribute(
            disk,
            many,
            pool,
            options="vdi",
            upload=upload,
            shares=Shares(send=MiB),
            progress=stop.watch,
            cancelled=stop,
        )
    if alone:
        report = imgconv.convert(disk, many, options="vdi", upload=upload)
    else:
        report = imgconv.distribute(disk, many, pool, options="vdi", upload=upload)
    assert report.upload is not None
    assert report.upload.kept_parts >= 3
    assert file(many).read_bytes() == file(one).read_bytes()


def test_a_pool_that_stays_broken_is_an_error(tmp_path: Path, full: Path) -> None:
    (url,) = folders(tmp_path, "out")
    with processes(1) as executor:
        victim = executor.submit(os.getpid).result()
        watch = once(in_phase("scan"), lambda: os.kill(victim, 9))
        with pytest.raises(imgconv.WorkersLost, match="BrokenProcessPool"):
            imgconv.distribute(full, url, executor, options="raw", shares=SMALL, progress=watch)
    assert_clean(url)


def test_what_cannot_be_distributed_is_refused(
    tmp_path: Path, disk: Path, pool: LastingExecutor
) -> None:
    (url,) = folders(tmp_path, "out")
    for compressed in (Qcow2(compress="fast"), Vmdk(subformat="streamOptimized")):
        with pytest.raises(imgconv.UnsupportedCombination, match="compressed"):
            imgconv.distribute(disk, url, pool, options=compressed)
    for kind in ("raw.gz", "raw.zst", "raw.tar.gz"):
        packed = disks.dense(tmp_path / "in.raw", 64 * KiB), tmp_path / f"in.{kind}"
        imgconv.convert(*packed)
        with pytest.raises(imgconv.UnsupportedCombination, match=f"{kind}, which every errand"):
            imgconv.distribute(packed[1], url, pool, options="raw")
    with pytest.raises(imgconv.UnsupportedCombination, match="objects only"):
        imgconv.distribute(disk, str(tmp_path / "out.raw"), pool)
    with pytest.raises(imgconv.OptionError, match="send=0"):
        Shares(send=0)
    assert_clean(url)
    file(url).write_bytes(b"there")
    with pytest.raises(imgconv.OutputExists):
        imgconv.distribute(disk, url, pool, options="raw")


def test_a_relative_path_is_the_same_for_a_worker_elsewhere(
    tmp_path: Path, pool: LastingExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.submit(os.getpid).result()  # the workers are somewhere else by now
    source = disks.dense(tmp_path / "in.raw", 64 * KiB)
    (url,) = folders(tmp_path, "out")
    monkeypatch.chdir(tmp_path)
    imgconv.distribute("in.raw", url, pool, options="raw")
    assert file(url).read_bytes() == source.read_bytes()

"""Several outputs of one disk in one pass: the bytes of each alone, and all or none."""

import errno
import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks, engine
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.variants import EVERY

import imgconv
from imgconv import pipeline
from imgconv.formats.base import Format
from imgconv.lanes import Lane
from imgconv.objectstore import ObjectInfo, Upload
from imgconv.ranges import Ranges
from imgconv.sinks.newfile import NewFile
from imgconv.stores.local import LocalStore
from imgconv.tally import Tally
from imgconv.units import KiB, MiB
from imgconv.upload.retry import Backoff
from imgconv.workers import Stop

HUGE = {"vhdx-256m"}  # a batch would have half a gibibyte
FORMATS: dict[str, Format] = {name: EVERY[name] for name in EVERY if name not in HUGE}


class CountingSource(engine.MemorySource):
    """Remembers what was read of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, offset + len(buffer)))
        super().read_into(offset, buffer)

    def assert_read_once(self) -> None:
        """Every byte, and none twice."""
        assert Ranges.of(sorted(self.reads)).merged().total == self.size
        assert sum(stop - start for start, stop in self.reads) == self.size


def fanned_out(source: engine.MemorySource, options: list[Format], threads: int) -> list[bytes]:
    sinks = [engine.MemorySink() for _ in options]
    for sink in sinks[::3]:
        sink.parallel = False
    lanes = [
        Lane(engine.writer_for(source, one), sink, Tally())
        for one, sink in zip(options, sinks, strict=True)
    ]
    pipeline.fan_out(source, lanes, threads=threads, stop=Stop())
    for lane, sink in zip(lanes, sinks, strict=True):
        sink.commit(lane.at)
    return [sink.content() for sink in sinks]


def mixed(size: int) -> bytes:
    """Data, zeros in it at odd places, and what compresses."""
    rng = random.Random(size)
    content = bytearray(size)
    for at in range(0, size, 300 * KiB):
        stop = min(at + rng.randrange(200 * KiB), size)
        content[at:stop] = rng.randbytes(stop - at) if at % 2 else b"x" * (stop - at)
    return bytes(content)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_format_in_one_pass_has_the_bytes_it_has_alone(threads: int) -> None:
    content = mixed(21 * MiB + 512)
    source = CountingSource(content)
    found = fanned_out(source, list(FORMATS.values()), threads)
    source.assert_read_once()
    alone = engine.MemorySource(content)
    for (name, options), one in zip(FORMATS.items(), found, strict=True):
        assert one == engine.one_pass(alone, options), name


@given(
    st.integers(1, 5 * MiB // 512),
    st.lists(st.sampled_from(list(FORMATS)), min_size=2, max_size=3),
    st.lists(st.integers(0, 5 * MiB), max_size=8),
    st.sampled_from([1, 2, 5]),
)
@settings(max_examples=40, deadline=None)
def test_any_formats_over_any_disk(
    sectors: int, names: list[str], edges: list[int], threads: int
) -> None:
    """Wherever the runs begin and the disk ends, and whatever units come together."""
    size = sectors * 512
    content, edges = bytearray(size), sorted({edge for edge in edges if edge < size})
    for start, stop in zip(edges[::2], edges[1::2], strict=False):
        content[start:stop] = random.Random(start).randbytes(stop - start)
    source = engine.MemorySource(bytes(content))
    options = [EVERY[name] for name in names]
    expected = [engine.one_pass(source, one) for one in options]
    assert fanned_out(source, options, threads) == expected


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(mixed(9 * MiB))
    return path


def test_files_objects_a_pipe_and_their_reports(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    fifo = tmp_path / "fifo.raw"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    names = ["o.qcow2", "small.qcow2", "o.vhd", "o.vmdk"]
    small = imgconv.Qcow2(compress="fast")
    urls = [f"file://{tmp_path}/{name}" for name in ("u.vdi", "u.raw.gz")]
    own: list[imgconv.Progress] = []
    seen: list[imgconv.Progress] = []
    reports = imgconv.fan_out(
        raw,
        [
            imgconv.Output(tmp_path / "o.qcow2"),
            imgconv.Output(tmp_path / "small.qcow2", small),
            imgconv.Output(tmp_path / "o.vhd", progress=own.append),
            imgconv.Output(tmp_path / "o.vmdk"),
            *(imgconv.Output(url) for url in urls),
            imgconv.Output(fifo),
        ],
        progress=seen.append,
    )
    reader.join()
    assert got == [raw.read_bytes()]
    for name in [*names, "u.vdi", "u.raw.gz"]:
        options = small if name.startswith("small") else None
        alone = imgconv.convert(raw, tmp_path / "alone" / name, options=options)
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
        (told,) = (report for report in reports if report.output.endswith(f"/{name}"))
        assert told.output_size == alone.output_size
        assert (told.data_bytes, told.written_bytes) == (alone.data_bytes, alone.written_bytes)
        assert (told.options, told.passes) == (alone.options, 1)
    assert [report.upload is not None for report in reports] == [
        *[False] * 4,
        True,
        True,
        False,
    ]
    for progress in (own, seen):
        assert [now.done for now in progress] == sorted(now.done for now in progress)
        assert progress[-1].done == progress[-1].total == 9 * MiB
    assert seen[-1].parts == sum(len(r.upload.parts) for r in reports if r.upload is not None)


def test_verified_all(raw: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "o.qcow2", tmp_path / "o.raw.zst", f"file://{tmp_path}/o.vhd"]
    reports = imgconv.fan_out(raw, [imgconv.Output(out) for out in outputs], verify=True)
    assert all(report.verified for report in reports)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class TestAllOrNone:
    """Whatever fails, and when."""

    def fails(self, raw: Path, tmp_path: Path, error: type[Exception], match: str) -> list[str]:
        """A fan-out into files and objects of which none may be there afterwards."""
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        before = everything(out)
        outputs = [
            imgconv.Output(out / "first.vdi", clobber=False),
            imgconv.Output(f"file://{out}/object.qcow2"),
            imgconv.Output(out / "last.vhd", clobber=False),
        ]
        with pytest.raises(error, match=match) as caught:
            imgconv.fan_out(raw, outputs)
        assert everything(out) == before
        return getattr(caught.value, "__notes__", [])

    def test_a_source_that_ends(self, raw: Path, tmp_path: Path) -> None:
        source = engine.FaultySource(raw.read_bytes(), "EIO", 8 * MiB)
        out = tmp_path / "out"
        out.mkdir()
        outputs = [imgconv.Output(out / "o.vdi"), imgconv.Output(f"file://{out}/o.qcow2")]
        with pytest.raises(imgconv.ReadFailed):
            imgconv.fan_out(source, outputs)
        assert everything(out) == set()

    def test_a_name_that_is_taken(self, raw: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "last.vhd").write_bytes(b"x")
        self.fails(raw, tmp_path, imgconv.OutputExists, "last.vhd")

    def test_a_name_that_is_taken_at_the_last_moment(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The object and the first file have appeared by then."""
        publish, seen = NewFile.publish, list[set[str]]()

        def race(file: NewFile, *, clobber: bool) -> None:
            if file._name == "last.vhd":
                seen.append(everything(tmp_path / "out"))
                raise FileExistsError(errno.EEXIST, "exists")
            publish(file, clobber=clobber)

        monkeypatch.setattr(NewFile, "publish", race)
        notes = self.fails(raw, tmp_path, imgconv.OutputExists, "last.vhd")
        out = tmp_path / "out"
        assert notes == [
            f"file://{out}/object.qcow2: was removed again",
            f"{out}/first.vdi: was removed again",
        ]
        assert seen == [{"first.vdi", "object.qcow2"}]

    def test_a_full_disk(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Found before any output appears."""
        fsync, out = os.fsync, tmp_path / "out"

        def full(fd: int) -> None:
            if os.fstat(fd).st_size > 9 * MiB and os.path.dirname(
                os.readlink(f"/proc/self/fd/{fd}")
            ) == str(out):
                assert not [name for name in everything(out) if not name.startswith(".")]
                raise OSError(errno.ENOSPC, "full")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", full)
        self.fails(raw, tmp_path, imgconv.WriteFailed, "full")

    @pytest.mark.parametrize("error", [imgconv.StoreUnavailable, imgconv.Cancelled])
    def test_an_object_that_is_there_but_could_not_be_looked_at(
        self,
        raw: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: type[Exception],
    ) -> None:
        """It has appeared, although publishing it has failed."""
        complete, head, out = LocalStore.complete, LocalStore.head, tmp_path / "out"
        failing: list[str] = []

        def complete_and_fail(store: LocalStore, upload: Upload, *how: Any, **more: Any) -> Any:
            found = complete(store, upload, *how, **more)
            failing.extend({upload.key} & {"two.vhd"})
            return found

        def look(store: LocalStore, key: str) -> ObjectInfo | None:
            if key in failing:
                failing.clear()
                raise error("fails")
            return head(store, key)

        out.mkdir()
        monkeypatch.setattr(LocalStore, "complete", complete_and_fail)
        monkeypatch.setattr(LocalStore, "head", look)
        hasty = imgconv.UploadOptions(backoff=Backoff(patience=0.0))
        urls = [f"file://{out}/one.vdi", f"file://{out}/two.vhd"]
        with pytest.raises(error) as caught:
            imgconv.fan_out(raw, [imgconv.Output(url, upload=hasty) for url in urls])
        assert caught.value.__notes__ == [f"{url}: was removed again" for url in urls]
        assert everything(out) == set()

    def test_a_file_that_has_its_name_but_not_for_good(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync, out = os.fsync, tmp_path / "out"

        def fail(fd: int) -> None:
            if (out / "last.vhd").exists() and stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.EIO, "fails")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", fail)
        notes = self.fails(raw, tmp_path, imgconv.WriteFailed, "fails")
        names = ("object.qcow2", "first.vdi", "last.vhd")
        assert [note.partition(str(out))[2] for note in notes] == [
            f"/{name}: was removed again" for name in names
        ]

    def test_what_replaced_another_stays_and_is_told(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The old one cannot come back, so the whole new one is better than none."""
        for name in ("u.vdi", "o.vdi", "o.vhd"):
            (tmp_path / name).write_bytes(b"old")
        publish = NewFile.publish

        def fail(file: NewFile, *, clobber: bool) -> None:
            if file._name == "o.vhd":
                raise OSError(errno.EIO, "fails")
            publish(file, clobber=clobber)

        monkeypatch.setattr(NewFile, "publish", fail)
        places = [f"file://{tmp_path}/u.vdi", str(tmp_path / "o.vdi")]
        outputs = [imgconv.Output(p, clobber=True) for p in (*places, tmp_path / "o.vhd")]
        with pytest.raises(imgconv.WriteFailed) as caught:
            imgconv.fan_out(raw, outputs)
        assert caught.value.__notes__ == [
            *(f"{place}: was replaced before that" for place in places),
            f"{tmp_path}/o.vhd: may have been replaced",
        ]
        for place in places:
            assert imgconv.compare(raw, place).identical
        assert (tmp_path / "o.vhd").read_bytes() == b"old"

    def test_with_resume_a_finished_object_stays_and_is_told(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(file: NewFile, *, clobber: bool) -> None:
            raise OSError(errno.EIO, "fails")

        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setattr(NewFile, "publish", fail)
        url, upload = f"file://{tmp_path}/o.vdi", imgconv.UploadOptions(resume=True)
        outputs = [imgconv.Output(url, upload=upload), imgconv.Output(tmp_path / "o.vhd")]
        with pytest.raises(imgconv.WriteFailed) as caught:
            imgconv.fan_out(raw, outputs)
        assert f"{url}: was complete before that, and stays" in caught.value.__notes__
        assert imgconv.compare(raw, tmp_path / "o.vdi").identical

    def test_with_resume_what_was_sent_outlasts_another_output_that_exists(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one that was complete does when the same command is given again."""
        complete = LocalStore.complete

        def fail(store: LocalStore, upload: Upload, *how: Any, **more: Any) -> Any:
            if upload.key == "late.vhd":
                raise imgconv.StoreUnavailable("fails")
            return complete(store, upload, *how, **more)

        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        again = imgconv.UploadOptions(resume=True, backoff=Backoff(patience=0.0))
        late, early = (
            imgconv.Output(f"file://{tmp_path}/{name}", upload=again)
            for name in ("late.vhd", "early.vdi")
        )
        with monkeypatch.context() as broken:
            broken.setattr(LocalStore, "complete", fail)
            with pytest.raises(imgconv.StoreUnavailable):
                imgconv.fan_out(raw, [early, late])
        for outputs in ([early, late], [late, early]):
            with pytest.raises(imgconv.OutputExists, match=r"early\.vdi: exists"):
                imgconv.fan_out(raw, outputs)
        (report,) = imgconv.fan_out(raw, [late])
        assert report.upload is not None
        assert report.upload.kept_parts == len(report.upload.parts)

    @pytest.mark.parametrize("at", [0, 4 * MiB])
    def test_cancelled(self, raw: Path, tmp_path: Path, at: int) -> None:
        out, done = tmp_path / "out", [-1]
        out.mkdir()
        outputs = [imgconv.Output(out / "o.vdi"), imgconv.Output(f"file://{out}/o.qcow2")]
        with pytest.raises(imgconv.Cancelled):
            imgconv.fan_out(
                raw,
                outputs,
                progress=lambda now: done.append(now.done),
                cancelled=lambda: done[-1] >= at,
            )
        assert everything(out) == set()


REFUSED: list[tuple[Callable[[Path], list[str | Path]], type[Exception], str]] = [
    (lambda folder: [], imgconv.UsageError, "needs an output"),
    (lambda f: [f / "a.vdi", f"{f}/./a.vdi"], imgconv.UsageError, "a.vdi: is given twice"),
    (lambda f: ["file:///x/a.vdi"] * 2, imgconv.UsageError, "is given twice"),
    (lambda f: [f / "a.vdi", f"file://{f}/a.vdi"], imgconv.UsageError, "is given twice"),
    (lambda f: [f / "a.vdi", f / "disk.raw"], imgconv.UsageError, "is the input itself"),
    (lambda f: [f / "a.vdi", f / "name"], imgconv.UsageError, "does not tell the format"),
    (lambda f: [f / "a.vdi", f / "f.vhd"], imgconv.UnsupportedCombination, "two passes"),
]


@pytest.mark.parametrize(("names", "error", "told"), REFUSED)
def test_what_is_refused_before_anything_is_written(
    raw: Path,
    names: Callable[[Path], list[str | Path]],
    error: type[Exception],
    told: str,
) -> None:
    os.mkfifo(raw.parent / "f.vhd")
    before = everything(raw.parent)
    with pytest.raises(error, match=told):
        imgconv.fan_out(raw, [imgconv.Output(name) for name in names(raw.parent)])
    assert everything(raw.parent) == before


def test_a_huge_unit_beside_a_small_one(tmp_path: Path) -> None:
    """What is found of 256 MiB is looked at again by clusters of 512 bytes."""
    raw = disks.islands(tmp_path / "disk.raw", 600 * MiB, 40, 2 * KiB)
    small, huge = imgconv.Qcow2(cluster_size=512), imgconv.Vhdx(block_size=256 * MiB)
    outputs = [
        imgconv.Output(tmp_path / "o.qcow2", small),
        imgconv.Output(tmp_path / "o.vhdx", huge),
    ]
    imgconv.fan_out(raw, outputs, threads=1)
    imgconv.convert(raw, tmp_path / "p.qcow2", options=small)
    assert (tmp_path / "o.qcow2").read_bytes() == (tmp_path / "p.qcow2").read_bytes()
    assert imgconv.compare(raw, tmp_path / "o.vhdx").identical


def test_the_command(raw: Path, tmp_path: Path) -> None:
    """Formats by the names of the outputs, or said before them."""
    also = ["vhd,subformat=fixed:azure.img", f"qcow2,compress=small:file://{tmp_path}/up"]
    words = [w for text in [*also, "./odd:name.vdi"] for w in ("--also", text)]
    done = command("disk.raw", "o.vmdk", "-o", "adapter_type=ide", *words, cwd=tmp_path)
    assert done.returncode == 0, done
    assert [line.partition(", virtual")[0] for line in done.stdout.splitlines()] == [
        "o.vmdk: vmdk",
        "azure.img: vhd",
        f"file://{tmp_path}/up: qcow2",
        "./odd:name.vdi: vdi",
    ]
    for name, options in {
        "o.vmdk": imgconv.Vmdk(adapter_type="ide"),
        "azure.img": imgconv.Vhd(subformat="fixed"),
        "up": imgconv.Qcow2(compress="small"),
        "odd:name.vdi": imgconv.Vdi(),
    }.items():
        (tmp_path / "alone").mkdir(exist_ok=True)
        imgconv.convert(raw, tmp_path / "alone" / name, options=options)
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    done = command("disk.raw", "o.vmdk", "--also", "raw:-", "--json", "-m", "3", cwd=tmp_path)
    assert [report["format"] for report in json.loads(done.stderr)] == ["vmdk", "raw"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--also", "vhd:-"], "vhd in a stream takes two passes"),
        (["--also", "o.qcow2"], "o.qcow2: is given twice"),
        (["--also", "vhd,subformat=odd:o.vhd"], "subformat=odd"),
        (["--also", "vhdd:o"], "vhdd:o: its name does not tell the format"),
        (["--also", "o.vhd", "-n"], "-n is for one output"),
        (["--also", "o.vhd", "--receipt", "r"], "--receipt is for one output"),
        (["--also", "o.vhd", "--journal", "j", "--resume"], "--journal is for one output"),
    ],
)
def test_commands_that_are_refused(raw: Path, words: list[str], told: str) -> None:
    done = command("disk.raw", "o.qcow2", *words, cwd=raw.parent)
    assert_one_line_error(done, told, status=2)
    assert everything(raw.parent) == {"disk.raw"}

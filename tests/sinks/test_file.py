"""The file sink: atomic, sparse, durable, and no litter."""

import filecmp
import os
import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import disks
from support.cli import assert_one_line_error
from support.cli import imgconv as command
from support.mounts import mounted

import imgconv
from imgconv.errors import OutputExists, OutputRefused, WriteFailed
from imgconv.sinks.file import FileSink
from imgconv.stretch import Stretch
from imgconv.units import MiB


@pytest.fixture
def small_disk(tmp_path: Path, root: None) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with mounted(tmp_path / "small", "mount", "-t", "tmpfs", "-o", "size=4m", "none") as folder:
        yield folder


def test_holes_stay_holes_and_zeros_become_some(tmp_path: Path) -> None:
    content = bytearray(64 * MiB)
    content[MiB : MiB + 5000] = b"x" * 5000
    raw = disks.write(tmp_path / "d.raw", 64 * MiB, {0: bytes(content)})
    for name in ("o.raw", "o.qcow2", "o.vhd", "o.vdi", "o.vmdk"):
        imgconv.convert(raw, tmp_path / name)
        assert (tmp_path / name).stat().st_blocks * 512 <= 200 * 1024, name


def test_nothing_shows_before_commit(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "o"))
    sink.put(Stretch.of(0, [memoryview(b"abc")]))
    assert list(tmp_path.iterdir()) == []
    sink.commit(5)
    sink.abort()
    assert (tmp_path / "o").read_bytes() == b"abc\0\0"
    assert len(list(tmp_path.iterdir())) == 1


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "o"))
    sink.put(Stretch.of(0, [memoryview(b"abc")]))
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_replaced_at_commit_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"old content")
    os.chmod(tmp_path / "o", 0o640)
    sink = FileSink(str(tmp_path / "o"))
    sink.put(Stretch.of(0, [memoryview(b"new")]))
    assert (tmp_path / "o").read_bytes() == b"old content"
    sink.commit(3)
    assert (tmp_path / "o").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 1


def test_a_replaced_output_keeps_its_owner(tmp_path: Path, root: None) -> None:
    (tmp_path / "o").touch()
    os.chown(tmp_path / "o", 1234, 4321)
    FileSink(str(tmp_path / "o")).commit(1)
    status = (tmp_path / "o").stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_a_new_output_has_the_mode_that_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        FileSink(str(tmp_path / "o")).commit(1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o640


def test_no_clobber_refuses_at_once_and_at_the_end(tmp_path: Path) -> None:
    early = tmp_path / "early"
    early.touch()
    with pytest.raises(OutputExists):
        FileSink(str(early), clobber=False)
    sink = FileSink(str(tmp_path / "late"), clobber=False)
    (tmp_path / "late").write_bytes(b"somebody was faster")
    with pytest.raises(OutputExists):
        sink.commit(1)
    sink.abort()
    assert (tmp_path / "late").read_bytes() == b"somebody was faster"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["early", "late"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "o").symlink_to(tmp_path / "there" / "real")
    FileSink(str(tmp_path / "o")).commit(3)
    assert (tmp_path / "o").is_symlink()
    assert (tmp_path / "there" / "real").stat().st_size == 3


def test_places_that_take_no_output(tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match="No such file"):
        FileSink(str(tmp_path / "missing" / "o"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputRefused, match="Not a directory"):
        FileSink(str(tmp_path / "file" / "o"))
    with pytest.raises(OutputRefused):
        FileSink("/proc/o")


@pytest.mark.parametrize("clobber", [True, False])
def test_a_file_system_without_unnamed_files(tmp_path: Path, clobber: bool, root: None) -> None:
    """FUSE knows none; a temporary name must do, and must not be left behind."""
    image = disks.empty(tmp_path / "fs.img", 40 * MiB)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    raw = disks.holes(tmp_path / "d.raw", 5 * MiB)
    with mounted(tmp_path / "fs", "fuse2fs", image) as folder:
        os.rmdir(folder / "lost+found")
        imgconv.convert(raw, folder / "o.raw", clobber=clobber)
        assert (folder / "o.raw").read_bytes() == raw.read_bytes()
        sink = FileSink(str(folder / "p"))
        assert len(list(folder.iterdir())) == 2
        sink.abort()
        assert [p.name for p in folder.iterdir()] == ["o.raw"]


@pytest.fixture
def memory(tmp_path: Path, root: None) -> Iterator[Path]:
    """A tmpfs of 256 MiB, where writers hand in pages beside one another."""
    kind = ("mount", "-t", "tmpfs", "-o", "size=256m", "none")
    with mounted(tmp_path / "memory", *kind) as folder:
        yield folder


@pytest.mark.parametrize("extension", ["raw", "qcow2", "vhd", "vmdk", "vdi", "vhdx"])
def test_tmpfs_written_by_many_threads(tmp_path: Path, memory: Path, extension: str) -> None:
    raw = tmp_path / "d.raw"
    content = random.Random(6).randbytes(20 * MiB)
    disks.write(raw, 64 * MiB, {0: content[: 9 * MiB], 21 * MiB + 4096: content[9 * MiB :]})
    alone, together = tmp_path / f"o.{extension}", memory / f"o.{extension}"
    imgconv.convert(raw, alone, threads=1)
    for threads in (2, 5):
        imgconv.convert(raw, together, threads=threads)
        assert filecmp.cmp(alone, together, shallow=False)
        assert together.stat().st_blocks * 512 <= 21 * MiB


@pytest.mark.parametrize("extension", ["raw", "qcow2", "vhd", "vmdk", "vdi", "vhdx"])
def test_a_full_disk(tmp_path: Path, small_disk: Path, extension: str) -> None:
    raw = disks.dense(tmp_path / "d.raw", 8 * MiB)
    out = small_disk / f"o.{extension}"
    out.write_bytes(b"the output of yesterday")
    with pytest.raises(WriteFailed, match="No space left on device"):
        imgconv.convert(raw, out)
    assert_one_line_error(command(raw, out), "No space left on device", str(out))
    assert [p.name for p in small_disk.iterdir()] == [out.name]
    assert out.read_bytes() == b"the output of yesterday"

"""Files and block devices as sources: extents, padding, and sources that misbehave."""

import os
from pathlib import Path

import pytest
from support import disks
from support.mounts import loop_device

import imgconv
from imgconv.errors import ReadFailed, SourceChanged, SourceTruncated, SourceUnreadable
from imgconv.ranges import Ranges
from imgconv.sources.file import FileSource
from imgconv.units import SECTOR, KiB, MiB


def read(source: FileSource, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def extents(source: FileSource) -> list[tuple[int, int]]:
    return list(Ranges.concat(source.extents()).merged())


def test_extents_are_the_files_data(tmp_path: Path) -> None:
    pieces = {MiB: b"a" * 4096, 5 * MiB: b"b" * 8192}
    source = FileSource(str(disks.write(tmp_path / "d", 9 * MiB, pieces)))
    assert extents(source) == [(MiB, MiB + 4096), (5 * MiB, 5 * MiB + 8192)]
    assert read(source, MiB + 4000, 200) == b"a" * 96 + bytes(104)


def test_many_extents_come_in_groups(tmp_path: Path) -> None:
    pieces = {n * 8 * KiB: b"x" for n in range(3000)}
    source = FileSource(str(disks.write(tmp_path / "d", 24 * MiB, pieces)))
    groups = [len(group) for group in source.extents()]
    assert sum(groups) == 3000
    assert max(groups) <= 1024


@pytest.mark.parametrize("length", [1, 511, 513, 100_001])
def test_an_odd_length_is_padded_and_said_once(tmp_path: Path, length: int) -> None:
    source = FileSource(str(disks.dense(tmp_path / "d", length)))
    assert source.size == -(-length // SECTOR) * SECTOR
    (warning,) = source.warnings
    assert str(length) in warning
    assert f"{source.size - length} zero bytes" in warning
    assert read(source, 0, source.size) == (tmp_path / "d").read_bytes() + bytes(
        source.size - length
    )


def test_identity_is_name_size_and_time(tmp_path: Path) -> None:
    path = disks.dense(tmp_path / "d", SECTOR)
    before = FileSource(str(path)).identity
    assert FileSource(str(path)).identity == before
    os.utime(path, (7, 7))
    after = FileSource(str(path)).identity
    assert after != before
    assert after.timestamp == 7


def test_an_input_that_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    for name, words in [
        ("missing", "No such file"),
        ("empty", "is empty"),
        ("fifo", "neither a file nor a block device"),
        (".", "is a folder"),
    ]:
        with pytest.raises(SourceUnreadable, match=words):
            FileSource(str(tmp_path / name))
    with pytest.raises(SourceUnreadable, match="neither"):
        FileSource("/dev/zero")


def test_a_source_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = disks.dense(tmp_path / "d", 4 * MiB)
    source = FileSource(str(path))
    os.truncate(path, 3 * MiB)
    with pytest.raises(SourceTruncated, match=str(3 * MiB)):
        read(source, 2 * MiB, 2 * MiB)
    with pytest.raises(SourceChanged, match="to 3145728 bytes"):
        source.verify()


def test_shrinking_while_it_is_converted_never_gives_silent_zeros(tmp_path: Path) -> None:
    """Cut the file after the first batch: what SEEK_DATA then calls a hole was data."""
    path = disks.dense(tmp_path / "d", 64 * MiB)

    def cut(progress: imgconv.Progress) -> None:
        if progress.done:
            os.truncate(path, 4 * MiB)

    with pytest.raises(imgconv.SourceError):
        imgconv.convert(path, tmp_path / "o.qcow2", progress=cut, threads=1)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_source_that_is_written_to_is_an_error(tmp_path: Path) -> None:
    path = disks.dense(tmp_path / "d", 8 * MiB)

    def touch(progress: imgconv.Progress) -> None:
        os.utime(path, (1, 1))

    with pytest.raises(SourceChanged, match="written to"):
        imgconv.convert(path, tmp_path / "o.qcow2", progress=touch)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_block_device(tmp_path: Path, root: None) -> None:
    path = disks.random_runs(tmp_path / "d", 3 * MiB)
    with loop_device(path, "--read-only") as device:
        report = imgconv.convert(device, tmp_path / "o.raw")
        assert report.virtual_size == 3 * MiB
    assert (tmp_path / "o.raw").read_bytes() == path.read_bytes()


def test_a_device_that_fails_says_at_which_offset(tmp_path: Path, root: None) -> None:
    """A loop device whose file has been cut reports EIO, as a failing disk does."""
    path = disks.dense(tmp_path / "d", 8 * MiB)
    with loop_device(path) as device:
        os.truncate(path, 4 * MiB)
        with pytest.raises(ReadFailed, match="at offset 4194304: Input/output error"):
            imgconv.convert(device, tmp_path / "o.qcow2", source_format="raw", threads=1)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]

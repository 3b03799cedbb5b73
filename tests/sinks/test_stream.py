"""Streams: the same bytes as the file, readers that leave, readers that dawdle."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support import disks
from support.cli import COMMAND, assert_one_line_error
from support.cli import imgconv as command
from support.variants import EVERY

import imgconv
from imgconv.options import describe_options
from imgconv.units import MiB


def options_text(variant: str) -> list[str]:
    """The -O and -o arguments that make a variant."""
    options = EVERY[variant]
    names = [row[0].partition("=")[0] for row in describe_options(type(options))]
    pairs = []
    for name in names:
        value = getattr(options, name)
        if value is not None and value != getattr(type(options)(), name):
            pairs.append(f"{name}={'on' if value is True else value}")
    return ["-O", options.name, *(["-o", ",".join(pairs)] if pairs else [])]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.random_runs(tmp_path_factory.mktemp("raw") / "disk.raw", 21 * MiB + 512)


@pytest.mark.parametrize("variant", EVERY)
def test_standard_output_carries_the_bytes_of_the_file(
    tmp_path: Path, raw: Path, variant: str
) -> None:
    """For vmdk the file has the name that a stream is given: disk.vmdk."""
    path = tmp_path / f"disk.{EVERY[variant].name}"
    imgconv.convert(raw, path, options=EVERY[variant])
    done = subprocess.run(
        [*COMMAND, raw, "-", *options_text(variant)], capture_output=True, check=True
    )
    assert done.stdout == path.read_bytes()


def test_the_extent_name_can_be_given(tmp_path: Path, raw: Path) -> None:
    imgconv.convert(raw, tmp_path / "named.vmdk")
    arguments = ["-O", "vmdk", "-o", "extent_name=named.vmdk", "-q"]
    done = subprocess.run([*COMMAND, raw, "-", *arguments], capture_output=True, check=True)
    assert done.stdout == (tmp_path / "named.vmdk").read_bytes()
    assert done.stderr == b""


def test_a_file_behind_standard_output(tmp_path: Path, raw: Path) -> None:
    """Redirection to a file, after something else has been written to it."""
    imgconv.convert(raw, tmp_path / "disk.qcow2")
    with open(tmp_path / "out", "wb") as out:
        out.write(b"before")
        out.flush()
        subprocess.run([*COMMAND, raw, "-", "-O", "qcow2"], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == b"before" + (tmp_path / "disk.qcow2").read_bytes()


def test_a_fifo_as_output(tmp_path: Path, raw: Path) -> None:
    fifo, found = tmp_path / "fifo.vhd", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    report = imgconv.convert(raw, fifo)
    reader.join()
    assert report.passes == 2
    imgconv.convert(raw, tmp_path / "disk.vhd")
    assert found == [(tmp_path / "disk.vhd").read_bytes()]
    assert fifo.is_fifo()


@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk"])
def test_a_reader_that_goes_away_is_one_quiet_error(tmp_path: Path, name: str) -> None:
    raw = disks.dense(tmp_path / "d.raw", 16 * MiB)
    process = subprocess.Popen(
        [*COMMAND, raw, "-", "-O", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100_000)
    process.stdout.close()
    assert process.wait(30) == 1
    message = process.stderr.read().decode()
    process.stderr.close()
    assert message == "imgconv: error: standard output: its reader closed it\n"


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_a_stream_whose_reader_dawdles(
    tmp_path: Path, number: int, status: int, word: str
) -> None:
    raw = disks.dense(tmp_path / "d.raw", 16 * MiB)
    process = subprocess.Popen(
        [*COMMAND, raw, "-", "-O", "raw"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)  # it has begun, and now stands before a full pipe
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait(20) == status
    assert process.stderr.read().decode() == f"imgconv: {word}\n"
    process.stdout.close()
    process.stderr.close()


def test_a_pipe_of_others_is_not_made_non_blocking(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "d.raw", 512)
    read_end, write_end = os.pipe()
    try:
        subprocess.run([*COMMAND, raw, "-", "-O", "raw"], stdout=write_end, check=True)
        assert os.get_blocking(write_end)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_terminal_takes_no_image(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "d.raw", 512)
    master, terminal = os.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, raw, "-", "-O", "raw"],
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 1
    assert "standard output is a terminal" in done.stderr


def test_a_character_device_is_streamed_to(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "d.raw", 5 * MiB)
    assert command(raw, "/dev/null", "-O", "qcow2").returncode == 0
    assert_one_line_error(command(raw, "/dev/full", "-O", "raw"), "No space left on device")

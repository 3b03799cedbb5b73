"""The command in surroundings that nobody plans for: streams that are closed, full, shared
or somebody else's, names that are slips, systems short of something."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import disks
from support.cli import COMMAND, assert_one_line_error
from support.cli import imgconv as command

from imgconv.units import MiB


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return disks.holes(tmp_path / "disk.raw", 9 * MiB)


@pytest.fixture
def image(tmp_path: Path, raw: Path) -> bytes:
    """What a stream of the disk as qcow2 consists of."""
    return shell(f"{raw} - -O qcow2 -q | cat").stdout


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `imgconv LINE` in a shell; the status is imgconv's."""
    script = f"set -o pipefail; {' '.join(COMMAND)} {line}"
    environ = {**os.environ, **environment}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, check=False, env=environ, timeout=60
    )


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_under_other_names(raw: Path, image: bytes, name: str) -> None:
    done = shell(f"{raw} {name} -O qcow2 | cat")
    assert done.stdout == image
    assert b"qcow2" in done.stderr, "the report is elsewhere"


def test_appending_through_another_name(tmp_path: Path, raw: Path, image: bytes) -> None:
    (tmp_path / "keep").write_bytes(b"kept")
    assert shell(f"{raw} /dev/stdout -O qcow2 >> {tmp_path}/keep").returncode == 0
    assert (tmp_path / "keep").read_bytes() == b"kept" + image


@pytest.mark.parametrize("closed", ["2>&-", "0<&-", "0<&- 2>&-"])
@pytest.mark.parametrize("options", ["", "-q", "--json", "-p", "--json -p"])
def test_closed_streams_do_not_end_up_in_the_image(
    tmp_path: Path, raw: Path, image: bytes, closed: str, options: str
) -> None:
    done = shell(f"{raw} - -O qcow2 {options} {closed} | cat")
    assert done.returncode == 0
    assert done.stdout == image
    assert shell(f"{raw} {tmp_path}/o.qcow2 {options} {closed}").returncode == 0


def test_a_closed_standard_output_takes_no_image_and_needs_no_report(
    tmp_path: Path, raw: Path
) -> None:
    done = shell(f"{raw} - -O qcow2 >&-")
    assert done.returncode == 1
    assert done.stderr == b"imgconv: error: standard output: cannot write at offset 0: " + (
        b"Bad file descriptor\n"
    )
    assert shell(f"{raw} {tmp_path}/o.qcow2 >&-").returncode == 0


@pytest.mark.parametrize("redirection", ["1<>", ">>"])
def test_the_input_as_standard_output(tmp_path: Path, raw: Path, redirection: str) -> None:
    before = raw.read_bytes()
    done = shell(f"{raw} - -O qcow2 {redirection} {raw}")
    assert done.returncode == 2
    assert b"is the input itself" in done.stderr
    assert raw.read_bytes() == before


def test_a_report_that_cannot_be_printed(tmp_path: Path, raw: Path) -> None:
    done = shell(f"{raw} {tmp_path}/o.qcow2 > /dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        b"imgconv: error: standard output: cannot write: No space left on device\n",
    )
    for line in (f"{raw} {tmp_path}/o.qcow2", "-o help", f"measure {raw} -O vhd --json"):
        done = shell(f"{line} | true")
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("options", ["-p", "--json -p"])
def test_progress_that_cannot_be_shown(tmp_path: Path, raw: Path, options: str) -> None:
    assert shell(f"{raw} {tmp_path}/o.qcow2 {options} 2>/dev/full").returncode == 0
    assert shell(f"{raw} {tmp_path}/o.nope --json 2>/dev/full").returncode == 2


def test_names_beyond_the_encoding(tmp_path: Path, raw: Path) -> None:
    name = tmp_path / "é☃.qcow2"
    done = shell(f"{raw} {name}", LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert done.returncode == 0
    assert b"\\u2603.qcow2: qcow2, virtual" in done.stdout


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path, raw: Path) -> None:
    done = command(raw, tmp_path / "a\n\x1b]0;x\a.qcow2")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/dev/sdzz9", "no such device"),
        ("/dev/mapper/none", "no such device"),
        ("new/", "is not the name of a file"),
        ("", "is not the name of a file"),
        ("/dev/tty/x", "no such device"),
    ],
)
def test_slips(tmp_path: Path, raw: Path, name: str, words: str) -> None:
    done = command(raw, name, "-O", "raw", cwd=tmp_path)
    assert_one_line_error(done, words)
    assert [p.name for p in tmp_path.iterdir()] == ["disk.raw"]


def test_a_folder_that_has_gone(tmp_path: Path, raw: Path) -> None:
    gone = tmp_path / "gone"
    script = f"mkdir {gone}; cd {gone}; rmdir {gone}; {' '.join(COMMAND)} {raw} o.qcow2"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert_one_line_error(done, "No such file or directory")


def test_option_help_in_every_spelling(raw: Path) -> None:
    for words in (["-ohelp"], ["-o=help"], ["-o", "cluster_size=4k,help"]):
        done = command("-O", "qcow2", *words)
        assert done.returncode == 0
        assert "cluster_size" in done.stdout


def test_half_an_option_is_no_option(raw: Path, tmp_path: Path) -> None:
    assert_one_line_error(command(raw, tmp_path / "o.raw", "--js"), "--js", status=2)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize("blocking", [True, False])
def test_a_socket_that_stalls_can_be_left(
    tmp_path: Path, number: int, status: int, blocking: bool
) -> None:
    raw = disks.dense(tmp_path / "d.raw", 32 * MiB)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(blocking)
        # Whoever runs the tests may have been started with some of these signals ignored.
        heedful = ["env", "--default-signal", *COMMAND]
        process = subprocess.Popen(
            [*heedful, raw, "-", "-O", "raw", "--json"], stdout=theirs, stderr=subprocess.PIPE
        )
        assert ours.recv(1)
        time.sleep(0.3)
        process.send_signal(number)
        _, message = process.communicate(timeout=20)
    assert process.returncode == status
    assert json.loads(message.splitlines()[-1])["error"]["code"] == "cancelled"


def test_a_whole_image_through_a_socket(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "d.raw", 3 * MiB)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen([*COMMAND, raw, "-", "-O", "raw", "-q"], stdout=theirs)
        found = b"".join(iter(lambda: ours.recv(MiB), b""))
    assert process.wait(20) == 0
    assert found == raw.read_bytes()


def test_nohup_is_respected(tmp_path: Path) -> None:
    raw = disks.dense(tmp_path / "d.raw", 32 * MiB)
    process = subprocess.Popen(
        ["nohup", *COMMAND, raw, "-", "-O", "raw", "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process.stdout as stream:
        content = stream.read(1)
        process.send_signal(signal.SIGHUP)
        content += stream.read()
    assert process.wait(20) == 0
    assert content == raw.read_bytes()


def test_a_system_short_of_memory(tmp_path: Path, raw: Path) -> None:
    """Fewer threads than asked for, or one line; never a traceback."""
    for limit in (250, 400, 700, 1500):
        done = subprocess.run(
            [*COMMAND, raw, tmp_path / "o.qcow2", "-m", "256"],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda limit=limit: resource.setrlimit(
                resource.RLIMIT_AS, (limit * MiB, limit * MiB)
            ),
        )
        assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
        assert done.returncode in (0, 1), done.stderr


INTERRUPTED = r"""
import os, signal, sys, threading, time
from imgconv.workers import Stop, run

def work(task, turn):
    time.sleep(0.7)
    os.write(1, b"worked\n")

def kill():
    for pause in (0.2, 0.1, 0.1):
        time.sleep(pause)
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=kill).start()
try:
    run(range(99), lambda: work, threads=2, stop=Stop())
except KeyboardInterrupt:
    os.write(1, b"left\n")
"""


def test_no_thread_outlives_an_interrupted_call() -> None:
    """Not even after the second and third Ctrl-C."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["worked", "worked", "left"]

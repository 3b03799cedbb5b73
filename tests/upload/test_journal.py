"""The journal: what was written is read, whatever happened meanwhile."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.mounts import mounted

from imgconv.errors import OutputRefused, SourceChanged, UsageError, WriteFailed
from imgconv.objectstore import Part, Upload
from imgconv.upload.journal import Job, Journal, default_path, recorded_uploads

JOB = Job(
    target="s3://b/k",
    disk="d.raw:1:2",
    identity="me",
    virtual_size=1,
    format="Raw()",
    cuts="Cuts(1, 2)",
)
UPLOAD = Upload("k", "an id", 12.5)
PARTS = [Part(2, 10, "abc", 7), Part(1, 5, "def", (1 << 64) - 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "j.journal"


def written(path: Path) -> bytes:
    journal = Journal(str(path), JOB)
    journal.begun(UPLOAD, "token")
    for part in PARTS:
        journal.took(part)
    journal.close()
    return path.read_bytes()


def test_what_was_noted_is_known_again(path: Path) -> None:
    written(path)
    journal = Journal(str(path), JOB)
    assert (journal.upload, journal.token, journal.parts) == (UPLOAD, "token", PARTS)
    journal.delete()
    assert not path.exists()


def test_a_torn_end_loses_only_itself(path: Path) -> None:
    content = written(path)
    first_line = content.index(b"\n") + 1
    for length in range(first_line, len(content)):
        path.write_bytes(content[:length])
        journal = Journal(str(path), JOB)
        assert journal.parts == PARTS[: len(journal.parts)]
        journal.took(Part(9, 1, "new", 1))
        journal.close()
        again = Journal(str(path), JOB)
        assert again.parts[-1].number == 9
        again.close()


def test_its_uploads_are_told_while_it_is_open(path: Path) -> None:
    """To whoever cleans up: all that were begun, the last of them perhaps torn."""
    assert recorded_uploads(str(path)) == []
    first = len(written(path))
    journal = Journal(str(path), JOB)
    other = replace(UPLOAD, id="another id")
    journal.begun(other, "token")
    assert recorded_uploads(str(path)) == [UPLOAD, other]
    journal.close()
    path.write_bytes(path.read_bytes()[: first + 20])
    assert recorded_uploads(str(path)) == [UPLOAD]
    path.unlink()
    path.mkdir()
    with pytest.raises(WriteFailed, match="directory"):
        recorded_uploads(str(path))


def test_a_flipped_bit_ends_it(path: Path) -> None:
    content = written(path)
    lines = content.splitlines(keepends=True)
    lines[2] = lines[2].replace(b"10", b"11", 1)
    path.write_bytes(b"".join(lines))
    journal = Journal(str(path), JOB)
    assert (journal.upload, journal.parts) == (UPLOAD, [])
    journal.close()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"disk": "d.raw:1:3"}, SourceChanged),
        ({"virtual_size": 2}, SourceChanged),
        ({"format": "Qcow2()"}, UsageError),
        ({"cuts": "Cuts(5, 5)"}, UsageError),
        ({"identity": "you"}, UsageError),
        ({"target": "s3://b/other"}, UsageError),
    ],
)
def test_another_job_is_refused(
    path: Path, change: dict[str, object], error: type[Exception]
) -> None:
    before = written(path)
    with pytest.raises(error, match="delete"):
        Journal(str(path), replace(JOB, **change))  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_two_runs_cannot_share_one(path: Path) -> None:
    first = Journal(str(path), JOB)
    with pytest.raises(OutputRefused, match="another run"):
        Journal(str(path), JOB)
    first.close()
    Journal(str(path), JOB).close()


def test_the_lock_ends_with_the_process(path: Path) -> None:
    code = (
        "import os, signal, sys; from imgconv.upload.journal import *;"
        f"j = Journal({str(path)!r}, Job(**{ {f: getattr(JOB, f) for f in JOB.__slots__}!r}));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    Journal(str(path), JOB).close()


def test_it_is_for_nobody_else_to_read(path: Path) -> None:
    written(path)
    assert path.stat().st_mode & 0o077 == 0


def write_many(journal: Journal) -> None:
    for _ in range(1000):
        journal.took(PARTS[0])


@pytest.mark.usefixtures("root")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs") as small:
        journal = Journal(str(small / "j"), JOB)
        journal.begun(UPLOAD, "token")
        with pytest.raises(WriteFailed, match="No space left"):
            write_many(journal)
        journal.close()
        again = Journal(str(small / "j"), JOB)
        assert again.parts
        again.close()


@pytest.mark.parametrize("strange", ["/dev/zero", "/dev/full"])
def test_a_device_is_no_journal(strange: str) -> None:
    with pytest.raises(UsageError, match="not a journal"):
        Journal(strange, JOB)


def test_something_else_is_not_taken_for_a_journal(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a journal, but precious\n")
    with pytest.raises(UsageError, match="not a journal"):
        Journal(str(path), JOB)
    assert path.read_bytes() == b"not a journal, but precious\n"


def test_each_object_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_path("s3://b/k").startswith("/state/imgconv/uploads/")
    assert default_path("s3://b/k") != default_path("s3://b/l")

"""What is remembered of an upload on this machine, so that it survives the process.

An append-only file of lines: a CRC-32C in hexadecimal, a space, one JSON array. The
first says what is being made; then the upload, each part the store has taken, and the
intention to complete. A line torn by a crash ends the file: all before it holds. It is
locked while it is open, contains no secret, and is deleted when the object is there.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from errno import ENOSPC
from hashlib import sha256
from stat import S_ISREG
from typing import Any

from imgconv.errors import OutputRefused, SourceChanged, UsageError, WriteFailed
from imgconv.native import CRC32C
from imgconv.objectstore import Part, Upload
from imgconv.units import KiB

VERSION = 1
MAX_LINE = 64 * KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that decides which bytes are made, and where they go.

    Two runs with equal jobs make the same object. `target` is a URL, `disk` the text of
    the source's identity, `format` the output format with all its options as text, `cuts`
    how it is cut into parts as text.
    """

    target: str
    disk: str
    identity: str
    virtual_size: int
    format: str
    cuts: str


def default_path(target: str) -> str:
    """Return where the journal of an upload to this URL is kept unless the user says."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    name = sha256(target.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return os.path.join(base, "imgconv", "uploads", f"{name}.journal")


class Journal:
    """A journal that is open, and what was in it when it was opened.

    `upload`, `token` and `parts` are what an earlier run of the same job left behind.
    """

    def __init__(self, path: str, job: Job):
        self._path = path
        self.upload: Upload | None = None
        self.token = ""
        self.parts: list[Part] = []
        self._earlier: dict[str, Any] = {}  # the job, as it was then
        with _failures_named(path):
            self._fd = _open_locked(path)
        try:
            self._load(job)
        except BaseException:
            self.close()
            raise

    def _load(self, job: Job) -> None:
        good = 0
        with open(self._fd, "rb", closefd=False) as file:
            while (record := _parse(raw := file.readline(MAX_LINE))) is not None:
                self._take(record, first=good == 0)
                good += len(raw)
        status = os.fstat(self._fd)
        if not S_ISREG(status.st_mode) or (status.st_size and not good):
            raise self._no_journal()
        if self.upload is None:
            good = 0  # nothing was begun, so another job may take its place
        else:
            self._compare(job)
        with _failures_named(self._path):
            os.ftruncate(self._fd, good)
        if good == 0:
            self._append("job", VERSION, asdict(job))

    def _no_journal(self) -> UsageError:
        return UsageError(f"{self._path}: is not a journal of imgconv")

    def _take(self, record: list[Any], *, first: bool) -> None:
        match record:
            case ["job", int(version), dict(earlier)] if first:
                if version != VERSION:
                    raise UsageError(f"{self._path}: written by another version of imgconv")
                self._earlier = earlier
            case ["upload", str(key), str(upload_id), float(started), str(token)]:
                self.upload, self.token = Upload(key, upload_id, started), token
                self.parts = []
            case ["part", int(number), int(length), str(etag), crc]:
                self.parts.append(Part(number, length, etag, crc))
            case _:
                raise self._no_journal()

    def _compare(self, job: Job) -> None:
        """Refuse to go on with something else than what was begun."""
        for f in fields(job):
            before, now = self._earlier.get(f.name), getattr(job, f.name)
            if before == now:
                continue
            what = f"{f.name} was {before} when the upload began and is {now} now"
            advice = f"to begin anew, delete {self._path}"
            if f.name in ("disk", "virtual_size"):
                raise SourceChanged(f"the source changed since: {what}; {advice}")
            raise UsageError(f"{what}; {advice}")

    def _append(self, *record: object) -> None:
        text = json.dumps(record).encode()
        line = b"%08x %s\n" % (CRC32C.update(text), text)
        with _failures_named(self._path):
            if os.write(self._fd, line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC))

    def begun(self, upload: Upload, token: str) -> None:
        """Remember the upload before its first part is sent, whatever happens."""
        self.upload, self.token, self.parts = upload, token, []
        self._append("upload", upload.key, upload.id, float(upload.started), token)
        with _failures_named(self._path):
            os.fsync(self._fd)

    def took(self, part: Part) -> None:
        """Remember a part the store has taken; lost in a power cut, it is found again."""
        self._append("part", part.number, part.length, part.etag, part.crc)

    def delete(self) -> None:
        """Forget it all: the object is there, or the upload is gone."""
        with _failures_named(self._path):
            os.unlink(self._path)
        self.close()

    def close(self) -> None:
        """Close the file, keeping it; harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def recorded_uploads(path: str) -> list[Upload]:
    """Return the uploads that a journal tells of, none when there is no journal.

    Raises WriteFailed when it cannot be read.
    """
    found = []
    with _failures_named(path), suppress(FileNotFoundError), open(path, "rb") as file:
        while (record := _parse(file.readline(MAX_LINE))) is not None:
            match record:
                case ["upload", str(key), str(upload_id), float(started), str()]:
                    found.append(Upload(key, upload_id, started))
    return found


@contextmanager
def _failures_named(path: str) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise OutputRefused(f"{path}: another run is at this upload") from error
    except OSError as error:
        raise WriteFailed(path, error.strerror or str(error)) from error


def _open_locked(path: str) -> int:
    """Open or create the file, locked; BlockingIOError when somebody else has it."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # whoever had the lock deleted the file meanwhile


def _parse(raw: bytes) -> list[Any] | None:
    """Return the record of a line, None when it is torn."""
    checksum, _, text = raw.rstrip(b"\n").partition(b" ")
    try:
        if not raw.endswith(b"\n") or int(checksum, 16) != CRC32C.update(text):
            return None
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, list) else None

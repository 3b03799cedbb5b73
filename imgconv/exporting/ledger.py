"""What is remembered of tasks: one SQLite file that any number of workers share.

A row of `task` says who works on it until when, so that it is the lock on its names as well
(rows of `lock` say which those are): there is no second place that could disagree. Rows that
are decided upon and then changed are so in one immediate transaction.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from time import time
from typing import Any

from imgconv.errors import UsageError, WriteFailed
from imgconv.exporting.errors import (
    ConcurrentQuotaExceeded,
    ExportImageFailed,
    ImageIsExporting,
)
from imgconv.exporting.owner import LEASE_SECONDS, is_alive
from imgconv.exporting.plan import Plan
from imgconv.exporting.state import DiskState, Status, TaskState

_VERSION = 2
_APPLICATION = 0x696D6763  # "imgc"
_PATIENCE = 30.0  # seconds, until somebody else's change must be over
_SCHEMA = """
CREATE TABLE task (
    id TEXT PRIMARY KEY, request TEXT NOT NULL, target TEXT NOT NULL, plan TEXT NOT NULL,
    status TEXT NOT NULL, code TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    owner TEXT NOT NULL DEFAULT '', lease REAL NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, changed REAL NOT NULL
) STRICT;
CREATE TABLE disk (
    task TEXT NOT NULL REFERENCES task, number INTEGER NOT NULL, status TEXT NOT NULL,
    done INTEGER NOT NULL DEFAULT 0, wire INTEGER NOT NULL DEFAULT 0,
    parts INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0,
    rate REAL NOT NULL DEFAULT 0, result TEXT,
    PRIMARY KEY (task, number)
) STRICT;
CREATE TABLE lock (
    name TEXT NOT NULL, task TEXT NOT NULL REFERENCES task, PRIMARY KEY (name, task)
) STRICT;
"""


def default_state() -> str:
    """Return where tasks are remembered unless the user says."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "imgconv", "exports", "tasks.sqlite")


class Ledger:
    """The tasks in a file; safe for many threads and processes of one machine."""

    def __init__(self, path: str):
        self.path = path
        folder = os.path.dirname(os.path.abspath(path))
        with self._failures_named():
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mknod(path, 0o600)  # unlike open and close, frees no lock of this process
        # SQLite refuses one of two that make a new file, at once, lest both wait for ever.
        with self._failures_named(), _alone_in(folder), self._open() as db:
            self._prepare(db)

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        with _changing(db):
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {_VERSION}")
            elif (application, version) != (_APPLICATION, _VERSION):
                raise UsageError(f"{self.path}: holds no tasks of this version of imgconv")

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise UsageError(f"{self.path}: holds no tasks of imgconv") from error
            raise WriteFailed(self.path, str(error)) from error
        except OSError as error:
            raise WriteFailed(self.path, error.strerror or str(error)) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._failures_named():
            db = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            with closing(db):
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA synchronous = FULL")
                yield db

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db, _changing(db):
            yield db

    def add(self, task: str, plan: Plan, mark: str, most: int | None) -> tuple[str, ...]:
        """Remember a new task, which its worker has locked.

        Returns the tasks for the same names whose workers are gone: what they left has to
        be removed. Until then they are this worker's too, for they may have had further
        names, which nobody else may take meanwhile. Raises ImageIsExporting, and
        ConcurrentQuotaExceeded when `most` others are at work.
        """
        now = time()
        with self._change() as db:
            others = _others(db, task, plan.locks)
            self._refuse(db, others, most, now)
            self._insert(db, task, plan, mark, now)
            cut_off = tuple(row["id"] for row in others if not Status(row["status"]).over)
            for other in cut_off:
                self._own(db, other, mark, now)
        return cut_off

    def _refuse(
        self, db: sqlite3.Connection, others: list[sqlite3.Row], most: int | None, now: float
    ) -> None:
        """Raise unless another task may begin; `others` have names in common with it."""
        for row in others:
            if _is_active(row, now):
                raise ImageIsExporting(f"{row['name']}: {row['id']} is at it")
        rows = db.execute(
            "SELECT owner, max(lease) AS lease FROM task WHERE owner <> '' GROUP BY owner"
        ).fetchall()
        active = sum(_is_active(row, now) for row in rows)
        if most is not None and active >= most:
            raise ConcurrentQuotaExceeded(f"{active} exports are running, and {most} may")

    def _insert(
        self, db: sqlite3.Connection, task: str, plan: Plan, mark: str, now: float
    ) -> None:
        db.execute(
            "INSERT INTO task"
            " (id, request, target, plan, status, owner, lease, created, changed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(task, plan.request.request_id, plan.target, plan.text(), Status.WAITING),
                *(mark, now + LEASE_SECONDS, now, now),
            ),
        )
        for name in plan.locks:
            db.execute("INSERT INTO lock (name, task) VALUES (?, ?)", (name, task))
        for number in range(len(plan.disks)):
            row = (task, number, Status.WAITING)
            db.execute("INSERT INTO disk (task, number, status) VALUES (?, ?, ?)", row)

    def claim(self, task: str, mark: str, most: int | None = None) -> TaskState:
        """Lock a task that nobody works on, to go on with it or to end it.

        Raises as `add` does, and UsageError when there is no such task.
        """
        now = time()
        with self._change() as db:
            self._row(db, task)
            names = db.execute("SELECT name FROM lock WHERE task = ?", (task,)).fetchall()
            self._refuse(db, _others(db, "", [row["name"] for row in names]), most, now)
            self._own(db, task, mark, now)
            return self._state(db, self._row(db, task))

    def _own(self, db: sqlite3.Connection, task: str, mark: str, now: float) -> None:
        db.execute(
            "UPDATE task SET owner = ?, lease = ?, cancel = 0, changed = ? WHERE id = ?",
            (mark, now + LEASE_SECONDS, now, task),
        )

    def beat(self, task: str, mark: str, disks: dict[int, DiskState]) -> bool:
        """Note how far the disks are and renew the lease; say whether to cancel.

        Raises ImageIsExporting when another worker has taken the task over, which may have
        been forgotten since.
        """
        now = time()
        with self._change() as db:
            row = db.execute("SELECT owner, cancel FROM task WHERE id = ?", (task,)).fetchone()
            if row is None or row["owner"] != mark:
                raise ImageIsExporting(f"{task}: another worker has taken it over")
            db.execute(
                "UPDATE task SET lease = ?, changed = ? WHERE id = ?",
                (now + LEASE_SECONDS, now, task),
            )
            for number, disk in disks.items():
                self._note(db, task, number, disk)
            return bool(row["cancel"])

    def _note(self, db: sqlite3.Connection, task: str, number: int, disk: DiskState) -> None:
        result = None if disk.result is None else json.dumps(disk.result)
        db.execute(
            "UPDATE disk SET status = ?, done = ?, wire = ?, parts = ?, retries = ?, rate = ?,"
            " result = ? WHERE task = ? AND number = ?",
            (
                *(disk.status, disk.done, disk.wire, disk.parts, disk.retries, disk.rate),
                *(result, task, number),
            ),
        )

    def set_status(
        self, task: str, mark: str, status: Status, *, code: str = "", message: str = ""
    ) -> None:
        """Note what has become of a task; the worker of one that is over owns nothing more."""
        with self._change() as db:
            db.execute(
                "UPDATE task SET status = ?, code = ?, message = ?, changed = ?"
                " WHERE id = ? AND owner = ?",
                (status, code, message, time(), task, mark),
            )
            if status.over:
                db.execute("UPDATE task SET owner = '' WHERE owner = ?", (mark,))
            if status is Status.FINISHED:  # the manifest has the tables of parts
                db.execute(
                    "UPDATE disk SET result = json_remove(result, '$.receipt.parts')"
                    " WHERE task = ?",
                    (task,),
                )

    def forget_results(self, task: str, mark: str) -> None:
        """Note that none of the objects that a task of ours has made is there any more."""
        ours = "task IN (SELECT id FROM task WHERE id = ? AND owner = ?)"
        with self._change() as db:
            db.execute(f"UPDATE disk SET done = 0, result = NULL WHERE {ours}", (task, mark))
            db.execute(
                f"UPDATE disk SET status = ? WHERE status = ? AND {ours}",
                (Status.CANCELLED, Status.FINISHED, task, mark),
            )

    def supersede(self, task: str, by: str) -> None:
        """Note that another task has taken the place of one whose worker is gone, and
        removed what that had left."""
        with self._change() as db:
            db.execute(
                "UPDATE task SET status = ?, code = ?, message = ?, owner = '', changed = ?"
                " WHERE id = ?",
                (Status.CANCELLED, ExportImageFailed.code, f"superseded by {by}", time(), task),
            )

    def forget(self, task: str) -> None:
        """Remove the rows of a task of which nothing can be left but its objects.

        Raises UsageError for one that is not Finished or Cancelled, and when there is none.
        """
        with self._change() as db:
            row = self._row(db, task)
            if not _is_settled(row, time()):
                raise UsageError(
                    f"{task}: is {row['status']}; imgconv tasks cancel removes what it may "
                    "have left, then it can be forgotten"
                )
            self._delete(db, task)

    def forget_before(self, moment: float) -> int:
        """Do so with all such tasks that have not changed since; return how many.

        A worker that has just ended one may still want to read how, so none is forgotten
        before its lease would have run out.
        """
        moment = min(moment, time() - LEASE_SECONDS)
        with self._change() as db:
            rows = db.execute("SELECT * FROM task WHERE changed < ?", (moment,)).fetchall()
            settled = [row["id"] for row in rows if _is_settled(row, time())]
            for task in settled:
                self._delete(db, task)
        return len(settled)

    def _delete(self, db: sqlite3.Connection, task: str) -> None:
        db.execute("DELETE FROM lock WHERE task = ?", (task,))
        db.execute("DELETE FROM disk WHERE task = ?", (task,))
        db.execute("DELETE FROM task WHERE id = ?", (task,))

    def ask_to_cancel(self, task: str) -> None:
        """Have whoever works on a task stop."""
        with self._change() as db:
            self._row(db, task)
            db.execute("UPDATE task SET cancel = 1 WHERE id = ?", (task,))

    def get(self, task: str, *, brief: bool = False) -> TaskState:
        """Return what is known of a task; UsageError when there is none of this id.

        If `brief`, without the results of the disks, which may be megabytes.
        """
        with self._open() as db:
            return self._state(db, self._row(db, task), brief)

    def all(self) -> list[TaskState]:
        """Return all tasks, the oldest first, without the results of the disks."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM task ORDER BY created, id").fetchall()
            return [self._state(db, row, True) for row in rows]

    def plan(self, task: str) -> Plan:
        """Return what a task is to do."""
        with self._open() as db:
            return Plan.from_text(self._row(db, task)["plan"])

    def _row(self, db: sqlite3.Connection, task: str) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM task WHERE id = ?", (task,)
        ).fetchone()
        if row is None:
            raise UsageError(f"{task}: there is no such task in {self.path}")
        return row

    def _state(
        self, db: sqlite3.Connection, row: sqlite3.Row, brief: bool = False
    ) -> TaskState:
        plan = json.loads(row["plan"])
        result = "NULL AS result" if brief else "result"
        found = db.execute(
            f"SELECT status, done, wire, parts, retries, rate, {result} FROM disk"
            " WHERE task = ? ORDER BY number",
            (row["id"],),
        )
        disks = zip(plan["disks"], found.fetchall(), strict=True)
        return TaskState(
            task_id=row["id"],
            request_id=row["request"],
            image_id=plan["request"]["image_id"],
            target=row["target"],
            status=Status(row["status"]),
            active=_is_active(row, time()),
            cancelling=bool(row["cancel"]),
            code=row["code"],
            message=row["message"],
            created=row["created"],
            changed=row["changed"],
            disks=tuple(_disk_state(disk, found) for disk, found in disks),
        )


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Hold a lock on a folder, until when any number of others wait."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _changing(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _others(db: sqlite3.Connection, task: str, names: Sequence[str]) -> list[sqlite3.Row]:
    """Return the tasks, but for one, that have some of the names; each with one of these."""
    return db.execute(
        "SELECT task.*, min(lock.name) AS name FROM lock JOIN task ON task.id = lock.task"
        f" WHERE lock.name IN ({', '.join('?' * len(names))}) AND task.id <> ?"
        " GROUP BY task.id ORDER BY created, id",
        (*names, task),
    ).fetchall()


def _is_active(row: sqlite3.Row, now: float) -> bool:
    return bool(row["owner"]) and is_alive(row["owner"], row["lease"], now)


def _is_settled(row: sqlite3.Row, now: float) -> bool:
    over = row["status"] in (Status.FINISHED, Status.CANCELLED)
    return over and not _is_active(row, now)


def _disk_state(plan: dict[str, Any], row: sqlite3.Row) -> DiskState:
    return DiskState(
        name=plan["name"],
        format=plan["format"],
        bucket=plan["bucket"],
        key=plan["key"],
        total=plan["size"],
        status=Status(row["status"]),
        done=row["done"],
        wire=row["wire"],
        parts=row["parts"],
        retries=row["retries"],
        rate=row["rate"],
        result=None if row["result"] is None else json.loads(row["result"]),
    )

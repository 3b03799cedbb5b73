"""The pulse of a task: in the background, its progress is noted, its lease renewed, and
whoever wants it cancelled is heard."""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Self

from imgconv.errors import ImgconvError
from imgconv.exporting.errors import ImageIsExporting
from imgconv.exporting.ledger import Ledger
from imgconv.exporting.state import DiskState, Status, TaskState
from imgconv.progress import Progress, Watcher
from imgconv.workers import Condition, Lock, Pool

BEAT_SECONDS = 0.5


class Monitor:
    """Keeps the ledger up to date while disks are converted; used by `with`.

    `progress` hears of every change of any disk, summed up; `on_beat` of the task's state
    now and then. `cancelled` is the caller's own wish.
    """

    def __init__(
        self,
        ledger: Ledger,
        task: TaskState,
        mark: str,
        *,
        cancelled: Callable[[], bool] | None,
        progress: Watcher | None,
        on_beat: Callable[[TaskState], object],
    ):
        self._ledger, self._task, self._mark = ledger, task, mark
        self._cancelled, self._progress, self._on_beat = cancelled, progress, on_beat
        self.disks = list(task.disks)
        self._latest: dict[int, Progress] = {}
        self._changed = set[int]()
        self._before = {n: (monotonic(), disk.done) for n, disk in enumerate(self.disks)}
        self._condition, self._writing = Condition(), Lock()
        self._over = False
        self._asked = self._lost = False
        self.error: Exception | None = None
        self._pool = Pool(1, "imgconv-export-pulse")

    def __enter__(self) -> Self:
        self._pool.submit(self._loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._condition:
            self._over = True
            self._condition.notify_all()
        self._pool.close()

    @property
    def asked(self) -> bool:
        """Whether somebody, in any process, asked to cancel this very task."""
        return self._asked

    @property
    def lost(self) -> bool:
        """Whether another worker had taken the task over, the last time that we looked."""
        return self._lost

    def is_set(self) -> bool:
        """Say whether to stop, for whatever reason."""
        wished = self._cancelled is not None and self._cancelled()
        return self._asked or self.error is not None or wished

    def watch(self, number: int) -> Watcher:
        """Return what is told of the progress of a disk."""

        def watch(now: Progress) -> None:
            with self._condition:
                self.disks[number] = replace(
                    self.disks[number],
                    done=now.done,
                    wire=now.wire,
                    parts=now.parts,
                    retries=now.retries,
                )
                self._latest[number] = now
                self._changed.add(number)
                if self._progress is not None:
                    self._progress(self._sum())

        return watch

    def _sum(self) -> Progress:
        seen = self._latest.values()
        return Progress(
            "convert",
            sum(disk.done for disk in self.disks),
            self._task.total,
            sum(now.data for now in seen),
            sum(now.written for now in seen),
            sum(disk.wire for disk in self.disks),
            sum(disk.parts for disk in self.disks),
            sum(disk.retries for disk in self.disks),
        )

    def note(self, number: int, disk: DiskState) -> None:
        """Note what has become of a disk, at once."""
        with self._condition:
            self.disks[number] = disk
            self._changed.add(number)
        self.beat()

    def status(self, number: int, status: Status) -> DiskState:
        """Return a disk's state with another status."""
        return replace(self.disks[number], status=status)

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._over, BEAT_SECONDS)
                if self._over:
                    return
            try:
                self.beat()
                self._on_beat(self._ledger.get(self._task.task_id, brief=True))
            except Exception as error:  # a listener's too: whoever waits has to hear of it
                self.error = self.error or error
                return

    def beat(self) -> None:
        """Write down what changed. Raises what the ledger does."""
        with self._writing:  # so that nobody writes what was, over what another wrote since
            with self._condition:
                changed = {number: self._measured(number) for number in self._changed}
                self._changed.clear()
            try:
                self._asked |= self._ledger.beat(self._task.task_id, self._mark, changed)
            except ImgconvError as error:
                self._lost |= isinstance(error, ImageIsExporting)
                self.error = self.error or error
                raise

    def _measured(self, number: int) -> DiskState:
        """Return a disk's state with its speed since the last time."""
        disk, moment = self.disks[number], monotonic()
        at, done = self._before[number]
        self._before[number] = moment, disk.done
        running = disk.status is Status.PROCESSING and moment > at
        rate = max(disk.done - done, 0) / (moment - at) if running else 0.0
        self.disks[number] = replace(disk, rate=rate)
        return self.disks[number]

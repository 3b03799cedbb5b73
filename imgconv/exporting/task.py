"""A task in hand: what is returned when a request was accepted."""

from collections.abc import Callable

from imgconv.errors import ImgconvError, StoreUnavailable, UsageError
from imgconv.exporting.callbacks import called_by, is_called_by
from imgconv.exporting.cleanup import clean_up
from imgconv.exporting.errors import ExportImageFailed
from imgconv.exporting.events import Listener, nobody
from imgconv.exporting.ledger import Ledger
from imgconv.exporting.owner import our_mark
from imgconv.exporting.plan import Plan
from imgconv.exporting.request import ExportLimits
from imgconv.exporting.state import Status, TaskState
from imgconv.exporting.work import Work
from imgconv.fleet.executors import Submits
from imgconv.progress import Watcher
from imgconv.workers import Condition, Pool

_NOTICE_SECONDS = 0.2


def _ignore(state: TaskState) -> None:
    pass


class ExportTask:
    """An export: known by its id on this machine, and to every process with its state file.

    Made by `imgconv.export`, or from the id alone: then it tells how the task stands, and
    can cancel or resume it.
    """

    def __init__(self, task_id: str, ledger: Ledger, *, mark: str | None = None):
        self.task_id = task_id
        self._ledger, self._mark = ledger, mark
        self._plan: Plan = ledger.plan(task_id)
        self._changed = Condition()
        self._running = self._started = False
        self._error: BaseException | None = None

    @property
    def request_id(self) -> str:
        """By which the caller knows the request."""
        return self.state().request_id

    @property
    def objects(self) -> dict[str, str]:
        """The URLs of the objects by disk, and that of the manifest, known from the start.

        Those in further formats are called "system:vhd", "data_xvdb:raw", ...
        """
        plan = self._plan
        first = plan.request.image_format
        urls = {
            disk.name if disk.format == first else f"{disk.name}:{disk.format}": plan.url(disk)
            for disk in plan.disks
        }
        return urls | {"manifest": plan.target}

    @property
    def manifest(self) -> str:
        """The URL of the manifest."""
        return self._plan.target

    def state(self) -> TaskState:
        """Return how the task stands at this moment."""
        return self._ledger.get(self.task_id)

    @property
    def status(self) -> Status:
        """Waiting, Processing, Finished, Failed or Cancelled."""
        return self.state().status

    @property
    def process(self) -> str:
        """The service's TaskProcess, such as "55%"."""
        return self.state().process

    def run(
        self,
        *,
        progress: Watcher | None = None,
        listener: Listener = nobody,
        on_beat: Callable[[TaskState], object] = _ignore,
        cancelled: Callable[[], bool] | None = None,
        limits: ExportLimits | None = None,
        executor: Submits | None = None,
    ) -> None:
        """Carry the task out, here and now, from where it stands.

        `limits` are those of its request unless given; `executor` is as in `export`. Raises
        ExportErrors, and Cancelled. What is over cannot be run, unless it failed.
        """
        self._running = True
        try:
            state = self._claimed(limits.exports if limits else self._plan.exports)
            if state.status in (Status.FINISHED, Status.CANCELLED):
                self._ledger.set_status(self.task_id, self._owned(), state.status)
                raise UsageError(f"{self.task_id}: is {state.status}, and cannot go on")
            work = self._work(state, progress, listener, on_beat, cancelled, executor)
            work.carry_out()
        finally:
            self._mark = None
            self._running = False

    def _work(
        self,
        state: TaskState,
        progress: Watcher | None,
        listener: Listener,
        on_beat: Callable[[TaskState], object],
        cancelled: Callable[[], bool] | None,
        executor: Submits | None,
    ) -> Work:
        return Work(
            self._ledger,
            state,
            self._plan,
            self._owned(),
            cancelled=cancelled and called_by(self.task_id, cancelled),
            progress=progress and called_by(self.task_id, progress),
            listener=called_by(self.task_id, listener),
            on_beat=called_by(self.task_id, on_beat),
            executor=executor,
        )

    def _claimed(self, most: int | None = None) -> TaskState:
        if self._mark is not None:  # since it was accepted
            return self.state()
        mark = our_mark()
        state = self._ledger.claim(self.task_id, mark, most)
        self._mark = mark
        return state

    def _owned(self) -> str:
        assert self._mark is not None
        return self._mark

    def start(
        self,
        *,
        progress: Watcher | None = None,
        listener: Listener = nobody,
        on_beat: Callable[[TaskState], object] = _ignore,
        executor: Submits | None = None,
    ) -> None:
        """Carry the task out in the background; `wait` tells how it ended."""

        def background() -> None:
            try:
                self.run(
                    progress=progress, listener=listener, on_beat=on_beat, executor=executor
                )
            except BaseException as error:
                self._error = error
            with self._changed:
                self._started = False
                self._changed.notify_all()
            pool.close(0)  # so that its thread, which this is, ends too

        self._running = self._started = True
        pool = Pool(1, "imgconv-export")
        pool.submit(background)

    def wait(self, seconds: float | None = None) -> TaskState:
        """Wait until a task that was started here is over, at most so long.

        Raises why it failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._started, seconds)
            error, self._error = self._error, None
        if error is not None:
            raise error
        return self.state()

    def cancel(self, *, wait: bool = True) -> TaskState:
        """End the task, and remove all it has put anywhere.

        If a worker is at it, that one is asked to, and `wait` waits until it has; in a
        function that the task itself calls (`progress`, `listener`, ...), never: it goes on
        only when that returns. Raises UsageError for a task that is finished.
        """
        state = self.state()
        if state.status is Status.FINISHED:
            raise UsageError(f"{self.task_id}: is Finished, and cannot be cancelled")
        if not state.active or (self._mark is not None and not self._running):
            return self._cancel_here()
        self._ledger.ask_to_cancel(self.task_id)
        wait = wait and not is_called_by(self.task_id)
        while wait and (state := self.state()).active:
            with self._changed:
                self._changed.wait(_NOTICE_SECONDS)
        if wait and state.status not in (Status.FINISHED, Status.CANCELLED):
            return self._cancel_here()  # its worker failed or died before it heard
        return self.state()

    def forget(self) -> None:
        """Remove the task from the file that remembers it; its objects stay.

        Raises UsageError unless it is Finished or Cancelled: of others something may be left.
        """
        self._ledger.forget(self.task_id)

    def supersede(self, by: str) -> None:
        """Remove what the task's worker, which is gone, has left: task `by` has its names.

        Raises ImgconvErrors, StoreUnavailable when something cannot be removed.
        """
        left = self._cleaned_up(self.task_id, by)
        if left:
            raise StoreUnavailable(f"what {self.task_id} has left cannot be removed: {left[0]}")
        self._ledger.supersede(self.task_id, by)

    def _cleaned_up(self, *held: str) -> list[str]:
        """Remove all that the task has made; return what is left.

        `held` are the tasks that are ours meanwhile; ImageIsExporting when one is not.
        """
        mark = self._owned()

        def hold() -> None:
            for task in held:
                self._ledger.beat(task, mark, {})

        left = clean_up(self._plan, self.task_id, self._ledger.path, hold)
        if not left:
            self._ledger.forget_results(self.task_id, mark)
        return left

    def give_up(self, error: ImgconvError) -> None:
        """Note that the task failed before it began."""
        self._ledger.set_status(
            self.task_id,
            self._owned(),
            Status.FAILED,
            code=ExportImageFailed.code,
            message=str(error),
        )
        self._mark = None

    def _cancel_here(self) -> TaskState:
        self._claimed()
        try:
            left = self._cleaned_up(self.task_id)
            self._ledger.set_status(
                self.task_id,
                self._owned(),
                Status.FAILED if left else Status.CANCELLED,
                code=ExportImageFailed.code if left else "",
                message="; ".join(left),
            )
        finally:
            self._mark = None
        return self.state()

"""The running totals of a conversion."""

from imgconv.progress import Counters, Phase, Progress, Watcher
from imgconv.workers import Lock


class Tally:
    """Counts bytes of finished work, from any thread, and tells whoever watches."""

    def __init__(self, watcher: Watcher | None = None):
        self._watcher = watcher
        self._lock = Lock()
        self._phase: Phase = "convert"
        self._total = self._done = 0
        self.data = 0
        self.written = 0
        self._uploaded = Counters()

    def begin(self, phase: Phase, total: int) -> None:
        """Start counting `total` bytes of a phase."""
        with self._lock:
            self._phase, self._total, self._done = phase, total, 0
            self._tell()

    def proceed(self, done: int) -> None:
        """Note how far a phase is that finds and writes nothing of account."""
        with self._lock:
            self._done = done
            self._tell()

    def advance(self, done: int, *, data: int = 0, written: int = 0) -> None:
        """Count work that is over."""
        with self._lock:
            self._done += done
            self.data += data
            self.written += written
            self._tell()

    def uploaded(self, counters: Counters) -> None:
        """Note how far an upload is."""
        with self._lock:
            self._uploaded = counters
            self._tell()

    def _tell(self) -> None:
        if self._watcher is None:
            return
        upload = self._uploaded
        self._watcher(
            Progress(
                self._phase,
                self._done,
                self._total,
                self.data,
                self.written,
                upload.wire,
                upload.parts,
                upload.retries,
            )
        )


class Joint:
    """Watches several outputs that are made in one pass, and tells of all of them together.

    `done` is what is done for every one of them, `written` and what concerns uploads are
    sums.
    """

    def __init__(self, watcher: Watcher | None):
        self._watcher = watcher
        self._lock = Lock()
        self._latest: dict[int, Progress] = {}

    def of(self, number: int, own: Watcher | None) -> Watcher:
        """Return what is told of one output; `own` is told too, of that one alone."""

        def watch(now: Progress) -> None:
            if own is not None:
                own(now)
            if self._watcher is not None:
                with self._lock:
                    self._latest[number] = now
                    self._watcher(self._sum(now.phase, now.total))

        return watch

    def _sum(self, phase: Phase, total: int) -> Progress:
        every = self._latest.values()
        return Progress(
            phase,
            min(now.done for now in every if now.phase == phase),
            total,
            max(now.data for now in every),
            sum(now.written for now in every),
            sum(now.wire for now in every),
            sum(now.parts for now in every),
            sum(now.retries for now in every),
        )

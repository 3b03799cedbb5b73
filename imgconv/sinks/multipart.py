"""The multipart sink: an output becomes an object while it is being made.

Bytes are gathered in part buffers; a whole part is sent in the background and its memory
used again. The head comes last, and so does the part that holds it, which is the first.
"""

from collections.abc import Callable, Mapping

from imgconv.errors import OutputTooLarge
from imgconv.objectstore import PartStore
from imgconv.progress import Counters
from imgconv.ranges import Ranges
from imgconv.stretch import Stretch
from imgconv.upload.buffers import Blocks, PartBuffer
from imgconv.upload.cuts import plan_cuts
from imgconv.upload.options import UploadOptions
from imgconv.upload.sender import wants_copies
from imgconv.upload.uploader import MakeJob, Uploader
from imgconv.upload_report import UploadReport


class MultipartSink:
    """Sends an output to one object of a store, which stays the caller's to close.

    `head_size` is the writer's, `bound` the most bytes the output can have, None when
    nobody knows; `expected_zeros` are long stretches of it that should be zeros, where it
    pays to cut (to be wrong about them is no error). The object appears when all of it is
    there, and if `exclusive` only if no other of its key does. `metadata` goes with it. A
    `job` lets an upload that is to be resumed remember in a journal what it is about.
    `watch` is called with the counters whenever they change. Parts that are given to
    `uploader` are not put here. Raises StoreErrors, and OutputExists.
    """

    parallel = False
    late_head = True

    def __init__(
        self,
        store: PartStore,
        key: str,
        *,
        head_size: int = 0,
        bound: int | None = None,
        expected_zeros: Ranges | None = None,
        options: UploadOptions | None = None,
        exclusive: bool = True,
        metadata: Mapping[str, str] | None = None,
        job: MakeJob | None = None,
        cancelled: Callable[[], bool] | None = None,
        watch: Callable[[Counters], object] | None = None,
    ):
        options = options or UploadOptions()
        self._name = f"{store.name}/{key}"
        self._max_parts = store.limits.max_parts
        self._cuts = plan_cuts(
            store.limits,
            head_size=head_size,
            bound=bound,
            part_size=options.part_size,
            zeros=expected_zeros if wants_copies(options, store.limits) else None,
        )
        self.uploader = Uploader(
            store,
            key,
            self._cuts,
            options,
            exclusive=exclusive,
            metadata=metadata or {},
            job=job,
            cancelled=cancelled,
            watch=watch,
        )
        self._blocks = Blocks(options.memory, self.uploader.check)
        self._open: dict[int, PartBuffer] = {}
        self.report: UploadReport | None = None

    def put(self, stretch: Stretch) -> None:
        """Copy the pieces into their parts, waiting for memory if need be."""
        for offset, length, views in stretch:
            if views:
                self._copy(offset, views)
            else:
                self._note_zeros(offset, length)

    def _copy(self, offset: int, views: list[memoryview]) -> None:
        for view in views:
            while len(view):
                part = self._part(offset)
                count = min(len(view), part.stop - offset)
                part.put(offset - part.start, view[:count])
                self._send_if_whole(part)
                offset, view = offset + count, view[count:]

    def _note_zeros(self, offset: int, length: int) -> None:
        """Zeros take no memory."""
        while length:
            part = self._part(offset)
            count = min(length, part.stop - offset)
            part.zeros(offset - part.start, count)
            self._send_if_whole(part)
            offset, length = offset + count, length - count

    def _part(self, offset: int) -> PartBuffer:
        self.uploader.check()
        number = self._cuts.number(offset)
        part = self._open.get(number)
        if part is None:
            if number > self._max_parts:
                raise OutputTooLarge(f"{self._name}: needs more than {self._max_parts} parts")
            start, length = self._cuts.start(number), self._cuts.length(number)
            part = self._open[number] = PartBuffer(number, start, length, self._blocks)
        return part

    def _send_if_whole(self, part: PartBuffer) -> None:
        if part.filled == part.length:
            self._send(part)

    def _send(self, part: PartBuffer) -> None:
        del self._open[part.number]
        self.uploader.send(part)

    def prepare(self, size: int) -> None:
        """Send what is left, and wait until the store has all parts."""
        for part in list(self._open.values()):
            self._send(part)
        self.uploader.drain()

    def commit(self, size: int) -> None:
        """Publish the object once all of it is there, and verify it; `report` tells of it."""
        self.prepare(size)
        self.report = self.uploader.finish(size)

    def replaces(self) -> bool:
        """Ask the store whether there is an object that this one will replace."""
        return self.uploader.replaces()

    def retract(self) -> str | None:
        """Delete the object if it is still ours."""
        return self.uploader.retract()

    def suspend(self) -> None:
        """Stop, and keep what was sent, so that another run can go on from there."""
        self.uploader.suspend()

    def abort(self) -> None:
        """Throw everything away; harmless after commit and when repeated."""
        self.uploader.abort()

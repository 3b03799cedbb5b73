"""An upload from beginning to end: opened or taken up, fed with parts, published or not."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeAlias

from imgconv.errors import SinkError, StoreError, StoreRefused
from imgconv.objectstore import ObjectInfo, Part, PartStore
from imgconv.progress import Counters
from imgconv.upload.buffers import Blocks, PartBuffer
from imgconv.upload.client import Client
from imgconv.upload.cuts import Cuts
from imgconv.upload.finish import Finish, combined, late_parts
from imgconv.upload.handover import Handover, Place, Sent, places_of
from imgconv.upload.journal import Job, Journal, default_path
from imgconv.upload.options import UploadOptions
from imgconv.upload.sender import Sender, wants_copies
from imgconv.upload.session import TOKEN, is_ours, open_session, refuse_existing
from imgconv.upload.state import Held, Meter, checksum_of
from imgconv.upload_report import PartRecord, UploadReport

MakeJob: TypeAlias = Callable[[str], Job]
"""Given the cuts as text, says what an upload is about."""


_NO_BLOCKS = Blocks(0, lambda: None)  # for parts without data


class Uploader:
    """One upload to one object; see `MultipartSink` for what the arguments mean."""

    def __init__(
        self,
        store: PartStore,
        key: str,
        cuts: Cuts,
        options: UploadOptions,
        *,
        exclusive: bool,
        metadata: Mapping[str, str],
        job: MakeJob | None,
        cancelled: Callable[[], bool] | None,
        watch: Callable[[Counters], object] | None,
    ):
        self._store, self._key, self._cuts = store, key, cuts
        self._exclusive, self._options = exclusive, options
        self._meter = Meter(watch)
        self._client = Client(
            store,
            options.backoff,
            concurrency=options.concurrency,
            cancelled=cancelled,
            meter=self._meter,
        )
        self._over = False
        self._published: ObjectInfo | None = None  # the object, once it is there
        self._journal = self._open_journal(options, job)
        try:
            if exclusive:
                refuse_existing(self._client, key, self._journal)
            self._session = open_session(
                self._client,
                key,
                metadata,
                resume=options.resume,
                adopt=options.adopt,
                journal=self._journal,
            )
        except BaseException:
            self._close_journal()
            raise
        self._sender = Sender(
            self._client,
            self._session,
            options,
            zero_length=cuts.zero_length,
            meter=self._meter,
        )

    def _open_journal(self, options: UploadOptions, job: MakeJob | None) -> Journal | None:
        if not options.resume or job is None:
            return None
        path = options.journal or default_path(f"{self._store.name}/{self._key}")
        return Journal(str(path), job(str(self._cuts)))

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def replaces(self) -> bool:
        """Ask whether there is an object that this upload will replace."""
        if self._exclusive:
            return False
        return self._client.request(lambda: self._store.head(self._key)) is not None

    def send(self, part: PartBuffer) -> None:
        """Have a whole part sent in the background."""
        self._sender.send(part)

    def places(self, size: int) -> Iterator[Place]:
        """Return the parts of an output of `size` bytes, in order."""
        return places_of(self._cuts, size)

    @property
    def copies_zeros(self) -> bool:
        """Whether parts of zeros are best left to the store."""
        return wants_copies(self._options, self._store.limits)

    def send_zeros(self, place: Place) -> None:
        """Have a part of nothing but zeros made; it takes no memory."""
        part = PartBuffer(place.number, place.start, place.length, _NO_BLOCKS)
        part.zeros(0, place.length)
        self.send(part)

    def hand_over(self, numbers: Collection[int], *, again: bool = False) -> Handover:
        """Return what somebody else needs to send some parts.

        With `again` somebody else has tried: the store is asked which of them it holds.
        """
        held = self._session.held.of(numbers)
        if again:
            upload = self._session.upload
            listed = self._client.request(lambda: list(self._store.list_parts(upload)))
            some = [part for part in listed if part.number in numbers]
            held = Held(self._store.limits, some, [])
        return Handover(self._session.upload, held, self._options)

    def adopt(self, sent: Sent) -> None:
        """Take over parts that somebody else has sent."""
        self._meter.count(wire=sent.counters.wire, retries=sent.counters.retries)
        for part in sent.parts:
            self._sender.adopt(part, sent.origins[part.number])

    def check(self) -> None:
        """Raise what made the upload fail, or Cancelled."""
        self._sender.check()

    def drain(self) -> None:
        """Wait until the store has every part that was sent."""
        self._sender.drain()

    def finish(self, size: int) -> UploadReport:
        """Publish an object of `size` bytes once all its parts are there, and verify it."""
        self._sender.drain()
        try:
            found = self._publish(size)
        except StoreRefused as error:
            if not self._take_late_parts(error):
                raise
            found = self._publish(size)
        self._published, self._over = found, True
        self._sender.close()
        crc = combined(self._parts(), checksum_of(self._store.limits))
        return self._report(found, crc, tuple(self._tidied_up()))

    def _parts(self) -> list[Part]:
        return [part for _, part in sorted(self._sender.parts.items())]

    def _publish(self, size: int) -> ObjectInfo:
        parts, limits = self._parts(), self._store.limits
        assert sum(part.length for part in parts) == size
        kept = combined(parts, checksum_of(limits)) if limits.checksum else None
        finish = Finish(self._client, self._session, parts, size, kept, self._exclusive)
        return finish.publish()

    def _take_late_parts(self, error: StoreRefused) -> bool:
        """Take parts that have replaced ours with the same bytes for ours; say if all have.

        A worker that was thought lost may send its parts once more, and where an ETag is
        not the MD5 theirs is another.
        """
        upload = self._session.upload
        try:
            listed = self._client.request(lambda: list(self._store.list_parts(upload)))
        except StoreError:  # then it was something else that the store refused
            return False
        late = late_parts(self._parts(), listed)
        for number, part in late.items():
            if part is None:
                error.add_note(f"part {number} is another by now, and not known to be the same")
            else:
                self._sender.parts[number] = part
        return bool(late) and None not in late.values()

    def _tidied_up(self) -> Iterator[str]:
        """Remove what the upload needed; yield what failed, which is no failed export."""
        try:
            self._sender.zeros.delete()
        except StoreError as error:
            yield f"the helper object of zeros is left: {error}"
        try:
            if self._journal is not None:
                self._journal.delete()
        except SinkError as error:
            yield f"the journal is left: {error}"

    def _report(self, found: ObjectInfo, crc: int, warnings: tuple[str, ...]) -> UploadReport:
        counters, sender = self._meter.counters, self._sender
        return UploadReport(
            url=f"{self._store.name}/{self._key}",
            size=found.size,
            etag=found.etag,
            version=found.version,
            checksum=checksum_of(self._store.limits).name,
            crc=f"{crc:016x}",
            store_verified=found.crc is not None,
            wire_bytes=counters.wire,
            retries=counters.retries,
            kept_parts=counters.kept,
            copied_parts=counters.copied,
            parts=tuple(
                PartRecord(
                    number,
                    self._cuts.start(number),
                    part.length,
                    part.etag,
                    f"{part.crc:016x}",
                    sender.origins[number],
                )
                for number, part in sorted(sender.parts.items())
            ),
            warnings=warnings,
        )

    def retract(self) -> str | None:
        """Delete the object that was published if it is still ours; say what became of it,
        None if there is none."""
        name, token = f"{self._store.name}/{self._key}", self._session.token
        ours: bool | None = None

        def delete() -> None:
            nonlocal ours
            found = self._store.head(self._key)
            if found is not None and (is_ours(found, token) or self._is_published(found)):
                ours = True
                self._store.delete(self._key)
            elif found is not None:
                ours = False

        try:
            self._client.clean_up(delete)
        except StoreError as error:
            return f"{name}: could not be removed again: {error}"
        if ours is None:
            return None
        return f"{name}: was removed again" if ours else f"{name}: is another's, and was left"

    def _is_published(self, found: ObjectInfo) -> bool:
        """Say whether an object is the one that was published, whose token we may not know.

        An ETag alone does not tell: another upload of the same bytes may have it too.
        """
        ours = self._published
        return (
            ours is not None
            and found.etag == ours.etag
            and found.metadata.get(TOKEN) == ours.metadata.get(TOKEN)
        )

    def suspend(self) -> None:
        """Stop, and keep what was sent, so that another run can go on from there."""
        if not self._over:
            self._over = True
            self._sender.close()
            self._close_journal()
            self._sender.zeros.delete()

    def abort(self) -> None:
        """Stop, and throw away what was sent; harmless when it is over.

        Raises StoreErrors when the store cannot be told; `imgconv uploads abort` can later.
        """
        if self._over:
            return
        self._over = True
        self._sender.close()
        try:
            self._client.clean_up(lambda: self._store.abort(self._session.upload))
            if self._journal is not None:
                self._journal.delete()
        finally:
            self._close_journal()
            self._sender.zeros.delete()

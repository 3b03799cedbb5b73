"""Sending parts in the background: each is checked, sent or copied or kept, and remembered."""

from dataclasses import replace
from typing import Literal, TypeAlias

from imgconv.body import Body
from imgconv.errors import ContentDamaged, OutOfResources, UploadGone
from imgconv.objectstore import Limits, Part
from imgconv.upload.buffers import PartBuffer
from imgconv.upload.client import Client
from imgconv.upload.options import UploadOptions
from imgconv.upload.session import Session
from imgconv.upload.state import Meter, checksum_of, md5_of
from imgconv.upload.window import RateLimit
from imgconv.upload.zeros import ZeroCopies
from imgconv.workers import Condition, Pool

Origin: TypeAlias = Literal["sent", "copied", "kept"]

_NOTICE_SECONDS = 0.1
_CANCEL_SECONDS = 10.0  # how long a cancelled upload waits for requests that hang


class Sender:
    """Takes whole parts, in any order, and sees to it that the store has them.

    `parts` and `origins` are filled by part number; parts of zeros up to `zero_length`
    bytes are copied on the server where that is wanted. The first failure is kept; `check` and
    `drain` raise it.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        options: UploadOptions,
        *,
        zero_length: int,
        meter: Meter,
    ):
        self._client, self._session = client, session
        self._limits = client.store.limits
        self._checksum = checksum_of(self._limits)
        self.zeros = ZeroCopies(
            client,
            session.upload.key,
            zero_length,
            resumed=session.resumed,
            on=wants_copies(options, self._limits),
            meter=meter,
        )
        self._md5 = options.content_md5 or self._limits.checksum is None
        self._rate = (
            RateLimit(options.rate_limit, client.stop.wait) if options.rate_limit else None
        )
        self._pool = Pool(client.window.limit, "imgconv-upload")
        self._changed = Condition()
        self._pending = 0
        self._error: BaseException | None = None
        self._meter = meter
        self.parts: dict[int, Part] = {}
        self.origins: dict[int, Origin] = {}

    def send(self, buffer: PartBuffer) -> None:
        """Have a part sent that is whole; its memory is free again when the store has it."""
        buffer.close()
        with self._changed:
            self._pending += 1
        self._pool.submit(lambda: self._carry_out(buffer))

    def adopt(self, part: Part, origin: Origin) -> None:
        """Take note of a part that somebody else has sent, checksum and all."""
        self._remember(part, origin)

    def check(self) -> None:
        """Raise what made the upload fail, or Cancelled."""
        if self._error is not None:
            raise self._error
        self._client.stop.check()

    def drain(self) -> None:
        """Wait until every part is in the store."""
        with self._changed:
            while self._pending:
                self.check()
                self._changed.wait(_NOTICE_SECONDS)
        self.check()

    def close(self) -> bool:
        """Stop sending; return whether every request has ended."""
        self._client.stop.set()
        return self._pool.close(_CANCEL_SECONDS)

    def _carry_out(self, buffer: PartBuffer) -> None:
        try:
            self._client.stop.check()
            self._provide(buffer)
        except BaseException as error:
            with self._changed:
                self._error = self._error or _explained(error)
        finally:
            buffer.release()
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()

    def _provide(self, buffer: PartBuffer) -> None:
        crc = buffer.checksum(self._checksum)
        part = self._session.held.find(buffer, crc)
        origin: Origin = "kept"
        if part is None and buffer.is_zero:
            origin = "copied"
            part = self.zeros.copy(self._session.upload, buffer.number, buffer.length)
        if part is None:
            origin = "sent"
            part = self._send(buffer, crc)
        self._remember(replace(part, crc=crc), origin)

    def _send(self, buffer: PartBuffer, crc: int) -> Part:
        body = Body(buffer.views(), self._before_view)
        md5 = md5_of(buffer) if self._md5 else None
        sent_crc = crc if self._limits.checksum else None
        store, upload = self._client.store, self._session.upload

        def put() -> Part:
            try:
                part = store.put_part(upload, buffer.number, body, crc=sent_crc, md5=md5)
                if sent_crc is not None and part.crc not in (None, sent_crc):
                    raise ContentDamaged(f"part {buffer.number}: the store holds other bytes")
                return part
            except ContentDamaged as error:
                if buffer.checksum(self._checksum) != crc:
                    raise OutOfResources(
                        f"part {buffer.number} changed in memory before it was sent"
                    ) from error
                raise

        return self._client.send(put)

    def _before_view(self, length: int) -> None:
        self._client.stop.check()
        if self._rate is not None:
            self._rate(length)
        self._meter.count(wire=length)

    def _remember(self, part: Part, origin: Origin) -> None:
        with self._changed:
            if self._session.journal and not self._session.held.is_journaled(part):
                self._session.journal.took(part)
            self.parts[part.number] = part
            self.origins[part.number] = origin
        self._meter.count(parts=1, kept=origin == "kept", copied=origin == "copied")


def wants_copies(options: UploadOptions, limits: Limits) -> bool:
    """Say whether zero parts are to be copied: on demand, or where no checksum is lost."""
    wanted = options.zero_copy == "on" or (options.zero_copy == "auto" and limits.checksum)
    return bool(wanted) and limits.copies


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, UploadGone):
        error.add_note("somebody aborted it, or the bucket's rules did; run it again")
    return error

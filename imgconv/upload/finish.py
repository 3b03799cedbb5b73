"""The last step: publishing the object, and proving that it is the one we sent.

The answer to `complete` may be lost although the object is there, and asking again then
fails for the very reason that it succeeded. So before a failure counts, the store is asked
whether the object is ours.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import md5

from imgconv.errors import (
    ContentDamaged,
    ObjectChanged,
    OutputExists,
    StoreError,
    StoreUnavailable,
    UploadGone,
)
from imgconv.native import Checksum
from imgconv.objectstore import ObjectInfo, Part
from imgconv.upload.client import Client
from imgconv.upload.session import TOKEN, Session, is_ours

_IS_MD5 = re.compile("[0-9a-fA-F]{32}")
AMBIGUOUS = (StoreUnavailable, UploadGone, OutputExists)


def combined(parts: Sequence[Part], checksum: Checksum) -> int:
    """Return the checksum of the whole object from those of its parts."""
    value = 0
    for part in parts:
        assert part.crc is not None
        value = checksum.combine(value, part.crc, part.length)
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Finish:
    """Completes an upload of `parts` and verifies what the store then says it has.

    The object has `size` bytes and the checksum `crc`, None where the store keeps none.
    """

    client: Client
    session: Session
    parts: Sequence[Part]
    size: int
    crc: int | None
    exclusive: bool

    @property
    def _name(self) -> str:
        return f"{self.client.store.name}/{self.session.upload.key}"

    def publish(self) -> ObjectInfo:
        """Make the object appear.

        Raises OutputExists, and ContentDamaged, having deleted the object, when it is not
        what was sent.
        """
        answer = self.client.request(self._complete)
        found = self.client.request(self._look)
        token = self.session.token
        if found is None or (token and not is_ours(found, token)):
            raise ObjectChanged(f"{self._name}: another writer replaced it just now")
        for info in (answer, found):
            wrong = self.crc is not None and info.crc not in (None, self.crc)
            if wrong or found.size != self.size:
                raise self._discarded(found, info.crc)
        return found

    def _look(self) -> ObjectInfo | None:
        return self.client.store.head(self.session.upload.key)

    def _complete(self) -> ObjectInfo:
        store, upload = self.client.store, self.session.upload
        try:
            if self.exclusive:  # not every service that is told the condition knows it
                self._refuse_another()
            return store.complete(
                upload,
                self.parts,
                size=self.size,
                crc=self.crc,
                exclusive=self.exclusive and store.limits.exclusive,
            )
        except AMBIGUOUS:
            found = self._look()
            if found is None or not self._made(found):
                raise
            if any(other.id == upload.id for other in store.list_uploads(upload.key)):
                store.abort(upload)  # its object is there, so what is left of it is litter
            return found

    def _refuse_another(self) -> None:
        found = self._look()
        if found is not None and not self._made(found):
            raise OutputExists(f"{self._name}: exists already")

    def _made(self, found: ObjectInfo) -> bool:
        """Say whether this very upload made an object.

        One that was taken up without a journal has forgotten its token; then it is the
        content that tells: its checksum, or its ETag, which in S3 derives from those of
        the parts.
        """
        if self.session.token:
            return is_ours(found, self.session.token)
        same_crc = self.crc is not None and found.crc == self.crc
        same = same_crc or found.etag.lower() == joint_etag(self.parts)
        return same and TOKEN in found.metadata and found.size == self.size

    def _discarded(self, found: ObjectInfo, crc: int | None) -> ContentDamaged:
        """Delete the object, and return what to raise then."""
        error = ContentDamaged(
            f"{self._name}: the store has {found.size} bytes with checksum {crc}, "
            f"not {self.size} bytes with {self.crc}"
        )
        store, key = self.client.store, self.session.upload.key
        try:
            self.client.clean_up(lambda: store.delete(key))
            error.add_note("deleted it")
        except StoreError as failure:
            error.add_note(f"and it could not be deleted: {failure}")
        return error


def late_parts(parts: Sequence[Part], listed: Iterable[Part]) -> dict[int, Part | None]:
    """Return by what those of `parts` were replaced that the store lists no longer.

    None where nothing tells that it has the same bytes.
    """
    held: dict[int, list[Part]] = {}
    for found in listed:
        held.setdefault(found.number, []).append(found)
    late: dict[int, Part | None] = {}
    for part in parts:
        there = held.get(part.number, [])
        if all(found.etag.lower() != part.etag.lower() for found in there):
            same = (f for f in there if (f.length, f.crc) == (part.length, part.crc))
            late[part.number] = next(same, None)
    return late


def joint_etag(parts: Sequence[Part]) -> str | None:
    """Return what S3 makes of the parts' ETags, None when they are no MD5s."""
    if not all(_IS_MD5.fullmatch(part.etag) for part in parts):
        return None
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"

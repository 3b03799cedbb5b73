"""What is known of an upload: which parts the store holds, and what it took to get there."""

from collections.abc import Callable, Collection
from copy import copy
from dataclasses import replace
from hashlib import md5

from imgconv.errors import SourceChanged
from imgconv.native import CRC64_NVME, CRC64_XZ, Checksum
from imgconv.objectstore import Limits, Part
from imgconv.progress import Counters
from imgconv.upload.buffers import PartBuffer
from imgconv.workers import Lock

CHECKSUMS: dict[str, Checksum] = {"crc64-nvme": CRC64_NVME, "crc64-xz": CRC64_XZ}
DEFAULT_CHECKSUM = CRC64_NVME  # ours alone, for stores that keep none


def checksum_of(limits: Limits) -> Checksum:
    """Return the checksum to compute for the parts of a store."""
    return CHECKSUMS[limits.checksum] if limits.checksum else DEFAULT_CHECKSUM


def md5_of(buffer: PartBuffer) -> bytes:
    """Return the MD5 of a closed part."""
    digest = md5(usedforsecurity=False)
    for view in buffer.views():
        digest.update(view)
    return digest.digest()


class Meter:
    """Counts, from any thread, and tells whoever watches; never two at once."""

    def __init__(self, watch: Callable[[Counters], object] | None = None):
        self._watch = watch
        self._lock = Lock()
        self.counters = Counters()

    def count(
        self, *, wire: int = 0, parts: int = 0, kept: int = 0, copied: int = 0, retries: int = 0
    ) -> None:
        """Add to the counters."""
        with self._lock:
            c = self.counters
            self.counters = Counters(
                c.wire + wire,
                c.parts + parts,
                c.kept + kept,
                c.copied + copied,
                c.retries + retries,
            )
            if self._watch is not None:
                self._watch(self.counters)


class Held:
    """The parts a store held when the upload was taken up again.

    A part is only believed to be ours if its bytes are those that we would send: by the
    store's checksum, by the one in the journal, or by its ETag where that is the MD5.
    """

    def __init__(self, limits: Limits, listed: list[Part], journaled: list[Part]):
        self._md5 = limits.etag_is_md5
        self._journaled = {(p.number, p.etag.lower()): p for p in journaled}
        self._listed: dict[int, list[Part]] = {}
        for part in listed:
            self._listed.setdefault(part.number, []).append(self._completed(part))

    def _completed(self, part: Part) -> Part:
        """Return the part with its checksum from the journal if the store tells none."""
        known = self._journaled.get((part.number, part.etag.lower()))
        if part.crc is not None or known is None or known.length != part.length:
            return part
        return replace(part, crc=known.crc)

    def of(self, numbers: Collection[int]) -> "Held":
        """Return what is known of some parts alone."""
        some = copy(self)
        some._listed = {n: self._listed[n] for n in numbers if n in self._listed}
        some._journaled = {k: p for k, p in self._journaled.items() if p.number in numbers}
        return some

    def is_journaled(self, part: Part) -> bool:
        """Say whether the journal told of this very part when it was opened."""
        return (part.number, part.etag.lower()) in self._journaled

    def find(self, buffer: PartBuffer, crc: int) -> Part | None:
        """Return the part the store holds with these very bytes, None if it holds none.

        Raises SourceChanged if the journal says that other bytes were sent for it.
        """
        found = [p for p in self._listed.get(buffer.number, ()) if p.length == buffer.length]
        for part in found:
            if part.crc == crc:
                return part
        for part in found:
            if self.is_journaled(part) and part.crc is not None:
                raise SourceChanged(
                    f"part {buffer.number} is no longer what was sent before: "
                    "the source changed since; begin anew, without --resume"
                )
        if self._md5 and any(p.crc is None for p in found):
            etag = md5_of(buffer).hex()
            return next((replace(p, crc=crc) for p in found if p.etag.lower() == etag), None)
        return None

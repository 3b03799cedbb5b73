"""Parts of nothing but zeros, copied on the server from an object kept for that purpose."""

from imgconv.errors import (
    ContentDamaged,
    ObjectMissing,
    StoreCannot,
    StoreRefused,
)
from imgconv.objectstore import Part, Upload
from imgconv.units import MiB
from imgconv.upload.client import Client
from imgconv.upload.state import Meter, checksum_of
from imgconv.workers import Lock

_WORTH_IT = 64 * MiB  # of zeros to send, before a helper object pays in any case


def helper_key(key: str) -> str:
    """Return the key of the object of zeros that the upload of `key` copies from."""
    return f"{key}.imgconv-zeros"


class ZeroCopies:
    """Makes zero parts by copying; says so when it cannot, and then never tries again.

    The helper object has a name that derives from the key, so that one left behind by a
    killed run is used and deleted by the next.
    """

    def __init__(
        self,
        client: Client,
        key: str,
        length: int,
        *,
        resumed: bool,
        on: bool,
        meter: Meter,
    ):
        self._client = client
        self._checksum = checksum_of(client.store.limits)
        self._meter = meter
        self._key = helper_key(key)
        self._length = length
        self._on = on
        self._seen = 0  # bytes of zeros
        self._made = False
        self._maybe = resumed  # it may be there: of an earlier run, or the answer got lost
        self._lock = Lock()

    def copy(self, upload: Upload, number: int, length: int) -> Part | None:
        """Return a zero part made by the store, None when it has to be sent."""
        if not self._on or length > self._length or not self._have_helper(length):
            return None
        store = self._client.store
        try:
            part = self._client.send(
                lambda: store.copy_part(upload, number, self._key, 0, length)
            )
        except (StoreCannot, StoreRefused, ObjectMissing, ContentDamaged):
            self._on = False
            return None
        expected = self._checksum.zeros(0, length)
        wrong = store.limits.checksum and part.crc not in (None, expected)
        if part.length != length or wrong:
            self._on = False
            return None
        return part

    def _have_helper(self, length: int) -> bool:
        with self._lock:
            self._seen += length
            worth_it = self._seen >= min(_WORTH_IT, 2 * self._length)
            if not self._made and self._on and worth_it:
                self._make()
            return self._made

    def _make(self) -> None:
        """Store the helper in one request: SeaweedFS copies from an object that was put in
        one piece ten times faster than from one that was put together."""
        content = bytes(self._length)  # costs no memory as long as nobody writes to it

        def put() -> None:
            self._maybe = True
            self._meter.count(wire=self._length)
            self._client.store.put(self._key, content, {}, exclusive=False)

        try:
            self._client.send(put)
        except (StoreCannot, StoreRefused):
            self._on = False
            return
        self._made = True

    def delete(self) -> None:
        """Delete the helper, whether this run made it or the one that it resumes."""
        if self._maybe:
            self._client.clean_up(self._delete)
            self._made = self._maybe = False

    def _delete(self) -> None:
        if self._client.store.head(self._key) is not None:
            self._client.store.delete(self._key)

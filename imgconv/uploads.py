"""Housekeeping: unfinished uploads that nobody will finish."""

from dataclasses import dataclass
from time import time

from imgconv.objects import opened_store
from imgconv.objectstore import PartStore, Upload
from imgconv.stores import Store, parse_url
from imgconv.upload.zeros import helper_key

DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """An unfinished upload; `started` is in seconds since 1970, 0 if the store does not
    tell; `size` is that of the parts it holds, in bytes."""

    url: str
    id: str
    started: float
    parts: int
    size: int


def unfinished_uploads(
    prefix: str, *, store: Store | None = None, older_than: float = 0
) -> tuple[UnfinishedUpload, ...]:
    """List the unfinished uploads of keys that begin like the URL `prefix`.

    `older_than` is in seconds. Raises StoreErrors and UsageError.
    """
    url = parse_url(prefix, key_needed=False)
    with opened_store(url, store) as opened:
        return tuple(
            _described(opened, upload) for upload in _found(opened, url.key, older_than)
        )


def abort_uploads(
    prefix: str, *, store: Store | None = None, older_than: float = DAY
) -> tuple[UnfinishedUpload, ...]:
    """Abort them, and delete what else they left behind; return those aborted.

    By default uploads begun less than a day ago are spared: they may be under way.
    """
    url = parse_url(prefix, key_needed=False)
    with opened_store(url, store) as opened:
        gone = []
        for upload in _found(opened, url.key, older_than):
            gone.append(_described(opened, upload))
            opened.abort(upload)
            opened.delete(helper_key(upload.key))
        return tuple(gone)


def _found(store: PartStore, prefix: str, older_than: float) -> list[Upload]:
    latest = time() - older_than
    found = store.list_uploads(prefix)
    return [upload for upload in found if older_than == 0 or upload.started <= latest]


def _described(store: PartStore, upload: Upload) -> UnfinishedUpload:
    lengths = {part.number: part.length for part in store.list_parts(upload)}
    url = f"{store.name}/{upload.key}"
    return UnfinishedUpload(url, upload.id, upload.started, len(lengths), sum(lengths.values()))

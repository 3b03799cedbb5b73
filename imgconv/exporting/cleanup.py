"""Removing what a task has put into a bucket, and beside it on this machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from imgconv.errors import AccessDenied, ImgconvError, StoreError, UploadGone
from imgconv.exporting.destination import client_of
from imgconv.exporting.plan import DiskPlan, Plan
from imgconv.objectstore import ObjectInfo, PartStore, Upload
from imgconv.upload.client import Client
from imgconv.upload.journal import recorded_uploads
from imgconv.upload.zeros import helper_key

TASK = "imgconv-task"  # in an object's metadata: the task that made it
_SKEW_SECONDS = 300.0  # by which a store's clock may be behind ours


def journal_path(state: str, task: str, disk: DiskPlan) -> str:
    """Return where the upload of a disk is remembered, beside the tasks."""
    return f"{state}-{task}-{disk.name}.{disk.format}.journal"


def is_ours(found: ObjectInfo, task: str) -> bool:
    """Say whether a task made an object, by what it carries.

    Its ETag tells nothing: it derives from the content, so that another task's object of the
    same disk has the same one.
    """
    return found.metadata.get(TASK) == task


def clean_up(plan: Plan, task: str, state: str, hold: Callable[[], object]) -> list[str]:
    """Remove all objects, unfinished uploads and journals of a task; return what is left.

    An object is the task's when it carries its id, an upload when its journal tells of it,
    or when it is one that `abort_unheard` takes for it: others that a store lists under the
    name may be another machine's.

    `hold` is called before each step, as one takes ten seconds where a store does not answer:
    it renews the lease, and raises when another worker has taken the task over.
    """
    left: list[str] = []
    for bucket, keys in plan.keys_by_bucket().items():
        place = plan.destination.bucket_called(bucket)
        journals = _journals(plan, task, state, bucket)
        try:
            with place.opened() as store:
                client = client_of(store, plan.settings.upload.backoff)
                for key in keys:
                    for act in _steps(store, key, task, journals.get(key)):
                        hold()
                        left += _failure(client, act)
        except StoreError as error:
            left.append(f"{place.url('')}: {error}")
    return left


def abort_unheard(store: PartStore, key: str, journal: str) -> None:
    """Abort what was begun by a worker that died, or lost the answer, before its journal
    heard of it: an upload of this very name, without parts, that is no older than the journal.

    Where uploads may not be listed, it stays. Raises StoreErrors, in one attempt.
    """
    if not os.path.exists(journal) or recorded_uploads(journal):
        return
    begun = os.stat(journal).st_mtime - _SKEW_SECONDS
    with suppress(AccessDenied):
        for upload in store.list_uploads(key):
            if upload.key == key and upload.started >= begun and _is_empty(store, upload):
                store.abort(upload)


def _is_empty(store: PartStore, upload: Upload) -> bool:
    try:
        return not any(True for _ in store.list_parts(upload))
    except UploadGone:
        return False


def _journals(plan: Plan, task: str, state: str, bucket: str) -> dict[str, str]:
    disks = [disk for disk in plan.disks if disk.bucket == bucket]
    return {disk.key: journal_path(state, task, disk) for disk in disks}


def _failure(client: Client, act: Callable[[], None]) -> Iterator[str]:
    try:
        client.clean_up(act)
    except ImgconvError as error:
        yield str(error)


def _steps(
    store: PartStore, key: str, task: str, journal: str | None
) -> tuple[Callable[[], None], ...]:
    """Return what there is to do for one name."""

    def abort_uploads() -> None:
        if journal is not None:
            for upload in recorded_uploads(journal):
                store.abort(upload)
            abort_unheard(store, key, journal)
            with suppress(FileNotFoundError):  # kept until then, for nothing else tells
                os.unlink(journal)

    def remove_object() -> None:
        found = store.head(key)
        if found is not None and is_ours(found, task):
            store.delete(key)

    def remove_helper() -> None:
        if store.head(helper_key(key)) is not None:
            store.delete(helper_key(key))

    return abort_uploads, remove_object, remove_helper

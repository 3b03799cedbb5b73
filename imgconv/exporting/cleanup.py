"""Removing what a task has put into a bucket, and beside it on this machine."""

import os
from collections.abc import Iterator
from contextlib import suppress

from imgconv.errors import ImgconvError, StoreError
from imgconv.exporting.destination import client_of
from imgconv.exporting.plan import DiskPlan, Plan
from imgconv.objectstore import ObjectInfo, PartStore
from imgconv.upload.client import Client
from imgconv.upload.journal import recorded_uploads
from imgconv.upload.zeros import helper_key

TASK = "imgconv-task"  # in an object's metadata: the task that made it


def journal_path(state: str, task: str, disk: DiskPlan) -> str:
    """Return where the upload of a disk is remembered, beside the tasks."""
    return f"{state}-{task}-{disk.name}.{disk.format}.journal"


def is_ours(found: ObjectInfo, task: str) -> bool:
    """Say whether a task made an object, by what it carries.

    Its ETag tells nothing: it derives from the content, so that another task's object of the
    same disk has the same one.
    """
    return found.metadata.get(TASK) == task


def clean_up(plan: Plan, task: str, state: str) -> list[str]:
    """Remove all objects, unfinished uploads and journals of a task; return what is left.

    An object is the task's when it carries its id, an upload when its journal tells of it:
    those that a store lists under the name may be another machine's. So an upload that was
    begun without our hearing of it stays; `imgconv uploads abort` removes it.
    """
    left: list[str] = []
    for bucket, keys in plan.keys_by_bucket().items():
        place = plan.destination.bucket_called(bucket)
        disks = [disk for disk in plan.disks if disk.bucket == bucket]
        journals = {disk.key: journal_path(state, task, disk) for disk in disks}
        try:
            with place.opened() as store:
                client = client_of(store, plan.settings.upload.backoff)
                for key in keys:
                    left += _cleaned(client, store, key, task, journals.get(key))
        except StoreError as error:
            left.append(f"{place.url('')}: {error}")
    return left


def _cleaned(
    client: Client, store: PartStore, key: str, task: str, journal: str | None
) -> Iterator[str]:
    def abort_uploads() -> None:
        if journal is not None:
            for upload in recorded_uploads(journal):
                store.abort(upload)
            with suppress(FileNotFoundError):  # kept until then, for nothing else tells
                os.unlink(journal)

    def remove_object() -> None:
        found = store.head(key)
        if found is not None and is_ours(found, task):
            store.delete(key)

    def remove_helper() -> None:
        if store.head(helper_key(key)) is not None:
            store.delete(helper_key(key))

    for act in (abort_uploads, remove_object, remove_helper):
        try:
            client.clean_up(act)
        except ImgconvError as error:
            yield str(error)

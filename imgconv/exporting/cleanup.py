"""Removing what a task has put into a bucket, and beside it on this machine."""

import os
from collections.abc import Iterator
from contextlib import suppress

from imgconv.errors import StoreError, UploadGone
from imgconv.exporting.destination import client_of
from imgconv.exporting.plan import DiskPlan, Plan
from imgconv.objectstore import ObjectInfo, PartStore
from imgconv.upload.client import Client
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

    Whoever calls this holds the lock on the names, so that no unfinished upload to them is
    anybody else's.
    """
    left: list[str] = []
    for bucket, keys in plan.keys_by_bucket().items():
        place = plan.destination.bucket_called(bucket)
        try:
            with place.opened() as store:
                client = client_of(store, plan.settings.upload.backoff)
                for key in keys:
                    left += _cleaned(client, store, key, task)
        except StoreError as error:
            left.append(f"{place.url('')}: {error}")
    for disk in plan.disks:
        with suppress(FileNotFoundError):
            os.unlink(journal_path(state, task, disk))
    return left


def _cleaned(client: Client, store: PartStore, key: str, task: str) -> Iterator[str]:
    def remove_object() -> None:
        found = store.head(key)
        if found is not None and is_ours(found, task):
            store.delete(key)

    def remove_helper() -> None:
        if store.head(helper_key(key)) is not None:
            store.delete(helper_key(key))

    for act in (lambda: abort_uploads(store, key), remove_object, remove_helper):
        try:
            client.clean_up(act)
        except StoreError as error:
            yield str(error)


def abort_uploads(store: PartStore, key: str) -> None:
    """Abort the unfinished uploads of an object, and of no other that is called alike."""
    for upload in list(store.list_uploads(key)):
        if upload.key == key:
            with suppress(UploadGone):
                store.abort(upload)

"""The upload a run works on: a new one, or an unfinished one that it takes up again."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from imgconv.errors import OutputExists, UploadGone
from imgconv.objectstore import ObjectInfo, Part, Upload
from imgconv.upload.client import Client
from imgconv.upload.journal import Journal
from imgconv.upload.state import Held

TOKEN = "imgconv-upload"  # in the object's metadata: which upload made it


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """An upload in progress. `token` is chance, and tells our object from any other's;
    it is empty when an upload was taken up from the store's list alone. `resumed` says
    that an earlier run began it."""

    upload: Upload
    token: str
    held: Held
    journal: Journal | None
    resumed: bool = False


def refuse_existing(client: Client, key: str, journal: Journal | None) -> None:
    """Raise OutputExists early if there is an object, unless our own earlier run made it."""
    found = client.request(lambda: client.store.head(key))
    if found is not None and not (journal and is_ours(found, journal.token)):
        raise OutputExists(f"{client.store.name}/{key}: exists already")


def is_ours(found: ObjectInfo, token: str) -> bool:
    """Say whether an object was made by the upload with this token."""
    return bool(token) and found.metadata.get(TOKEN) == token


def open_session(
    client: Client,
    key: str,
    metadata: Mapping[str, str],
    *,
    resume: bool,
    adopt: bool,
    journal: Journal | None,
) -> Session:
    """Take up the unfinished upload of `key`, if it is to be resumed, or begin one.

    To `adopt` is to take up one of which no journal tells.
    """
    if resume:
        upload = journal.upload if journal else None
        if upload is None and adopt:
            upload = _newest(client, key)
        if upload is not None:
            listed = _listed(client, upload, journal)
            if listed is not None:
                known = journal.parts if journal else []
                token = journal.token if journal and journal.token else upload.token
                if journal and journal.upload is None:
                    journal.begun(upload, token)
                held = Held(client.store.limits, listed, known)
                return Session(upload, token, held, journal, resumed=True)
    token = os.urandom(16).hex()
    upload = client.request(lambda: client.store.begin(key, {**metadata, TOKEN: token}))
    token = upload.token or token
    if journal:
        try:
            journal.begun(upload, token)
        except BaseException:  # nobody would ever find it again
            client.clean_up(lambda: client.store.abort(upload))
            raise
    return Session(upload, token, Held(client.store.limits, [], []), journal)


def _newest(client: Client, key: str) -> Upload | None:
    found = client.request(lambda: list(client.store.list_uploads(key)))
    exact = [upload for upload in found if upload.key == key]
    latest = max((upload.started for upload in exact), default=0.0)
    newest = [upload for upload in exact if upload.started == latest]
    if len(newest) > 1:  # stores tell seconds; a lost answer to `begin` left an empty one
        newest.sort(key=lambda upload: len(_listed(client, upload, None) or ()))
    return newest[-1] if newest else None


def _listed(client: Client, upload: Upload, journal: Journal | None) -> list[Part] | None:
    """Return the parts the store holds, None when the upload is no more.

    An upload that is gone because it was completed still has all its parts: completing it
    once more will find the object.
    """
    try:
        return client.request(lambda: list(client.store.list_parts(upload)))
    except UploadGone:
        found = client.request(lambda: client.store.head(upload.key))
        if journal and found is not None and is_ours(found, journal.token):
            return journal.parts
        return None

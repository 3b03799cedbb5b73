"""From an output that a user names to what writes it and what reads it back."""

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from imgconv.conversion import Conversion
from imgconv.errors import UsageError
from imgconv.opening import files_of
from imgconv.outputs import is_stdout, open_sink
from imgconv.report import Report
from imgconv.sinks.base import Sink
from imgconv.sources.base import Source
from imgconv.tally import Tally
from imgconv.urls import scheme_of
from imgconv.workers import Stop

if TYPE_CHECKING:  # what only some outputs need is loaded there
    from imgconv.stores import Store
    from imgconv.upload.options import UploadOptions
    from imgconv.verification import Verification


def open_target(
    conversion: Conversion,
    clobber: bool | None,
    store: "Store | None",
    upload: "UploadOptions | None",
    stop: Stop,
    tally: Tally,
) -> AbstractContextManager[Sink]:
    """Open the sink for a path or a URL.

    What exists is replaced as `clobber` says; by default a file is, an object is not. On the
    way out it is aborted, or suspended, unless it was committed.
    """
    if scheme_of(conversion.target) is None:
        return open_sink(
            conversion.target,
            conversion.output.name,
            conversion.writer().size,
            clobber=clobber is not False,
            cancelled=stop.is_set,
        )
    from imgconv.objects import open_object_sink

    return open_object_sink(conversion, clobber, store, upload, stop, tally)


def verification_of(
    conversion: Conversion, threads: int, stop: Stop, tally: Tally
) -> "Verification":
    """Refuse what could not be verified before it is written."""
    from imgconv.verification import Verification, refuse_unverifiable

    refuse_unverifiable(conversion.target, conversion.output.name)
    return Verification(conversion, threads=threads, stop=stop, tally=tally)


def refuse_same_file(disk: Source, path: str) -> None:
    """Raise UsageError if an output would overwrite a file that the disk is read from."""
    try:
        status = os.fstat(1) if is_stdout(path) else os.stat(path)
    except (OSError, ValueError):
        return
    if any(file.same_file(status) for file in files_of(disk)):
        raise UsageError(f"{path}: is the input itself")


def completed(
    report: Report, sink: Sink, store: "Store | None", upload: "UploadOptions | None"
) -> Report:
    """Return the report of an output with all that its sink has to tell."""
    if scheme_of(report.output) is None:
        return report
    from imgconv.objects import with_upload

    return with_upload(report, sink, store, upload)

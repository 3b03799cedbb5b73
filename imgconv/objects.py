"""Objects in stores as outputs and as inputs: from a URL to a sink or a source."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial

from imgconv.conversion import Conversion
from imgconv.errors import OutputTooLarge, SourceError, StoreError, UsageError
from imgconv.objectstore import PartStore
from imgconv.planning import outline
from imgconv.report import Report
from imgconv.sinks.base import Sink
from imgconv.sinks.multipart import MultipartSink
from imgconv.sources.remote import RemoteSource, Window
from imgconv.stores import ObjectUrl, Store, parse_url, store_class
from imgconv.stores.http import open_http
from imgconv.tally import Tally
from imgconv.upload.journal import Job
from imgconv.upload.options import UploadOptions
from imgconv.upload.retry import Backoff, Retry
from imgconv.upload_report import UploadReport
from imgconv.urls import scheme_of
from imgconv.workers import Stop

_OPENING, _READING = Backoff(patience=20.0), Backoff(patience=60.0)

KEPT = "what was sent is kept: --resume goes on from there"

# After these, going on would only end the same way again. It need not where an object
# exists: that can be replaced or moved, or is in the way of another output of a fan-out.
_HOPELESS = (UsageError, SourceError, OutputTooLarge)


def open_store(url: ObjectUrl, store: Store | None) -> PartStore:
    """Open the store of a URL, with default options unless some are given."""
    options = store or store_class(url.scheme)()
    if options.scheme != url.scheme:
        raise UsageError(f"{url}: is not for the store options {type(options).__name__}")
    return options.open(url.bucket)


@contextmanager
def opened_store(url: ObjectUrl, store: Store | None) -> Iterator[PartStore]:
    """The same, closed at the end."""
    opened = open_store(url, store)
    try:
        yield opened
    finally:
        opened.close()


def open_object(
    location: str, store: Store | None, cancelled: Callable[[], bool] | None = None
) -> RemoteSource:
    """Open an object, by its URL, as a source; the source closes its store.

    Raises StoreErrors, SourceUnreadable, UsageError and Cancelled.
    """
    wait = Stop(cancelled).wait
    if scheme_of(location) in ("http", "https"):
        opening = Retry(_OPENING, wait=wait, renew=_nothing_to_renew)
        reading = Retry(_READING, wait=wait, renew=_nothing_to_renew)
        return RemoteSource(opening(lambda: open_http(location)), attempt=reading)
    url = parse_url(location)
    opened = open_store(url, store)
    opening = Retry(_OPENING, wait=wait, renew=opened.renew)
    reading = Retry(_READING, wait=wait, renew=opened.renew)
    try:
        window = Window(count=min(Window().count, opened.limits.concurrency))
        reader = opening(lambda: opened.open(url.key))
        return RemoteSource(reader, attempt=reading, window=window, release=opened.close)
    except BaseException:
        opened.close()
        raise


def _nothing_to_renew() -> bool:
    return False


@contextmanager
def open_object_sink(
    conversion: Conversion,
    clobber: bool | None,
    store: Store | None,
    upload: UploadOptions | None,
    stop: Stop,
    tally: Tally,
) -> Iterator[MultipartSink]:
    """Open the sink for a URL, and abort or suspend it on the way out unless committed.

    An object is replaced only if `clobber` says so. An upload is suspended, not aborted, when
    it is to be resumed and going on makes sense. Raises UsageError, OutputExists, StoreErrors.
    """
    url = parse_url(conversion.target)
    options = upload or UploadOptions()
    with opened_store(url, store) as opened:
        foreseen = outline(conversion.disk, conversion.writer())
        sink = MultipartSink(
            opened,
            url.key,
            head_size=conversion.writer().head_size,
            bound=foreseen.bound,
            expected_zeros=foreseen.zeros,
            options=options,
            exclusive=not clobber,
            metadata={**options.metadata, "imgconv-format": conversion.output.name},
            job=partial(_job, conversion, f"{opened.name}/{url.key}"),
            cancelled=stop.is_set,
            watch=tally.uploaded,
        )
        try:
            yield sink
        except BaseException as error:
            _leave(sink, error, keep=options.resume and not isinstance(error, _HOPELESS))
            raise


def _job(conversion: Conversion, target: str, cuts: str) -> Job:
    return Job(
        target=target,
        disk=conversion.disk.identity.text,
        identity=conversion.identity.text,
        virtual_size=conversion.disk.size,
        format=repr(conversion.output),
        cuts=cuts,
    )


def upload_report(sink: Sink) -> UploadReport | None:
    """Return what the sink of an upload has to report."""
    return sink.report if isinstance(sink, MultipartSink) else None


def with_upload(
    report: Report, sink: Sink, store: Store | None, options: UploadOptions | None
) -> Report:
    """Complete the report of an upload, and store it if that is wanted."""
    found = upload_report(sink)
    left = found.warnings if found else ()
    report = replace(report, upload=found, warnings=(*report.warnings, *left))
    if options is None or not options.store_receipt:
        return report
    warning = _store_receipt(report, store)
    return replace(report, warnings=(*report.warnings, warning)) if warning else report


def _leave(sink: MultipartSink, error: BaseException, *, keep: bool) -> None:
    try:
        if keep:
            sink.suspend()
            error.add_note(KEPT)
        else:
            sink.abort()
    except Exception as failure:  # the first error is the one that matters
        error.add_note(f"and cleaning up failed: {failure}")


def _store_receipt(report: Report, store: Store | None) -> str | None:
    """Put the receipt of an upload beside its object; return a warning if that failed.

    The export itself has succeeded by then, so a failure here is no error.
    """
    url = parse_url(report.output)
    content = json.dumps(asdict(report)).encode()
    try:
        with opened_store(url, store) as opened:
            opened.put(f"{url.key}.receipt.json", content, {}, exclusive=False)
    except StoreError as error:
        return f"the receipt could not be stored: {error}"
    return None

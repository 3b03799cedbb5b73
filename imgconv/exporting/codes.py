"""From the errors of this package to the codes of the export service."""

from typing import NoReturn

from imgconv.errors import (
    AccessDenied,
    BucketElsewhere,
    BucketMissing,
    Cancelled,
    FormatMismatch,
    ImageEncrypted,
    ImageMalformed,
    ImageUnsupported,
    ImgconvError,
    LimitExceeded,
    SourceChanged,
    SourceTruncated,
    SourceUnreadable,
    UsageError,
)
from imgconv.exporting.errors import (
    BucketNotFound,
    BucketNotMatched,
    DiskAmountOrSize,
    ExportError,
    ExportImageFailed,
    ImageNotSupported,
    IncorrectImageStatus,
    RoleNotSet,
)

_KINDS: tuple[tuple[type[ImgconvError], type[ExportError]], ...] = (  # the first that fits
    (ImageEncrypted, ImageNotSupported),
    (SourceUnreadable, IncorrectImageStatus),
    (SourceTruncated, IncorrectImageStatus),
    (SourceChanged, IncorrectImageStatus),
    (FormatMismatch, IncorrectImageStatus),
    (ImageMalformed, IncorrectImageStatus),
    (ImageUnsupported, IncorrectImageStatus),
    (BucketMissing, BucketNotFound),
    (BucketElsewhere, BucketNotMatched),
    (AccessDenied, RoleNotSet),
    (LimitExceeded, DiskAmountOrSize),
)


def in_service_terms(error: ImgconvError) -> ImgconvError:
    """Return what the service would answer; its cause is `error`, with its notes.

    What is already said in these terms, a cancellation and a mistake in options that the
    service does not know are returned as they are.
    """
    kind = next((kind for ours, kind in _KINDS if isinstance(error, ours)), None)
    if kind is None:
        if isinstance(error, ExportError | Cancelled | UsageError):
            return error
        answer: ImgconvError = ExportImageFailed(f"{error}", error)
    else:
        answer = kind(f"{error}")
    answer.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        answer.add_note(note)
    return answer


def raise_in_service_terms(error: ImgconvError) -> NoReturn:
    """Raise what the service would answer; the cause stays what it was."""
    answer = in_service_terms(error)
    raise answer from answer.__cause__

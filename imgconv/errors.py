"""Every error imgconv raises on purpose.

    ImgconvError
    ├── UsageError                 the call cannot be carried out as asked
    │   ├── OptionError            a format option is unknown or out of range
    │   ├── UnsupportedCombination this format cannot go to that sink
    │   ├── LimitExceeded          the disk is too big for the format
    │   └── KernelUnavailable      the demanded native kernel cannot run here
    ├── SourceError                the input
    │   ├── SourceUnreadable       cannot be opened or is not a disk image
    │   ├── FormatMismatch         its content is not what name or option say
    │   ├── ImageMalformed         what the image says of itself cannot be
    │   ├── ImageUnsupported       it is of a kind that is not read
    │   │   └── ImageEncrypted     it cannot be read without its key
    │   ├── CheckUnsupported       its format has nothing to check
    │   ├── ReadFailed             the system refused a read
    │   ├── SourceTruncated        it ended before its size did
    │   └── SourceChanged          it was modified while it was read
    ├── SinkError                  the output
    │   ├── OutputRefused          cannot be created there
    │   ├── OutputExists           is there already, and must not be replaced
    │   ├── OutputTooLarge         grew past what the format's fields can address
    │   ├── WriteFailed            the system refused a write, a flush or a rename
    │   ├── ReaderGone             whoever read our stream closed it
    │   └── VerificationFailed     read back, it does not hold what it should
    ├── StoreError                 an object store
    │   ├── StoreUnavailable       it does not answer, or fails; try again later
    │   ├── StoreThrottled         it asks for fewer requests
    │   ├── CredentialsExpired     it takes our credentials no longer
    │   ├── StoreRefused           it will not: clock, quota, and
    │   │   ├── AccessDenied       rights, keys, signature
    │   │   ├── BucketMissing      there is no such bucket
    │   │   └── BucketElsewhere    the bucket is in another region
    │   ├── StoreCannot            the service does not know the operation
    │   ├── ContentDamaged         what it holds is not what was sent
    │   ├── UploadGone             it does not know the unfinished upload any more
    │   ├── ObjectMissing          there is no such object
    │   └── ObjectChanged          the object was replaced while it was read
    ├── WorkersLost                what runs functions elsewhere loses them again and again
    ├── OutOfResources             the system gives no thread or no memory
    └── Cancelled                  somebody asked to stop

A class owns a `code`, stable across versions and unique, and an `exit_status` for
the command line. The message is one line that needs no traceback, whatever characters the
names in it brought along.
"""

from typing import ClassVar


def one_line(text: str) -> str:
    """Return text whose control and other invisible characters are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ImgconvError(Exception):
    """Base of all errors that imgconv raises on purpose."""

    code: ClassVar[str] = "error"
    exit_status: int = 1

    def __str__(self) -> str:
        return one_line(self.message())

    def message(self) -> str:
        """Return what there is to say; `str` makes one line of it."""
        return super().__str__()


class UsageError(ImgconvError):
    """The call cannot be carried out as asked; nothing was read or written."""

    code = "usage"
    exit_status = 2


class OptionError(UsageError):
    """A format option is unknown, malformed or out of range."""

    code = "option"


class UnsupportedCombination(UsageError):
    """The chosen format cannot be written to the chosen sink."""

    code = "unsupported-combination"


class LimitExceeded(UsageError):
    """The disk is larger than the format can describe."""

    code = "limit-exceeded"

    def __init__(self, format_name: str, size: int, limit: int, fits: tuple[str, ...] = ()):
        self.format_name, self.size, self.limit, self.fits = format_name, size, limit, fits
        super().__init__(format_name, size, limit, fits)

    def message(self) -> str:
        """Name what the error is about."""
        advice = f"; it would fit in {' or '.join(self.fits)}" if self.fits else ""
        return (
            f"a disk of {self.size} bytes is beyond the limit of {self.format_name}, "
            f"{self.limit} bytes{advice}"
        )


class KernelUnavailable(UsageError):
    """IMGCONV_KERNEL demands a native kernel that cannot run here."""

    code = "kernel-unavailable"


class SourceError(ImgconvError):
    """The input cannot be used."""

    code = "source"


class SourceUnreadable(SourceError):
    """The input cannot be opened, or is not something that holds a disk."""

    code = "source-unreadable"


class FormatMismatch(SourceError):
    """The content of the input is not what its name or the caller says."""

    code = "format-mismatch"


class ImageMalformed(SourceError):
    """What the image says of itself cannot be."""

    code = "image-malformed"

    def __init__(self, path: str, format_name: str, offset: int, reason: str):
        self.path, self.format_name, self.offset = path, format_name, offset
        self.reason = reason
        super().__init__(path, format_name, offset, reason)

    def message(self) -> str:
        """Name what the error is about."""
        return (
            f"{self.path}: malformed {self.format_name} at offset {self.offset}: {self.reason}"
        )


class ImageUnsupported(SourceError):
    """The image is of a kind that is not read, too large, or needs files not allowed."""

    code = "image-unsupported"


class ImageEncrypted(ImageUnsupported):
    """The image is encrypted, and its key is not for us to have."""

    code = "image-encrypted"


class CheckUnsupported(SourceError):
    """The format has no structure that could be checked."""

    code = "check-unsupported"
    exit_status = 63  # that of qemu-img check


class ReadFailed(SourceError):
    """The system refused to read the input."""

    code = "read-failed"

    def __init__(self, path: str, offset: int, reason: str):
        self.path, self.offset, self.reason = path, offset, reason
        super().__init__(path, offset, reason)

    def message(self) -> str:
        """Name what the error is about."""
        return f"{self.path}: cannot read at offset {self.offset}: {self.reason}"


class SourceTruncated(SourceError):
    """The input ended before the size it had when it was opened."""

    code = "source-truncated"

    def __init__(self, path: str, offset: int, size: int):
        self.path, self.offset, self.size = path, offset, size
        super().__init__(path, offset, size)

    def message(self) -> str:
        """Name what the error is about."""
        return (
            f"{self.path}: ends at offset {self.offset}, but was {self.size} bytes long "
            "when it was opened"
        )


class SourceChanged(SourceError):
    """The input was modified while it was read, so the copy would be of no moment."""

    code = "source-changed"


class SinkError(ImgconvError):
    """The output cannot be written."""

    code = "sink"


class OutputRefused(SinkError):
    """The output cannot be created at that place."""

    code = "output-refused"


class OutputExists(SinkError):
    """The output exists, and the caller asked not to replace it."""

    code = "output-exists"


class OutputTooLarge(SinkError):
    """The output grew past what the format's fields can address."""

    code = "output-too-large"


class WriteFailed(SinkError):
    """The system refused to write, flush or publish the output."""

    code = "write-failed"

    def __init__(self, path: str, reason: str, offset: int | None = None):
        self.path, self.reason, self.offset = path, reason, offset
        super().__init__(path, reason, offset)

    def message(self) -> str:
        """Name what the error is about."""
        where = "" if self.offset is None else f" at offset {self.offset}"
        return f"{self.path}: cannot write{where}: {self.reason}"


class ReaderGone(SinkError):
    """The process that read our stream closed it before the end."""

    code = "reader-gone"


class VerificationFailed(SinkError):
    """The output, read back, does not hold what the source does."""

    code = "verification-failed"


class StoreError(ImgconvError):
    """An object store failed or refused."""

    code = "store"


class StoreUnavailable(StoreError):
    """The store does not answer, answers by halves, or says that it fails."""

    code = "store-unavailable"
    exit_status = 75


class StoreThrottled(StoreError):
    """The store asks for fewer requests; `retry_after` is in seconds, 0 when not told."""

    code = "store-throttled"
    exit_status = 75

    def __init__(self, message: str, retry_after: float = 0.0):
        self.retry_after = retry_after
        super().__init__(message)


class CredentialsExpired(StoreError):
    """The store takes our credentials no longer; with new ones it would."""

    code = "credentials-expired"
    exit_status = 75


class StoreRefused(StoreError):
    """The store will not do it, however often it is asked."""

    code = "store-refused"


class AccessDenied(StoreRefused):
    """Our credentials do not permit it, are wrong, or are missing."""

    code = "access-denied"


class BucketMissing(StoreRefused):
    """There is no such bucket."""

    code = "bucket-missing"


class BucketElsewhere(StoreRefused):
    """The bucket is in another region than the one that was asked."""

    code = "bucket-elsewhere"


class StoreCannot(StoreError):
    """The service does not know the operation."""

    code = "store-cannot"


class ContentDamaged(StoreError):
    """What the store received or holds is not what was sent, by its checksum."""

    code = "content-damaged"


class UploadGone(StoreError):
    """The store does not know the unfinished upload: aborted, expired or completed."""

    code = "upload-gone"


class ObjectMissing(StoreError):
    """There is no such object."""

    code = "object-missing"


class ObjectChanged(StoreError):
    """The object is no longer the one that was opened."""

    code = "object-changed"


class WorkersLost(ImgconvError):
    """Workers on other processes or machines were lost, again and again."""

    code = "workers-lost"
    exit_status = 75


class OutOfResources(ImgconvError):
    """The system has no thread or no memory for us."""

    code = "out-of-resources"


class Cancelled(ImgconvError):
    """The conversion was cancelled; nothing was published."""

    code = "cancelled"
    exit_status = 130

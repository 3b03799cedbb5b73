"""What the export service answers, word for word, as far as a data plane can know it.

docs/export-worker.md maps every code of the service to where it is raised, or says why it
cannot be known here.
"""

from typing import ClassVar

from imgconv.errors import ImgconvError


class ExportError(ImgconvError):
    """Base of the service's answers; `code` and `http_status` are the service's own."""

    code = "export"
    http_status: ClassVar[int] = 403

    @property
    def reason(self) -> str:
        """What it is about, without status and code."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.http_status} {self.code}: {self.reason}"


class MalformedRequest(ExportError):
    """Base of what is wrong with a request itself; nothing was read or sent."""

    code = "malformed-request"
    http_status = 400
    exit_status = 2


class InvalidImageFormat(MalformedRequest):
    """The format is none that images are exported in."""

    code = "InvalidImageFormat.Malformed"


class InvalidPrefix(MalformedRequest):
    """The prefix is not 1 to 30 digits and letters."""

    code = "InvalidOSSPrefix.Malformed"


class InvalidImageName(MalformedRequest):
    """The image's name is not one that the service gives."""

    code = "InvalidImageName.Malformed"


class BucketNotFound(ExportError):
    """There is no such bucket."""

    code = "InvalidOSSBucket.NotFound"
    http_status = 400


class BucketNotMatched(ExportError):
    """The bucket is in another region than the image."""

    code = "InvalidOSSBucket.NotMatched"
    http_status = 400


class BucketEncrypted(ExportError):
    """The bucket encrypts what it is given, and such buckets are not exported to."""

    code = "InvalidOSSBucket.EncryptUnsupported"


class RoleNotSet(ExportError):
    """The store refuses us: no role, no rights, or wrong credentials."""

    code = "NoSetRoletoECSServiceAcount"


class DiskAmountOrSize(ExportError):
    """There are too many data disks, or one is too large."""

    code = "InvalidImage.DiskAmountOrSize"
    http_status = 400


class ImageNotSupported(ExportError):
    """A disk of the image is encrypted."""

    code = "ImageNotSupported"
    http_status = 400


class IncorrectImageStatus(ExportError):
    """A disk of the image is missing, incomplete, damaged or changing."""

    code = "IncorrectImageStatus"
    http_status = 400


class ImageIsExporting(ExportError):
    """The same image is being exported to the same names; try again later."""

    code = "ImageIsExporting"
    exit_status = 75


class ConcurrentQuotaExceeded(ExportError):
    """So many exports are running that no other may begin; try again later."""

    code = "ConcurrentQuotaExceed.ExportImage"
    exit_status = 75


class ExportImageFailed(ExportError):
    """Everything else; the cause is the error this one was raised from.

    The exit status is 75 where that of the cause is: trying again later may help.
    """

    code = "ExportImageFailed"

    def __init__(self, message: str, cause: ImgconvError | None = None):
        super().__init__(message)
        if cause is not None and cause.exit_status == 75:
            self.exit_status = 75

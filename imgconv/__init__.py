"""imgconv converts disk images: raw, VHD, QCOW2, VMDK, VDI and VHDX, any into
any.

    >>> import imgconv
    >>> report = imgconv.convert("in.raw", "out.vmdk")
    >>> report = imgconv.convert("in.raw", "s3://bucket/key.qcow2")
    >>> imgconv.measure("in.raw", "vhd").size
    >>> with imgconv.open("in.raw") as disk:
    ...     disk.read(0, 512)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from imgconv.version import __version__

if TYPE_CHECKING:
    from imgconv.api import convert, measure
    from imgconv.checks.report import CheckReport, Finding
    from imgconv.comparison import Comparison
    from imgconv.digest import Checksum
    from imgconv.diskmap import DiskMap, MapEntry
    from imgconv.distribution import distribute
    from imgconv.errors import (
        AccessDenied,
        BucketElsewhere,
        BucketMissing,
        Cancelled,
        CheckUnsupported,
        ContentDamaged,
        CredentialsExpired,
        FormatMismatch,
        ImageEncrypted,
        ImageMalformed,
        ImageUnsupported,
        ImgconvError,
        KernelUnavailable,
        LimitExceeded,
        ObjectChanged,
        ObjectMissing,
        OptionError,
        OutOfResources,
        OutputExists,
        OutputRefused,
        OutputTooLarge,
        ReaderGone,
        ReadFailed,
        SinkError,
        SourceChanged,
        SourceError,
        SourceTruncated,
        SourceUnreadable,
        StoreCannot,
        StoreError,
        StoreRefused,
        StoreThrottled,
        StoreUnavailable,
        UnsupportedCombination,
        UploadGone,
        UsageError,
        VerificationFailed,
        WorkersLost,
        WriteFailed,
    )
    from imgconv.exporting.errors import (
        BucketEncrypted,
        BucketNotFound,
        BucketNotMatched,
        ConcurrentQuotaExceeded,
        DiskAmountOrSize,
        ExportError,
        ExportImageFailed,
        ImageIsExporting,
        ImageNotSupported,
        IncorrectImageStatus,
        InvalidImageFormat,
        InvalidImageName,
        InvalidPrefix,
        MalformedRequest,
        RoleNotSet,
    )
    from imgconv.exporting.plan import ExportSettings
    from imgconv.exporting.request import ExportFormat, ExportLimits, ExportRequest
    from imgconv.exporting.service import (
        export,
        export_task,
        export_tasks,
        forget_export_tasks,
    )
    from imgconv.exporting.state import TaskState
    from imgconv.exporting.task import ExportTask
    from imgconv.exporting.verification import Verification, verify_export
    from imgconv.fanout import Output, fan_out
    from imgconv.fleet.coordinate import Shares
    from imgconv.fleet.executors import LastingExecutor
    from imgconv.formats.base import Format
    from imgconv.formats.qcow2 import Qcow2
    from imgconv.formats.raw import Raw
    from imgconv.formats.raw_gz import RawGz
    from imgconv.formats.raw_tar_gz import RawTarGz
    from imgconv.formats.raw_zst import RawZst
    from imgconv.formats.vdi import Vdi
    from imgconv.formats.vhd import Vhd
    from imgconv.formats.vhdx import Vhdx
    from imgconv.formats.vmdk import Vmdk
    from imgconv.guest import GuestDisk
    from imgconv.inspection import Info
    from imgconv.measurement import Measurement
    from imgconv.progress import Progress
    from imgconv.questions import check, checksum, compare, info
    from imgconv.questions import open_disk as open
    from imgconv.report import Report
    from imgconv.sinks.multipart import MultipartSink
    from imgconv.sources.options import ReadOptions
    from imgconv.stores import Store
    from imgconv.stores.local import Local
    from imgconv.stores.oss import Oss
    from imgconv.stores.s3 import S3
    from imgconv.stores.s3_ticket import issue_ticket, renew_ticket
    from imgconv.stores.ticket import Ticket
    from imgconv.upload.options import UploadOptions
    from imgconv.upload.retry import Backoff
    from imgconv.upload_report import PartRecord, UploadReport
    from imgconv.uploads import UnfinishedUpload, abort_uploads, unfinished_uploads

__all__ = [
    "S3",
    "AccessDenied",
    "Backoff",
    "BucketElsewhere",
    "BucketEncrypted",
    "BucketMissing",
    "BucketNotFound",
    "BucketNotMatched",
    "Cancelled",
    "CheckReport",
    "CheckUnsupported",
    "Checksum",
    "Comparison",
    "ConcurrentQuotaExceeded",
    "ContentDamaged",
    "CredentialsExpired",
    "DiskAmountOrSize",
    "DiskMap",
    "ExportError",
    "ExportFormat",
    "ExportImageFailed",
    "ExportLimits",
    "ExportRequest",
    "ExportSettings",
    "ExportTask",
    "Finding",
    "Format",
    "FormatMismatch",
    "GuestDisk",
    "ImageEncrypted",
    "ImageIsExporting",
    "ImageMalformed",
    "ImageNotSupported",
    "ImageUnsupported",
    "ImgconvError",
    "IncorrectImageStatus",
    "Info",
    "InvalidImageFormat",
    "InvalidImageName",
    "InvalidPrefix",
    "KernelUnavailable",
    "LastingExecutor",
    "LimitExceeded",
    "Local",
    "MalformedRequest",
    "MapEntry",
    "Measurement",
    "MultipartSink",
    "ObjectChanged",
    "ObjectMissing",
    "OptionError",
    "Oss",
    "OutOfResources",
    "Output",
    "OutputExists",
    "OutputRefused",
    "OutputTooLarge",
    "PartRecord",
    "Progress",
    "Qcow2",
    "Raw",
    "RawGz",
    "RawTarGz",
    "RawZst",
    "ReadFailed",
    "ReadOptions",
    "ReaderGone",
    "Report",
    "RoleNotSet",
    "Shares",
    "SinkError",
    "SourceChanged",
    "SourceError",
    "SourceTruncated",
    "SourceUnreadable",
    "Store",
    "StoreCannot",
    "StoreError",
    "StoreRefused",
    "StoreThrottled",
    "StoreUnavailable",
    "TaskState",
    "Ticket",
    "UnfinishedUpload",
    "UnsupportedCombination",
    "UploadGone",
    "UploadOptions",
    "UploadReport",
    "UsageError",
    "Vdi",
    "Verification",
    "VerificationFailed",
    "Vhd",
    "Vhdx",
    "Vmdk",
    "WorkersLost",
    "WriteFailed",
    "__version__",
    "abort_uploads",
    "check",
    "checksum",
    "compare",
    "convert",
    "distribute",
    "export",
    "export_task",
    "export_tasks",
    "fan_out",
    "forget_export_tasks",
    "info",
    "issue_ticket",
    "measure",
    "open",
    "renew_ticket",
    "unfinished_uploads",
    "verify_export",
]

_HOMES = {
    "imgconv.api": ("convert", "measure"),
    "imgconv.questions": ("check", "checksum", "compare", "info"),
    "imgconv.checks.report": (
        "CheckReport",
        "Finding",
    ),
    "imgconv.digest": ("Checksum",),
    "imgconv.diskmap": ("DiskMap", "MapEntry"),
    "imgconv.distribution": ("distribute",),
    "imgconv.fanout": ("Output", "fan_out"),
    "imgconv.fleet.coordinate": ("Shares",),
    "imgconv.fleet.executors": ("LastingExecutor",),
    "imgconv.comparison": ("Comparison",),
    "imgconv.errors": (
        "AccessDenied",
        "BucketElsewhere",
        "BucketMissing",
        "Cancelled",
        "CheckUnsupported",
        "ContentDamaged",
        "CredentialsExpired",
        "FormatMismatch",
        "ImageEncrypted",
        "ImageMalformed",
        "ImageUnsupported",
        "ImgconvError",
        "KernelUnavailable",
        "LimitExceeded",
        "ObjectChanged",
        "ObjectMissing",
        "OptionError",
        "OutOfResources",
        "OutputExists",
        "OutputRefused",
        "OutputTooLarge",
        "ReadFailed",
        "ReaderGone",
        "SinkError",
        "SourceChanged",
        "SourceError",
        "SourceTruncated",
        "SourceUnreadable",
        "StoreCannot",
        "StoreError",
        "StoreRefused",
        "StoreThrottled",
        "StoreUnavailable",
        "UnsupportedCombination",
        "UploadGone",
        "UsageError",
        "VerificationFailed",
        "WorkersLost",
        "WriteFailed",
    ),
    "imgconv.exporting.errors": (
        "BucketEncrypted",
        "BucketNotFound",
        "BucketNotMatched",
        "ConcurrentQuotaExceeded",
        "DiskAmountOrSize",
        "ExportError",
        "ExportImageFailed",
        "ImageIsExporting",
        "ImageNotSupported",
        "IncorrectImageStatus",
        "InvalidImageFormat",
        "InvalidImageName",
        "InvalidPrefix",
        "MalformedRequest",
        "RoleNotSet",
    ),
    "imgconv.exporting.plan": ("ExportSettings",),
    "imgconv.exporting.request": (
        "ExportFormat",
        "ExportLimits",
        "ExportRequest",
    ),
    "imgconv.exporting.service": (
        "export",
        "export_task",
        "export_tasks",
        "forget_export_tasks",
    ),
    "imgconv.exporting.state": ("TaskState",),
    "imgconv.exporting.task": ("ExportTask",),
    "imgconv.exporting.verification": (
        "Verification",
        "verify_export",
    ),
    "imgconv.formats.base": ("Format",),
    "imgconv.formats.qcow2": ("Qcow2",),
    "imgconv.formats.raw": ("Raw",),
    "imgconv.formats.raw_gz": ("RawGz",),
    "imgconv.formats.raw_tar_gz": ("RawTarGz",),
    "imgconv.formats.raw_zst": ("RawZst",),
    "imgconv.formats.vdi": ("Vdi",),
    "imgconv.formats.vhd": ("Vhd",),
    "imgconv.formats.vhdx": ("Vhdx",),
    "imgconv.formats.vmdk": ("Vmdk",),
    "imgconv.guest": ("GuestDisk",),
    "imgconv.inspection": ("Info",),
    "imgconv.measurement": ("Measurement",),
    "imgconv.progress": ("Progress",),
    "imgconv.report": ("Report",),
    "imgconv.sinks.multipart": ("MultipartSink",),
    "imgconv.stores": ("Store",),
    "imgconv.stores.local": ("Local",),
    "imgconv.stores.oss": ("Oss",),
    "imgconv.stores.s3": ("S3",),
    "imgconv.stores.s3_ticket": ("issue_ticket", "renew_ticket"),
    "imgconv.stores.ticket": ("Ticket",),
    "imgconv.sources.options": ("ReadOptions",),
    "imgconv.upload.options": ("UploadOptions",),
    "imgconv.upload.retry": ("Backoff",),
    "imgconv.upload_report": ("PartRecord", "UploadReport"),
    "imgconv.uploads": (
        "UnfinishedUpload",
        "abort_uploads",
        "unfinished_uploads",
    ),
}


def __getattr__(name: str) -> Any:
    if name == "open":  # the library may have a name that its modules had better not
        return import_module("imgconv.questions").open_disk
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'imgconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

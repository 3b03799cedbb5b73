"""What is remembered of an object that is there: plain values, for the ledger and the
manifest."""

from typing import Any

from imgconv.exporting.plan import DiskPlan, Plan
from imgconv.objectstore import ObjectInfo, PartStore
from imgconv.report import Report
from imgconv.upload.state import checksum_of

PART_FIELDS = ("number", "offset", "length", "etag", "crc", "origin")


def result_of(report: Report) -> dict[str, Any]:
    """Return what an upload of ours came to; sizes in bytes, checksums in hexadecimal."""
    upload = report.upload
    assert upload is not None
    parts = [[getattr(part, name) for name in PART_FIELDS] for part in upload.parts]
    return {
        "size": upload.size,
        "etag": upload.etag,
        "version": upload.version,
        "checksum": upload.checksum,
        "crc": upload.crc,
        "virtual_size": report.virtual_size,
        "data_bytes": report.data_bytes,
        "options": report.options,
        "warnings": [*report.warnings],
        "receipt": {
            "store_verified": upload.store_verified,
            "wire_bytes": upload.wire_bytes,
            "retries": upload.retries,
            "kept_parts": upload.kept_parts,
            "copied_parts": upload.copied_parts,
            "part_fields": [*PART_FIELDS],
            "parts": parts,
        },
    }


def found_again(
    plan: Plan, disk: DiskPlan, store: PartStore, found: ObjectInfo
) -> dict[str, Any]:
    """Return what is known of an object that a worker had just completed when it died.

    Its receipt went with the worker; size and checksum are those that the store verified.
    """
    assert found.crc is not None
    return {
        "size": found.size,
        "etag": found.etag,
        "version": found.version,
        "checksum": checksum_of(store.limits).name,
        "crc": f"{found.crc:016x}",
        "virtual_size": disk.size,
        "data_bytes": None,
        "options": None,
        "warnings": [],
        "receipt": None,
    }

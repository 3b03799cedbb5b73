"""The manifest: the last object of an export, which says what the others are.

JSON, with a digest of itself: the SHA-256 of the same JSON without the digest, in the form
that `_canonical` makes.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from imgconv.errors import ContentDamaged
from imgconv.exporting.destination import is_bucket_name
from imgconv.exporting.plan import Plan
from imgconv.units import MiB
from imgconv.version import __version__

VERSION = 1
MOST = 256 * MiB  # bytes that a manifest is believed to have
_CRC = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """An object as the manifest tells of it: size in bytes, CRC in hexadecimal."""

    disk: str
    format: str
    bucket: str
    key: str
    size: int
    etag: str
    checksum: str
    crc: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was exported."""

    image_id: str
    task_id: str
    bucket: str
    format: str
    entries: tuple[ManifestEntry, ...]


def manifest_content(plan: Plan, task: str, results: Sequence[dict[str, Any]]) -> bytes:
    """Return the manifest of an export whose objects are all there."""
    request = plan.request
    disks = zip(plan.disks, results, strict=True)
    record = {
        "manifest": VERSION,
        "generator": f"imgconv {__version__}",
        "image_id": request.image_id,
        "task_id": task,
        "request_id": request.request_id,
        "bucket": request.bucket,
        "format": request.image_format,
        "raw_container": request.raw_container,
        "disks": [
            {
                "disk": disk.name,
                "format": disk.format,
                "bucket": disk.bucket,
                "key": disk.key,
                "identity": plan.identity(disk),
                **result,
            }
            for disk, result in disks
        ],
    }
    record["sha256"] = sha256(_canonical(record)).hexdigest()
    return json.dumps(record, indent=1).encode() + b"\n"


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def read_manifest(name: str, content: bytes) -> Manifest:
    """Return what a manifest says; ContentDamaged when it is none, or was changed."""
    try:
        record = json.loads(content)
        told = record.pop("sha256")
        if told != sha256(_canonical(record)).hexdigest():
            raise ContentDamaged(f"{name}: was changed: its SHA-256 is not the one it tells")
        if record["manifest"] != VERSION:
            raise ContentDamaged(f"{name}: was written by another version of imgconv")
        entries = tuple(_entry(disk) for disk in record["disks"])
        return Manifest(
            image_id=str(record["image_id"]),
            task_id=str(record["task_id"]),
            bucket=str(record["bucket"]),
            format=str(record["format"]),
            entries=entries,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ContentDamaged(f"{name}: is no manifest of imgconv") from error


def _entry(record: dict[str, Any]) -> ManifestEntry:
    match record:
        case {
            "disk": str(disk),
            "format": str(name),
            "bucket": str(bucket),
            "key": str(key),
            "size": int(size),
            "etag": str(etag),
            "checksum": str(checksum),
            "crc": str(crc),
        } if size >= 0 and _CRC.fullmatch(crc) and is_bucket_name(bucket):
            return ManifestEntry(disk, name, bucket, key, size, etag, checksum, crc)
    raise ValueError("not an entry")

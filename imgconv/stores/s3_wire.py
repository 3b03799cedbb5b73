"""Checksums and ETags as S3 writes them, and what no answer goes without."""

import base64
from collections.abc import Mapping
from typing import Any

from imgconv.objectstore import ObjectInfo

Answer = Mapping[str, Any]


class Incomplete(ValueError):
    """An answer lacks what it must have, so it is only half of one, or somebody else's."""


def told(answer: Answer, name: str) -> Any:
    """Return what an answer must have; raises Incomplete."""
    value = answer.get(name)
    if value is None or value == "":
        raise Incomplete(f"the answer has no {name}")
    return value


def checksums(crc: int | None, md5: bytes | None) -> dict[str, str]:
    """Return the parameters that send a CRC-64/NVME and an MD5 along, if they are given."""
    values: dict[str, str] = {}
    if crc is not None:
        values["ChecksumCRC64NVME"] = base64.b64encode(crc.to_bytes(8, "big")).decode()
    if md5 is not None:
        values["ContentMD5"] = base64.b64encode(md5).decode()
    return values


def crc_of(answer: Answer) -> int | None:
    """Return the CRC-64/NVME in an answer or a row of one, None when it has none."""
    try:
        raw = base64.b64decode(answer.get("ChecksumCRC64NVME", ""), validate=True)
    except ValueError:
        return None
    return int.from_bytes(raw, "big") if len(raw) == 8 else None


def etag_of(answer: Answer) -> str:
    """Return the ETag in an answer or a row of one, without its quotes; or Incomplete."""
    return str(told(answer, "ETag")).strip('"')


def quoted(etag: str) -> str:
    """Return an ETag as conditions and lists of parts have it."""
    return f'"{etag}"'


def object_info(answer: Answer, size: int) -> ObjectInfo:
    """Return what an answer tells of an object of `size` bytes; or Incomplete."""
    return ObjectInfo(
        size=size,
        etag=etag_of(answer),
        crc=crc_of(answer),
        version=answer.get("VersionId"),
        metadata={key.lower(): value for key, value in answer.get("Metadata", {}).items()},
    )

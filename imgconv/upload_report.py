"""What a finished upload tells: plain values, as those in `report.py`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part of an uploaded object; `offset` and `length` in bytes, `crc` in hexadecimal.

    `origin` is "sent", "copied" (zeros, made by the store) or "kept" (sent by an earlier
    run, and found to be right).
    """

    number: int
    offset: int
    length: int
    etag: str
    crc: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadReport:
    """A finished upload; all sizes in bytes.

    `crc` is that of the whole object, in hexadecimal, in the `checksum` that the store
    keeps, or in one of our own if `store_verified` is false. `wire_bytes` counts what was
    handed to the network, what was sent again included. `warnings` tell of what could not
    be tidied up after the object was there.
    """

    url: str
    size: int
    etag: str
    version: str | None
    checksum: str
    crc: str
    store_verified: bool
    wire_bytes: int
    retries: int
    kept_parts: int
    copied_parts: int
    parts: tuple[PartRecord, ...]
    warnings: tuple[str, ...] = ()

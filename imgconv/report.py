"""What a finished call tells: plain values that turn into JSON with `dataclasses.asdict`."""

from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A finished conversion; all sizes in bytes.

    `data_bytes` is guest data that is not zero, `written_bytes` what was given to the
    output besides holes, `output_size` the output's length. `passes` is 2 when the source
    was scanned first and then read again, as a stream needs it. `verified` says that the output
    was read back and compared. `options` are those of the format; `upload` is there when the
    output is an object in a store. `workers` are the processes elsewhere, as host:pid, that
    did the work.
    """

    source: str
    source_format: str
    output: str
    format: str
    options: dict[str, Any]
    identity: str
    virtual_size: int
    data_bytes: int
    output_size: int
    written_bytes: int
    passes: int
    threads: int
    kernel: str
    seconds: float
    warnings: tuple[str, ...]
    verified: bool = False
    upload: UploadReport | None = None
    workers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The output a conversion would make; all sizes in bytes.

    `size` is its length, of which `allocated` bytes would be written and the rest are holes
    in a file. Where `error` is 0 both are exact; else they are estimates, and the true size
    is within `error` of this one in 95 of 100 cases.
    """

    format: str
    virtual_size: int
    data_bytes: int
    size: int
    allocated: int
    error: int
    warnings: tuple[str, ...]

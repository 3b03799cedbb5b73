"""What a finished call tells: plain values that turn into JSON with `dataclasses.asdict`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # loaded with what uploads
    from imgconv.upload_report import UploadReport


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
    upload: "UploadReport | None" = None
    workers: tuple[str, ...] = ()

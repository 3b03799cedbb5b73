"""What a finished call tells: plain values that turn into JSON with `dataclasses.asdict`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A finished conversion; all sizes in bytes.

    `data_bytes` is guest data that is not zero, `written_bytes` what was given to the
    output besides holes, `output_size` the output's length. `passes` is 2 when the source
    was scanned first and then read again, as a stream needs it.
    """

    source: str
    source_format: str
    output: str
    format: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The output a conversion would make; all sizes in bytes.

    `size` is its exact length, of which `allocated` bytes would be written and the rest
    are holes in a file.
    """

    format: str
    virtual_size: int
    data_bytes: int
    size: int
    allocated: int
    warnings: tuple[str, ...]

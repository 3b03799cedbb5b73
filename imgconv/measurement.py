"""What a measurement tells: plain values, as those in `report.py`."""

from dataclasses import dataclass


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

"""The base of all fixed-size on-disk records."""

import struct
from dataclasses import fields
from typing import ClassVar, Self


class Record:
    """A frozen dataclass whose fields, in order, are the values of `LAYOUT`.

    Reserved fields are kept as fields, so that unpacking and packing any image's header
    gives its bytes back.
    """

    __slots__ = ()
    LAYOUT: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        """Return the record's bytes."""
        return self.LAYOUT.pack(*(getattr(self, f.name) for f in fields(self)))  # type: ignore[arg-type]

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> Self:
        """Read a record from the front of `raw`; struct.error when that is too short."""
        return cls(*cls.LAYOUT.unpack_from(raw))

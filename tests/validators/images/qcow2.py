"""Where the parts of a QCOW2 image are."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .parts import KIB


@dataclass
class Qcow2:
    """Where the parts of an image are; a patch names a part and an offset in it."""

    data: bytes
    parts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (l1,) = struct.unpack_from(">Q", self.data, 40)
        (table,) = struct.unpack_from(">Q", self.data, 48)
        (l2,) = struct.unpack_from(">Q", self.data, l1)
        (block,) = struct.unpack_from(">Q", self.data, table)
        self.parts = {"header": 0, "L1": l1, "L2": l2 & ((1 << 56) - 1)}
        self.parts |= {"table": table, "block": block, "end": len(self.data)}

    def at(self, part: str, offset: int) -> int:
        return self.parts[part] + offset


QCOW2_SIZE = 20 * 64 * KIB + 512
COPIED = 1 << 63

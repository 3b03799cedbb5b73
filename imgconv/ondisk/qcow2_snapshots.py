"""The table of snapshots of a QCOW2 (qemu `docs/interop/qcow2.txt`); big endian."""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record


@dataclass(frozen=True, slots=True)
class SnapshotHeader(Record):
    """What an entry of the snapshot table begins with; extra data, id and name follow."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">QIHHIIQII")

    l1_table_offset: int  # 0
    l1_size: int  # 8, entries
    id_size: int  # 12
    name_size: int  # 14
    date_seconds: int  # 16
    date_nanoseconds: int  # 20
    vm_clock: int  # 24
    vm_state_size: int  # 32
    extra_size: int  # 36, bytes


SNAPSHOT_EXTRA = struct.Struct(">QQ")  # size of the memory's state, and of the disk

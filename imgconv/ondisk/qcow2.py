"""QCOW2 records that every image has (qemu `docs/interop/qcow2.txt`); big endian."""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

MAGIC = 0x514649FB
V3_LENGTH = 104  # of the shortest header of version 3
MAX_NAME = 1023  # of a backing file, bytes
MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
MIN_EXTENDED_BITS = 14  # of clusters that have subclusters
CODECS = ("zlib", "zstd")  # by their number in the header; "zlib" is raw deflate

DIRTY = 1 << 0  # incompatible features
CORRUPT = 1 << 1
DATA_FILE = 1 << 2
COMPRESSION_TYPE = 1 << 3  # the codec is not deflate
EXTENDED_L2 = 1 << 4

LAZY_REFCOUNTS = 1 << 0  # compatible features

BITMAPS_VALID = 1 << 0  # autoclear features
RAW_DATA_FILE = 1 << 1

BACKING_FORMAT = 0xE2792ACA  # header extensions
DATA_FILE_NAME = 0x44415441
FEATURE_NAMES = 0x6803F857
ENCRYPTION_HEADER = 0x0537BE77
END_OF_EXTENSIONS = bytes(8)

OFFSET = 0x00FFFFFFFFFFFE00  # of the cluster, in L1 and standard L2 entries
COPIED = 1 << 63  # refcount is exactly one (L1 and standard L2 entries)
COMPRESSED = 1 << 62  # L2 entries
ZERO = 1 << 0  # L2 entries of version 3
L1_RESERVED = 0x7F000000000001FF
L2_RESERVED = 0x3F000000000001FE  # of standard entries
SUBCLUSTERS = 32

MAX_L1_BYTES = 32 << 20  # qemu's limits
MAX_REFCOUNT_TABLE_BYTES = 8 << 20
MAX_HOST_OFFSET = 1 << 56


@dataclass(frozen=True, slots=True)
class HeaderV2(Record):
    """The header of version 2, which version 3 begins with too."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">IIQIIQIIQQIIQ")

    magic: int  # 0
    version: int  # 4
    backing_file_offset: int  # 8
    backing_file_size: int  # 16
    cluster_bits: int  # 20
    size: int  # 24, bytes
    crypt_method: int  # 32
    l1_size: int  # 36, entries
    l1_table_offset: int  # 40
    refcount_table_offset: int  # 48
    refcount_table_clusters: int  # 56
    nb_snapshots: int  # 60
    snapshots_offset: int  # 64


@dataclass(frozen=True, slots=True)
class HeaderV3Tail(Record):
    """What version 3 adds; its header ends at `header_length`."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">QQQIIB7s")

    incompatible_features: int  # 72
    compatible_features: int  # 80
    autoclear_features: int  # 88
    refcount_order: int  # 96, log2 of the width in bits
    header_length: int  # 100
    compression_type: int  # 104
    padding: bytes  # 105


assert HeaderV2.LAYOUT.size == 72
assert HeaderV2.LAYOUT.size + HeaderV3Tail.LAYOUT.size == 112

"""The header of QCOW2 files: its fields, its extensions, and the place of the tables."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .common import SECTOR, Findings, Image, ceil_div, check_fill, round_up

_MAGIC = 0x514649FB
_V2 = struct.Struct(">IIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_END_OF_EXTENSIONS = 0
_FEATURE_NAMES = 0x6803F857

DEFLATE, ZSTD = 0, 1
_COMPRESSION_BIT = 1 << 3

MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20


@dataclass
class Header:
    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_at: int
    refcounts_at: int
    refcounts_clusters: int
    snapshots: int
    snapshots_at: int
    refcount_order: int = 4
    length: int = 72
    incompatible: int = 0
    compression: int = 0

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        return self.cluster_size // 8

    @property
    def refcounts_per_block(self) -> int:
        return self.cluster_size * 8 >> self.refcount_order


def read_header(image: Image, findings: Findings) -> Header | None:
    """3.1: the fixed part of the header; None when nothing more can be checked."""
    raw = image.read(0, 112).ljust(112, b"\0")
    magic, *fields = _V2.unpack(raw[:72])
    if not findings.equal("magic", 0, magic, _MAGIC):
        return None
    header = Header(*fields)
    right = findings.check(
        header.version in (2, 3), f"version at 4 is {header.version}, not 2 or 3"
    )
    right &= findings.check(
        9 <= header.cluster_bits <= 21,
        f"cluster_bits at 20 is {header.cluster_bits}, not 9 to 21 (qemu)",
    )
    findings.check(
        header.size % SECTOR == 0, f"size at 24 is {header.size}, not a multiple of 512"
    )
    for name, offset, value in (
        ("backing_file_offset (OpenStack refuses it)", 8, header.backing_offset),
        ("backing_file_size", 16, header.backing_size),
        ("crypt_method", 32, header.crypt_method),
        ("nb_snapshots", 60, header.snapshots),
        ("snapshots_offset", 64, header.snapshots_at),
    ):
        findings.equal(name, offset, value, 0)
    if right and header.version == 3:
        right = _read_version_3(raw, findings, header)
    return header if right else None


def _read_version_3(raw: bytes, findings: Findings, header: Header) -> bool:
    """3.1, 3.5: the fields of version 3, those of the compression not yet judged."""
    incompatible, compatible, autoclear, order, length = _V3.unpack(raw[72:104])
    header.incompatible = incompatible
    findings.equal("compatible_features", 80, compatible, 0)
    findings.equal("autoclear_features", 88, autoclear, 0)
    right = findings.check(order <= 6, f"refcount_order at 96 is {order}, not 0 to 6")
    right &= findings.check(
        length in (104, 112), f"header_length at 100 is {length}, not 104 or 112"
    )
    if right and length == 112:
        header.compression = raw[104]
        findings.check(not any(raw[105:112]), "the padding of the header at 105 is not zero")
    header.refcount_order, header.length = order, length
    return right


def check_compression_type(findings: Findings, header: Header, compressed: bool) -> None:
    """3.1, 3.5: bit 3 and the type agree; neither is needed without compressed clusters."""
    types = (DEFLATE, ZSTD) if compressed else (DEFLATE,)
    findings.check(
        header.compression in types,
        f"compression_type at 104 is {header.compression}, not {' or '.join(map(str, types))}",
    )
    wanted = _COMPRESSION_BIT if compressed and header.compression != DEFLATE else 0
    findings.equal("incompatible_features", 72, header.incompatible, wanted)


def check_extensions(image: Image, findings: Findings, header: Header) -> None:
    """3.1: only a feature name table, an end mark, and then zeros up to cluster 1."""
    raw = image.read(0, header.cluster_size)
    at = header.length
    while at + _EXTENSION.size <= len(raw):
        kind, length = _EXTENSION.unpack_from(raw, at)
        data = at + _EXTENSION.size
        if kind == _END_OF_EXTENSIONS:
            findings.equal("length of the end of the header extensions", at + 4, length, 0)
            break
        if not findings.check(
            length <= len(raw) - data, f"header extension at {at} runs out of cluster 0"
        ):
            return
        if kind == _FEATURE_NAMES:
            _check_feature_names(findings, raw[data : data + length], data)
        else:
            findings.add(f"header extension at {at} has the type {kind:#x}, not needed here")
        padding = raw[data + length : round_up(data + length, 8)]
        findings.check(not any(padding), f"padding of the extension at {at} is not zero")
        at = round_up(data + length, 8)
    else:
        findings.add(f"the header extensions have no end mark; cluster 0 is full at {at}")
        return
    span = (at + _EXTENSION.size, min(header.cluster_size, image.length))
    check_fill(image, findings, "cluster 0 after the header", span)


def _check_feature_names(findings: Findings, table: bytes, at: int) -> None:
    findings.check(
        len(table) % 48 == 0, f"feature name table at {at} has {len(table)} bytes, not n * 48"
    )
    for start in range(0, len(table) - 47, 48):
        kind, bit = table[start], table[start + 1]
        name = table[start + 2 : start + 48].rstrip(b"\0")
        findings.check(
            kind <= 2 and bit < 64 and name.isascii() and name.decode("latin1").isprintable(),
            f"feature name at {at + start} is damaged: kind {kind}, bit {bit}, {name!r}",
        )


def check_places(image: Image, findings: Findings, header: Header) -> bool:
    """3.5, 3.6: file length, and place and size of the L1 table and refcount table."""
    size = header.cluster_size
    findings.check(
        image.length % size == 0,
        f"the file length {image.length} is not a multiple of the cluster size {size}",
    )
    wanted = ceil_div(header.size, size * header.l2_entries)
    right = findings.equal("l1_size", 36, header.l1_size, wanted)
    right &= findings.check(
        8 * header.l1_size <= MAX_L1_BYTES,
        f"l1_size at 36 is {header.l1_size}: the table is above 32 MiB (qemu)",
    )
    right &= findings.check(
        1 <= header.refcounts_clusters <= MAX_REFCOUNT_TABLE_BYTES // size,
        f"refcount_table_clusters at 56 is {header.refcounts_clusters}: the table is empty"
        " or above 8 MiB (qemu)",
    )
    for name, offset, start, length in (
        ("l1_table_offset", 40, header.l1_at, round_up(8 * header.l1_size, size)),
        ("refcount_table_offset", 48, header.refcounts_at, header.refcounts_clusters * size),
    ):
        if length:
            right &= findings.check(
                start % size == 0 and start > 0,
                f"{name} at {offset} is {start}, not a cluster after the header",
            )
            right &= findings.check(
                start + length <= image.length,
                f"{name} at {offset} is {start}: the table of {length} bytes ends after the"
                f" end of the file at {image.length}",
            )
    return right

"""QCOW2 images with compressed clusters, made by hand."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import zstandard

from .parts import SECTOR, noise, padded, patched, prose, word
from .qcow2 import COPIED, Qcow2

PACKED_LAST = 8  # guest clusters 0, 1, 2 and the last hold texts, 3 noise, the others zeros
PACKED_TAIL = 5 * SECTOR


def deflate(data: bytes, window_bits: int = -12) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, window_bits)
    return packer.compress(data) + packer.flush()


def zstd(data: bytes, content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=content_size).compress(data)


@dataclass
class Packing:
    """Streams laid back to back from an offset on, as an L2 table describes them."""

    bits: int
    start: int
    data: bytes = b""
    entries: dict[int, int] = field(default_factory=dict)
    references: dict[int, int] = field(default_factory=dict)

    def add(self, guest: int, stream: bytes) -> None:
        offset = self.start + len(self.data)
        sectors = (offset % SECTOR + len(stream) - 1) // SECTOR
        self.entries[guest] = 1 << 62 | sectors << 70 - self.bits | offset
        last = (offset // SECTOR + sectors) * SECTOR >> self.bits
        for cluster in range(offset >> self.bits, last + 1):
            self.references[cluster] = self.references.get(cluster, 0) + 1
        self.data += stream


def packed_qcow2(
    version: int = 3,
    kind: str = "deflate",
    bits: int = 16,
    streams: dict[int, bytes] | None = None,
    room: bytes = b"",
    tail: tuple[int, int] = (PACKED_LAST, PACKED_TAIL),
) -> bytes:
    """Header, refcount table, block, L1, L2, the streams, and one plain cluster.

    The tail is the last cluster of the disk and how much of it there is.
    """
    size = 1 << bits
    pack = {"deflate": deflate, "zstd": zstd}[kind]
    texts = {guest: prose(guest, size) for guest in (0, 1, 2)}
    last, used = tail[0], min(tail[1], size)
    texts[last] = padded(prose(last, used), size)
    packing = Packing(bits, 5 * size)
    for guest, text in texts.items():
        packing.add(guest, (streams or {}).get(guest) or pack(text))
        packing.data += room if guest == 0 else b""
    data = packing.data.ljust(-(-len(packing.data) // size) * size, b"\0")
    plain = 5 + len(data) // size
    return (
        packed_header(version, kind, bits, last * size + used).ljust(size, b"\0")
        + word(2 * size).ljust(size, b"\0")
        + refcounts(packing, plain).ljust(size, b"\0")
        + word(COPIED | 4 * size).ljust(size, b"\0")
        + b"".join(
            word(packing.entries.get(guest, COPIED | plain * size if guest == 3 else 0))
            for guest in range(size // 8)
        )
        + data
        + noise(3, size)
    )


def packed_header(version: int, kind: str, bits: int, disk_size: int) -> bytes:
    raw = struct.pack(">4sIQIIQII", b"QFI\xfb", version, 0, 0, bits, disk_size, 0, 1)
    raw += struct.pack(">QQIIQ", 3 << bits, 1 << bits, 1, 0, 0)
    if version == 3:
        raw += struct.pack(">QQQII", 8 * (kind == "zstd"), 0, 0, 4, 112)
        raw += bytes([kind == "zstd"]).ljust(8, b"\0")
    return raw


def refcounts(packing: Packing, plain: int) -> bytes:
    counts = [packing.references.get(cluster, int(cluster < 5)) for cluster in range(plain)]
    return struct.pack(f">{plain + 1}H", *counts, 1)


def entry(data: bytes, guest: int) -> int:
    (value,) = struct.unpack_from(">Q", data, Qcow2(data).at("L2", 8 * guest))
    return value


def with_entry(data: bytes, guest: int, value: int) -> bytes:
    return patched(data, Qcow2(data).at("L2", 8 * guest), word(value))
